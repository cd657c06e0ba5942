"""Which of many minima: try starts briefly, polish the distinct leaders, problems of one law side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .law import Array, Columns
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
ELEMENTS = 60_000  # starts x rows of one batch: its arrays stay in the processor's cache
LONGER = 2.0  # rows of a batch's longest problem over those of its shortest: the rest is padding


class Starts(NamedTuple):
    """Where to go on from: coordinates (S, p), how many of all starts each stands for (S,), and whose each is (S,).

    `owner` numbers the problems that are searched side by side.
    """

    coordinates: Array
    stands_for: NDArray[np.int64]
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Ended:
    """Where starts ended, how many of all starts each stands for (S,), and whose each is (S,)."""

    minimum: Minimum
    stands_for: NDArray[np.int64]
    owner: NDArray[np.int64]

    def select(self, chosen: NDArray[np.int64]) -> Ended:
        """Some of the starts."""
        return Ended(self.minimum.select(chosen), self.stands_for[chosen], self.owner[chosen])


def search(problems: Sequence[Problem], starts: Sequence[Array], leaders: int, max_iterations: int) -> list[Ended]:
    """Minimise every problem from its starts (S_k, p), best starts first; at most `leaders` of them to the end.

    Problems of one law are searched side by side, which changes their results by rounding alone. A law with
    `screening` has many minima, joined by curved valleys: all its starts make TRIAL steps that follow the valleys'
    bends, and the best that differ go on. Of many rows a part chooses the basin.
    """
    begun = [(start, np.ones(len(start), dtype=np.int64)) for start in starts]
    ended: dict[int, Ended] = {}
    crowded = [k for k, problem in enumerate(problems) if len(starts[k]) > (1 if _many_rows(problem) else leaders)]
    for stage, which in ((_tried, crowded), (_polished, range(len(problems)))):
        counts = [len(coordinates) for coordinates, _ in begun]  # 0 where the law is a number nowhere
        for batch in batches(problems, counts, [k for k in which if counts[k]]):
            coordinates, stands_for = (np.concatenate(side) for side in zip(*(begun[k] for k in batch), strict=True))
            beside = Starts(coordinates, stands_for, np.repeat(np.arange(len(batch)), [counts[k] for k in batch]))
            together = stage(stacked([problems[k] for k in batch]), beside, leaders, max_iterations)
            for number, k in enumerate(batch):
                ended[k] = together.select(np.flatnonzero(together.owner == number))
                begun[k] = ended[k].minimum.coordinates, ended[k].stands_for
    return [ended[k] for k in range(len(problems))]


def _many_rows(problem: Problem) -> bool:
    return problem.target.shape[-1] > MANY_ROWS


def _tried(problem: Problem, starts: Starts, leaders: int, max_iterations: int) -> Ended:
    """The starts that are worth polishing; `problem` has the rows of each owner, or one problem's alone."""
    if _many_rows(problem):
        # choose the basin on a part of the rows, then polish its winners on all
        sample = problem.rows(np.linspace(0, problem.target.shape[-1] - 1, MAX_ROWS).astype(np.int64))
        [rough] = search([sample], [starts.coordinates], leaders, max_iterations)
        return rough.select(np.argsort(rough.minimum.objective)[:2])
    if problem.loss.kind == "lad":
        problem = replace(problem, loss=problem.loss.smoothed(typical_residual(problem, starts.coordinates)))
    brief = TRIAL // 3
    minimum = minimise(problem.select(starts.owner), starts.coordinates, max_iterations=brief, bend=True)
    tried = _distinct(Ended(minimum, starts.stands_for, starts.owner), FIRST * leaders)
    crowded = np.flatnonzero(np.bincount(tried.owner)[tried.owner] > leaders)
    if crowded.size:
        start = tried.minimum.coordinates[crowded]
        again = minimise(problem.select(tried.owner[crowded]), start, max_iterations=TRIAL - brief, bend=True)
        tried = _distinct(replace(tried, minimum=tried.minimum.replaced(crowded, again)), leaders)
    return tried


def _polished(problem: Problem, starts: Starts, _leaders: int, max_iterations: int) -> Ended:
    """The starts to the end."""
    if problem.law.screening and not _many_rows(problem):
        minimum = polish_leaders(problem, starts.coordinates, starts.owner, max_iterations)
    else:
        minimum = polish(problem.select(starts.owner), starts.coordinates, max_iterations)
    return Ended(minimum, starts.stands_for, starts.owner)


def _distinct(tried: Ended, most: int) -> Ended:
    """Of each problem the best starts that are on the way to different minima, at most `most`, best first.

    Each stands for those that it is the first to be close to.
    """
    chosen: list[int] = []
    count: list[int] = []
    for number in np.unique(tried.owner):
        ranked = np.flatnonzero((tried.owner == number) & np.isfinite(tried.minimum.objective))
        ranked = ranked[np.argsort(tried.minimum.objective[ranked], kind="stable")]
        objective, theta = tried.minimum.objective[ranked], tried.minimum.coordinates[ranked]
        left = np.ones(len(ranked), dtype=bool)
        for _ in range(most):
            if not left.any():
                break
            leader = int(np.argmax(left))
            near = np.abs(theta - theta[leader]) <= NEAR * np.maximum(1.0, np.abs(theta[leader]))
            close = left & near.all(axis=1) & (objective <= objective[leader] * (1 + SAME) + 1e-300)
            close[leader] = True
            chosen.append(int(ranked[leader]))
            count.append(int(tried.stands_for[ranked[close]].sum()))
            left &= ~close
    distinct = tried.select(np.array(chosen, dtype=np.int64))
    return replace(distinct, stands_for=np.array(count, dtype=np.int64))


def batches(problems: Sequence[Problem], starts: Sequence[int], which: Sequence[int]) -> list[list[int]]:
    """Indices `which` of problems, by those that are searched together; starts: how many each problem has.

    Together go problems of similar length with the same loss in scaled units. Least absolute deviations are solved one
    problem at a time.
    """
    out: list[list[int]] = []
    alike: dict[object, list[int]] = {}
    for k in sorted(which, key=lambda k: problems[k].target.shape[-1]):
        alone = k if problems[k].loss.kind == "lad" else None
        alike.setdefault((problems[k].loss, alone), []).append(k)
    for group in alike.values():
        batch: list[int] = []
        for k in group:
            count, rows = sum(starts[i] for i in batch) + starts[k], problems[k].target.shape[-1]
            if batch and (count * rows > ELEMENTS or rows > LONGER * problems[batch[0]].target.shape[-1]):
                out.append(batch)
                batch = []
            batch.append(k)
        out.append(batch)
    return out


def stacked(problems: Sequence[Problem]) -> Problem:
    """One problem with the rows of each of K problems, (K, n): shorter ones repeat their last row without weight."""
    first = problems[0]
    if len(problems) == 1:
        return first
    rows = max(problem.target.shape[-1] for problem in problems)
    missing = [(0, rows - problem.target.shape[-1]) for problem in problems]
    return replace(
        first,
        columns=Columns.stacked([problem.columns for problem in problems], rows),
        target=np.stack([np.pad(q.target, pad, mode="edge") for q, pad in zip(problems, missing, strict=True)]),
        weights=np.stack([np.pad(q.weights, pad) for q, pad in zip(problems, missing, strict=True)]),
    )
