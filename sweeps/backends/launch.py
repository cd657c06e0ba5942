"""Submitting a plan: checks, snapshot of the code, ledger, then the runs.

local    our scheduler, here or in a detached supervisor; submitit's local executor starts every job at once, without a
         cap, and is not used
debug    one run after the other in this process, where print and a debugger of one's own work
slurm    arrays of jobs (sweeps.backends.slurm)

python -m sweeps.backends.launch ROOT SUBMISSION        what a detached supervisor executes
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from results import Store, StoreError, TokenlawError, UsageError
from results.store import atomic
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun, planned
from sweeps.record.attempts import living
from sweeps.record.code_snapshot import CodeSnapshot, load_snapshot, take_snapshot
from sweeps.record.ledger import Submission, load_submission, new_submission, open_submission, submissions
from sweeps.record.outcome import Outcome
from sweeps.worker.process import WORKER, worker_environment
from sweeps.worker.worker import Execute, Options, work

from .local import LocalScheduler
from .policy import Failures
from .standing import Observe, SubmissionSummary

START_SECONDS = 20.0
"""How long `submit` waits for a detached supervisor to enter itself in the ledger."""

Say = Callable[[str], None]


def to_do(plan: Plan, root: Path, only: set[str] | None = None) -> list[PlannedRun]:
    """The runs of a plan without a result, or those of `only` among them."""
    finished = Store(root).finished()
    return [run for run in plan.runs if run.run_id not in finished and (only is None or run.run_id in only)]


def set_aside(plan: Plan, root: Path, left: Sequence[PlannedRun], retry: bool = False) -> dict[str, Outcome]:
    """Those of the runs that are left which a submission on this machine does not begin, with the reason as an outcome.

    They have failed as often as they are granted, unless it is a `retry`, or their tokenizer has, or it diverged.
    Raises StoreError.
    """
    failures = None if retry else Failures(root, {run.run_id for run in plan.runs}, plan.study.limits.retries)
    parents = Store(root).results({run.parent for run in left if run.parent})
    found: dict[str, Outcome] = {}
    for run in left:
        outcome = failures.left_alone(run.run_id) if failures is not None else None
        if outcome is None and run.parent is not None:
            parent = parents.get(run.parent)
            state = parent.status if parent is not None else found[run.parent].result if run.parent in found else "done"
            if state != "done":
                label = plan.by_id[run.parent].label if run.parent in plan.by_id else run.parent
                outcome = Outcome(run.run_id, "blocked", cause=state, message=f"its tokenizer {label} {state}")
        if outcome is not None:
            found[run.run_id] = outcome
    return found


def prepare_training(runs: Sequence[PlannedRun], say: Say) -> None:
    """See that the workers will find torch and the images, so that one clear error comes before many failed runs.

    Raises UsageError.
    """
    ours = [run for run in runs if run.spec.trainer is None]
    for module, package in (("torch", "torch"), ("safetensors", "safetensors")) if ours else ():
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"training needs {package}, which is not installed; pip install '.[train]' in the clone")
    from scaling.data.sources import locate

    for name in sorted({str(run.facts["data"]) for run in ours}):
        locate(name, say)


def check_writable(root: Path) -> None:
    """Raise StoreError if nothing can be written below the root."""
    atomic.make_folder(root)
    probe = root / f".writable-{os.getpid()}"
    with atomic.storage(root):
        try:
            atomic.write_synced(probe, b"can be written\n")
        finally:
            probe.unlink(missing_ok=True)


def submit(
    plan: Plan,
    root: Path,
    *,
    jobs: int,
    over_limit: bool = False,
    only: set[str] | None = None,
    retry: bool = False,
    again: bool = True,
    observe: Observe = lambda snapshot: None,
    say: Say = lambda line: None,
    prepare: Callable[[Sequence[PlannedRun], Say], None] = prepare_training,
    worker: Sequence[str] = WORKER,
) -> SubmissionSummary:
    """Execute what is left of a plan on this machine, and wait for the end. Does nothing if nothing is left to begin.

    jobs     processes at a time
    only     ids of the runs to execute; None for all
    retry    failures count anew
    again    stay with what fails, and try it again as often as the study grants
    observe  called a few times a second with a CodeSnapshot
    prepare  called before anything starts
    worker   the command of a worker process, without its options

    Raises UsageError (limits, missing packages or data) before anything is written, StoreError if the root cannot be
    written.
    """
    root = root.absolute()
    submission = _enter(plan, root, jobs, over_limit, only, say, prepare, retry)
    runs = [run for run in plan.runs if only is None or run.run_id in only]
    if submission is None:
        left = to_do(plan, root, only)
        return SubmissionSummary(before=len(runs) - len(left), outcomes=set_aside(plan, root, left, retry))
    submission.adopt(root)
    return LocalScheduler(runs, root, submission, observe=observe, worker=worker, again=again).run()


def submit_detached(
    plan: Plan,
    root: Path,
    *,
    jobs: int,
    over_limit: bool = False,
    only: set[str] | None = None,
    retry: bool = False,
    say: Say = lambda line: None,
    prepare: Callable[[Sequence[PlannedRun], Say], None] = prepare_training,
) -> Submission | None:
    """The same in a supervisor of its own session, which goes on after this process ends. None if nothing is begun.

    What fails there is tried again by the next submission, as it is after one to a cluster that is not waited for.
    """
    root = root.absolute()
    submission = _enter(plan, root, jobs, over_limit, only, say, prepare, retry)
    if submission is None:
        return None
    log = submission.folder(root) / "supervisor.log"
    with atomic.storage(log), log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweeps.backends.launch", str(root), submission.id],
            env=worker_environment(1, load_snapshot(root, submission.snapshot).path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while submission.process(root) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if submission.process(root) is None:
        raise StoreError(f"the supervisor of {submission.id} did not start; see {log}")
    return submission


def _enter(
    plan: Plan,
    root: Path,
    jobs: int,
    over_limit: bool,
    only: set[str] | None,
    say: Say,
    prepare: Callable[[Sequence[PlannedRun], Say], None],
    retry: bool,
    cluster: str = "local",
) -> Submission | None:
    """Check everything, then write the ledger. None if there is nothing to begin."""
    if jobs < 1:
        raise UsageError(f"--jobs = {jobs} is not allowed; allowed: 1 or more")
    if not over_limit:
        plan.check_limits(Store(root).results(plan.by_id))
    left = to_do(plan, root, only)
    aside = set_aside(plan, root, left, retry)
    ready = [run for run in left if run.run_id not in aside]
    if not ready:
        return None
    check_writable(root)
    prepare(ready, say)
    runs = [run for run in plan.runs if only is None or run.run_id in only]
    frozen = freeze(plan, runs, root)
    submission = new_submission(
        plan.study.name, jobs, cluster=cluster, snapshot=frozen.name, retry=retry, retries=plan.study.limits.retries
    )
    return open_submission(root, submission, [run.spec for run in runs])


def freeze(plan: Plan, runs: Sequence[PlannedRun], root: Path) -> CodeSnapshot:
    """The snapshot of the code for these runs of a plan. Raises UsageError, StoreError."""
    study = Path(plan.study.source)
    commands = {run.spec.trainer for run in runs if run.spec.trainer is not None}
    return take_snapshot(root, study if study.is_file() else None, commands)


def submit_debug(
    plan: Plan,
    root: Path,
    *,
    over_limit: bool = False,
    only: set[str] | None = None,
    say: Say = lambda line: None,
    prepare: Callable[[Sequence[PlannedRun], Say], None] = prepare_training,
    execute: Execute | None = None,
) -> SubmissionSummary:
    """Execute what is left of a plan in this process, one run after the other, with the output here.

    The store, claims and attempts are those of every other run. An interrupt saves a checkpoint and ends it. What has
    failed is executed however often it did.
    Raises what `submit` raises.
    """
    root, begun = root.absolute(), time.monotonic()
    submission = _enter(plan, root, 1, over_limit, only, say, prepare, True, cluster="debug")
    left = to_do(plan, root, only)
    if submission is None:
        return SubmissionSummary(before=len(plan.runs) - len(left), outcomes=set_aside(plan, root, left, True))
    summary = SubmissionSummary(before=len(plan.runs) - len(left))
    for run in left:
        say(f"{run.stage} {run.label} ({run.run_id})")
        outcome = work(root, run.spec, Options(submission=submission.id), execute=execute)
        summary.outcomes[run.run_id] = outcome
        say(f"{outcome.result}: {outcome.message}" if outcome.message else outcome.result)
        if outcome.result == "interrupted":
            summary.stopped_by = signal.SIGINT
            break
        if outcome.result == "blocked" and (parent := summary.outcomes.get(run.parent or "")) is not None:
            summary.outcomes[run.run_id] = Outcome(run.run_id, "blocked", cause=parent.result, message=outcome.message)
    summary.elapsed = time.monotonic() - begun
    return summary


def cancel(plan: Plan, root: Path) -> tuple[int, int]:
    """Stop the submissions of a study, and workers at its runs that have no submitter any more. Local ones only.

    Their workers save checkpoints; a later submit continues. Returns how many submitters and lone workers were told.
    """

    told = 0
    for submission in submissions(root):
        process = submission.process(root)
        if submission.study == plan.study.name and process is not None:
            told += process.signal(signal.SIGTERM)
    alone = 0
    for attempt in living(root, set(plan.by_id)).values():
        claim = attempt.claim
        # Those in jobs of SLURM end with their jobs, which may be another study's.
        if claim is not None and claim.job is None and (claim.submitter is None or claim.submitter.alive() is False):
            alone += claim.worker.signal(signal.SIGTERM)
    return told, alone


def main(arguments: Sequence[str] | None = None) -> int:
    """The detached supervisor: plain lines of progress on standard output, which is its log."""
    from .progress import PlainView

    root, name = arguments or sys.argv[1:]
    try:
        submission = load_submission(Path(root), name)
        runs = [planned(spec) for spec in submission.runs(Path(root))]
        submission.adopt(Path(root))
        with PlainView(sys.stdout) as view:
            summary = LocalScheduler(runs, Path(root), submission, observe=view, again=False).run()
        print(f"ended with exit code {summary.exit_code}", flush=True)
    except TokenlawError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
