"""Where a submission stands, for whoever shows it, how long is left by what runs really took, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sweeps.planning.order import makespan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import Attempt, Heartbeat
from sweeps.record.outcome import Outcome
from sweeps.study.external_run import STAGES

ENDED = ("done", "diverged", "failed", "interrupted", "blocked", "storage")
ENOUGH = 0.1
"""Share of a run after which its own speed says more than the estimate."""


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


@dataclass(frozen=True)
class TimeLeft:
    """Corrected seconds of work: all of it, what is done of it, what is left by run; and wall seconds to the end."""

    total: float
    done: float
    left: Mapping[str, float]
    eta: float


class Clock:
    """Keeps what runs took, and how that compares with their estimates, for each stage."""

    def __init__(self, runs: Mapping[str, PlannedRun]) -> None:
        self._runs = runs
        self._here: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def measured(self, run_id: str, seconds: float, *, here: bool) -> None:
        """A run took so long; `here`: in this submission, on this machine and under its load."""
        (self._here if here else self._before)[run_id] = seconds

    def estimate(
        self, beats: Mapping[str, Heartbeat], results: Mapping[str, str], jobs: int, never: Collection[str] = ()
    ) -> TimeLeft:
        """What is left, given the heartbeats of the runs being worked on and how others ended.

        Of the runs that are `never` to begin as things are, the work counts in the total, and not in what is left.
        """
        ratios = self._ratios(beats)
        left: dict[str, float] = {}
        total = done = 0.0
        for run_id, run in self._runs.items():
            guess = run.seconds * ratios[run.stage]
            if run_id in results and results[run_id] in ENDED:
                took = self._here.get(run_id, guess)
                total, done = total + took, done + took
                continue
            beat = beats.get(run_id, Heartbeat())
            if beat.done >= ENOUGH:
                guess = (beat.elapsed + beat.elapsed_before) / beat.done
            total, done = total + guess, done + guess * beat.done
            if run_id in beats or run_id not in never:
                left[run_id] = max(guess * (1 - beat.done), 0.0)
        parents = {run_id: self._runs[run_id].parent for run_id in left}
        return TimeLeft(total, done, left, makespan(left, parents, jobs))

    def _ratios(self, beats: Mapping[str, Heartbeat]) -> dict[str, float]:
        """Measured over estimated seconds by stage; of the other stage, or of earlier submissions, where none is."""
        running = {run_id: beat for run_id, beat in beats.items() if beat.done >= ENOUGH}
        worked = {run_id: beat.elapsed + beat.elapsed_before for run_id, beat in running.items()}
        ratios: dict[str, float] = {}
        for measured in (self._here | worked, self._before | worked):
            for stage in STAGES:
                of_stage = [run_id for run_id in measured if self._runs[run_id].stage == stage]
                shares = {run_id: running[run_id].done if run_id in running else 1.0 for run_id in of_stage}
                estimated = sum(self._runs[run_id].seconds * share for run_id, share in shares.items())
                if estimated > 0:
                    ratios.setdefault(stage, sum(measured[run_id] for run_id in of_stage) / estimated)
        fallback = sum(ratios.values()) / len(ratios) if ratios else 1.0
        return {stage: ratios.get(stage, fallback) for stage in STAGES}


class Observed:
    """What a submission that waits tells of itself: to whoever observes it, now and then."""

    def __init__(self, runs: Mapping[str, PlannedRun], observe: Observe) -> None:
        self.clock = Clock(runs)
        self.news: list[str] = []
        """Lines for the next snapshot."""
        self._runs, self._observe, self._begun = runs, observe, time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    def show(
        self, attempts: Mapping[str, Attempt | None], results: Mapping[str, str], jobs: int, *,
        failed: int, blocked: int, elsewhere: Collection[str] = (), never: Collection[str] = (), stopping: bool = False,
    ) -> None:  # fmt: skip
        """Tell where it stands: the attempts being made at runs, some of them elsewhere, and how other runs ended.

        `jobs` and `never` as `Clock.estimate` takes them.
        """
        beats = {
            run_id: (attempt.heartbeat if attempt is not None else None) or Heartbeat()
            for run_id, attempt in attempts.items()
        }
        estimate = self.clock.estimate(beats, results, jobs, never)
        working = (
            Working(self._runs[run_id], beat, run_id in elsewhere, estimate.left.get(run_id, 0.0))
            for run_id, beat in beats.items()
        )
        self._observe(
            Standing(
                total=len(self._runs),
                done=sum(result in ("done", "diverged") for result in results.values()),
                failed=failed,
                blocked=blocked,
                working=tuple(working),
                seconds_done=estimate.done,
                seconds_total=estimate.total,
                eta=estimate.eta,
                elapsed=self.elapsed,
                stopping=stopping,
                news=tuple(self.news),
            )
        )
        self.news.clear()
