"""Where a submission stands, for whoever shows it, and how it ended: one that waits, here or for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import Heartbeat
from sweeps.record.outcome import Outcome


@dataclass(frozen=True)
class Working:
    """A run that is being worked on: by a worker of this scheduler, or elsewhere."""

    run: PlannedRun
    heartbeat: Heartbeat
    elsewhere: bool
    seconds_left: float


@dataclass(frozen=True)
class Standing:
    """Where a submission stands, for whoever shows it. Seconds are estimates, corrected by what was measured."""

    total: int
    done: int
    failed: int
    blocked: int
    working: tuple[Working, ...]
    seconds_done: float
    seconds_total: float
    eta: float
    elapsed: float
    stopping: bool
    news: tuple[str, ...]
    """Lines on runs that failed, diverged or were left by a dead submitter since the last snapshot."""


@dataclass
class SubmissionSummary:
    """How a submission ended: outcomes of the runs that it dealt with, by run id."""

    before: int = 0
    """Runs that had a result before."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stopped_by: int | None = None
    """The signal that stopped it; None if it came to its end."""
    jobs_go_on: bool = False
    """Whether what was under way goes on after the process that watched has ended, as jobs of a cluster do."""
    elapsed: float = 0.0

    def count(self, result: str) -> int:
        """Number of runs that ended so."""
        return sum(outcome.result == result for outcome in self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """0 if nothing is left that could run; 1 after failures; 128 + signal when stopped."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        bad = any(o.result in ("failed", "interrupted", "storage") for o in self.outcomes.values())
        # What waits for a tokenizer that diverged can never run: that is a result of the study, not a failure.
        return int(bad or any(o.result == "blocked" and o.cause != "diverged" for o in self.outcomes.values()))


Observe = Callable[[Standing], None]
