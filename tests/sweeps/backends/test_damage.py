"""Disks that are full or read-only, files that are cut short: one clear error, and what was measured stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from results import Recorder, StoreError
from sweeps.backends.status import collect
from sweeps.record.attempts import attempts_at
from sweeps.record.ledger import check_writable
from sweeps.worker.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable

    from scaling.specification.workspace import Progress, Workspace
    from tests.sweeps.conftest import Sweep

NOBODY = 65534
"""The user id of somebody who owns nothing."""


def _train(size: int = 0) -> Callable[..., None]:
    """Training that leaves so many bytes of weights, and a row."""

    def execute(
        spec: Any, workspace: Workspace, recorder: Recorder, report: Callable[[Progress], None], stop: object
    ) -> None:
        workspace.artifacts.mkdir()
        recorder.curve(branch="trunk", step=1, images=1, tokens=1, flops=1.0, loss=0.5)
        (workspace.artifacts / "model.txt").write_bytes(bytes(size))

    return execute


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_disk_that_fills_up_in_a_run_or_at_its_rows(sweep: Sweep, small_disk: Path) -> None:
    sweep.root = small_disk
    tokenizers = [run.spec for run in sweep.plan.runs if run.stage == "tokenizer"]
    assert work(sweep.root, tokenizers[0], execute=_train(1000)).result == "done"
    before = _contents(small_disk / "store"), _contents(small_disk / "artifacts")

    # In the run.
    outcome = work(sweep.root, tokenizers[1], execute=_train(40_000_000))
    assert (outcome.result, outcome.cause) == ("storage", "storage")
    assert "No space left on device" in str(outcome.message) and "free some space" in str(outcome.message)
    assert (_contents(small_disk / "store"), _contents(small_disk / "artifacts")) == before
    statuses = {status.run.run_id: status for status in collect(sweep.plan, sweep.root)}
    assert statuses[tokenizers[0].run_id].status == "done"
    failed = statuses[tokenizers[1].run_id]
    assert (failed.status, failed.cause) == ("failed", "storage")

    # At its rows: something else takes the last bytes.
    for attempt in attempts_at(sweep.root, tokenizers[1].run_id):
        (attempt.path / "artifacts" / "model.txt").unlink()

    def fills(*arguments: Any) -> None:
        _train(1000)(*arguments)
        with pytest.raises(OSError, match="No space"), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    outcome = work(sweep.root, tokenizers[1], execute=fills)
    assert (outcome.result, outcome.cause) == ("storage", "storage"), outcome
    assert "disk is full" in str(outcome.message)
    assert sweep.store.finished() == {tokenizers[0].run_id}
    assert _contents(small_disk / "store") == before[0]
    assert sweep.store.check().damaged == ()
    # With space again it goes on.
    (small_disk / "ballast").unlink()
    assert work(sweep.root, tokenizers[1], execute=_train(1000)).result == "done"
    assert {name: data for name, data in _contents(small_disk / "store").items() if name in before[0]} == before[0]


def test_file_system_that_is_read_only(sweep: Sweep, small_disk: Path) -> None:
    sweep.root = small_disk
    runs = sweep.plan.runs
    assert work(sweep.root, runs[0].spec, execute=_train()).result == "done"
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = _contents(small_disk)
    outcome = work(sweep.root, runs[2].spec, execute=_train())
    assert (outcome.result, outcome.cause) == ("storage", "storage")
    assert "the file system is read-only" in str(outcome.message)
    with pytest.raises(StoreError, match=r"cannot write .*: the file system is read-only"):
        check_writable(sweep.root)
    # Reading needs no writing.
    assert [status.status for status in collect(sweep.plan, sweep.root)] == ["done", "pending", "pending", "pending"]
    assert sweep.store.read("curves").num_rows == 1
    assert _contents(small_disk) == before


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    """Has this process not write into a folder; as another user if it is root's, who may write everywhere."""
    folder.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users may enter."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("place", ["", "store"])
def test_folder_without_permission(sweep: Sweep, open_folder: Path, place: str) -> None:
    """Nothing begins below a root that cannot be written; with a store that cannot, what was trained is kept."""
    sweep.root = open_folder
    first, second = (run.spec for run in sweep.plan.runs if run.stage == "tokenizer")
    assert work(sweep.root, first, execute=_train(10)).result == "done"
    for path in [sweep.root, *sweep.root.rglob("*")] if place else ():
        path.chmod(0o777 if path.is_dir() else 0o666)
    before = _contents(sweep.store.folder), _contents(sweep.root / "artifacts")
    with _without_permission(sweep.root / place):
        outcome = work(sweep.root, second, execute=_train(20))
        assert (outcome.result, outcome.cause) == ("storage", "storage")
        assert "permission denied" in str(outcome.message)
        assert len(attempts_at(sweep.root, second.run_id)) == bool(place)
        assert sweep.store.finished() == {first.run_id}
        assert _contents(sweep.store.folder) == before[0]
    assert sweep.store.check().damaged == ()
    assert work(sweep.root, second, execute=_train(20)).result == "done"
    assert sweep.store.finished() == {first.run_id, second.run_id}
    assert (sweep.root / "artifacts" / second.run_id / "model.txt").read_bytes() == bytes(20)
    assert {name: data for name, data in _contents(sweep.store.folder).items() if name in before[0]} == before[0]


@pytest.mark.parametrize("table", ["runs", "curves", "evaluations"])
def test_parquet_that_was_cut_short_is_moved_aside_and_its_run_runs_again(sweep: Sweep, table: str) -> None:
    first, second = (run.spec for run in sweep.plan.runs if run.stage == "tokenizer")
    for spec in (first, second):
        assert work(sweep.root, spec, execute=_train()).result == "done"
    kept = _contents(sweep.store.folder / second.run_id)
    path = sweep.store.folder / first.run_id / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StoreError, match=rf"{table}\.parquet is damaged.*store check"):
        sweep.store.read(table)
    assert sweep.store.read(table, [second.run_id]).num_rows == {"runs": 1, "curves": 1, "evaluations": 0}[table]
    (damage,) = sweep.store.check().damaged
    assert first.run_id in damage.name
    assert sweep.store.finished() == {second.run_id}
    status = collect(sweep.plan, sweep.root)[0]
    assert (status.status, status.cause) == ("pending", "removed")
    assert work(sweep.root, first, execute=_train()).result == "done"
    assert sweep.store.read("curves").num_rows == 2
    assert _contents(sweep.store.folder / second.run_id) == kept


def test_damaged_claim_spec_and_heartbeat_end_in_no_traceback(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(sweep.root, spec, execute=interrupted)
    attempt = attempts_at(sweep.root, spec.run_id)[0]
    for name in ("claim", "heartbeat.json", "spec.json"):
        (attempt.path / name).write_bytes(b"\x00\xff{")
    assert collect(sweep.plan, sweep.root)[0].status == "missing"
    assert work(sweep.root, spec, execute=_train()).attempt == 2
