"""A submission: what is left of a plan and may begin, checks, frozen code, ledger.

Every backend submits through this, so that all are checked.
"""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from results import Store, UsageError
from scaling.data.sources import locations, weights
from scaling.specification.run_columns import missing_package
from scaling.specification.spec import DataSpec
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.code_snapshot import take_snapshot
from sweeps.record.dependencies import blocked_by, blocking
from sweeps.record.ledger import Submission, check_writable, new_submission, open_submission
from sweeps.record.outcome import Outcome
from sweeps.study.external_run import ExternalRun
from sweeps.study.own_pictures import check_seen
from sweeps.study.sections import Trackers

from .base import Request, Say
from .policy import Failures, unwritable


def check(request: Request) -> None:
    """Raise UsageError for what is wrong with a request, before anything is looked at."""
    if request.jobs is not None and request.jobs < 1:
        raise UsageError(f"--jobs = {request.jobs} is not allowed; allowed: 1 or more")
    check_seen(run.spec for run in request.plan.runs)
    check_trackers(request.plan.study.trackers)
    if not request.over_limit:
        request.plan.check_limits(Store(request.root).results(request.plan.by_id))


def check_trackers(trackers: Trackers) -> None:
    """Raise UsageError for a tracker whose package, or whose account, is not there."""
    for name in trackers.names:
        if importlib.util.find_spec(name) is None:
            value = getattr(trackers, name)
            raise UsageError(
                f"trackers.{name} = {value!r} needs the package {name}, which is not installed; "
                f"allowed: with pip install '.[{name}]' in the clone"
            )
    if trackers.wandb == "online" and os.environ.get("WANDB_MODE") != "offline" and not _has_wandb_key():
        raise UsageError(
            "trackers.wandb = 'online' has no account: neither $WANDB_API_KEY nor a .netrc names one; allowed: after "
            "`wandb login`, or 'offline'"
        )


def _has_wandb_key() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


@dataclass
class Remaining:
    """The runs of a request that have no result.

    results    status in the store of the plan's runs that have a result, by id
    ready      what may begin, every tokenizer before its generators, with the tokenizer that it must wait for (None:
               that is done)
    under_way  what somebody works on
    aside      what does not begin, as outcomes with the reason
    """

    results: dict[str, str]
    failures: Failures
    ready: dict[str, str | None] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    aside: dict[str, Outcome] = field(default_factory=dict)


def remaining(
    request: Request, under_way: Collection[str] = (), unreachable: Collection[str] = (), *, unattended: bool = False
) -> Remaining:
    """Sort what is left of a request. Raises StoreError.

    under_way    ids of runs that somebody works on, and that are not begun again
    unreachable  those among them whose end the backend cannot wait for, so that their generators are blocked
    unattended   runs that met a root that cannot be written are left alone in the end, since nobody is told at once
    """
    plan, root = request.plan, request.root
    store = Store(root)
    results = {run_id: stored.status for run_id, stored in store.results(plan.by_id).items()}
    left = {run_id: run for run_id, run in request.runs.items() if run_id not in results}
    failures = Failures(root, left, plan.study.limits.retries, plan.study.folder)
    sorted_runs = Remaining(results, failures)
    weights: dict[str, str | None] = {}
    """Why a tokenizer that has a result, or is not of this plan, cannot be used; looked up once."""
    for run_id, run in left.items():
        parent = run.parent
        if run_id in under_way:
            sorted_runs.under_way.add(run_id)
            continue
        outcome = None
        if not request.retry:
            outcome = failures.left_alone(run_id)
            if outcome is None and unattended:
                outcome = unwritable(root, run_id, failures.retries)
        if outcome is None and parent is not None:
            if parent in results or parent not in plan.by_id:
                if parent not in weights:
                    weights[parent] = blocking(store, run.spec)
                if (reason := weights[parent]) is not None:
                    outcome = Outcome(run_id, "blocked", cause=results.get(parent, "missing"), message=reason)
            elif parent in unreachable or not (parent in sorted_runs.ready or parent in under_way):
                outcome = _without_tokenizer(run, plan.by_id[parent], sorted_runs.aside.get(parent), unreachable)
        if outcome is not None:
            sorted_runs.aside[run_id] = outcome
        else:
            sorted_runs.ready[run_id] = parent if parent in plan.by_id and parent not in results else None
    return sorted_runs


def _without_tokenizer(
    run: PlannedRun, parent: PlannedRun, end: Outcome | None, unreachable: Collection[str]
) -> Outcome:
    if end is not None and parent.run_id not in unreachable:
        return blocked_by(run.run_id, parent.label, end.result)
    cause, state = "missing", "is not done"
    if parent.run_id in unreachable:
        cause, state = "running", "is being trained outside of this cluster; submit again when it is done"
    return Outcome(run.run_id, "blocked", cause=cause, message=f"its tokenizer {parent.label} {state}")


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
    for fingerprint, location in study.locations.items():
        locations.remember(root / locations.FOLDER, fingerprint, location)
        if location.source == "stamps" and beginning:
            compose_stamps(location.path, request.say)
    for fingerprint, path in study.weights.items():
        weights.remember(root / weights.FOLDER, fingerprint, path)
    source = Path(study.source)
    commands = {run.spec.trainer for run in entered if run.spec.trainer is not None}
    frozen = take_snapshot(root, source if source.is_file() else None, commands)
    submission = new_submission(
        study.name, request.jobs or 0, cluster=cluster, snapshot=frozen.name, retry=request.retry,
        retries=study.limits.retries, worker=request.worker,
        trackers=study.trackers.model_dump_json() if study.trackers.names else "",
    )  # fmt: skip
    return open_submission(root, submission, [run.spec for run in entered], files)


def compose_stamps(path: str, say: Say) -> None:
    """See that a set of the built-in pictures is there, so that workers need not wait. Raises DataError."""
    from scaling.data.sources.builtin.stamps import composed
    from scaling.data.sources.kept import cache_folder

    composed(path, cache_folder(), say)


def prepare_training(runs: Sequence[PlannedRun], say: Say) -> None:
    """See that the workers will find torch and the images, so that one clear error comes before many failed runs.

    Raises UsageError.
    """
    ours = [run for run in runs if run.spec.trainer is None]
    for package in ("torch", "safetensors") if ours else ():
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"training needs {package}, which is not installed; pip install '.[train]' in the clone")
    for run in ours:
        if not isinstance(run.spec, ExternalRun) and (lacking := missing_package(run.spec)):
            raise UsageError(f"{run.label}: {lacking}")
    from scaling.data.sources.builtin.catalogue_files import locate

    data = [run.spec.tokenizer.data for run in ours if not isinstance(run.spec, ExternalRun)]
    for name in sorted({images.name for images in data if isinstance(images, DataSpec)}):
        locate(name, say)
