"""In which order runs are best begun, and how long they take at the least. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .planned_run import PlannedRun


def priorities(runs: Iterable[PlannedRun], jobs: int) -> dict[str, float]:
    """For each run id the seconds of work that wait for it, its own included: what has most goes first.

    With unlimited workers that is the critical path: own time plus the longest dependent. With few workers the sum of
    what a tokenizer holds back counts as well, shared by the workers.
    """
    listed = list(runs)
    behind: dict[str, list[float]] = {}
    for run in listed:
        if run.parent:
            behind.setdefault(run.parent, []).append(run.seconds)
    return {
        run.run_id: run.seconds + max((max(after), sum(after) / max(jobs, 1)), default=0.0)
        if (after := behind.get(run.run_id))
        else run.seconds
        for run in listed
    }


def makespan(remaining: Mapping[str, float], parents: Mapping[str, str | None], jobs: int) -> float:
    """Lower bound of the wall time of this work on `jobs` workers: all of it shared evenly, or its longest chain.

    `remaining` holds the seconds left of each run that is not finished, `parents` what each waits for.
    """
    if not remaining:
        return 0.0
    chain = max(seconds + remaining.get(parents.get(run) or "", 0.0) for run, seconds in remaining.items())
    return max(sum(remaining.values()) / max(jobs, 1), chain)
