"""Runs on this machine: scheduled by the process that submits, or by a detached supervisor.

submitit's local executor starts every job at once, without a cap, and is not used.

python -m sweeps.backends.local ROOT SUBMISSION        what a detached supervisor executes
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from results import StoreError, TokenlawError
from results.store import atomic
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun, planned
from sweeps.record.attempts import living
from sweeps.record.code_snapshot import load_snapshot
from sweeps.record.ledger import Submission, load_submission, submissions
from sweeps.study.resources import Resources
from sweeps.worker.process import awaited, cores, worker_environment

from .base import Request, Submitted
from .local_scheduler import LocalScheduler
from .progress import PlainView
from .standing import Observe, SubmissionSummary
from .submission import check, enter, remaining

START_SECONDS = 20.0
"""How long `submit` waits for a detached supervisor to enter itself in the ledger."""
RESOURCES = "resources.json"
"""In a submission: what each of its runs gets, by id; a supervisor knows no study."""


class LocalBackend:
    """Processes on this machine, at most `jobs` at a time; as many as it has cores unless told."""

    name = "local"

    def submit(self, request: Request) -> Submitted:
        """Enter what is left; unless the request stays to watch, start a supervisor of a session of its own for it.

        What fails under a supervisor is tried again by the next submission, as on a cluster that is not waited for.
        """
        check(request)
        request = replace(request, root=request.root.absolute(), jobs=request.jobs or cores())
        left = remaining(request, living(request.root, request.runs))
        report = Submitted(len(left.results), under_way=len(left.under_way), aside=left.aside)
        begun = left.ready.keys() | left.under_way
        if not begun:
            return report
        beginning = [run for run_id, run in request.runs.items() if run_id in left.ready]
        entered = list(request.runs.values())
        report.submission = enter(request, self.name, beginning, entered, {RESOURCES: _written(entered)})
        report.queued = len(beginning)
        if request.wait:
            report.submission.adopt(request.root)
        else:
            _supervise(request.root, report.submission)
        return report

    def watch(self, request: Request, submitted: Submitted, observe: Observe) -> SubmissionSummary:
        """Schedule the runs in this process until nothing is under way."""
        if submitted.submission is None:
            return SubmissionSummary(before=submitted.before, outcomes=submitted.aside)
        runs, root = list(request.runs.values()), request.root.absolute()
        return LocalScheduler(runs, root, submitted.submission, observe=observe, again=request.again).run()

    def cancel(self, plan: Plan, root: Path) -> str:
        """Stop the submissions of a study, and workers at its runs that have no submitter any more."""
        submitters = [s.process(root) for s in submissions(root) if s.study == plan.study.name]
        told = sum(process.signal(signal.SIGTERM) for process in submitters if process is not None)
        # Workers in jobs of SLURM end with their jobs, which may be another study's.
        claims = [attempt.claim for attempt in living(root, set(plan.by_id)).values()]
        deserted = [claim for claim in claims if claim is not None and claim.job is None and claim.deserted]
        alone = sum(claim.worker.signal(signal.SIGTERM) for claim in deserted)
        return f"told {told} submitters and {alone} workers without one to save and stop" if told or alone else ""


def _written(runs: Iterable[PlannedRun]) -> bytes:
    resources = {run.run_id: run.as_json()["resources"] for run in runs}
    return (json.dumps(resources) + "\n").encode()


def _entered(root: Path, submission: Submission) -> list[PlannedRun]:
    """The runs of a submission, with what each gets. Raises StoreError."""
    path = submission.folder(root) / RESOURCES
    try:
        resources = {
            run_id: Resources.model_validate(fields) for run_id, fields in json.loads(path.read_text()).items()
        }
        return [planned(run, resources[run.run_id]) for run in submission.runs(root)]
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise StoreError(f"{path} is missing or damaged: {error!r}") from error


def _supervise(root: Path, submission: Submission) -> None:
    """Start the supervisor of a submission, and see it begin. Raises StoreError."""
    log = submission.folder(root) / "supervisor.log"
    with atomic.storage(log), log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweeps.backends.local", str(root), submission.id],
            env=worker_environment(1, load_snapshot(root, submission.snapshot).path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    awaited(lambda: submission.process(root) is not None or process.poll() is not None, START_SECONDS)
    if submission.process(root) is None:
        raise StoreError(f"the supervisor of {submission.id} did not start; see {log}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The detached supervisor: plain lines of progress on standard output, which is its log."""
    root, name = Path((arguments or sys.argv[1:])[0]), (arguments or sys.argv[1:])[1]
    try:
        submission = load_submission(root, name)
        runs = _entered(root, submission)
        submission.adopt(root)
        with PlainView(sys.stdout) as view:
            summary = LocalScheduler(runs, root, submission, observe=view, again=False).run()
        print(f"ended with exit code {summary.exit_code}", flush=True)
    except TokenlawError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
