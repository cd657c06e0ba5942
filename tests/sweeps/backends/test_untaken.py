"""Runs that SLURM does not take: what status says of them and until when, and no time left for what cannot begin."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scaling.specification.spec import canonical_json
from sweeps.backends.base import Request, Submitted
from sweeps.backends.progress import _headline
from sweeps.backends.slurm import waiting
from sweeps.backends.slurm.backend import SlurmBackend
from sweeps.backends.slurm.entries import cluster_view
from sweeps.backends.slurm.waiting import Waiter
from sweeps.backends.standing import Standing
from sweeps.backends.status import RunStatus, collect
from sweeps.cli.views import print_status
from sweeps.record.attempts import claim_attempt
from sweeps.record.ledger import Untaken, note_untaken, untaken
from sweeps.record.outcome import Outcome
from sweeps.record.slurm_client import ClusterView, Queue, QueuedJob

if TYPE_CHECKING:
    from tests.sweeps.conftest import Sweep

JOB = QueuedJob("17_3", "20", "PENDING", "Priority", "toy-1", None, 0, None, None, "/x")
REFUSED = "Job violates accounting/QOS policy: QOSMaxWallDurationPerJobLimit"
FULL = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
CLIENTS = {
    "sbatch": 'if [ -s "$0.says" ]; then echo "sbatch: error: $(cat "$0.says")" >&2; exit 1; fi\n'
    'echo "Submitted batch job 17"',
    "squeue": ":",
    "srun": ":",
    "scontrol": 'if [ "$2" = config ]; then echo "MaxArraySize = 1001"; fi',
}
"""Clients of a cluster with an empty queue; what sbatch.says holds is why nothing is taken."""


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of sbatch's complaint; the clients come first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in CLIENTS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "sbatch.says"


def _statuses(sweep: Sweep) -> list[RunStatus]:
    return collect(sweep.plan, sweep.root, cluster_view(sweep.root))


def test_status_says_why_slurm_refused_a_run_until_a_later_submission(
    sweep: Sweep, says: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says.write_text(REFUSED)
    report = SlurmBackend().submit(Request(sweep.plan, sweep.root))
    assert report.aside.keys() == sweep.plan.by_id.keys()
    by_stage = {status.run.stage: status for status in _statuses(sweep)}
    assert {(status.status, status.cause) for status in by_stage.values()} == {("pending", "refused")}
    shown = json.loads(json.dumps(by_stage["tokenizer"].as_json()))
    assert REFUSED in shown["message"] and shown["cause"] == "refused"
    assert "its tokenizer was not taken" in str(by_stage["generator"].message)
    capsys.readouterr()
    print_status(sweep.plan, list(by_stage.values()))
    assert "refused: refused by SLURM on 2" in capsys.readouterr().out

    # Another reason supersedes the first, and so does a submission that is taken.
    says.write_text(FULL)
    assert SlurmBackend().submit(Request(sweep.plan, sweep.root)).waiting.keys() == sweep.plan.by_id.keys()
    for status in _statuses(sweep):
        assert (status.status, status.cause) == ("pending", "no_room")
        assert "job submit limit" in str(status.message) and str(status.message).endswith("submit goes on with it")
    says.write_text("")
    report = SlurmBackend().submit(Request(sweep.plan, sweep.root))
    assert report.queued == len(sweep.plan.runs) and not untaken(sweep.root)
    assert {status.cause for status in _statuses(sweep)} == {None}


def test_a_submission_of_some_runs_leaves_the_notes_of_others(sweep: Sweep) -> None:
    first, second = sweep.plan.runs[:2]
    notes = {run.run_id: Untaken("QOS", True, 0) for run in (first, second)}
    note_untaken(sweep.root, notes, notes)
    note_untaken(sweep.root, [first.run_id], {})
    assert untaken(sweep.root) == {second.run_id: notes[second.run_id]}


def test_a_note_ends_with_the_queue_an_attempt_or_a_result(sweep: Sweep) -> None:
    run = sweep.plan.runs[0]
    note_untaken(sweep.root, [], {run.run_id: Untaken("QOS", True, 0)})
    assert collect(sweep.plan, sweep.root)[0].cause == "refused"
    queued = collect(sweep.plan, sweep.root, ClusterView({run.run_id: JOB}, known=True))[0]
    assert (queued.cause, queued.message) == ("queued", "job 17_3 waits: Priority")
    attempt = claim_attempt(sweep.root, run.run_id, canonical_json(run.spec), "", None)
    assert attempt is not None
    attempt.end("interrupted", cause="interrupted")
    assert collect(sweep.plan, sweep.root)[0].cause == "interrupted"
    # Refused after that attempt: both are told, and a failure stays a failure.
    note_untaken(sweep.root, [], {run.run_id: Untaken("QOS", True, 1)})
    stopped = collect(sweep.plan, sweep.root)[0]
    assert stopped.cause == "refused" and str(stopped.message).endswith("QOS (before: interrupted)")
    attempt.end("failed", cause="error", message="exit code 3")
    failed = collect(sweep.plan, sweep.root)[0]
    assert (failed.status, failed.cause) == ("failed", "error")
    assert str(failed.message).startswith("exit code 3; then refused by SLURM on ")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": {"reason": "x"}}', "\0"])
def test_a_damaged_file_of_notes_hides_nothing_else(content: str, sweep: Sweep) -> None:
    note_untaken(sweep.root, [], {"a": Untaken("QOS", True, 0)})
    (path,) = (sweep.root / "submissions").glob(".untaken*")
    path.write_text(content)
    assert {status.status for status in collect(sweep.plan, sweep.root)} == {"pending"}
    note_untaken(sweep.root, [], {"b": Untaken("QOS", True, 0)})
    assert untaken(sweep.root).keys() == {"b"}


@pytest.mark.parametrize(
    ("reason", "barred"),
    [
        ("QOSMaxCpuPerJobLimit", True),
        ("AssocMaxWallDurationPerJobLimit", True),
        ("QOSMaxGRESPerNode", True),
        ("PartitionTimeLimit", True),
        ("JobHeldUser", True),
        ("InvalidQOS", True),
        ("QOSNotAllowed", True),
        ("Priority", False),
        ("Resources", False),
        ("Dependency", False),
        ("JobArrayTaskLimit", False),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpCpuLimit", False),
        (None, False),
    ],
)
def test_reasons_that_no_waiting_ends(reason: str | None, barred: bool) -> None:
    assert replace(JOB, reason=reason).barred is barred
    assert not replace(JOB, state="RUNNING", reason=reason).barred


def _snapshot(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, flight: dict[str, QueuedJob], report: Submitted
) -> Standing:
    """The first thing that `--wait` shows with these runs in the queue."""
    seen: list[Standing] = []

    def observe(snapshot: Standing) -> None:
        seen.append(snapshot)
        waiter._leave(signal.SIGINT)

    queue = Queue({job.id: job for job in flight.values()}, float("inf"))
    monkeypatch.setattr(waiting, "queued", lambda root, queue: flight)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)
    waiter = Waiter(Request(sweep.plan, sweep.root), lambda: report, observe)
    waiter.queue = queue
    waiter.wait(report)
    return seen[0]


def test_no_time_left_for_what_cannot_begin(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = sweep.plan
    tokenizers = [run for run in plan.runs if run.stage == "tokenizer"]
    barred, dependent = replace(JOB, reason="QOSMaxCpuPerJobLimit"), replace(JOB, reason="Dependency")
    flight = {run.run_id: barred if run.stage == "tokenizer" else dependent for run in plan.runs}

    none = _snapshot(sweep, monkeypatch, flight, Submitted())
    assert (none.blocked, none.failed, none.eta, none.seconds_done) == (4, 0, 0.0, 0.0)
    assert "left" not in _headline(none) and "0 of 4 runs done, 0 %, 4 blocked" in _headline(none)

    free = flight | {tokenizers[1].run_id: JOB}
    half = _snapshot(sweep, monkeypatch, free, Submitted())
    whole = _snapshot(sweep, monkeypatch, dict.fromkeys(flight, JOB), Submitted())
    assert half.blocked == 2 and whole.blocked == 0
    # One job at a time is assumed while none runs, so half of the work takes half of the time.
    assert half.eta == pytest.approx(whole.eta / 2) and half.seconds_total == whole.seconds_total
    assert "2 blocked" in _headline(half) and "left" in _headline(half)

    mine = [run.run_id for run in plan.runs if tokenizers[0].run_id in (run.run_id, run.parent)]
    refused = {run_id: Outcome(run_id, "failed", cause="refused", message=REFUSED) for run_id in mine}
    left = {run_id: job for run_id, job in free.items() if run_id not in refused}
    shown = _snapshot(sweep, monkeypatch, left, Submitted(aside=refused))
    assert (shown.failed, shown.blocked, shown.eta) == (2, 0, half.eta)
    # A run that is in the queue by now is what the queue says, whatever an earlier submission told of it.
    assert _snapshot(sweep, monkeypatch, dict.fromkeys(flight, JOB), Submitted(aside=refused)).eta == whole.eta


def test_a_tokenizer_that_failed_too_often_takes_its_generators_out_of_the_estimate(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = next(run for run in sweep.plan.runs if run.stage == "tokenizer")
    mine = {run.run_id for run in sweep.plan.runs if tokenizer.run_id in (run.run_id, run.parent)}
    flight = {run_id: JOB for run_id in sweep.plan.by_id if run_id not in mine}
    aside = {run_id: Outcome(run_id, "blocked", cause="failed") for run_id in mine}
    report = Submitted(aside=aside | {tokenizer.run_id: Outcome(tokenizer.run_id, "failed", cause="error")})
    shown = _snapshot(sweep, monkeypatch, flight, report)
    assert (shown.failed, shown.blocked) == (1, 1)
    assert shown.eta == pytest.approx(sum(sweep.plan.by_id[run_id].seconds for run_id in flight))
