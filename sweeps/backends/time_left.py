"""How long is left: estimates of the plan, corrected by what runs really took here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sweeps.planning.order import makespan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import Heartbeat
from sweeps.study.external_run import STAGES

ENDED = ("done", "diverged", "failed", "interrupted", "blocked", "storage")
ENOUGH = 0.1
"""Share of a run after which its own speed says more than the estimate."""


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
            beat = beats.get(run_id)
            if beat is None:
                total += guess
                if run_id not in never:
                    left[run_id] = guess
                continue
            worked = beat.elapsed + beat.elapsed_before
            if beat.done >= ENOUGH:
                guess = worked / beat.done
            left[run_id] = max(guess * (1 - beat.done), 0.0)
            total, done = total + guess, done + guess * beat.done
        parents = {run_id: self._runs[run_id].parent for run_id in left}
        return TimeLeft(total, done, left, makespan(left, parents, jobs))

    def _ratios(self, beats: Mapping[str, Heartbeat]) -> dict[str, float]:
        """Measured over estimated seconds by stage; of the other stage, or of earlier submissions, where none is."""
        running = {
            run_id: (beat.elapsed + beat.elapsed_before, self._runs[run_id].seconds * beat.done)
            for run_id, beat in beats.items()
            if beat.done >= ENOUGH
        }
        ratios: dict[str, float] = {}
        for source in (self._here, self._before):
            pairs = {run_id: (seconds, self._runs[run_id].seconds) for run_id, seconds in source.items()}
            pairs |= running
            for stage in STAGES:
                of_stage = [pair for run_id, pair in pairs.items() if self._runs[run_id].stage == stage]
                estimated = sum(pair[1] for pair in of_stage)
                if estimated > 0:
                    ratios.setdefault(stage, sum(pair[0] for pair in of_stage) / estimated)
        fallback = sum(ratios.values()) / len(ratios) if ratios else 1.0
        return {stage: ratios.get(stage, fallback) for stage in STAGES}
