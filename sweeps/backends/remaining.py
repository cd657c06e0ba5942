"""What is left of a plan, and what may happen to it: ready, under way, left alone after its failures, or blocked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from results import Store
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.dependencies import blocked_by, blocking
from sweeps.record.outcome import Outcome

from .base import Request
from .policy import Failures, unwritable


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
                outcome = _without_tokenizer(
                    run, plan.by_id[parent], sorted_runs.aside.get(parent), parent in unreachable
                )
        if outcome is not None:
            sorted_runs.aside[run_id] = outcome
        else:
            sorted_runs.ready[run_id] = parent if parent in plan.by_id and parent not in results else None
    return sorted_runs


def _without_tokenizer(run: PlannedRun, parent: PlannedRun, end: Outcome | None, unreachable: bool) -> Outcome:
    if unreachable:
        reason = "is being trained outside of this cluster; submit again when it is done"
        return Outcome(run.run_id, "blocked", cause="running", message=f"its tokenizer {parent.label} {reason}")
    if end is None:
        return Outcome(run.run_id, "blocked", cause="missing", message=f"its tokenizer {parent.label} is not done")
    return blocked_by(run.run_id, parent.label, end.result)
