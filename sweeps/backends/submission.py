"""Entering a submission: checks, frozen code, ledger. Every backend submits through this, so that all are checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from results import Store, UsageError
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.code_snapshot import CodeSnapshot, take_snapshot
from sweeps.record.ledger import Submission, check_writable, new_submission, open_submission

from .base import Request, Say


def check(request: Request) -> None:
    """Raise UsageError for what is wrong with a request, before anything is looked at."""
    if request.jobs is not None and request.jobs < 1:
        raise UsageError(f"--jobs = {request.jobs} is not allowed; allowed: 1 or more")
    if not request.over_limit:
        request.plan.check_limits(Store(request.root).results(request.plan.by_id))


def enter(
    request: Request,
    cluster: str,
    beginning: Sequence[PlannedRun],
    entered: Sequence[PlannedRun],
    files: Mapping[str, bytes] | None = None,
) -> Submission:
    """Check the root and the data, freeze the code, and write the ledger.

    beginning  what is to be begun: what it needs is fetched now
    entered    what the ledger lists, such as runs that are waited for as well
    files      further files of the entry, by their names below its folder
    Raises UsageError before anything but a probe is written, StoreError if the root cannot be written.
    """
    root, study = request.root, request.plan.study
    check_writable(root)
    request.prepare(beginning, request.say)
    frozen = freeze(request, entered)
    submission = new_submission(
        study.name, request.jobs or 0, cluster=cluster, snapshot=frozen.name, retry=request.retry,
        retries=study.limits.retries, worker=request.worker,
    )  # fmt: skip
    return open_submission(root, submission, [run.spec for run in entered], files)


def freeze(request: Request, runs: Sequence[PlannedRun]) -> CodeSnapshot:
    """The snapshot of the code for these runs of a plan. Raises UsageError, StoreError."""
    study = Path(request.plan.study.source)
    commands = {run.spec.trainer for run in runs if run.spec.trainer is not None}
    return take_snapshot(request.root, study if study.is_file() else None, commands)


def prepare_training(runs: Sequence[PlannedRun], say: Say) -> None:
    """See that the workers will find torch and the images, so that one clear error comes before many failed runs.

    Raises UsageError.
    """
    ours = [run for run in runs if run.spec.trainer is None]
    for package in ("torch", "safetensors") if ours else ():
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"training needs {package}, which is not installed; pip install '.[train]' in the clone")
    from scaling.data.sources import locate

    for name in sorted({str(run.facts["data"]) for run in ours}):
        locate(name, say)
