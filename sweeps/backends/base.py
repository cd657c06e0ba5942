"""What a backend is: it is handed what is left of a plan, it can be watched, and told to stop. Those there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol

from results.errors import UsageError
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.ledger import Submission
from sweeps.record.outcome import Outcome

from .standing import Observe, SubmissionSummary

Say = Callable[[str], None]
Prepare = Callable[[Sequence[PlannedRun], Say], None]


def silent(line: str) -> None:
    """Say nothing."""


def prepared(runs: Sequence[PlannedRun], say: Say) -> None:
    """Prepare nothing: whoever asks has done so."""


@dataclass(frozen=True)
class Request:
    """What a backend is asked for.

    only        ids of the runs to execute; None for all
    jobs        most runs (on a cluster: jobs of an array) at a time; None: the cores of this machine, or no cap there
    retry       failures count anew
    again       whoever watches stays with what fails, and tries it again as often as the study grants
    wait        the process that submits stays to watch
    over_limit  exceed the study's caps on FLOPs and GPU-hours
    worker      the command of a worker process, without its options; () for ours
    prepare     called with what is to begin before anything is written; raises UsageError
    say         gets lines for people
    """

    plan: Plan
    root: Path
    only: Collection[str] | None = None
    jobs: int | None = None
    retry: bool = False
    again: bool = True
    wait: bool = True
    over_limit: bool = False
    worker: tuple[str, ...] = ()
    prepare: Prepare = prepared
    say: Say = silent

    @cached_property
    def runs(self) -> dict[str, PlannedRun]:
        """The runs that are asked for, by id, every tokenizer before its generators."""
        return {run_id: run for run_id, run in self.plan.by_id.items() if self.only is None or run_id in self.only}


@dataclass
class Submitted:
    """What a submission did.

    before      runs that had a result before
    submission  its entry in the ledger; None if nothing was begun
    queued      runs that were handed over, in `jobs` jobs of `arrays` arrays (0 where there are no jobs)
    under_way   runs that somebody works on already, or that were in the queue
    aside       runs that are not begun, with the reason: failed too often, refused by the cluster, or their tokenizer
                will not come
    waiting     runs that the cluster has no room for yet, with its reason; the next submit goes on with them
    """

    before: int = 0
    submission: Submission | None = None
    queued: int = 0
    jobs: int = 0
    arrays: int = 0
    under_way: int = 0
    aside: dict[str, Outcome] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 if some run is left alone because it failed, or was refused."""
        return int(any(outcome.result == "failed" for outcome in self.aside.values()))


class Backend(Protocol):
    """Where runs are executed. Any class with these members will do; see docs/design.md."""

    name: str
    """As --cluster and the ledger name it."""

    def submit(self, request: Request) -> Submitted:
        """Enter what is left of the request into the ledger, and hand it over. Twice, it does nothing.

        Raises UsageError (limits, missing packages or data) before anything is written, StoreError if the root cannot
        be written.
        """

    def watch(self, request: Request, submitted: Submitted, observe: Observe) -> SubmissionSummary:
        """Stay until nothing of the request is under way; `observe` is called now and then. Raises StoreError."""

    def cancel(self, plan: Plan, root: Path) -> str:
        """Stop what is under way of a study, which saves checkpoints; what was told to stop, in words, or ""."""


BACKENDS = {
    "local": "sweeps.backends.local:LocalBackend",
    "debug": "sweeps.backends.debug:DebugBackend",
    "slurm": "sweeps.backends.slurm.backend:SlurmBackend",
}
"""Imported when they are asked for. A further one is a line here."""


def backend(name: str) -> Backend:
    """The backend of that name. Raises UsageError for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"--cluster = {name!r} is not allowed; allowed: {', '.join(BACKENDS)}")
    module, _, kind = BACKENDS[name].partition(":")
    chosen: Backend = getattr(import_module(module), kind)()
    return chosen
