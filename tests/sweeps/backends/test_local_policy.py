"""What becomes of runs that fail on this machine, by cause: real processes that end themselves or are killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from sweeps.backends import debug
from sweeps.backends.base import Request
from sweeps.backends.local import LocalBackend
from sweeps.backends.status import collect
from sweeps.cli.app import app
from sweeps.record.attempts import attempted, attempts_at, living
from sweeps.record.outcome import Outcome
from sweeps.study.external_run import AnyRun
from sweeps.worker.process import WORKER
from sweeps.worker.worker import Options
from tests.sweeps.rooted_study import TOY, submit_here

if TYPE_CHECKING:
    from tests.sweeps.conftest import Sweep


@pytest.mark.slow
def test_failures_are_told_apart_and_never_stop_the_others(sweep: Sweep) -> None:
    """A submission that does not stay with what fails; the next tries it again, and leaves alone what failed enough."""
    sweep.path.write_text(sweep.path.read_text().replace("[0, 1]", "[0, 1, 2, 3, 4]"))
    sweep.behave(
        K256_T16_s0={"ending": "error"},
        K256_T16_s1={"ending": "diverged"},
        K256_T16_XS_s2_2={"ending": "memory"},
        K256_T16_XS_s3_3={"ending": "killed", "always": True, "steps": 12},
        K256_T16_XS_s4_4={"ending": "exit"},
    )
    summary = sweep.submit(jobs=3, again=False)
    assert summary.exit_code == 1
    statuses = {s.run.label: (s.status, s.cause, s.attempts) for s in collect(sweep.plan, sweep.root)}
    assert statuses == {
        "K256-T16-s0": ("failed", "error", 1),
        "K256-T16-XS-s0.0": ("pending", "blocked", 0),
        "K256-T16-s1": ("diverged", "diverged", 1),
        "K256-T16-XS-s1.1": ("pending", "blocked", 0),
        "K256-T16-s2": ("done", None, 1),
        "K256-T16-XS-s2.2": ("failed", "out_of_memory", 1),
        "K256-T16-s3": ("done", None, 1),
        # What is killed is begun again at once, as often as the study grants.
        "K256-T16-XS-s3.3": ("failed", "killed", 3),
        "K256-T16-s4": ("done", None, 1),
        "K256-T16-XS-s4.4": ("failed", "error", 1),
    }
    messages = {s.run.label: s.message for s in collect(sweep.plan, sweep.root)}
    assert messages["K256-T16-s0"] == "ValueError: a wheel came off and rolled away"
    assert "killed by SIGKILL" in str(messages["K256-T16-XS-s3.3"])
    assert "exit code 3: the library gave up" in str(messages["K256-T16-XS-s4.4"])
    rows = [row for row in sweep.store.read("runs", include_failed=True).to_pylist() if row["status"] == "failed"]
    assert len(rows) == 6
    assert {row["cause"] for row in rows if row["label"] == "K256-T16-XS-s3.3"} == {"killed"}
    assert min(row["wall_seconds"] for row in rows) >= 0

    begun = len(sweep.begun())
    sweep.behave(K256_T16_s1={"ending": "diverged"})
    summary = sweep.submit(jobs=3, again=False)
    assert summary.exit_code == 1
    assert (summary.count("done"), summary.count("blocked"), summary.count("failed")) == (4, 1, 1)
    assert len(sweep.begun()) == begun + 4
    ids = {run.label: run.run_id for run in sweep.plan.runs}
    left = summary.outcomes[ids["K256-T16-XS-s3.3"]]
    assert (left.cause, left.attempt) == ("killed", 3)
    assert str(left.message).endswith("left alone after 3 failures, `tokenlaw retry` tries again")
    # Then there is nothing to begin: not even an entry in the ledger.
    ledger = sorted((sweep.root / "submissions").iterdir())
    summary = sweep.submit(jobs=3)
    assert (summary.exit_code, summary.before, summary.count("failed"), summary.count("blocked")) == (1, 8, 1, 1)
    assert sorted((sweep.root / "submissions").iterdir()) == ledger
    assert sweep.submit(jobs=3, retry=True).exit_code == 0
    statuses = {s.run.label: (s.status, s.cause, s.attempts) for s in collect(sweep.plan, sweep.root)}
    assert statuses["K256-T16-XS-s3.3"] == ("done", None, 4)
    assert statuses["K256-T16-s1"] == ("diverged", "diverged", 1)


@pytest.mark.slow
def test_a_submission_that_waits_tries_again_by_cause_with_what_depends_on_it(sweep: Sweep) -> None:
    """Real processes that end themselves; the rows are those of an undisturbed study."""
    sweep.path.write_text(sweep.path.read_text().replace("[0, 1]", "[0, 1, 2, 3]") + "\n[limits]\nretries = 1\n")
    sweep.behave(
        K256_T16_s0={"ending": "error"},
        K256_T16_s1={"ending": "memory", "always": True, "steps": 12},
        K256_T16_s2={"ending": "diverged"},
        K256_T16_XS_s3_3={"ending": "exit"},
    )
    news: list[str] = []
    summary = sweep.submit(jobs=2, observe=lambda snapshot: news.extend(snapshot.news))
    assert summary.exit_code == 1
    statuses = {s.run.label: (s.status, s.cause, s.attempts) for s in collect(sweep.plan, sweep.root)}
    assert statuses == {
        "K256-T16-s0": ("done", None, 2),
        "K256-T16-XS-s0.0": ("done", None, 1),
        "K256-T16-s1": ("failed", "out_of_memory", 2),
        "K256-T16-XS-s1.1": ("pending", "blocked", 0),
        "K256-T16-s2": ("diverged", "diverged", 1),
        "K256-T16-XS-s2.2": ("pending", "blocked", 0),
        "K256-T16-s3": ("done", None, 1),
        "K256-T16-XS-s3.3": ("done", None, 2),
    }
    assert sum("it is tried again (1 of 1)" in line for line in news) == 3
    by_label = {run.label: run.run_id for run in sweep.plan.runs}
    # The same global batch in smaller parts.
    logs = [attempt.log.read_text() for attempt in attempts_at(sweep.root, by_label["K256-T16-s1"])]
    batch = sweep.plan.by_id[by_label["K256-T16-s1"]].spec.batch_size  # type: ignore[union-attr]
    assert f", microbatch {batch // 2}, " in logs[0] and "microbatch" not in logs[1]
    assert "microbatch" not in attempts_at(sweep.root, by_label["K256-T16-s0"])[0].log.read_text()


@pytest.mark.slow
def test_killed_workers_resume_with_the_same_rows(sweep: Sweep, tmp_path: Path) -> None:
    sweep.submit()
    undisturbed = sweep.measured()
    sweep.root = tmp_path / "other"
    sweep.root.mkdir()
    sweep.behave(all={"ending": "killed", "once": True})
    assert sweep.submit().exit_code == 0
    assert sweep.measured() == undisturbed
    assert set(sweep.store.read("runs")["attempt"].to_pylist()) == {2}
    assert {failure.cause for failures in sweep.store.failures().values() for failure in failures} == {"killed"}
    resumed = attempts_at(sweep.root, sweep.plan.runs[0].run_id)[0].log.read_text()
    assert "beginning at step 3" in resumed


LIMIT_MB = 350
HOG = {"ending": "hog", "bytes": LIMIT_MB * 2**20, "once": True, "steps": 12}


def _kill_at_the_limit(sweep: Sweep, stop: Callable[[], bool]) -> set[int]:
    """What the kernel does for lack of memory: KILL, without a word, to a worker that has taken all it may."""
    killed: set[int] = set()
    while not stop():
        for attempt in living(sweep.root, attempted(sweep.root)).values():
            beat, claim = attempt.heartbeat, attempt.claim
            if beat and claim and beat.peak_memory_bytes >= (beat.memory_limit_bytes or 2**60):
                claim.worker.signal(signal.SIGKILL)
                killed.add(claim.worker.pid)
        time.sleep(0.02)
    return killed


@pytest.mark.slow
def test_worker_that_is_killed_at_its_limit_of_memory_gets_a_smaller_microbatch(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.submit()
    undisturbed = sweep.measured()["curves"]
    sweep.root = sweep.root.parent / "other"
    sweep.root.mkdir()
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(LIMIT_MB))
    sweep.behave(K256_T16_s1=HOG | {"steps": 4})
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(_kill_at_the_limit, sweep, over.is_set)
        try:
            summary = sweep.submit()
        finally:
            over.set()
        assert len(killer.result()) == 1
    assert summary.exit_code == 0
    run = next(run for run in sweep.plan.runs if run.label == "K256-T16-s1")
    (failure,) = sweep.store.failures()[run.run_id]
    assert (failure.cause, failure.attempt) == ("out_of_memory", 1)
    assert "of the 367.0 MB that it may take" in str(failure.message)
    assert f", microbatch {run.spec.batch_size // 2}, " in attempts_at(sweep.root, run.run_id)[0].log.read_text()  # type: ignore[union-attr]
    assert sweep.measured()["curves"] == undisturbed


@pytest.mark.slow
def test_lack_of_memory_is_seen_although_the_submitter_died_too(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(LIMIT_MB))
    sweep.behave(K256_T16_s0=HOG, K256_T16_s1={"steps": 2, "seconds": 600})
    first = sweep.start(jobs=2)
    sweep.wait_for(lambda: len(sweep.begun()) == 2)
    first.kill()
    first.wait()
    hog, other = (run.run_id for run in sweep.plan.runs if run.stage == "tokenizer")
    _kill_at_the_limit(sweep, lambda: not attempts_at(sweep.root, hog)[0].alive)
    for pid in sweep.workers():
        os.kill(pid, signal.SIGKILL)
    sweep.wait_for(lambda: not sweep.workers())
    sweep.behave()
    assert sweep.submit(again=False).exit_code == 0
    failures = {run_id: [failure.cause for failure in failed] for run_id, failed in sweep.store.failures().items()}
    assert failures == {hog: ["out_of_memory"]}
    assert "microbatch" in attempts_at(sweep.root, hog)[0].log.read_text()
    assert "microbatch" not in attempts_at(sweep.root, other)[0].log.read_text()


def test_worker_that_cannot_begin_is_a_failure_that_counts(sweep: Sweep) -> None:
    sweep.path.write_text(sweep.path.read_text() + "\n[limits]\nretries = 1\n")
    broken = (sys.executable, "-c", "import sys; sys.exit('no such library')")
    summary = sweep.submit(worker=broken)
    assert (summary.exit_code, summary.count("failed"), summary.count("blocked")) == (1, 2, 2)
    statuses = {s.run.label: (s.status, s.cause, s.attempts) for s in collect(sweep.plan, sweep.root)}
    assert statuses["K256-T16-s0"] == ("failed", "error", 2)
    tokenizer = sweep.plan.runs[0].run_id
    assert summary.outcomes[tokenizer].message == "worker ended with exit code 1: no such library, before it began"
    assert sweep.submit(retry=True).exit_code == 0
    assert attempts_at(sweep.root, tokenizer)[0].number == 3


@pytest.mark.slow
def test_trainer_that_stops_on_its_own_is_resumed_in_place(sweep: Sweep) -> None:
    script = json.dumps(str(Path(__file__).parents[1] / "scripted_trainer.py"))
    sweep.path.write_text(
        f"""
        [study]
        name = "theirs"
        [worker]
        command = ["python", {script}, "{{first}}=again", "at=3"]
        stage = "run"
        [run]
        depth = 4
        """.replace("{first}", "first")
    )
    summary = sweep.submit(worker=WORKER, again=False)
    assert summary.exit_code == 0
    (run,) = sweep.plan.runs
    newest, oldest = attempts_at(sweep.root, run.run_id)
    assert (newest.number, oldest.heartbeat and oldest.heartbeat.cause) == (2, "preempted")
    assert "beginning after step 2" in newest.log.read_text()
    assert sweep.store.failures() == {}
    # One that never gets any further is not begun for ever, and is no failure either.
    sweep.path.write_text(sweep.path.read_text().replace("first=again", "ending=again"))
    summary = sweep.submit(worker=WORKER)
    (run,) = sweep.plan.runs
    assert (summary.exit_code, summary.count("interrupted")) == (1, 1)
    assert len(attempts_at(sweep.root, run.run_id)) == 4
    assert sweep.store.failures() == {}


def test_commands_leave_alone_what_failed_too_often_and_say_so(sweep: Sweep) -> None:
    """`submit` begins nothing, enters nothing in the ledger, and tells why."""
    sweep.path.write_text(sweep.path.read_text() + "\n[limits]\nretries = 0\n")
    sweep.behave(K256_T16_s1={"ending": "error"})
    assert sweep.submit().exit_code == 1
    ledger = sorted((sweep.root / "submissions").iterdir())
    run_id = next(run.run_id for run in sweep.plan.runs if run.label == "K256-T16-s1")

    def command(name: str, *options: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [name, str(sweep.path), "--root", str(sweep.root), *options])
        return done.exit_code, done.output

    told = (
        f"  failed K256-T16-s1 ({run_id}): ValueError: a wheel came off and rolled away; left alone after 1 failure, "
        f"`tokenlaw retry` tries again; see `tokenlaw logs {run_id}`\n"
    )
    code, output = command("submit")
    assert (code, output[: output.index("  blocked")]) == (
        1,
        f"toy: nothing to begin, 2 of 4 runs have no result\n{told}",
    )
    assert output.endswith(": its tokenizer K256-T16-s1 failed\n")
    code, output = command("submit", "--wait")
    assert (code, output) == (1, "toy: 1 failed, 1 blocked, 2 done before in 0 s\n" + told)
    assert sorted((sweep.root / "submissions").iterdir()) == ledger
    # One more is granted: the same failures, another limit.
    assert sweep.store.failures().keys() == {run_id}
    sweep.path.write_text(sweep.path.read_text().replace("retries = 0", "retries = 1"))
    assert sweep.submit().exit_code == 0
    assert attempts_at(sweep.root, run_id)[0].number == 2


@pytest.mark.parametrize("wait", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_workers_are_told_how_to_train(sweep: Sweep, wait: bool) -> None:
    """As the study says, by the submitter as by a supervisor, which knows no study."""
    told = {
        "tokenizer": "microbatch = 8",
        "generator": 'strategy = "fsdp2"\nrecompute_activations = true\ncompile = true',
    }
    resources = "".join(f"[resources.{stage}]\n{fields}\n" for stage, fields in told.items())
    sweep.path.write_text(f"{sweep.path.read_text()}\n{resources}".replace("[0, 1]", "[0]"))
    sweep.behave(all={"steps": 2, "seconds": 0.001})
    request = Request(sweep.plan, sweep.root, jobs=1, worker=TOY, wait=wait)
    if wait:
        assert submit_here(request).exit_code == 0
    else:
        LocalBackend().submit(request)
        sweep.wait_for(lambda: len(sweep.store.finished()) == 2)
    tokenizer, generator = (attempts_at(sweep.root, run.run_id)[0].log.read_text() for run in sweep.plan.runs)
    assert ", microbatch 8, code " in tokenizer
    assert ", fsdp2, recomputing activations, compiled, code " in generator


def test_the_process_that_debugs_is_told_too(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[Options] = []

    def noted(root: Path, spec: AnyRun, given: Options, **more: object) -> Outcome:
        options.append(given)
        return Outcome(spec.run_id, "done")

    monkeypatch.setattr(debug, "work", noted)
    more = '\n[resources.generator]\nmicrobatch = 8\nstrategy = "fsdp2"\nrecompute_activations = true\ncompile = true\n'
    sweep.path.write_text(sweep.path.read_text().replace("[0, 1]", "[0]") + more)
    backend, request = debug.DebugBackend(), Request(sweep.plan, sweep.root)
    backend.watch(request, backend.submit(request), lambda standing: None)
    ways = [(given.microbatch, given.strategy, given.recompute, given.compiled) for given in options]
    assert ways == [(None, "ddp", False, False), (8, "fsdp2", True, True)]
