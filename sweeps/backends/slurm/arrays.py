"""From runs to arrays of jobs: what shares a job and an array, in which order, and what an array waits for. Pure.

A job is one run, or a pack of `resources.pack` runs. Tokenizers of one resource shape share an array. Generators of one
tokenizer and one shape share an array, which waits for the job of that tokenizer alone, so that they start as soon as
it is done, whatever the others do; where generators are packed, those of all tokenizers of one job share an array.
Generators whose tokenizer is in the store wait for nothing, and share an array by shape. No array is larger than the
cluster takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeps.planning.order import priorities
from sweeps.planning.planned_run import PlannedRun
from sweeps.study.resources import Resources


@dataclass(frozen=True)
class Array:
    """Runs that become one array of jobs.

    number      its place in the submission
    members     ids of the runs, in the order of their jobs: `resources.pack` of them are one job
    resources   what each job gets
    parent      id of a tokenizer run whose job must end first; None for none
    lines       where the runs stand among those of the submission, from 0
    """

    number: int
    members: tuple[str, ...]
    resources: Resources
    parent: str | None = None
    lines: tuple[int, ...] = ()

    @property
    def jobs(self) -> int:
        """Elements of the array."""
        return math.ceil(len(self.members) / self.resources.pack)

    @property
    def packs(self) -> list[tuple[str, ...]]:
        """The runs of each job, in the order of the indices."""
        size = self.resources.pack
        return [self.members[begin : begin + size] for begin in range(0, len(self.members), size)]

    def as_json(self) -> dict[str, Any]:
        """The form in the ledger."""
        resources = self.resources.model_dump(mode="json") | {"options": dict(self.resources.options)}
        return vars(self) | {"resources": resources}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Array:
        """The inverse of `as_json`. Raises LookupError, TypeError, ValueError for anything else."""
        resources = Resources.model_validate(values["resources"])
        number, members, lines = int(values["number"]), tuple(values["members"]), tuple(values["lines"])
        return cls(number, members, resources, values["parent"], lines)

    def split(self, jobs: int, number: int) -> tuple[Array, Array]:
        """Its first `jobs` elements, and the rest as an array of the given number."""
        size = jobs * self.resources.pack
        first = replace(self, members=self.members[:size], lines=self.lines[:size])
        return first, replace(self, number=number, members=self.members[size:], lines=self.lines[size:])


def arrange(
    runs: Iterable[PlannedRun],
    resources: Mapping[str, Resources],
    waits: Mapping[str, str | None],
    largest: int,
    queued: Mapping[str, str] | None = None,
) -> list[Array]:
    """The arrays for all runs of a submission, every tokenizer before its generators, most work behind it first.

    resources   by run id
    waits       by run id: the tokenizer run to wait for; None for nothing
    largest     elements that an array may have
    queued      jobs of tokenizers that are in the queue already, by run id
    """
    listed = list(runs)
    line = {run.run_id: number for number, run in enumerate(listed)}
    urgency = priorities(listed, jobs=1)
    by_urgency = sorted(listed, key=lambda run: -urgency[run.run_id])
    arrays: list[Array] = []
    job_of: dict[str, object] = dict(queued or {})
    """What tells the jobs of tokenizers apart."""
    for with_parent in (False, True):
        groups: dict[tuple[Resources, object], list[PlannedRun]] = {}
        for run in by_urgency:
            if (run.parent is not None) == with_parent:
                shape, parent = resources[run.run_id], waits[run.run_id]
                job = parent if parent is None or shape.pack == 1 else job_of.get(parent, parent)
                groups.setdefault((shape, job), []).append(run)
        for (shape, _), members in groups.items():
            for begin in range(0, len(members), largest * shape.pack):
                chunk = tuple(run.run_id for run in members[begin : begin + largest * shape.pack])
                array = Array(len(arrays), chunk, shape, waits[chunk[0]], tuple(line[run_id] for run_id in chunk))
                arrays.append(array)
                job_of |= {run_id: (array.number, index) for index, pack in enumerate(array.packs) for run_id in pack}
    return arrays
