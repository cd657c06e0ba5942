"""What may go and what stays: finished, unfinished, living runs; checkpoints of ours and of a trainer's own; sizes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from results import Recorder, Store
from scaling.specification.spec import TokenizerRun
from scaling.specification.workspace import Workspace
from sweeps.cli.app import app
from sweeps.record import artifacts, pruning
from sweeps.record.attempts import Attempt, Claim, Heartbeat, attempts_at, resumable
from sweeps.record.process_identity import ProcessId
from sweeps.record.pruning import FINISHED, LEFT, LOST, OLDER, removable, remove
from sweeps.worker.worker import Options, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sweeps.conftest import Sweep

ROW: dict[str, Any] = {
    "stage": "run", "label": "x", "status": "done", "spec": "{}", "seed": 0, "finished_at": "2026", "provenance": "{}",
}  # fmt: skip


class Scene:
    """A root with attempts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def attempt(self, run_id: str, number: int, *files: str, alive: bool = False) -> Path:
        """An attempt with these files, of a process that has ended or lives (this one)."""
        path = self.root / "attempts" / run_id / str(number)
        path.mkdir(parents=True)
        worker = ProcessId.current() if alive else ProcessId("elsewhere", "", "", 1, "x")
        (path / "claim").write_text(Claim(worker, "s", None, time.time()).text())
        Heartbeat(state="running" if alive else "failed").write(path / "heartbeat.json")
        for name in ("log.txt", "spec.json", *files):
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x" * 5000)
        return path

    def finish(self, run_id: str, attempt: int, status: str = "done") -> None:
        cause = {} if status == "done" else {"cause": status}
        tables = Recorder(run_id, attempt).tables(ROW | {"status": status} | cause)
        Store(self.root).append(run_id, tables, status=status, attempt=attempt)

    def found(self, *run_ids: str) -> set[tuple[str, str]]:
        items = removable(self.root, run_ids or None)
        return {(item.path.relative_to(self.root).as_posix(), item.why) for item in items}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_finished_runs_keep_artifacts_rows_and_logs(scene: Scene) -> None:
    scene.attempt("a", 1, "checkpoints/0000-000000000000064/state", "artifacts/model")
    scene.attempt("a", 2, "checkpoints/0000-000000000000128/state", "rows.jsonl")
    kept = scene.root / "artifacts" / "a"
    kept.mkdir(parents=True)
    scene.finish("a", 2)
    scene.attempt("d", 1, "artifacts/preview", "checkpoints/x")
    scene.finish("d", 1, "diverged")
    expected = {
        ("attempts/a/1/checkpoints", FINISHED), ("attempts/a/1/artifacts", LOST),
        ("attempts/a/2/checkpoints", FINISHED), ("attempts/d/1/checkpoints", FINISHED),
    }  # fmt: skip
    assert scene.found() == expected
    assert scene.found("d") == {("attempts/d/1/checkpoints", FINISHED)}
    removed = remove(scene.root, removable(scene.root))
    assert len(removed) == 4 and scene.found() == set()
    assert kept.is_dir()
    assert sorted(path.name for path in (scene.root / "attempts/a/2").iterdir()) == [
        "claim", "heartbeat.json", "log.txt", "rows.jsonl", "spec.json",
    ]  # fmt: skip
    assert (scene.root / "attempts/d/1/artifacts/preview").exists()


def test_unfinished_runs_keep_the_last_two_and_the_forks(scene: Scene) -> None:
    names = ["0000-000000000000064", "0000-000000000000128", "0001-000000000000160", "0002-000000000000192"]
    scene.attempt("u", 1, *(f"checkpoints/{name}/state" for name in names))
    scene.attempt("u", 2, "checkpoints/0002-000000000000256/state", "checkpoints/0002-000000000000320/state")
    scene.attempt("u", 3)
    assert scene.found() == {
        ("attempts/u/1/checkpoints/0000-000000000000064", OLDER),
        ("attempts/u/1/checkpoints/0002-000000000000192", OLDER),
    }
    remove(scene.root, removable(scene.root))
    left = sorted(path.name for path in (scene.root / "attempts/u").glob("*/checkpoints/*"))
    assert left == [names[1], names[2], "0002-000000000000256", "0002-000000000000320"]


def test_a_trainers_own_checkpoints_stay_where_it_would_resume(scene: Scene) -> None:
    folders = [scene.attempt("u", number, "checkpoints/last.pt", "artifacts/log") for number in (1, 2)]
    folders.append(scene.attempt("u", 3))
    assert scene.found() == {("attempts/u/1/checkpoints", OLDER), ("attempts/u/1/artifacts", OLDER)}
    before = resumable(folders[::-1])
    remove(scene.root, removable(scene.root))
    assert resumable(folders[::-1]) == before == folders[1]
    assert (folders[1] / "checkpoints" / "last.pt").exists()
    assert Workspace(folders[2], tuple(folders[1::-1]), None, scene.root).earlier[0] == folders[1]


def test_living_attempts_and_those_before_them_are_not_touched(scene: Scene) -> None:
    scene.attempt("l", 1, "checkpoints/a/x", "artifacts/x")
    scene.attempt("l", 2, "checkpoints/b/x", alive=True)
    assert scene.found() == set()
    # Not even if another attempt has finished the run meanwhile.
    scene.finish("l", 1)
    assert scene.found() == set()
    Attempt(scene.root / "attempts/l/2").end("interrupted")
    assert len(scene.found()) == 2


def test_a_run_that_begins_again_after_it_was_shown_is_spared(scene: Scene) -> None:
    scene.attempt("u", 1, "checkpoints/0000-000000000000064/s", "checkpoints/0000-000000000000128/s",
                  "checkpoints/0000-000000000000192/s")  # fmt: skip
    items = removable(scene.root)
    assert len(items) == 1
    scene.attempt("u", 2, alive=True)
    assert remove(scene.root, items) == []
    assert items[0].path.is_dir()


def test_leftovers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.attempt("a", 1, ".removing-checkpoints-12/x")
    names = [".staged-a-1", ".staged-a-2", ".replaced-a-0badcafe", ".removing-.staged-a-3-0badcafe", ".staged-b-1", "a"]
    for name in names:
        folder = scene.root / "artifacts" / name
        folder.mkdir(parents=True)
        (folder / "model").write_text("x")
        # Weights may be older than the name under which they lie.
        os.utime(folder, (0, 0))
    scene.finish("a", 2)
    interrupted = {("attempts/a/1/.removing-checkpoints-12", LEFT),
                   ("artifacts/.removing-.staged-a-3-0badcafe", LEFT)}  # fmt: skip
    assert scene.found() == interrupted | {("artifacts/.staged-a-1", LOST)}
    monkeypatch.setattr(pruning, "_ABANDONED_SECONDS", 0.0)
    assert scene.found() == interrupted | {
        ("artifacts/.staged-a-1", LOST), ("artifacts/.replaced-a-0badcafe", LOST),
    }  # fmt: skip
    assert scene.found("b") == set()
    assert len(remove(scene.root, removable(scene.root))) == 4
    assert sorted(path.name for path in (scene.root / "artifacts").iterdir()) == [".staged-a-2", ".staged-b-1", "a"]


def _command(scene: Scene, *words: str) -> str:
    done = CliRunner().invoke(app, ["store", *words, "--root", str(scene.root)])
    assert done.exit_code == 0, done.output
    return done.stdout


def _train(spec: object, workspace: Workspace, *rest: object) -> None:
    workspace.artifacts.mkdir()
    (workspace.artifacts / "model.txt").write_text(workspace.attempt.name)


def _at_the_rows(monkeypatch: pytest.MonkeyPatch, happens: Callable[[int], object]) -> None:
    """Have something happen in a worker between its artifacts, which it has staged, and its rows."""
    append = Store.append

    def disturbed(self: Store, *arguments: Any, **options: Any) -> bool:
        happens(options["attempt"])
        return append(self, *arguments, **options)

    monkeypatch.setattr(Store, "append", disturbed)


def test_what_a_living_worker_has_staged_is_left_to_it(
    scene: Scene, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its successor has finished the run meanwhile, so that it is about to discard them itself."""
    scene.root, spec = sweep.root, sweep.plan.runs[0].spec
    staged = [scene.root / "artifacts" / f".staged-{spec.run_id}-{number}" for number in (1, 2)]
    seen: list[str] = []

    def looked_at(attempt: int) -> None:
        if attempt == 1:
            # The job was given up by the scheduler and started anew, but its process lives on.
            assert work(scene.root, spec, Options(job="17_3", restarts=1), execute=_train).result == "done"
            claim = attempts_at(scene.root, spec.run_id)[-1].claim
            assert claim is not None and claim.worker.alive()
        else:
            assert sweep.store.finished() == set()
        assert staged[attempt - 1].is_dir()
        assert "removed what" not in _command(scene, "check")
        assert LOST not in _command(scene, "prune", "--yes")
        assert staged[attempt - 1].is_dir()
        seen.append(str(attempt))

    _at_the_rows(monkeypatch, looked_at)
    late = work(scene.root, spec, Options(job="17_3"), execute=_train)
    assert (late.attempt, seen) == (1, ["2", "1"])
    (row,) = sweep.store.read("runs").to_pylist()
    assert row["attempt"] == 2
    assert [path.name for path in (scene.root / "artifacts").iterdir()] == [spec.run_id]
    assert (scene.root / "artifacts" / spec.run_id / "model.txt").read_text() == "2"


def _killed(root: Path, spec: TokenizerRun, before: str) -> None:
    """A worker of its own process that is killed when it has staged its artifacts, before its rows or its artifacts are
    where they belong."""

    def worker() -> None:
        place, name = (Store, "append") if before == "rows" else (artifacts, "publish")
        setattr(place, name, lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL))
        work(root, spec, execute=_train)

    process = multiprocessing.get_context("fork").Process(target=worker)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_what_a_dead_worker_has_staged_goes_once_another_has_finished_its_run(scene: Scene, sweep: Sweep) -> None:
    scene.root, spec = sweep.root, sweep.plan.runs[0].spec
    assert isinstance(spec, TokenizerRun)
    _killed(scene.root, spec, before="rows")
    left = f"artifacts/.staged-{spec.run_id}-1"
    assert (scene.root / left / "model.txt").exists()
    assert scene.found() == set()
    assert work(scene.root, spec, execute=_train).attempt == 2
    assert (left, LOST) in scene.found()
    assert LOST in _command(scene, "prune", "--yes")
    assert [path.name for path in (scene.root / "artifacts").iterdir()] == [spec.run_id]
    assert (scene.root / "artifacts" / spec.run_id / "model.txt").read_text() == "2"


def test_what_a_dead_winner_has_staged_is_published_by_check_and_never_pruned(scene: Scene, sweep: Sweep) -> None:
    scene.root, spec = sweep.root, sweep.plan.runs[0].spec
    assert isinstance(spec, TokenizerRun)
    _killed(scene.root, spec, before="artifacts")
    assert sweep.store.finished() == {spec.run_id}
    assert LOST not in _command(scene, "prune", "--yes")
    assert f"published the artifacts of {spec.run_id}" in _command(scene, "check")
    assert [path.name for path in (scene.root / "artifacts").iterdir()] == [spec.run_id]
    assert (scene.root / "artifacts" / spec.run_id / "model.txt").read_text() == "1"
    assert "published" not in _command(scene, "check")


def test_sizes_and_inodes(scene: Scene) -> None:
    scene.attempt("a", 1, "checkpoints/x/one", "checkpoints/x/two")
    scene.finish("a", 1)
    (item,) = removable(scene.root)
    assert item.inodes == 4
    files = [*item.path.rglob("*"), item.path]
    assert item.bytes == sum(path.stat().st_blocks * 512 for path in files) > 10_000
    assert pruning.removable(scene.root, ["none"]) == []


def test_the_command_shows_first_and_removes_when_told(scene: Scene) -> None:
    scene.attempt("a", 1, "checkpoints/x/one")
    scene.finish("a", 1)
    scene.attempt("b", 1, "checkpoints/x/one")
    scene.attempt("b", 2, "checkpoints/x/one")
    root = ["--root", str(scene.root)]
    shown = CliRunner().invoke(app, ["store", "prune", *root])
    assert shown.exit_code == 0
    assert "checkpoints of finished runs" in shown.stdout and "nothing was removed; --yes removes it" in shown.stdout
    assert shown.stdout.splitlines()[-2].split()[:2] == ["all", "2"]
    listed = json.loads(CliRunner().invoke(app, ["store", "prune", "--json", *root]).stdout)
    assert listed["removed"] is False and {row["run"] for row in listed["folders"]} == {"a", "b"}
    assert (scene.root / "attempts/a/1/checkpoints").exists()
    done = CliRunner().invoke(app, ["store", "prune", "--yes", *root])
    assert done.stdout.splitlines()[-1] == "removed"
    assert not (scene.root / "attempts/a/1/checkpoints").exists()
    assert (scene.root / "attempts/b/2/checkpoints/x/one").exists()
    assert "nothing to remove" in CliRunner().invoke(app, ["store", "prune", *root]).stdout
