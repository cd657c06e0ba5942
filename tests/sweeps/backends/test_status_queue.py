"""Status in view of a cluster's queue, time left, last lines, logs that follow, and thousands of runs."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from results import Recorder
from scaling.specification.spec import canonical_json
from sweeps.backends import status
from sweeps.backends.slurm.entries import cluster_view
from sweeps.backends.status import RunStatus, collect, seconds_left
from sweeps.cli import logs
from sweeps.cli.views import SHOWN, print_status
from sweeps.planning.plan import make_plan
from sweeps.record.attempts import Heartbeat, claim_attempt
from sweeps.record.endings import last_line, run_row
from sweeps.record.slurm_client import ClusterView, QueuedJob
from sweeps.study.study import load_study

if TYPE_CHECKING:
    from sweeps.record.attempts import Attempt
    from tests.sweeps.conftest import Sweep

JOB = QueuedJob("17_3", "20", "PENDING", "Priority", "toy-1", None, 0, None, None, "/x")


def _begin(sweep: Sweep, job: str | None = "17_3", **beat: object) -> Attempt:
    spec = sweep.plan.runs[0].spec
    attempt = claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None, job=job)
    assert attempt is not None
    Heartbeat(**beat).write(attempt.path / "heartbeat.json")  # type: ignore[arg-type]
    return attempt


def _of(sweep: Sweep, *jobs: QueuedJob) -> RunStatus:
    view = ClusterView(dict.fromkeys([sweep.plan.runs[0].run_id], *jobs) if jobs else {}, known=True)
    return collect(sweep.plan, sweep.root, view)[0]


def test_waiting_in_the_queue_with_its_reason(sweep: Sweep) -> None:
    shown = _of(sweep, JOB)
    assert (shown.status, shown.cause, shown.job, shown.queued) == ("pending", "queued", "17_3", True)
    assert shown.message == "job 17_3 waits: Priority"
    starting = _of(sweep, replace(JOB, state="RUNNING", reason=None, node="n2"))
    assert (starting.status, starting.message) == ("pending", "job 17_3 running on n2")
    assert shown.as_json()["job"] == "17_3"


def test_running_in_its_job_with_time_left(sweep: Sweep) -> None:
    _begin(sweep, phase="train", done=0.5, elapsed=60.0, done_before=0.3, begun=20.0, images_per_second=8.0)
    shown = _of(sweep, replace(JOB, state="RUNNING", reason=None, node="n2"))
    assert (shown.status, shown.job) == ("running", "17_3")
    # 0.2 of it in 40 s, so 0.5 in 100 s: what an earlier attempt did, and took, does not count.
    assert shown.eta_seconds == pytest.approx(100.0)
    assert shown.as_json()["eta_seconds"] == shown.eta_seconds
    assert seconds_left(shown.run, Heartbeat(done=0.25, done_before=0.25)) == pytest.approx(0.75 * shown.run.seconds)


def test_requeued_while_its_old_process_lives_on(sweep: Sweep) -> None:
    _begin(sweep)
    waiting = _of(sweep, replace(JOB, reason="BeginTime", restarts=1))
    assert (waiting.status, waiting.cause) == ("pending", "queued")
    assert waiting.message == "job 17_3 waits: BeginTime (before: requeued)"
    anew = _of(sweep, replace(JOB, state="RUNNING", reason=None, node="n1", restarts=1))
    assert anew.status == "pending"


def test_job_that_left_without_a_word_is_missing_unless_its_heart_beats(sweep: Sweep) -> None:
    attempt = _begin(sweep)
    assert _of(sweep).status == "running"
    Heartbeat(time=time.time() - 2 * status.FRESH_SECONDS).write(attempt.path / "heartbeat.json")
    (attempt.path / "log.txt").write_text("one\ntwo\n\n")
    shown = _of(sweep)
    assert (shown.status, shown.cause, shown.last_line) == ("missing", "vanished", "two")
    assert "job 17_3 left the queue" in str(shown.message)
    # Of a queue that cannot be read nothing follows.
    assert collect(sweep.plan, sweep.root, ClusterView(complaint="no answer"))[0].status == "running"


@pytest.mark.parametrize("cause", ["preempted", "timeout"])
def test_stopped_by_the_cluster(sweep: Sweep, cause: str) -> None:
    _begin(sweep).end("interrupted", cause=cause, message="stopped at 5 images")
    shown = collect(sweep.plan, sweep.root)[0]
    assert (shown.status, shown.cause) == ("pending", cause)
    assert _of(sweep, JOB).message == f"job 17_3 waits: Priority (before: {cause})"


def test_failure_with_the_last_line_of_its_log(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = _begin(sweep)
    (attempt.path / "log.txt").write_text("begin\n" + "x" * 10_000 + "\nlibrary says no\n")
    attempt.end("failed", cause="error", message="worker ended with exit code 3")
    statuses = collect(sweep.plan, sweep.root)
    assert statuses[0].last_line == "library says no"
    print_status(sweep.plan, statuses, "squeue did not answer")
    shown = capsys.readouterr().out
    assert "error: worker ended with exit code 3" in shown
    assert "last line of its log: library says no" in shown
    assert "could not be read, so nothing here is from it: squeue did not answer" in shown


def test_the_workers_own_last_word_hides_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("CUDA error: no kernel image\n2026-11-22T18:56:38+00:00 failed: train ended with exit code 3\n")
    assert last_line(log) == "CUDA error: no kernel image"
    log.write_text("2026-11-22T18:56:38+00:00 train 7 %, 249 images/s\n2026-11-22T18:56:39+00:00 interrupted\n")
    assert last_line(log) == "2026-11-22T18:56:38+00:00 train 7 %, 249 images/s"


def test_last_line_of_nothing(tmp_path: Path) -> None:
    assert last_line(tmp_path / "none") is None
    (tmp_path / "empty").write_text("\n \n")
    assert last_line(tmp_path / "empty") is None


def test_nothing_is_asked_of_a_cluster_that_nothing_was_submitted_to(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert cluster_view(sweep.root) == ClusterView()


def test_logs_follow_until_the_end_and_into_the_next_attempt(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.02)
    first = _begin(sweep, job=None)
    first.log.write_text("begin\n")
    out, said = io.StringIO(), []

    def live() -> None:
        time.sleep(0.2)
        with first.log.open("a") as log:
            log.write("middle\nend\n")
        first.end("done")

    writer = threading.Thread(target=live)
    writer.start()
    logs.show(sweep.root, sweep.plan.runs[0].label, out, follow=True, say=said.append)
    writer.join()
    assert out.getvalue() == "begin\nmiddle\nend\n"
    assert said == [f"{first.log}:"]

    second = _begin(sweep, job=None)
    second.log.write_text("again\n")
    (second.path / "log-1.txt").write_text("")
    second.end("failed")
    out = io.StringIO()
    logs.show(sweep.root, first.run_id[:6], out, follow=False, say=said.append)
    assert out.getvalue() == "again\n"
    assert "log-1.txt" in said[-1]


@pytest.mark.slow
def test_ten_thousand_runs_are_told_in_a_few_lines(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = str(list(range(100)))
    text = sweep.path.read_text().replace("[0, 1]", f"{seeds}\ngenerator = {seeds}")
    sweep.path.write_text(text + "[limits]\nruns = 100000\n")
    plan = make_plan(load_study(str(sweep.path)))
    assert len(plan.runs) == 10_100
    proto: dict[str, bytes] = {}
    for number, run in enumerate(plan.runs[:9_000]):
        folder = sweep.root / "store" / run.run_id
        if not proto:
            recorder = Recorder(run.run_id, 1)
            row = run_row(
                run.spec, status="done", cause=None, message=None, started_at=datetime.now(UTC),
                wall_seconds=1.0, peak_memory_bytes=1,
            )  # fmt: skip
            sweep.store.append(run.run_id, recorder.tables(row), status="done", attempt=1)
            proto = {path.name: path.read_bytes() for path in folder.iterdir()}
            continue
        folder.mkdir()
        manifest = json.loads(proto["manifest.json"])
        manifest["summary"] |= {"run_id": run.run_id, "label": run.label}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        attempt = sweep.root / "attempts" / run.run_id / "1"
        attempt.mkdir(parents=True)
        if number < 30:
            (attempt / "claim").write_text("{}")
    for run in plan.runs[9_000:9_100]:
        spec = canonical_json(run.spec)
        attempt = claim_attempt(sweep.root, run.run_id, spec, "", None, job="17_1")
        assert attempt is not None
        Heartbeat(done=0.5).write(attempt.path / "heartbeat.json")
    begun = time.process_time()
    statuses = collect(plan, sweep.root, ClusterView({plan.runs[9_200].run_id: JOB}, known=True))
    print_status(plan, statuses)
    took = time.process_time() - begun
    assert status.counts(statuses) | {"done": 9_000, "running": 100, "pending": 1_000} == status.counts(statuses)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 3 * SHOWN
    assert any("running: 80 more" in line for line in lines)
    print(f"status of 10,100 runs: {took:.2f} s of processor time")
