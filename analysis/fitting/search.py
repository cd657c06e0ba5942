"""Which of many minima: polish every start, or try many starts briefly and polish the distinct leaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .batches import batches, stacked
from .law import Array
from .least_absolute import typical_residual
from .minimiser import Minimum, minimise
from .polishing import polish, polish_leaders
from .problem import Problem
from .starts import MAX_ROWS

TRIAL = 50  # iterations of a start that is only tried
FIRST = 6  # times as many leaders as go on to the end are kept after a third of the trial
SAME = 0.01  # tried starts whose objectives are this close, relatively,
NEAR = 0.1  # and whose coordinates are this close, relatively above 1, are on the way to one minimum
MANY_ROWS = 20 * MAX_ROWS


@dataclass(frozen=True)
class Starts:
    """Where to go on from: coordinates (S, p), how many of all starts each stands for (S,), and whose each is (S,).

    `owner` numbers the problems that are searched side by side.
    """

    coordinates: Array
    stands_for: NDArray[np.int64]
    owner: NDArray[np.int64]

    @staticmethod
    def of(coordinates: Array) -> Starts:
        """The starts (S, p) of one problem."""
        each = np.arange(len(coordinates))
        return Starts(coordinates, np.ones_like(each), np.zeros_like(each))

    @staticmethod
    def beside(parts: Sequence[Starts]) -> Starts:
        """The starts of several problems, each part's own."""
        return Starts(
            np.concatenate([starts.coordinates for starts in parts]),
            np.concatenate([starts.stands_for for starts in parts]),
            np.repeat(np.arange(len(parts)), [len(starts.coordinates) for starts in parts]),
        )


@dataclass(frozen=True)
class Found:
    """Where starts ended, how many of all starts each stands for (S,), and whose each is (S,)."""

    minimum: Minimum
    stands_for: NDArray[np.int64]
    owner: NDArray[np.int64]

    def select(self, chosen: NDArray[np.int64]) -> Found:
        """Some of the starts."""
        return Found(self.minimum.select(chosen), self.stands_for[chosen], self.owner[chosen])

    def replaced(self, where: NDArray[np.int64], by: Minimum) -> Found:
        """The same with the starts `where` ended as in `by`."""
        return replace(self, minimum=self.minimum.replaced(where, by))

    def starts(self) -> Starts:
        """Where the starts ended, to go on from."""
        return Starts(self.minimum.coordinates, self.stands_for, self.owner)


def search(problems: Sequence[Problem], starts: Sequence[Array], leaders: int, max_iterations: int) -> list[Found]:
    """Minimise every problem from its starts (S_k, p), best starts first; at most `leaders` of them to the end.

    Problems of one law are searched side by side, which changes their results by rounding alone. A law with
    `screening` has many minima, joined by curved valleys: all its starts make TRIAL steps that follow the valleys'
    bends, and the best that differ go on. Of many rows a part chooses the basin.
    """
    begun = [Starts.of(start) for start in starts]
    results: dict[int, Found] = {}
    crowded = [k for k, problem in enumerate(problems) if len(starts[k]) > (1 if _many_rows(problem) else leaders)]
    for stage, which in ((_tried, crowded), (_polished, range(len(problems)))):
        counts = [len(trials.coordinates) for trials in begun]  # 0 where the law is a number nowhere
        for batch in batches(problems, counts, [k for k in which if counts[k]]):
            together = stacked([problems[k] for k in batch])
            ended = stage(together, Starts.beside([begun[k] for k in batch]), leaders, max_iterations)
            for number, k in enumerate(batch):
                results[k] = ended.select(np.flatnonzero(ended.owner == number))
                begun[k] = results[k].starts()
    return [results[k] for k in range(len(problems))]


def _many_rows(problem: Problem) -> bool:
    return problem.target.shape[-1] > MANY_ROWS


def _tried(problem: Problem, starts: Starts, leaders: int, max_iterations: int) -> Found:
    """The starts that are worth polishing; `problem` has the rows of each owner, or one problem's alone."""
    if _many_rows(problem):
        # choose the basin on a part of the rows, then polish its winners on all
        some = np.linspace(0, problem.target.shape[-1] - 1, MAX_ROWS).astype(np.int64)
        crowd = replace(
            problem, columns=problem.columns.rows(some), target=problem.target[some], weights=problem.weights[some]
        )
        [rough] = search([crowd], [starts.coordinates], leaders, max_iterations)
        return rough.select(np.argsort(rough.minimum.objective)[:2])
    if problem.loss.kind == "lad":
        problem = replace(problem, loss=problem.loss.smoothed(typical_residual(problem, starts.coordinates)))
    brief = TRIAL // 3
    minimum = minimise(problem.select(starts.owner), starts.coordinates, max_iterations=brief, bend=True)
    tried = _distinct(Found(minimum, starts.stands_for, starts.owner), FIRST * leaders)
    crowded = np.flatnonzero(np.bincount(tried.owner)[tried.owner] > leaders)
    if crowded.size:
        crowd, there = problem.select(tried.owner[crowded]), tried.minimum.coordinates[crowded]
        again = minimise(crowd, there, max_iterations=TRIAL - brief, bend=True)
        tried = _distinct(tried.replaced(crowded, again), leaders)
    return tried


def _polished(problem: Problem, starts: Starts, _leaders: int, max_iterations: int) -> Found:
    """The starts to the end."""
    if problem.law.screening and not _many_rows(problem):
        minimum = polish_leaders(problem, starts.coordinates, starts.owner, max_iterations)
    else:
        minimum = polish(problem.select(starts.owner), starts.coordinates, max_iterations)
    return Found(minimum, starts.stands_for, starts.owner)


def _distinct(tried: Found, most: int) -> Found:
    """Of each problem the best starts that are on the way to different minima, at most `most`, best first.

    Each stands for those that it is the first to be close to.
    """
    chosen: list[int] = []
    count: list[int] = []
    for number in np.unique(tried.owner):
        of_problem = np.flatnonzero((tried.owner == number) & np.isfinite(tried.minimum.objective))
        of_problem = of_problem[np.argsort(tried.minimum.objective[of_problem], kind="stable")]
        objective, theta = tried.minimum.objective[of_problem], tried.minimum.coordinates[of_problem]
        weight, left = tried.stands_for[of_problem], np.ones(len(of_problem), dtype=bool)
        for _ in range(most):
            if not left.any():
                break
            leader = int(np.argmax(left))
            near = np.abs(theta - theta[leader]) <= NEAR * np.maximum(1.0, np.abs(theta[leader]))
            its = left & near.all(axis=1) & (objective <= objective[leader] * (1 + SAME) + 1e-300)
            its[leader] = True
            chosen.append(int(of_problem[leader]))
            count.append(int(weight[its].sum()))
            left &= ~its
    found = tried.select(np.array(chosen, dtype=np.int64))
    return replace(found, stands_for=np.array(count, dtype=np.int64))
