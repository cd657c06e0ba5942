"""Minimise a law's loss from many starts, and for many resamples of the rows, at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .law import Array
from .problem import Problem, evaluate
from .steps import OFFSET, along_bounds, bent, gradient_norm, held_coordinates, relative_offset, system_of

GRADIENT_TOLERANCE = 1e-9  # where iteration stops
CONVERGED = 1e-7  # what counts as a minimum where rounding stops it earlier
SNUG = 1e-8  # this close to a bound, relatively above 1, is at it
PERFECT = 1e-25  # an objective this small a row is zero to rounding


@dataclass(frozen=True)
class Minimum:
    """Where each start ended: coordinates (S, p), objective (S,), scaled gradient norm (S,), converged (S,)."""

    coordinates: Array
    objective: Array
    gradient_norm: Array
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]
    iterations: int

    def select(self, chosen: NDArray[np.int64]) -> Minimum:
        """Where some of the starts ended."""
        kept = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "iterations"}
        return Minimum(**kept, iterations=self.iterations)

    def replaced(self, where: NDArray[np.int64], by: Minimum) -> Minimum:
        """The same with the starts `where` ended as in `by`."""
        kept = {f.name: getattr(self, f.name).copy() for f in fields(self) if f.name != "iterations"}
        for name, value in kept.items():
            value[where] = getattr(by, name)
        return Minimum(**kept, iterations=self.iterations + by.iterations)


@np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore")
def minimise(
    problem: Problem,
    start: Array,
    *,
    max_iterations: int = 300,
    tolerance: float = GRADIENT_TOLERANCE,
    damping: float = 1e-2,
    bend: bool = False,
) -> Minimum:
    """Levenberg-Marquardt on all starts at once.

    start: (S, p) coordinates. The step solves (N + damping * W) step = -gradient, where N has the loss's second
    derivative as weights (Newton) and W has psi/r (iteratively reweighted least squares): far away and between the
    kinks of a nearly absolute loss W leads, close to the minimum N converges in a few steps.
    bend: follow the curvature of narrow valleys (geodesic acceleration), for one more prediction an iteration.
    Starts that are done are taken out of the batch.
    """
    lower, upper = problem.lower, problem.upper
    theta = np.clip(start, lower, upper)
    count = len(theta)
    final = evaluate(problem, theta, keep=bend)
    objective = final.objective.copy()
    norm, offset = np.full(count, np.inf), np.full(count, np.inf)
    lam = np.full(count, damping)
    stalled = np.zeros(count, dtype=np.int64)
    index = np.arange(count)
    perfect = np.broadcast_to(PERFECT * np.sum(problem.weights, axis=-1), (count,))
    current, at, moving = theta.copy(), final, problem
    iteration = 0
    while True:
        held = held_coordinates(current, at, moving)
        # residuals that are rounding have a gradient that is rounding: a perfect fit, whatever its direction
        slope = np.where(at.objective <= perfect[index], 0.0, gradient_norm(at, held))
        norm[index] = slope
        theta[index], objective[index] = current, at.objective
        finished = (slope <= tolerance) | (stalled[index] >= 12)
        keep = ~finished
        last = iteration >= max_iterations or not keep.any()
        unsure = np.flatnonzero((finished | last) & (slope > max(tolerance, CONVERGED)))
        if unsure.size:
            offset[index[unsure]] = relative_offset(at.select(unsure), held[unsure])
        if last:
            break
        if keep.sum() <= 0.8 * len(index):  # shrink the batch only when it pays
            chosen = np.flatnonzero(keep)
            index, current, held = index[chosen], current[chosen], held[chosen]
            at = at.select(chosen)
            moving = moving.select(chosen)
        system = system_of(at, lam[index], held)
        step = system.solve(at.gradient)
        if bend and at.slopes is not None:
            step = bent(moving, current, at, system, step)
        trial = np.minimum(np.maximum(current + step, lower), upper)
        crossing = np.flatnonzero((trial != current + step).any(axis=1))
        if crossing.size:
            cut = at.select(crossing), system.held[crossing], lam[index[crossing]], trial[crossing]
            trial[crossing] = along_bounds(moving.select(crossing), current[crossing], *cut, bend=bend)
        step = trial - current
        curved = np.einsum("sp,spq,sq->s", step, at.newton + 1e-3 * at.reweighted, step)
        expected = -np.einsum("sp,sp->s", np.where(held, 0.0, at.gradient), step) - 0.5 * curved
        tried = evaluate(moving, trial, keep=bend)
        change = tried.objective - at.objective
        good = (change <= 1e-15 * np.abs(at.objective)) & np.isfinite(tried.gradient).all(axis=1)
        small = np.abs(change) <= 1e-14 * np.abs(at.objective)
        stalled[index] = np.where(good & ~small, 0, stalled[index] + (small | (lam[index] > 1e12)))
        gain = np.where(expected > 0, -change / expected, 0.0)
        if bend:  # a bent step gains something else than the quadratic model expects: any gain will do
            factor = np.where(good, np.where(gain > 0.3, 0.2, 1.0), 4.0)
        else:
            factor = np.where(gain > 0.7, 0.1, np.where(gain > 0.3, 1.0, np.where(gain > 0.05, 3.0, 8.0)))
        factor = np.where(good & (expected <= 1e-13 * at.objective), 0.1, factor)
        lam[index] = np.minimum(np.maximum(lam[index] * factor, 1e-12), 1e16)
        current = np.where(good[:, None], trial, current)
        at = at.improved(tried, good)
        iteration += 1
    at_bound = ((theta <= lower) | (theta >= upper)) & problem.free
    # where rounding keeps the gradient from vanishing, no step that the curvature allows would gain anything
    converged = (norm <= max(tolerance, CONVERGED)) | (offset <= OFFSET)
    return _snug(problem, Minimum(theta, objective, norm, converged, at_bound, iteration))


def _snug(problem: Problem, minimum: Minimum) -> Minimum:
    """The same with coordinates next to a bound at it, where that costs nothing: rounding stops steps short of it."""
    theta = minimum.coordinates
    below, above = (
        (np.abs(theta - b) <= SNUG * np.maximum(1.0, np.abs(b))) & (theta != b) & np.isfinite(b) & problem.free
        for b in (problem.lower, problem.upper)
    )
    rows = np.flatnonzero((below | above).any(axis=1))
    if not rows.size:
        return minimum
    moved = np.where(below, problem.lower, np.where(above, problem.upper, theta))
    snug = minimise(problem.select(rows), moved[rows], max_iterations=0)
    equal = np.flatnonzero(snug.objective <= minimum.objective[rows] * (1 + 1e-12))
    return minimum.replaced(rows[equal], snug.select(equal))
