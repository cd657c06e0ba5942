"""From runs to arrays of jobs: what shares an array, in which order, and what an array must wait for. Pure.

Tokenizers of one resource shape share an array. Generators of one tokenizer and one shape share an array, which waits
for that tokenizer alone, so that they start as soon as it is done, whatever the others do. Generators whose tokenizer
is in the store wait for nothing, and share an array by shape. No array is larger than the cluster takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeps.planning.plan import priorities
from sweeps.planning.planned_run import PlannedRun
from sweeps.study.resources import Resources


@dataclass(frozen=True)
class Array:
    """Runs that become one array of jobs.

    number      its place in the submission
    members     ids of the runs, in the order of their indices
    resources   what each job gets
    parent      id of the tokenizer run that must be done first; None for none
    """

    number: int
    members: tuple[str, ...]
    resources: Resources
    parent: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The form in the ledger."""
        resources = self.resources.model_dump(mode="json") | {"options": dict(self.resources.options)}
        return {"number": self.number, "members": self.members, "resources": resources, "parent": self.parent}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Array:
        """The inverse of `as_json`. Raises LookupError, TypeError, ValueError for anything else."""
        return cls(
            int(values["number"]), tuple(values["members"]), Resources.model_validate(values["resources"]),
            values["parent"],
        )  # fmt: skip

    def split(self, size: int, number: int) -> tuple[Array, Array]:
        """Its first `size` elements, and the rest as an array of the given number."""
        first = replace(self, members=self.members[:size])
        return first, replace(self, number=number, members=self.members[size:])


def arrange(
    runs: Iterable[PlannedRun], resources: Mapping[str, Resources], waits: Mapping[str, str | None], largest: int
) -> list[Array]:
    """The arrays for these runs, every tokenizer before its generators, what has most work behind it first.

    resources   by run id
    waits       by run id: the tokenizer run to wait for; None for nothing
    largest     elements that an array may have
    """
    listed = list(runs)
    urgency = priorities(listed, jobs=1)
    groups: dict[tuple[bool, Resources, str | None], list[PlannedRun]] = {}
    for run in sorted(listed, key=lambda run: -urgency[run.run_id]):
        parent = waits[run.run_id]
        groups.setdefault((run.parent is not None, resources[run.run_id], parent), []).append(run)
    found: list[Array] = []
    for (_, shape, parent), members in sorted(groups.items(), key=lambda group: group[0][0]):
        for begin in range(0, len(members), largest):
            chunk = tuple(run.run_id for run in members[begin : begin + largest])
            found.append(Array(len(found), chunk, shape, parent))
    return found
