"""Submitting, watching and cancelling from Python, as the command line does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sweeps.planning.plan import Plan

from .base import BACKENDS, Backend, Request, Say, Submitted, backend, silent
from .slurm.entries import cluster_view
from .standing import Observe, SubmissionSummary
from .status import RunStatus, collect
from .submission import prepare_training


def submit(
    plan: Plan,
    root: str | Path = "runs",
    cluster: str | Backend = "local",
    *,
    jobs: int | None = None,
    wait: bool = True,
    only: Collection[str] | None = None,
    retry: bool = False,
    over_limit: bool = False,
    observe: Observe = lambda standing: None,
    say: Say = silent,
) -> SubmissionSummary | Submitted:
    """Execute what is left of a plan: how that ended, or without `wait` what was handed over.

    root        where everything that is measured goes
    cluster     local, debug, slurm, or a backend of one's own
    jobs        most runs at a time; on SLURM, elements of an array
    only        ids of the runs to execute; None for all
    retry       failures count anew
    over_limit  exceed the study's caps on FLOPs and GPU-hours
    observe     called now and then with how it stands
    say         gets lines for people, such as progress of downloads
    Raises UsageError (limits, missing packages or data) before anything is written, StoreError if the root cannot be
    written, SlurmError if SLURM does not answer.
    """
    chosen = backend(cluster) if isinstance(cluster, str) else cluster
    request = Request(
        plan, Path(root), only, jobs, retry=retry, wait=wait, over_limit=over_limit, prepare=prepare_training, say=say
    )
    submitted = chosen.submit(request)
    return chosen.watch(request, submitted, observe) if wait else submitted


def status(plan: Plan, root: str | Path = "runs") -> list[RunStatus]:
    """How each run of a plan stands, in its order: in the store, here, and in the queue of the cluster.

    Raises StoreError for a damaged store.
    """
    return collect(plan, Path(root), cluster_view(Path(root)))


def cancel(plan: Plan, root: str | Path = "runs") -> list[str]:
    """Stop what is under way of a study, wherever it is; what was told to save and stop, in words.

    Raises StoreError, SlurmError.
    """
    return [told for name in BACKENDS if (told := backend(name).cancel(plan, Path(root)))]
