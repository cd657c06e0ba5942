"""`submit --wait` on SLURM: stay until nothing is under way, submitting again what the policy allows.

The store says what is done, the queue what is under way. What left the queue without a result is looked at by the next
submission of the same plan, which knows by cause what to do. Leaving early stops nothing: the jobs go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from results import Store
from sweeps.backends.base import Request, Submitted
from sweeps.backends.standing import Observe, Standing, SubmissionSummary, Working
from sweeps.backends.status import collect
from sweeps.backends.time_left import Clock
from sweeps.record.attempts import Heartbeat, attempts_at
from sweeps.record.outcome import Outcome
from sweeps.record.slurm_client import Queue, QueuedJob, SlurmError
from sweeps.worker.process import INTERRUPTS, caught

from .entries import queued

LOOK_SECONDS = 2.0
"""Time between looks at the queue."""
AGAIN_SECONDS = 30.0
"""Time between submissions while the cluster is full, or others work on runs of ours."""

USUAL = ("None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Prolog", "Cleaning")
"""Reasons for waiting that end by themselves. Others, such as a limit of an account, may not."""


class Waiter:
    """Waits for the runs of a request."""

    def __init__(
        self,
        request: Request,
        resubmit: Callable[[], Submitted],
        observe: Observe,
        *,
        look_seconds: float | None = None,
    ) -> None:
        self.plan, self.root = request.plan, request.root.absolute()
        self.resubmit, self.observe = resubmit, observe
        self.wanted = set(request.runs)
        self.look_seconds = LOOK_SECONDS if look_seconds is None else look_seconds
        self.store = Store(self.root)
        self.queue = Queue()
        self.clock = Clock(request.runs)
        self.news: list[str] = []
        self.told: set[str] = set(USUAL)
        """Reasons for which jobs wait that need not be told any more."""
        self.silent = False
        self.stopped: int | None = None
        self.begun = time.monotonic()

    def wait(self, report: Submitted) -> SubmissionSummary:
        """Wait for the end of what `report` says was submitted, and of what has to be submitted again.

        Raises StoreError if the root can no longer be read or written.
        """
        before = self.store.finished() & self.wanted
        submitted = time.monotonic()
        known: set[str] = set()
        with caught(INTERRUPTS, self._leave):
            while self.stopped is None:
                flight = self._flight()
                if flight is not None:
                    results = self.store.results(self.wanted)
                    self._show(flight, {run_id: stored.status for run_id, stored in results.items()}, report)
                    if results.keys() == self.wanted:
                        break
                    ours = flight.keys() & self.wanted
                    left = known - flight.keys() - results.keys()
                    known = set(ours)
                    idle = not ours
                    others = bool(report.waiting or (idle and report.under_way))
                    later = others and time.monotonic() - submitted > AGAIN_SECONDS
                    stranded = any(job.stranded for job in self.queue.read().values())
                    if left or later or stranded or (idle and not others):
                        again = self._again()
                        if again is not None:
                            report, submitted = again, time.monotonic()
                            if idle and not report.queued and not report.under_way and not report.waiting:
                                break
                            known = set()
                            if report.queued:
                                continue
                time.sleep(self.look_seconds)
        summary = self._summary(before, report)
        summary.stopped_by = self.stopped
        return summary

    def _flight(self) -> dict[str, QueuedJob] | None:
        """The runs in the queue; None while SLURM does not answer."""
        try:
            flight = queued(self.root, self.queue)
        except SlurmError as error:
            self._tell_silence(error)
            return None
        if self.silent:
            self.news.append("SLURM answers again")
            self.silent = False
        return flight

    def _again(self) -> Submitted | None:
        try:
            report = self.resubmit()
        except SlurmError as error:
            self._tell_silence(error)
            return None
        if report.queued:
            self.news.append(f"submitted {report.queued} runs again, in {report.arrays} arrays")
        return report

    def _tell_silence(self, error: SlurmError) -> None:
        if not self.silent:
            self.news.append(f"{error}; waiting")
        self.silent = True

    def _show(self, flight: dict[str, QueuedJob], results: dict[str, str], report: Submitted) -> None:
        """Tell whoever shows it where the study stands."""
        running = [run_id for run_id in self.wanted if run_id in flight and not flight[run_id].waiting]
        for reason in {job.reason for run_id, job in flight.items() if run_id in self.wanted and job.waiting}:
            if reason and reason not in self.told:
                self.told.add(reason)
                self.news.append(f"jobs wait in the queue: {reason}; `tokenlaw status` shows which")
        beats = {
            run_id: beat
            for run_id in running
            if (attempts := attempts_at(self.root, run_id)) and (beat := attempts[0].heartbeat)
        }
        failed = {
            run_id
            for run_id, outcome in report.aside.items()
            if outcome.result == "failed" and self._open(run_id, flight, results)
        }
        blocked = self._blocked(flight, results, report, failed)
        estimate = self.clock.estimate(beats, results, max(len(running), 1), failed | blocked)
        working = tuple(
            Working(self.plan.by_id[run_id], beats.get(run_id, Heartbeat()), False, estimate.left.get(run_id, 0.0))
            for run_id in running
        )
        self.observe(
            Standing(
                total=len(self.wanted),
                done=len(results),
                failed=len(failed),
                blocked=len(blocked),
                working=working,
                seconds_done=estimate.done,
                seconds_total=estimate.total,
                eta=estimate.eta,
                elapsed=time.monotonic() - self.begun,
                stopping=False,
                news=tuple(self.news),
            )
        )
        self.news.clear()

    def _open(self, run_id: str, flight: Mapping[str, QueuedJob], results: Mapping[str, str]) -> bool:
        """Whether a run is wanted, has no result and is not in the queue."""
        return run_id in self.wanted and run_id not in results and run_id not in flight

    def _blocked(
        self, flight: Mapping[str, QueuedJob], results: Mapping[str, str], report: Submitted, failed: Collection[str]
    ) -> set[str]:
        """The runs that will not begin as things are, beside those that SLURM refused or that failed too often."""
        aside = {run_id for run_id in report.aside if self._open(run_id, flight, results)}
        barred = {run_id for run_id, job in flight.items() if run_id in self.wanted - results.keys() and job.barred}
        lost = aside | barred
        waiting = {run_id for run_id in self.wanted - results.keys() - lost if self.plan.by_id[run_id].parent in lost}
        return (lost | waiting) - set(failed)

    def _summary(self, before: Collection[str], report: Submitted) -> SubmissionSummary:
        """How every run ended that had no result before."""
        summary = SubmissionSummary(before=len(before), jobs_go_on=True, elapsed=time.monotonic() - self.begun)
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
