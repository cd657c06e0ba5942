"""Runs of a trainer of one's own whose code has changed or vanished since, and training them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results import Store, StoreError
from sweeps.cli.app import app
from sweeps.planning.plan import Plan, make_plan
from sweeps.record.attempts import attempts_at
from sweeps.record.trainer_code import done_with_other_code, notice, rerun
from sweeps.study.study import load_study

STUDY = '[study]\nname = "t"\n[worker]\ncommand = ["python", "t2.py"]\nstage = "run"\n[seeds]\nrun = [0, 1]\n'
TRAINER = """
import os
from pathlib import Path
from results import open_rows
from net import VALUE
with open_rows() as rows:
    rows.curve(step=1, loss=VALUE)
    assert rows.earlier is None or not os.environ.get("NEVER_EARLIER")
(Path(os.environ["TOKENLAW_OUT"]) / "weights").write_text(str(VALUE))
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY)
    (folder / "t2.py").write_text(TRAINER)
    (folder / "net.py").write_text("VALUE = 1.0\n")
    (folder / "notes.txt").write_text("first")
    return folder / "study.toml"


def _plan(study: Path) -> Plan:
    return make_plan(load_study(str(study)))


def _train(study: Path, root: Path) -> None:
    words = ["submit", str(study), "--wait", "--jobs", "2", "--root", str(root)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_changed_and_vanished_code_is_said_and_trained_again(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVER_EARLIER", "1")
    root = tmp_path / "root"
    _train(study, root)
    plan = _plan(study)
    (study.parent / "notes.txt").write_text("second")
    study.write_text(STUDY + "[limits]\nretries = 0\n")
    assert done_with_other_code(plan, root) == {}

    (study.parent / "net.py").write_text("VALUE = 2.0\n")
    other = done_with_other_code(plan, root)
    assert set(other) == set(plan.by_id) and set(other.values()) == {("net.py",)}
    said = "2 done with another version of net.py; --rerun trains again"
    assert notice(other) == said
    shown = CliRunner().invoke(app, ["plan", str(study), "--root", str(root)], catch_exceptions=False)
    assert f"note: {said}" in shown.stdout
    machine = CliRunner().invoke(app, ["plan", str(study), "--root", str(root), "--json"], catch_exceptions=False)
    assert json.loads(machine.stdout)["notes"] == [said]

    # Nothing is lost, and nothing of the old attempts is resumed.
    moved = rerun(plan, root, other, said)
    assert set(moved) == set(other) and Store(root).finished() == set()
    _train(study, root)
    assert Store(root).read("curves")["value"].to_pylist() == [2.0, 2.0]
    assert {row["attempt"] for row in Store(root).read("runs").to_pylist()} == {2}
    assert {path.read_text() for path in root.glob("artifacts/*/weights")} == {"2.0"}
    assert done_with_other_code(plan, root) == {}

    (study.parent / "t2.py").unlink()
    assert set(done_with_other_code(plan, root).values()) == {("t2.py",)}


def test_what_is_not_known_is_not_said(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    _train(study, root)
    (study.parent / "t2.py").write_text("changed")
    for folder in (root / "snapshots").iterdir():
        folder.rename(folder.with_name("elsewhere"))
    assert done_with_other_code(_plan(study), root) == {} and notice({}) == ""


def test_a_run_under_way_is_not_set_aside(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    _train(study, root)
    plan = _plan(study)
    monkeypatch.setattr("sweeps.record.attempts.Attempt.alive", True)
    with pytest.raises(StoreError, match="is being worked on"):
        rerun(plan, root, plan.by_id, "no")
    assert Store(root).finished() == set(plan.by_id)
    assert not any((attempt.path / "superseded").exists() for run in plan.by_id for attempt in attempts_at(root, run))


def test_submit_says_it_and_rerun_trains_again(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"

    def submit(*options: str) -> str:
        command = ["submit", str(study), "--root", str(root), "--wait", *options]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "2 done in" in submit()
    assert submit() == "t: nothing to do, all 2 runs are done\n"
    (study.parent / "net.py").write_text("VALUE = 2.0\n")
    said = "t: 2 done with another version of net.py; --rerun trains again\n"
    assert submit() == f"{said}t: nothing to do, all 2 runs are done\n"
    again = submit("--rerun")
    assert "t: 2 results set aside in " in again and "2 done in" in again
    assert Store(root).read("curves")["value"].to_pylist() == [2.0, 2.0]
    assert submit("--rerun") == "t: nothing to do, all 2 runs are done\n"
