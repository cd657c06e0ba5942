"""The plan of a study: its runs with their dependencies and costs, and an order of execution. Pure; submits nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from results.errors import UsageError
from sweeps.study.external_run import shared_seconds
from sweeps.study.hardware import Hardware
from sweeps.study.study import Study

from .costs import SOURCES, costs
from .planned_run import PlannedRun, planned

if TYPE_CHECKING:
    from results.store.run_set import StoredRun


@dataclass(frozen=True)
class Plan:
    """The runs of a study, each once, every tokenizer before its generators."""

    study: Study
    runs: tuple[PlannedRun, ...]

    @cached_property
    def by_id(self) -> dict[str, PlannedRun]:
        """The runs by id."""
        return {run.run_id: run for run in self.runs}

    @cached_property
    def dependents(self) -> dict[str, list[PlannedRun]]:
        """For each run id, the runs that need it."""
        dependents: dict[str, list[PlannedRun]] = {run.run_id: [] for run in self.runs}
        for run in self.runs:
            if run.parent:
                dependents[run.parent].append(run)
        return dependents

    @property
    def flops(self) -> float:
        """Training FLOPs of all runs."""
        return sum(run.flops for run in self.runs)

    def over_limit(self, results: Mapping[str, StoredRun] | None = None, hardware: Hardware | None = None) -> str:
        """By what the study exceeds its caps on FLOPs and GPU-hours; "" if it does not.

        `results`, what the store says of its runs, makes the hours those that were measured; `hardware` replaces the
        study's profile.
        """
        limits, name = self.study.limits, self.study.name
        if limits.flops is not None and self.flops > limits.flops:
            return f"study {name} costs {self.flops:.3g} training FLOPs; allowed by limits.flops: {limits.flops:.3g}"
        if limits.gpu_hours is not None:
            estimates = costs(self.runs, hardware or self.study.hardware, results).values()
            hours = sum(cost.hours or 0.0 for cost in estimates)
            if hours > limits.gpu_hours:
                sources = ", ".join(sorted({SOURCES[cost.source] for cost in estimates}))
                return (
                    f"study {name} costs {hours:.4g} GPU-hours (from {sources}); "
                    f"allowed by limits.gpu_hours: {limits.gpu_hours:g}"
                )
        return ""

    def check_limits(self, results: Mapping[str, StoredRun] | None = None) -> None:
        """Raise UsageError if the study exceeds a cap on FLOPs or GPU-hours; see `over_limit`."""
        message = self.over_limit(results)
        if message:
            raise UsageError(f"{message} (--over-limit submits it all the same)")

    def totals(self, finished: Collection[str] = ()) -> dict[str, Any]:
        """Sums over the plan, and over what is left when the runs of `finished` have a result."""
        left = [run for run in self.runs if run.run_id not in finished]
        return {
            "runs": len(self.runs),
            "tokenizers": sum(run.stage == "tokenizer" for run in self.runs),
            "generators": sum(run.stage == "generator" for run in self.runs),
            "others": sum(run.stage == "run" for run in self.runs),
            "flops": self.flops,
            "estimated_seconds": sum(run.seconds for run in self.runs),
            "runs_left": len(left),
            "flops_left": sum(run.flops for run in left),
            "estimated_seconds_left": sum(run.seconds for run in left),
        }


def make_plan(study: Study) -> Plan:
    """The plan of a study. Raises SpecError for what is wrong with its runs."""
    runs, paid = [], set[str]()
    for spec in study.runs():
        run = planned(spec, study.resources.of(spec))
        key, seconds = shared_seconds(spec)
        runs.append(replace(run, seconds=run.seconds - seconds) if key in paid else run)
        paid.add(key)
    return Plan(study, tuple(runs))


def unite(plans: Sequence[Plan]) -> Plan:
    """The runs of several plans, each once, every tokenizer before its generators; the study is the first one's."""
    runs: dict[str, PlannedRun] = {}
    for run in (run for plan in plans for run in plan.runs):
        runs.setdefault(run.run_id, run)
    return plans[0] if len(plans) == 1 else Plan(plans[0].study, tuple(runs.values()))
