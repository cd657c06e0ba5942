"""`submit --wait` on SLURM: stay until nothing is under way, submitting again what the policy allows.

The store says what is done, the queue what is under way. What left the queue without a result is looked at by the next
submission of the same plan, which knows by cause what to do. Leaving early stops nothing: the jobs go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from results import Store
from sweeps.backends.base import Request, Submitted
from sweeps.backends.standing import Observe, Observed, SubmissionSummary
from sweeps.backends.status import collect
from sweeps.record.attempts import newest_attempt
from sweeps.record.outcome import Outcome
from sweeps.record.slurm_client import Queue, QueuedJob, SlurmError
from sweeps.worker.process import INTERRUPTS, caught

from .entries import queued

T = TypeVar("T")
LOOK_SECONDS = 2.0
"""Time between looks at the queue."""
AGAIN_SECONDS = 30.0
"""Time between submissions while the cluster is full, or others work on runs of ours."""

USUAL = ("None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Prolog", "Cleaning")
"""Reasons for waiting that end by themselves. Others, such as a limit of an account, may not."""


class Waiter:
    """Waits for the runs of a request."""

    def __init__(self, request: Request, resubmit: Callable[[], Submitted], observe: Observe) -> None:
        self.plan, self.root = request.plan, request.root.absolute()
        self.resubmit = resubmit
        self.observed = Observed(request.runs, observe)
        self.wanted = set(request.runs)
        self.store = Store(self.root)
        self.queue = Queue()
        self.told: set[str] = set(USUAL)
        """Reasons for which jobs wait that need not be told any more."""
        self.silent = False
        self.stopped: int | None = None

    def wait(self, report: Submitted) -> SubmissionSummary:
        """Wait for the end of what `report` says was submitted, and of what has to be submitted again.

        Raises StoreError if the root can no longer be read or written.
        """
        before = self.store.finished() & self.wanted
        submitted = time.monotonic()
        known: set[str] = set()
        with caught(INTERRUPTS, self._leave):
            while self.stopped is None:
                flight = self._asked(lambda: queued(self.root, self.queue))
                if flight is not None:
                    results = self.store.results(self.wanted)
                    self._show(flight, {run_id: stored.status for run_id, stored in results.items()}, report)
                    if results.keys() == self.wanted:
                        break
                    ours = flight.keys() & self.wanted
                    left = known - flight.keys() - results.keys()
                    known, idle = ours, not ours
                    others = bool(report.waiting or (idle and report.under_way))
                    later = others and time.monotonic() - submitted > AGAIN_SECONDS
                    stranded = any(job.stranded for job in self.queue.read().values())
                    if left or later or stranded or (idle and not others):
                        again = self._asked(self.resubmit)
                        if again is not None:
                            report, submitted = again, time.monotonic()
                            if idle and not report.queued and not report.under_way and not report.waiting:
                                break
                            known = set()
                            if report.queued:
                                arrays = f"{report.arrays} arrays"
                                self.observed.news.append(f"submitted {report.queued} runs again, in {arrays}")
                                continue
                time.sleep(LOOK_SECONDS)
        return self._summary(before, report)

    def _asked(self, ask: Callable[[], T]) -> T | None:
        """What needs SLURM to answer; None while it does not, which is told once."""
        try:
            answer = ask()
        except SlurmError as error:
            if not self.silent:
                self.observed.news.append(f"{error}; waiting")
            self.silent = True
            return None
        if self.silent:
            self.observed.news.append("SLURM answers again")
            self.silent = False
        return answer

    def _show(self, flight: dict[str, QueuedJob], results: dict[str, str], report: Submitted) -> None:
        """Tell whoever shows it where the study stands."""
        running = [run_id for run_id in self.wanted if run_id in flight and not flight[run_id].waiting]
        for reason in {job.reason for run_id, job in flight.items() if run_id in self.wanted and job.waiting}:
            if reason and reason not in self.told:
                self.told.add(reason)
                self.observed.news.append(f"jobs wait in the queue: {reason}; `tokenlaw status` shows which")
        attempts = {run_id: newest_attempt(self.root, run_id) for run_id in running}
        left_aside = {run_id: o for run_id, o in report.aside.items() if self._open(run_id, flight, results)}
        failed = {run_id for run_id, outcome in left_aside.items() if outcome.result == "failed"}
        lost = self._lost(flight, results, left_aside)
        at_a_time = max(len(running), 1)
        self.observed.show(attempts, results, at_a_time, failed=len(failed), blocked=len(lost - failed), never=lost)

    def _open(self, run_id: str, flight: Mapping[str, QueuedJob], results: Mapping[str, str]) -> bool:
        """Whether a run is wanted, has no result and is not in the queue."""
        return run_id in self.wanted and run_id not in results and run_id not in flight

    def _lost(
        self, flight: Mapping[str, QueuedJob], results: Mapping[str, str], left_aside: Collection[str]
    ) -> set[str]:
        """The runs that will not begin as things are: left aside, barred by SLURM, or behind one of these."""
        unfinished = self.wanted - results.keys()
        lost = {run_id for run_id in unfinished if run_id in left_aside or (run_id in flight and flight[run_id].barred)}
        return lost | {run_id for run_id in unfinished if self.plan.by_id[run_id].parent in lost}

    def _summary(self, before: Collection[str], report: Submitted) -> SubmissionSummary:
        """How every run ended that had no result before."""
        summary = SubmissionSummary(len(before), {}, self.stopped, jobs_go_on=True, elapsed=self.observed.elapsed)
        statuses = {status.run.run_id: status for status in collect(self.plan, self.root)}
        for run_id in self.plan.by_id:
            if run_id in before or run_id not in self.wanted:
                continue
            status, left_aside = statuses[run_id], report.aside.get(run_id)
            if status.status in ("done", "diverged", "failed") and (
                left_aside is None or left_aside.cause != "refused"
            ):
                result = status.status
                outcome = Outcome(run_id, result, status.attempts, status.cause, status.message)  # type: ignore[arg-type]
            elif left_aside is not None:
                outcome = left_aside
            else:
                message = status.message or "stopped before it was done; submit goes on"
                outcome = Outcome(run_id, "interrupted", status.attempts, status.cause or "interrupted", message)
            summary.outcomes[run_id] = outcome
        return summary

    def _leave(self, number: int) -> None:
        self.stopped = number
