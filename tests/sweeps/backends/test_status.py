"""Status of runs in every condition, from store, claims and heartbeats; finding a run by id or label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from results import UsageError
from scaling.specification.spec import canonical_json
from sweeps.backends.status import STATUSES, RunStatus, collect, counts, find_run
from sweeps.record.attempts import Heartbeat, claim_attempt
from sweeps.record.endings import record_death
from sweeps.worker.worker import work

if TYPE_CHECKING:
    from pathlib import Path

    from results import Recorder
    from scaling.specification.workspace import Workspace
    from sweeps.record.attempts import Attempt
    from tests.sweeps.conftest import Sweep


def _of(sweep: Sweep, index: int) -> RunStatus:
    return collect(sweep.plan, sweep.root)[index]


def _begin(sweep: Sweep, index: int = 0) -> Attempt:
    spec = sweep.plan.runs[index].spec
    attempt = claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None)
    assert attempt is not None
    return attempt


def test_nothing_has_begun(sweep: Sweep) -> None:
    statuses = collect(sweep.plan, sweep.root)
    assert counts(statuses) == dict.fromkeys(STATUSES, 0) | {"pending": 4}
    assert {status.attempts for status in statuses} == {0}
    assert list(sweep.root.iterdir()) == []


def test_running_with_progress(sweep: Sweep) -> None:
    attempt = _begin(sweep)
    Heartbeat(phase="train", done=0.5, images_per_second=7.0).write(attempt.path / "heartbeat.json")
    shown = _of(sweep, 0)
    assert (shown.status, shown.attempts) == ("running", 1)
    assert shown.as_json() | {"progress": 0.5, "phase": "train", "images_per_second": 7.0} == shown.as_json()


@pytest.mark.parametrize(
    ("state", "status", "cause"),
    [("interrupted", "pending", "interrupted"), ("failed", "failed", "error"), ("done", "pending", "removed")],
)
def test_attempts_that_ended_without_rows(sweep: Sweep, state: str, status: str, cause: str) -> None:
    _begin(sweep).end(state, cause="error", message="why")  # type: ignore[arg-type]
    assert (_of(sweep, 0).status, _of(sweep, 0).cause) == (status, cause)


def test_vanished_owner_is_missing(sweep: Sweep) -> None:
    attempt = _begin(sweep)
    (attempt.path / "claim").unlink()
    assert (_of(sweep, 0).status, _of(sweep, 0).cause) == ("missing", "vanished")


def test_death_that_a_submitter_records_keeps_the_last_heartbeat(sweep: Sweep) -> None:
    attempt = _begin(sweep)
    Heartbeat(elapsed=3.0, elapsed_before=4.0, peak_memory_bytes=5).write(attempt.path / "heartbeat.json")
    record_death(sweep.root, sweep.plan.runs[0].spec, attempt, "killed", "killed by SIGKILL")
    assert (_of(sweep, 0).status, _of(sweep, 0).cause, _of(sweep, 0).message) == (
        "failed",
        "killed",
        "killed by SIGKILL",
    )
    (row,) = sweep.store.read("runs", include_failed=True).to_pylist()
    assert (row["wall_seconds"], row["peak_memory_bytes"], row["cause"]) == (7.0, 5, "killed")
    blocked = _of(sweep, 1)
    assert (blocked.status, blocked.cause, blocked.message) == (
        "pending", "blocked", "its tokenizer K256-T16-s0 failed",
    )  # fmt: skip
    assert (_of(sweep, 2).status, _of(sweep, 2).message) == ("pending", None)
    # The store alone tells it too, once attempts are cleared away.
    (attempt.path / "heartbeat.json").unlink()
    (attempt.path / "claim").unlink()
    (attempt.path / "spec.json").unlink()
    attempt.path.rmdir()
    assert (_of(sweep, 0).status, _of(sweep, 0).cause) == ("failed", "killed")


def _nothing(spec: object, workspace: Workspace, recorder: Recorder, report: object, stop: object) -> None:
    workspace.artifacts.mkdir()


def test_work_in_process_then_done(sweep: Sweep) -> None:
    tokenizer, generator = sweep.plan.runs[:2]
    assert work(sweep.root, generator.spec, execute=_nothing).result == "blocked"
    assert not (sweep.root / "attempts").exists()
    outcome = work(sweep.root, tokenizer.spec, execute=_nothing)
    assert (outcome.result, outcome.attempt) == ("done", 1)
    assert (_of(sweep, 0).status, _of(sweep, 0).attempts) == ("done", 1)
    assert _of(sweep, 0).wall_seconds is not None
    assert work(sweep.root, tokenizer.spec, execute=_nothing).message == "was done before"
    assert work(sweep.root, generator.spec, execute=_nothing).result == "done"


def test_attempt_that_was_overtaken_writes_nothing(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec

    def overtaken(spec: object, workspace: Workspace, recorder: Recorder, report: object, stop: object) -> None:
        workspace.artifacts.mkdir()
        # Another process holds this one for dead.
        (workspace.attempt / "claim").unlink()
        successor = _begin(sweep)
        assert successor.number == 2

    assert work(sweep.root, spec, execute=overtaken).result == "taken"
    assert sweep.store.finished() == set()
    assert not (sweep.root / "artifacts").exists()


def test_artifacts_of_an_attempt_that_died_before_its_rows_are_replaced(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec
    old = sweep.root / "artifacts" / spec.run_id
    old.mkdir(parents=True)
    (old / "model.txt").write_text("old")

    def new(spec: object, workspace: Workspace, recorder: Recorder, report: object, stop: object) -> None:
        workspace.artifacts.mkdir()
        (workspace.artifacts / "model.txt").write_text("new")

    assert work(sweep.root, spec, execute=new).result == "done"
    assert (old / "model.txt").read_text() == "new"


def test_finding_a_run(sweep: Sweep) -> None:
    first, second = _begin(sweep, 0), _begin(sweep, 2)
    plan = sweep.plan
    assert find_run(sweep.root, plan.runs[0].run_id[:8])[0] == first
    assert find_run(sweep.root, plan.runs[2].label)[0] == second
    for text in ("", "nonsense", plan.runs[1].label):
        with pytest.raises(UsageError, match=r"allowed: the start of one run's id, or its label"):
            find_run(sweep.root, text)


def test_finding_nothing_in_an_empty_root(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        find_run(tmp_path, "abc")
