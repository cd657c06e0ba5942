"""What `tokenlaw plan` shows: runs by stage and size with their costs, for people, as JSON, and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from scaling.specification.costs.flops import regulariser_overhead, tokenizer_costs
from scaling.specification.spec import TokenizerRun
from sweeps import text
from sweeps.backends.slurm.arrays import arrange
from sweeps.planning.costs import (
    SOURCES,
    Cost,
    artifact_bytes,
    artifact_files,
    checkpoint_bytes,
    costs,
    state_bytes,
    unit_of,
)
from sweeps.planning.overlap import gaps
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.study.hardware import Hardware

from .views import by_size

if TYPE_CHECKING:
    from results.store.run_set import StoredRun
    from sweeps.backends.status import RunStatus

NOTES_SHOWN = 8
DEVICES = ("a100-80gb", "h100-80gb")
"""Profiles for which hours are said where a study asks for GPUs."""
RESULTS = ("done", "diverged")
COLUMNS = (
    "id", "label", "stage", "size", "status", "parents", "params_total", "params_non_embedding", "train_images",
    "flops", "path_flops", "flops_per_token_forward", "flops_per_token", "flops_head_share", "hours", "hours_unit",
    "hours_from", "checkpoint_bytes", "artifact_bytes", "gpus", "nodes", "cpus_per_task", "memory_gb", "hours_limit",
    "partition", "account", "qos", "constraint", "options", "microbatch", "threads",
)  # fmt: skip


@dataclass(frozen=True)
class PlanTable:
    """Plans of one or several studies with costs and statuses; a run that several share is in it once.

    statuses  of the runs of the united plan, in its order
    results   what the store says of them
    notices   what else people should know
    """

    plans: Sequence[Plan]
    united: Plan
    statuses: Sequence[RunStatus]
    results: Mapping[str, StoredRun]
    hardware: Hardware | None
    notices: Sequence[str] = ()

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Hours by run id."""
        return costs(self.united.runs, self.hardware, self.results)

    @property
    def unit(self) -> str:
        """GPU or core: whose hours are counted."""
        return unit_of(self.united.runs, self.hardware)

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """One row a stage and size, tokenizers first."""
        return [self._group(stage, size, statuses) for (stage, size), statuses in by_size(self.statuses).items()]

    def _group(self, stage: str, size: str, members: Sequence[RunStatus]) -> dict[str, Any]:
        runs = [member.run for member in members]
        parameters = [run.parameters for run in runs if run.parameters is not None]
        counts = Counter(member.status for member in members)
        shares = [share for run in runs if (share := run.head_share) is not None]
        hours = [self.costs[run.run_id] for run in runs]
        return {
            "stage": stage,
            "size": size,
            "runs": len(members),
            "done": counts["done"] + counts["diverged"],
            "running": counts["running"],
            "failed": counts["failed"] + counts["missing"],
            "params_total": [min(parameters), max(parameters)] if parameters else None,
            "flops": sum(run.flops for run in runs),
            "flops_head_share": [min(shares), max(shares)] if shares else None,
            "hours": _sum(hours),
            "hours_from": dict(Counter(cost.source for cost in hours)),
            "checkpoint_bytes": sum(checkpoint_bytes(m.run) for m in members if m.status not in RESULTS),
            "artifact_bytes": sum(map(artifact_bytes, runs)),
            "artifact_files": sum(map(artifact_files, runs)),
            "gpus": [min(run.resources.gpus for run in runs), max(run.resources.gpus for run in runs)],
            "state_bytes": max(map(state_bytes, runs)),
        }

    @property
    def on_gpus(self) -> bool:
        """Whether any run asks for GPUs."""
        return any(run.resources.gpus for run in self.united.runs)

    @cached_property
    def totals(self) -> dict[str, Any]:
        """Sums over all runs, and over those without a result."""
        finished = {status.run.run_id for status in self.statuses if status.status in RESULTS}
        left = [cost for run_id, cost in self.costs.items() if run_id not in finished]
        return self.united.totals(finished) | {
            "jobs": _jobs(self.united.runs),
            "jobs_left": _jobs([run for run in self.united.runs if run.run_id not in finished]),
            "hours": _sum(self.costs.values()),
            "hours_left": _sum(left),
            "hours_unit": self.unit,
            "checkpoint_bytes": sum(group["checkpoint_bytes"] for group in self.groups),
            "artifact_bytes": sum(group["artifact_bytes"] for group in self.groups),
            "artifact_files": sum(group["artifact_files"] for group in self.groups),
            "hours_by_device": self._hours_by_device(),
            "runs_of_each": {plan.study.name: len(plan.runs) for plan in self.plans},
        }

    @property
    def over_limits(self) -> list[str]:
        """What `submit` would refuse, for each study."""
        return [message for plan in self.plans if (message := plan.over_limit(self.results, self.hardware))]

    @property
    def notes(self) -> list[str]:
        """What people should know of the runs, such as points of an IsoFLOP grid left out."""
        of_studies = (note for plan in self.plans for note in plan.study.notes)
        return list(dict.fromkeys([*self.notices, *of_studies, *gaps(self.united.runs)]))

    def as_json(self) -> dict[str, Any]:
        """The machine form."""
        names = [plan.study.name for plan in self.plans]
        return {
            "study": names[0] if len(names) == 1 else None,
            "studies": names,
            "hardware": self.hardware.described if self.hardware else None,
            "runs": [self._run(status) for status in self.statuses],
            "groups": self.groups,
            "totals": self.totals,
            "over_limits": self.over_limits,
            "notes": self.notes,
        }

    def _run(self, status: RunStatus) -> dict[str, Any]:
        run, cost = status.run, self.costs[status.run.run_id]
        return run.as_json() | {
            "status": status.status,
            "hours": cost.hours,
            "hours_unit": self.unit,
            "hours_from": cost.source,
            "checkpoint_bytes": checkpoint_bytes(run),
            "artifact_bytes": artifact_bytes(run),
            "artifact_files": artifact_files(run),
            "state_bytes": state_bytes(run),
            **_parts(run),
        }

    def _hours_by_device(self) -> dict[str, float]:
        """Hours of all training on the devices that such grids run on; empty without GPUs and a profile of one."""
        if not self.on_gpus or self.hardware is None or self.hardware.device.device != "gpu":
            return {}
        return {name: self.united.flops / self.hardware.on(name).rate / 3600 for name in DEVICES}

    def as_csv(self) -> str:
        """One line a run, with a header; lists are separated by spaces."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for status in self.statuses:
            asked = status.run.resources
            options = " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in asked.options)
            values = self._run(status)
            # `hours` of the resources is the time limit; the run's own hours are what it costs.
            values = asked.model_dump() | values | {"gpus": asked.gpus, "options": options, "hours_limit": asked.hours}
            # Only generators have a head, and FLOPs of a token.
            cells = (values.get(name) for name in COLUMNS)
            writer.writerow(" ".join(map(str, cell)) if isinstance(cell, list) else cell for cell in cells)
        return out.getvalue()

    def in_words(self) -> str:
        """The table for people, and the sums."""
        rows = []
        for group in self.groups:
            low, high = map(text.count, group["params_total"] or (0, 0))
            rows.append([
                group["stage"], group["size"], *(str(group[name]) for name in ("runs", "done", "running", "failed")),
                "-" if group["params_total"] is None else low if low == high else f"{low} - {high}",
                text.flops(group["flops"]) if group["flops"] else "-", _hours(group["hours"]),
                text.size(group["checkpoint_bytes"]), text.size(group["artifact_bytes"]),
                *self._of_gpus(group),
            ])  # fmt: skip
        header = ["stage", "size", "runs", "done", "running", "failed", "parameters", "FLOPs", f"{self.unit}-hours",
                  "checkpoints", "kept", *(("files", "GPUs", "GPU state") if self.on_gpus else ())]  # fmt: skip
        lines = [self._headline(), text.table(header, rows), *self._sentences()]
        return "\n".join(lines)

    def _of_gpus(self, group: Mapping[str, Any]) -> list[str]:
        """Cells of a group where GPUs are asked for: files kept, GPUs of a run, and memory of each for its state."""
        if not self.on_gpus:
            return []
        low, high = group["gpus"]
        gpus = str(low) if low == high else f"{low} - {high}"
        return [f"{group['artifact_files']:,}", gpus, text.size(group["state_bytes"])]

    def _heads(self) -> list[str]:
        """What output heads take of generators' training FLOPs, in one line; none without generators of ours."""
        spans = {group["size"]: group["flops_head_share"] for group in self.groups if group["flops_head_share"]}
        words = {size: [f"{100 * share:.3g}" for share in span] for size, span in spans.items()}
        listed = ", ".join(f"{size} {low if low == high else f'{low} to {high}'} %"
                           for size, (low, high) in words.items())  # fmt: skip
        return [f"output head's share of training FLOPs: {listed}"] if listed else []

    def _overheads(self) -> list[str]:
        """What regularisers cost in training, in one line; none where no tokenizer has one."""
        specs = [run.spec for run in self.united.runs]
        shares = [regulariser_overhead(spec) for spec in specs if isinstance(spec, TokenizerRun) and spec.regulariser]
        if not shares:
            return []
        low, high = (f"{100 * share:.3g}" for share in (min(shares), max(shares)))
        return [f"regulariser: {low if low == high else f'{low} to {high}'} % on top of its tokenizer's training FLOPs"]

    def _headline(self) -> str:
        if len(self.plans) == 1:
            study = self.plans[0].study
            return f"{study.name}: {study.about.description}".rstrip(": ")
        listed = ", ".join(f"{plan.study.name} ({len(plan.runs):,})" for plan in self.plans)
        shared = sum(len(plan.runs) for plan in self.plans) - len(self.united.runs)
        return f"{listed}: {len(self.united.runs):,} runs, {shared:,} of them shared"

    def _sentences(self) -> list[str]:
        totals, unit = self.totals, f"{self.unit}-hours"
        kinds = (("tokenizers", "tokenizer", ""), ("generators", "generator", ""), ("others", "run", " of no stage"))
        counted = [f"{totals[key]:,} {name}{'s' * (totals[key] != 1)}{more}" for key, name, more in kinds
                   if totals[key]]  # fmt: skip
        # Of runs of no stage nothing is known but their time.
        flops, left = (
            f"{text.flops(totals[key])} FLOPs, " if totals["flops"] else "" for key in ("flops", "flops_left")
        )
        packed = any(run.resources.pack > 1 for run in self.united.runs)
        jobs, jobs_left = (f" in {totals[key]:,} jobs" if packed else "" for key in ("jobs", "jobs_left"))
        lines = [
            f"{' and '.join(counted)}{jobs}: {flops}{_hours(totals['hours'])} {unit};"
            f" left: {totals['runs_left']:,} runs{jobs_left}, {left}{_hours(totals['hours_left'])} {unit}"
        ]
        lines += self._heads()
        sources = Counter(cost.source for cost in self.costs.values())
        said = {"profile": f"{self.hardware.described}, training alone" if self.hardware else ""}
        shown = [f"{said.get(source) or SOURCES[source]} ({number:,} runs)" for source, number in sources.items()]
        lines.append(f"{unit} from {'; '.join(shown)}")
        lines.append(
            f"disk: up to {text.size(totals['checkpoint_bytes'])} of checkpoints if all that is left ran at once, "
            f"{text.size(totals['artifact_bytes'])} kept in the end"
        )
        if by_device := totals["hours_by_device"]:
            assert self.hardware is not None
            said_of = ", ".join(
                f"{_hours(took)} on {self.hardware.on(name).described}" for name, took in by_device.items()
            )
            lines.append(f"GPU-hours of training: {said_of}; GPU state is weights, gradients and moments, activations "
                         "come on top")  # fmt: skip
        lines += self._overheads()
        notes = self.notes
        lines += [f"note: {note}" for note in notes[:NOTES_SHOWN]]
        lines += [f"note: and {len(notes) - NOTES_SHOWN:,} more like these"] if len(notes) > NOTES_SHOWN else []
        lines += [f"over its limit: {message}" for message in self.over_limits]
        return lines


def _sum(costs: Iterable[Cost]) -> float | None:
    """Sum of hours; None if one of them is not known."""
    hours = [cost.hours for cost in costs]
    known = [hour for hour in hours if hour is not None]
    return sum(known) if len(known) == len(hours) else None


def _jobs(runs: Sequence[PlannedRun]) -> int:
    """Jobs of a cluster that these runs are, by their packs, if nothing is in its queue yet."""
    ids = {run.run_id for run in runs}
    waits = {run.run_id: run.parent if run.parent in ids else None for run in runs}
    return sum(array.jobs for array in arrange(runs, {run.run_id: run.resources for run in runs}, waits, 10**9))


def _parts(run: PlannedRun) -> dict[str, Any]:
    """What a tokenizer's training FLOPs of one image are spent on, such as the discriminator; empty for other runs."""
    spec = run.spec
    return {"flops_per_image_by_part": asdict(tokenizer_costs(spec))} if isinstance(spec, TokenizerRun) else {}


def _hours(hours: float | None) -> str:
    if hours is None:
        return "-"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
