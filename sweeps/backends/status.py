"""How the runs of a plan stand: the store first, then claims and heartbeats, then the queue of the cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from results import Store, TokenlawError, UsageError
from results.store.run_set import StoredRun
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import Attempt, Heartbeat, attempted, attempts_at
from sweeps.record.ledger import Untaken, untaken
from sweeps.study.external_run import parse_any_run

from .standing import Clock, TimeLeft

if TYPE_CHECKING:
    from sweeps.record.slurm_client import ClusterView

Status = Literal["done", "running", "pending", "failed", "diverged", "missing"]
STATUSES: tuple[Status, ...] = ("done", "running", "pending", "failed", "diverged", "missing")
"""done and diverged are results. pending: not begun, in the queue, or stopped. failed: the newest attempt failed.
missing: the newest attempt's process vanished (killed, machine lost). `submit` goes on with these three."""

FRESH_SECONDS = 30.0
"""A heartbeat of this age or less is believed although the queue does not know its job (it may be another user's)."""
ENOUGH = 0.02
"""Share of a run after which its own speed gives the time that is left."""


@dataclass(frozen=True)
class RunStatus:
    """How one run stands.

    heartbeat     that of the newest attempt, for running ones
    job           its job in the queue, or the one of the attempt that runs
    eta_seconds   time left of a running run
    last_line     of the log, for runs that failed or vanished
    """

    run: PlannedRun
    status: Status
    attempts: int
    cause: str | None = None
    message: str | None = None
    heartbeat: Heartbeat | None = None
    wall_seconds: float | None = None
    job: str | None = None
    eta_seconds: float | None = None
    last_line: str | None = None

    @property
    def queued(self) -> bool:
        """Whether it waits in the queue of a cluster."""
        return self.status == "pending" and self.job is not None

    def as_json(self) -> dict[str, Any]:
        """The machine form."""
        beat = self.heartbeat if self.status == "running" else None
        return {
            "id": self.run.run_id,
            "label": self.run.label,
            "stage": self.run.stage,
            "parents": [self.run.parent] if self.run.parent else [],
            "status": self.status,
            "attempts": self.attempts,
            "cause": self.cause,
            "message": self.message,
            "wall_seconds": self.wall_seconds,
            "progress": beat.done if beat else None,
            "phase": beat.phase if beat else None,
            "images_per_second": beat.images_per_second if beat else None,
            "eta_seconds": self.eta_seconds,
            "job": self.job,
            "last_line": self.last_line,
        }


def collect(plan: Plan, root: Path, cluster: ClusterView | None = None) -> list[RunStatus]:
    """The status of every run of a plan, in its order. Reads no Parquet. Raises StoreError for a damaged store.

    Files of attempts are opened for runs without a result alone, so that it stays fast with thousands of runs.
    """
    store = Store(root)
    finished = store.finished()
    # The claims are read before the results: a run that ends in between is then seen as done, never as missing.
    known = attempted(root)
    newest = {
        run_id: attempts
        for run_id in plan.by_id
        if run_id in known and run_id not in finished and (attempts := attempts_at(root, run_id))
    }
    states = {run_id: attempts[0].state for run_id, attempts in newest.items()}
    results, failures = store.results(plan.by_id), store.failures(plan.by_id)
    notes = untaken(root)
    statuses = []
    for run in plan.runs:
        if (result := results.get(run.run_id)) is not None:
            ended: Status = "diverged" if result.status == "diverged" else "done"
            seconds = result.wall_seconds
            statuses.append(RunStatus(run, ended, result.attempt, result.cause, result.message, wall_seconds=seconds))
            continue
        attempts, failed = newest.get(run.run_id, []), failures.get(run.run_id, [])
        status = _unfinished(run, failed, attempts, states.get(run.run_id))
        status = _placed(status, attempts, cluster)
        if run.run_id in notes:
            status = _noted(status, attempts, notes[run.run_id])
        if status.status in ("failed", "missing") and attempts:
            from sweeps.record.endings import last_line

            status = replace(status, last_line=last_line(attempts[0].log))
        statuses.append(status)
    by_id = {status.run.run_id: status for status in statuses}
    return [_explained(status, by_id) for status in statuses]


def _unfinished(run: PlannedRun, failures: list[StoredRun], attempts: list[Attempt], state: str | None) -> RunStatus:
    """What attempts and the store tell of a run without a result."""
    count = max(len(attempts), len(failures))
    beat = attempts[0].heartbeat if attempts else None
    if state == "running":
        beat = beat or Heartbeat()
        return RunStatus(run, "running", count, heartbeat=beat, eta_seconds=seconds_left(run, beat))
    if state == "missing":
        cause, message = "vanished", "its process ended without a word; submit resumes it"
        return RunStatus(run, "missing", count, cause, message, beat)
    if state == "interrupted":
        from sweeps.record.endings import IN_PLACE

        why = beat.cause if beat is not None and beat.cause in IN_PLACE else None
        message = f"stopped {f'({why})' if why else 'on purpose'}; submit resumes it"
        return RunStatus(run, "pending", count, why or "interrupted", message, beat)
    if state == "failed" and beat is not None:
        return RunStatus(run, "failed", count, beat.cause, beat.message, beat)
    if state in ("done", "diverged"):
        # Its set is gone from the store, such as one that `store check` moved aside.
        return RunStatus(run, "pending", count, "removed", "its rows are no longer in the store; submit runs it again")
    if failures:
        return RunStatus(run, "failed", count, failures[-1].cause, failures[-1].message)
    return RunStatus(run, "pending", count)


def _placed(status: RunStatus, attempts: list[Attempt], cluster: ClusterView | None) -> RunStatus:
    """The same, in view of the queue."""
    job = cluster.jobs.get(status.run.run_id) if cluster else None
    claim = attempts[0].claim if attempts else None
    if job is not None:
        if status.status == "running" and claim is not None and claim.restarts >= job.restarts and not job.waiting:
            return replace(status, job=job.id)
        cause = status.cause if status.status != "running" else "requeued"
        how = f"waits: {job.reason}" if job.waiting else f"{job.state.lower()} on {job.node}"
        message = f"job {job.id} {how}{_before(cause)}"
        return replace(status, status="pending", cause="queued", message=message, job=job.id, eta_seconds=None)
    if claim is None or claim.job is None or status.status != "running":
        return status
    status = replace(status, job=claim.job)
    beat = status.heartbeat
    if cluster is None or not cluster.known or (beat is not None and time.time() - beat.time < FRESH_SECONDS):
        return status
    message = f"job {claim.job} left the queue without a word; submit resumes it"
    return replace(status, status="missing", cause="vanished", message=message, eta_seconds=None)


def _noted(status: RunStatus, attempts: list[Attempt], note: Untaken) -> RunStatus:
    """The same, of a run that SLURM did not take at its last submission, unless an attempt was made at it since."""
    newest = attempts[0].number if attempts else 0
    if status.job is not None or status.status == "running" or newest != note.attempt:
        return status
    if status.status == "pending":
        return replace(status, cause=note.cause, message=f"{note}{_before(status.cause)}")
    return replace(status, message=f"{status.message}; then {note}" if status.message else str(note))


def _before(cause: str | None) -> str:
    return f" (before: {cause})" if cause else ""


def _explained(status: RunStatus, by_id: dict[str, RunStatus]) -> RunStatus:
    """Say of a pending generator that its tokenizer keeps it from starting."""
    parent = by_id.get(status.run.parent or "")
    if status.status != "pending" or status.cause or parent is None or parent.status not in ("failed", "diverged"):
        return status
    from sweeps.record.dependencies import blocked_by

    blocked = blocked_by(status.run.run_id, parent.run.label, parent.status)
    return RunStatus(status.run, "pending", status.attempts, "blocked", blocked.message)


def seconds_left(run: PlannedRun, beat: Heartbeat) -> float:
    """Time left of a running run: from the speed of this attempt, or by the plan's estimate at its begin."""
    gained = beat.done - beat.done_before
    if gained < ENOUGH:
        return run.seconds * (1 - beat.done)
    return (beat.elapsed - beat.begun) / gained * (1 - beat.done)


def time_left(statuses: Sequence[RunStatus]) -> TimeLeft | None:
    """The work that is left and the time that it takes if as many runs as now go on at a time; None if none runs.

    What waits for its turn counts, with what waits for that; what failed, vanished or cannot begin does not.
    """
    clock = Clock({status.run.run_id: status.run for status in statuses})
    beats = {s.run.run_id: s.heartbeat for s in statuses if s.status == "running" and s.heartbeat is not None}
    if not beats:
        return None
    ended = {s.run.run_id: s.status for s in statuses if s.status in ("done", "diverged")}
    for status in statuses:
        if status.run.run_id in ended and status.wall_seconds:
            clock.measured(status.run.run_id, status.wall_seconds, here=False)
    never = {s.run.run_id for s in statuses if s.status in ("failed", "missing") or s.cause in ("blocked", "refused")}
    return clock.estimate(beats, ended, len(beats), never)


def counts(statuses: Iterable[RunStatus]) -> dict[str, int]:
    """Number of runs of each status, all of STATUSES present."""
    number = Counter(status.status for status in statuses)
    return {name: number[name] for name in STATUSES}


def find_run(root: Path, text: str) -> list[Attempt]:
    """The attempts, newest first, at the one run that was begun here whose id starts with `text` or whose label is it.

    Raises UsageError if there is none, or more than one.
    """
    known = sorted(attempted(root))
    matches = [run_id for run_id in known if text and run_id.startswith(text) and attempts_at(root, run_id)]
    if not matches and text:
        labels = {run_id: summary.label for run_id, summary in Store(root).results(known).items()}
        for run_id in known:
            if run_id not in labels and (attempts := attempts_at(root, run_id)):
                labels[run_id] = _label(attempts[0])
        matches = [run_id for run_id, label in labels.items() if label == text]
    if len(matches) != 1:
        problem = f"matches {', '.join(matches[:8])}" if matches else "matches nothing that was begun"
        raise UsageError(f"run = {text!r} {problem} in {root}; allowed: the start of one run's id, or its label")
    return attempts_at(root, matches[0])


def _label(attempt: Attempt) -> str:
    """The label of an attempt's run; nothing where its specification is gone or of another version."""
    try:
        return parse_any_run((attempt.path / "spec.json").read_bytes()).label
    except (OSError, TokenlawError):
        return ""
