"""Runs one after the other in this process, where print and a debugger of one's own work."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

from sweeps.planning.plan import Plan
from sweeps.record.attempts import living
from sweeps.record.dependencies import blocked_by
from sweeps.worker.worker import Execute, Options, work

from .base import Request, Submitted
from .standing import Observe, SubmissionSummary
from .submission import check, enter, remaining


class DebugBackend:
    """The store, claims and attempts are those of every other run. What has failed is executed however often it did."""

    name = "debug"

    def __init__(self, execute: Execute | None = None) -> None:
        """`execute` takes the place of training."""
        self._execute = execute

    def submit(self, request: Request) -> Submitted:
        """Enter what is left; it is executed by `watch`."""
        request = replace(request, root=request.root.absolute(), retry=True)
        check(request)
        left = remaining(request, living(request.root, request.runs))
        report = Submitted(len(left.results), under_way=len(left.under_way), aside=left.aside)
        beginning = [run for run_id, run in request.runs.items() if run_id in left.ready]
        if beginning:
            report.submission = enter(request, self.name, beginning, list(request.runs.values()))
            report.queued = len(beginning)
        return report

    def watch(self, request: Request, submitted: Submitted, observe: Observe) -> SubmissionSummary:
        """Execute them, with the output here. An interrupt saves a checkpoint and ends it."""
        summary, begun = SubmissionSummary(submitted.before, dict(submitted.aside)), time.monotonic()
        root = request.root.absolute()
        left = remaining(replace(request, root=root, retry=True)).ready if submitted.submission else {}
        for run in [request.runs[run_id] for run_id in left]:
            request.say(f"{run.stage} {run.label} ({run.run_id})")
            submission = submitted.submission.id if submitted.submission else ""
            options = Options(
                submission=submission, microbatch=run.resources.microbatch, strategy=run.resources.strategy,
                recompute=run.resources.recompute_activations, compiled=run.resources.compile,
                trackers=request.plan.study.trackers,
            )  # fmt: skip
            outcome = work(root, run.spec, options, execute=self._execute)
            parent = summary.outcomes.get(run.parent or "")
            if outcome.result == "blocked" and parent is not None:
                outcome = blocked_by(run.run_id, request.runs[parent.run_id].label, parent.result)
            summary.outcomes[run.run_id] = outcome
            request.say(f"{outcome.result}: {outcome.message}" if outcome.message else outcome.result)
            if outcome.result == "interrupted":
                summary.stopped_by = signal.SIGINT
                break
        summary.elapsed = time.monotonic() - begun
        return summary

    def cancel(self, plan: Plan, root: Path) -> str:
        """Nothing: an interrupt in its terminal ends it."""
        return ""
