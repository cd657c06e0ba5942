"""The command line: what it imports, its exit codes, its machine forms."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from scaling.specification.spec import canonical_json
from sweeps.cli.app import app
from sweeps.cli.submitting import carry_out
from sweeps.record.attempts import claim_attempt
from sweeps.record.process_identity import ProcessId
from sweeps.worker.process import worker_environment

from_worker = Path(__file__).parents[1].joinpath("toy_worker.py")

if TYPE_CHECKING:
    from click.testing import Result

    from tests.sweeps.conftest import Sweep


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore


def _json(*arguments: object) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "fashion"], ["status", "smoke"], ["plan", "smoke", "--json"]]
)
def test_start_is_fast_and_free_of_heavy_packages(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, time; begun = time.process_time(); sys.argv = ['tokenlaw', *sys.argv[1:]]\n"
        "from sweeps.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "took = time.process_time() - begun\n"
        "heavy = [m for m in ('torch', 'pandas', 'scipy', 'pyarrow', 'matplotlib', 'numpy') if m in sys.modules]\n"
        "print(heavy, took, file=sys.stderr)"
    )
    environment = {**os.environ, "TOKENLAW_ROOT": str(tmp_path)}
    best = float("inf")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        heavy, _, took = done.stderr.strip().splitlines()[-1].rpartition(" ")
        assert heavy == "[]"
        best = min(best, float(took))
        if best < 0.5:
            break
    # CPU time, so that a busy machine does not fail it.
    assert best < 1.0
    assert list(tmp_path.iterdir()) == []


def test_plan_json(sweep: Sweep) -> None:
    found = _json("plan", sweep.path, "--root", sweep.root)
    assert [run["label"] for run in found["runs"]] == [run.label for run in sweep.plan.runs]
    assert {run["status"] for run in found["runs"]} == {"pending"}
    assert found["totals"]["runs"] == found["totals"]["runs_left"] == 4
    assert found["study"] == "toy"


def test_plan_and_status_in_words_write_nothing(sweep: Sweep) -> None:
    shown = _run("plan", sweep.path, "--root", sweep.root)
    assert shown.exit_code == 0
    assert "2 tokenizers and 2 generators" in shown.stdout
    shown = _run("status", sweep.path, "--root", sweep.root)
    assert "0 of 4 runs have a result" in shown.stdout
    assert list(sweep.root.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan", "fashon"], 2, "error: study = 'fashon' is unknown; did you mean 'fashion'?"),
        (["status", "fashon"], 2, "is unknown"),
        (["submit", "fashon", "--wait"], 2, "is unknown"),
        (["submit", "smoke", "--cluster", "moon"], 2, "error: --cluster = 'moon' is not allowed; allowed: local"),
        (["submit", "smoke", "--jobs", "0"], 2, "--jobs"),
        (["plan", "smoke", "--set", "tokenizer.batch_sise=3"], 2, "did you mean 'batch_size'?"),
        (["plan", "smoke", "--set", "limits.runs=1"], 2, "more than 1 runs"),
        (["plan"], 2, "Missing argument"),
        (["plann"], 2, "No such command"),
        (["logs", "abc"], 2, "error: run = 'abc' matches nothing"),
        (["run", "nothing.json"], 2, "error: spec = 'nothing.json' cannot be read"),
        (["report", "nothing"], 2, "error: study = 'nothing' is unknown"),
        (["store", "export", "--out", "x", "--format", "xls"], 2, "error: format = 'xls' is not allowed"),
    ],
)
def test_wrong_usage_ends_in_one_message_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _run(*arguments)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_no_study(tmp_path: Path) -> None:
    done = _run("store", "export", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "runs.parquet, curves.parquet, evaluations.parquet is missing" in done.stderr


def test_bad_specification_file(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"stage": "tokenizer", "colour": 1}')
    done = _run("run", tmp_path / "spec.json", "--root", tmp_path / "root")
    assert done.exit_code == 2
    assert "colour is not a field" in done.stderr


def test_unwritable_root(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run("submit", sweep.path, "--wait", "--root", sweep.path)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: cannot ")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every submit of the command line uses toy training."""
    toy = (sys.executable, "-P", str(from_worker))
    monkeypatch.setattr("sweeps.cli.studies.carry_out", partial(carry_out, worker=toy))


@pytest.mark.usefixtures("toys")
def test_submit_fails_then_retry_then_export(sweep: Sweep) -> None:
    sweep.behave(K256_T16_XS_s1_1={"ending": "error"})
    options = ("--root", sweep.root)
    done = _run("submit", sweep.path, "--wait", "--jobs", 2, "--set", "limits.retries=0", *options)
    assert done.exit_code == 1
    assert "3 done, 1 failed" in done.stdout
    assert "ValueError: a wheel came off and rolled away; see `tokenlaw logs" in done.stdout
    (failed,) = [run for run in _json("status", sweep.path, *options)["runs"] if run["status"] == "failed"]
    assert (failed["cause"], failed["attempts"]) == ("error", 1)
    shown = _run("status", sweep.path, *options)
    assert f"failed   {failed['label']}" in shown.stdout
    logged = _run("logs", failed["id"], *options)
    assert "a wheel came off" in logged.stdout

    sweep.behave()
    done = _run("retry", sweep.path, "--wait", *options)
    assert done.exit_code == 0, done.output
    assert "1 done" in done.stdout
    assert "nothing failed" in _run("retry", sweep.path, *options).stdout
    begun = len(sweep.begun())
    done = _run("submit", sweep.path, "--wait", *options)
    assert (done.exit_code, done.stdout) == (0, "toy: nothing to do, all 4 runs are done\n")
    assert len(sweep.begun()) == begun
    assert _json("plan", sweep.path, *options)["totals"]["runs_left"] == 0

    assert "5 sets checked, 0 damaged" in _run("store", "check", *options).stdout
    out = sweep.root.parent / "out"
    assert len(_run("store", "export", sweep.path, "--out", out, *options).stdout.splitlines()) == 3
    damaged = sweep.root / "store" / sweep.plan.runs[3].run_id / "curves.parquet"
    damaged.write_bytes(b"PAR1")
    done = _run("store", "check", *options)
    assert done.exit_code == 1
    assert "curves.parquet is damaged: 4 bytes instead of" in done.stdout
    found = _json("status", sweep.path, *options)["runs"][3]
    assert (found["status"], found["cause"], found["attempts"]) == ("pending", "removed", 2)
    # What was exported before is whole.
    assert _run("store", "export", out, "--out", out / "again").exit_code == 0


@pytest.mark.usefixtures("toys")
def test_run_executes_one_specification_with_its_tokenizer(sweep: Sweep) -> None:
    path = sweep.root.parent / "spec.json"
    path.write_text(canonical_json(sweep.plan.runs[1].spec))
    done = _run("run", path, "--root", sweep.root)
    assert done.exit_code == 0, done.output
    assert sweep.store.finished() == {run.run_id for run in sweep.plan.runs[:2]}


def test_doctor_looks_at_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = _run("doctor", "--root", tmp_path / "root")
    for subject in (
        "Python",
        "machine",
        "packages",
        "training",
        "import names",
        "data root",
        "file system",
        "disk",
        "data",
    ):
        assert f" {subject}: " in done.stdout
    assert list((tmp_path / "root").iterdir()) == []
    (tmp_path / "results.py").write_text("")
    done = _run("doctor", "--root", tmp_path / "root")
    assert done.exit_code == 1
    assert "finds results there first" in done.stdout


@pytest.mark.slow
def test_detached_submission_goes_on_alone_and_can_be_cancelled(sweep: Sweep, tmp_path: Path) -> None:
    # The supervisor is a process of its own, so this one trains for real; it is stopped while it starts.
    text = sweep.path.read_text().replace("train_images = 2048", "train_images = 2048000", 1)
    sweep.path.write_text(text)
    options = ("--root", sweep.root)
    done = _run("submit", sweep.path, "--jobs", 1, *options)
    assert done.exit_code == 0, done.output
    assert "submitted toy-" in done.stdout
    sweep.wait_for(lambda: len(sweep.workers()) == 1, 300)
    assert [run["status"] for run in _json("status", sweep.path, *options)["runs"]].count("running") == 1
    done = _run("cancel", sweep.path, *options)
    assert "told 1 submitters and 0 workers" in done.stdout
    sweep.wait_for(lambda: not sweep.workers(), 300)
    (log,) = (sweep.root / "submissions").glob("*/supervisor.log")
    sweep.wait_for(lambda: "ended with exit code 143" in log.read_text(), 300)
    assert {run["status"] for run in _json("status", sweep.path, *options)["runs"]} == {"pending"}


def test_cancel_leaves_workers_of_jobs_to_their_jobs(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may be another study's, which shares the run; `scancel` ends those of this one."""
    assert _run("cancel", sweep.path, "--root", sweep.root).stdout == "toy: nothing is under way\n"
    told: list[int] = []

    def tell(process: ProcessId, number: int) -> bool:
        told.append(number)
        return True

    monkeypatch.setattr(ProcessId, "signal", tell)
    spec = sweep.plan.runs[0].spec
    assert claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None, job="17_3") is not None
    assert _run("cancel", sweep.path, "--root", sweep.root).stdout == "toy: nothing is under way\n"
    assert not told
    other = sweep.plan.runs[1].spec
    assert claim_attempt(sweep.root, other.run_id, canonical_json(other), "", None) is not None
    assert "told 0 submitters and 1 workers" in _run("cancel", sweep.path, "--root", sweep.root).stdout
    assert told == [signal.SIGTERM]


@pytest.mark.slow
def test_interrupt_ends_with_130(sweep: Sweep) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sweeps.cli.app", "logs", "--follow", _running(sweep), "--root", str(sweep.root)],
        env=worker_environment(1),
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell began in the background ignore Ctrl-C, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130


def _running(sweep: Sweep) -> str:
    """The id of a run that this process claims."""
    spec = sweep.plan.runs[0].spec
    attempt = claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None)
    assert attempt is not None
    attempt.log.write_text("at work\n")
    return spec.run_id
