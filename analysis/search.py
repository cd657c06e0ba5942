"""Which of many minima: polish every start, or try many starts briefly and polish the distinct leaders."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.absolute import polish_absolute, typical_residual
from analysis.formula import Array
from analysis.minimiser import Minimum, Problem, minimise, parameters_of
from analysis.newton import newton
from analysis.starts import MAX_ROWS

TRIAL = 50  # iterations of a start that is only tried
SAME = 0.05  # tried starts whose objectives are this close, relatively,
NEAR = 0.3  # and whose coordinates are this close, relatively above 1, are on the way to one minimum
PATIENCE = 6  # iterations after which starts far from the best are left where they are
CLOSE = 0.02  # how far from the best objective, relatively, a slow start may still catch up
CLOSER = 0.002  # and how far after leaps along its valley
NEWTON = 12  # steps with the whole Hessian: next to a minimum five are enough
VALLEY = 40  # iterations after which a start is taken to be in a valley
FURTHER = (2.0, 4.0, 8.0, 16.0)  # times as far along a valley
MANY_ROWS = 20 * MAX_ROWS


@dataclass(frozen=True)
class Found:
    """Where the polished starts ended, and how many of all starts each of them stands for (K,)."""

    minimum: Minimum
    stands_for: NDArray[np.int64]


def search(problem: Problem, start: Array, leaders: int, max_iterations: int) -> Found:
    """Minimise from every start (S, p), best starts first; at most `leaders` of them to the end.

    A law with `screening` has many minima, joined by curved valleys: all its starts make TRIAL steps that follow the
    valleys' bends, and the best that differ go on. Of many rows a part chooses the basin.
    """
    n = problem.target.shape[-1]
    stands_for = np.ones(len(start), dtype=np.int64)
    if n > MANY_ROWS and len(start) > 1:
        # many rows: choose the basin on a part of them, then polish its winners on all
        some = np.linspace(0, n - 1, MAX_ROWS).astype(np.int64)
        part = replace(
            problem, columns=problem.columns.rows(some), target=problem.target[some], weights=problem.weights[some]
        )
        rough = search(part, start, leaders, max_iterations)
        order = np.argsort(rough.minimum.objective)[:2]
        start, stands_for = rough.minimum.coordinates[order], rough.stands_for[order]
    elif len(start) > leaders:
        smooth = problem
        if problem.loss.kind == "lad":
            smooth = replace(problem, loss=problem.loss.smoothed(typical_residual(problem, start)))
        tried = minimise(smooth, start, max_iterations=TRIAL // 3, bend=True)
        chosen, stands_for = _distinct(tried, 3 * leaders)
        if len(chosen) > leaders:
            tried = minimise(smooth, tried.coordinates[chosen], max_iterations=TRIAL - TRIAL // 3, bend=True)
            chosen, stands_for = _distinct(tried, leaders, stands_for)
        start = tried.coordinates[chosen]
    if problem.law.screening and n <= MANY_ROWS:
        return Found(_polish_leaders(problem, start, max_iterations), stands_for)
    return Found(polish(problem, start, max_iterations), stands_for)


def _polish_leaders(problem: Problem, start: Array, max_iterations: int) -> Minimum:
    """Polish distinct starts; after PATIENCE iterations those go on that are not done and may still be the best.

    Newton steps end most of them. What is still under way after VALLEY more is in a valley: it goes on from where it
    would be after many times as many steps, if that is better.
    """
    found = polish(problem, start, min(PATIENCE, max_iterations))
    left = max_iterations - PATIENCE - VALLEY
    if left <= 0:
        return _go_on(problem, found, max(left + VALLEY, 0))
    found = _go_on(problem, found, VALLEY, newton_first=True)
    found = _leap(problem, found, _unsure(found))
    found = _go_on(problem, found, left, CLOSER)
    return _go_on(problem, found, VALLEY, CLOSER, newton_first=True)


def _go_on(
    problem: Problem, found: Minimum, iterations: int, close: float = CLOSE, *, newton_first: bool = False
) -> Minimum:
    """The same with the starts that are unsure polished for longer, Newton steps first."""
    unsure = _unsure(found, close)
    if not unsure.size or not iterations:
        return found
    start = found.coordinates[unsure]
    start = _newton(problem, start) if newton_first else start
    return found.replaced(unsure, polish(problem, start, iterations))


def _unsure(found: Minimum, close: float = CLOSE) -> NDArray[np.int64]:
    """Starts that are not done, and close enough to the best to beat it yet."""
    return np.flatnonzero(~found.converged & (found.objective <= np.min(found.objective) * (1 + close)))


def _leap(problem: Problem, found: Minimum, unsure: NDArray[np.int64]) -> Minimum:
    """The same with starts in a valley taken further along it, where that is better."""
    if not unsure.size:
        return found
    near = parameters_of(problem.law, np.repeat(found.coordinates[unsure], len(FURTHER), axis=0))
    moved = problem.law.further(near, np.tile(FURTHER, len(unsure))[:, None])
    if moved is None:
        return found
    with np.errstate(divide="ignore"):
        columns = [np.log(moved[q.name]) if q.log else moved[q.name] for q in problem.law.parameters]
    far = np.concatenate(columns, axis=1)
    far = np.where(problem.free, far, np.repeat(found.coordinates[unsure], len(FURTHER), axis=0))
    there = polish(problem, _newton(problem, far), VALLEY)
    by_start = np.where(np.isfinite(there.objective), there.objective, np.inf).reshape(len(unsure), len(FURTHER))
    best = np.arange(len(unsure)) * len(FURTHER) + np.argmin(by_start, axis=1)
    better = by_start.min(axis=1) < found.objective[unsure]
    return found.replaced(unsure[better], there.select(best[better]))


def _newton(problem: Problem, start: Array) -> Array:
    # a sum of absolute values has no second derivative
    return start if problem.loss.kind == "lad" else newton(problem, start, NEWTON)


def polish(problem: Problem, start: Array, max_iterations: int) -> Minimum:
    """Minimise from every start (S, p); lad by Huber losses that close in on it, then exactly."""
    if problem.loss.kind == "lad":
        return polish_absolute(problem, start, max_iterations)
    return minimise(problem, start, max_iterations=max_iterations, bend=problem.law.screening > 0)


def _distinct(
    tried: Minimum, most: int, weight: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the best starts that are on the way to different minima, and how many starts each one stands for.

    weight: how many starts each of the tried ones stands for already.
    """
    each = np.ones(len(tried.objective), dtype=np.int64) if weight is None else weight
    objective = np.where(np.isfinite(tried.objective), tried.objective, np.inf)
    theta = tried.coordinates
    chosen: list[int] = []
    count: list[int] = []
    for k in np.argsort(objective, kind="stable").tolist():
        if not np.isfinite(objective[k]):
            break
        for i, leader in enumerate(chosen):
            close = np.abs(theta[k] - theta[leader]) <= NEAR * np.maximum(1.0, np.abs(theta[leader]))
            if objective[k] <= objective[leader] * (1 + SAME) + 1e-300 and close.all():
                count[i] += int(each[k])
                break
        else:
            if len(chosen) < most:
                chosen.append(k)
                count.append(int(each[k]))
    return np.array(chosen, dtype=np.int64), np.array(count, dtype=np.int64)
