"""Follow starts to their minimum, with care where laws have many minima and valleys, and where a loss has kinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .laws.law import Array
from .minimiser import GRADIENT_TOLERANCE, Minimum, minimise, newton
from .problem import Problem, coordinates_of, evaluate, parameters_of, residuals

PATIENCE = 6  # iterations after which starts far from the best are left where they are
CLOSE = 0.02  # how far from the best objective, relatively, a slow start may still catch up
CLOSER = 0.002  # and how far after leaps along its valley
NEWTON = 12  # steps with the whole Hessian: next to a minimum five are enough
VALLEY = 40  # iterations after which a start is taken to be in a valley
FURTHER = (0.25, 0.5, 2.0, 4.0, 8.0, 16.0)  # times as far along a valley
REFIT = 200  # iterations of a refit, at most


def polish(problem: Problem, start: Array, max_iterations: int, tolerance: float = GRADIENT_TOLERANCE) -> Minimum:
    """Minimise from every start (S, p); lad by Huber losses that close in on it, then exactly."""
    if problem.loss.kind == "lad":
        return polish_absolute(problem, start, max_iterations)
    bend = problem.law.screening > 0
    return minimise(problem, start, max_iterations=max_iterations, tolerance=tolerance, bend=bend)


def polish_leaders(
    problem: Problem,
    start: Array,
    owner: NDArray[np.int64],
    max_iterations: int,
    tolerance: float = GRADIENT_TOLERANCE,
) -> Minimum:
    """Polish the starts (S, p) of several problems, of each start's `owner` (S,); see `Problem.select`.

    After PATIENCE iterations those go on that are not done and may still be the best of their problem. Newton steps end
    most of them. What is still under way after VALLEY more is in a valley: it goes on from where it would be after many
    times as many steps, or was before, if that is better.
    """
    leaders = _Leaders(problem, owner, tolerance)
    minimum = polish(problem.select(owner), start, min(PATIENCE, max_iterations), tolerance)
    left = max_iterations - PATIENCE - VALLEY
    if left <= 0:
        return leaders.go_on(minimum, max(left + VALLEY, 0))
    minimum = leaders.go_on(minimum, VALLEY, newton_first=True)
    minimum = leaders.leap(minimum)
    minimum = leaders.go_on(minimum, left, CLOSER)
    return leaders.go_on(minimum, VALLEY, CLOSER, newton_first=True)


def refit(problem: Problem, starts: Sequence[Array], tolerance: float) -> Minimum:
    """Minimise each of S problems from nearby, as resamples of what was fitted: the best that its starts lead to.

    starts: each (S, p), one for every problem. tolerance: of the scaled gradient, where iteration stops.
    """
    size = len(starts[0])
    owner, start = np.tile(np.arange(size), len(starts)), np.concatenate(starts)
    if problem.law.screening:
        minimum = polish_leaders(problem, start, owner, REFIT, tolerance)
    else:
        minimum = minimise(problem.select(owner), start, tolerance=tolerance)
    objective = np.where(np.isfinite(minimum.objective), minimum.objective, np.inf).reshape(len(starts), size)
    return minimum.select(np.argmin(objective, axis=0) * size + np.arange(size))


@dataclass(frozen=True)
class _Leaders:
    """Starts that compete to be the best of their problem."""

    problem: Problem
    owner: NDArray[np.int64]
    tolerance: float

    def unsure(self, minimum: Minimum, close: float) -> NDArray[np.int64]:
        """Starts that are not done, and close enough to the best of their problem to beat it yet."""
        best = np.full(self.owner.max(initial=0) + 1, np.inf)
        np.fmin.at(best, self.owner, minimum.objective)
        return np.flatnonzero(~minimum.converged & (minimum.objective <= best[self.owner] * (1 + close)))

    def go_on(self, minimum: Minimum, iterations: int, close: float = CLOSE, *, newton_first: bool = False) -> Minimum:
        """The same with the starts that are unsure polished for longer, Newton steps first."""
        unsure = self.unsure(minimum, close)
        if not unsure.size or not iterations:
            return minimum
        problem, start = self.problem.select(self.owner[unsure]), minimum.coordinates[unsure]
        start = self._newton(problem, start) if newton_first else start
        return minimum.replaced(unsure, polish(problem, start, iterations, self.tolerance))

    def leap(self, minimum: Minimum) -> Minimum:
        """The same with starts in a valley taken along it, where that is better."""
        law, unsure = self.problem.law, self.unsure(minimum, CLOSE)
        if not unsure.size:
            return minimum
        current = np.repeat(minimum.coordinates[unsure], len(FURTHER), axis=0)
        problem = self.problem.select(np.repeat(self.owner[unsure], len(FURTHER)))
        moved = law.further(parameters_of(law, current), problem.columns, np.tile(FURTHER, len(unsure))[:, None])
        if moved is None:
            return minimum
        far = coordinates_of(law, moved)
        far = np.where(problem.free & np.isfinite(far), far, current)
        tried = polish(problem, far, PATIENCE, self.tolerance)
        by_start = np.where(np.isfinite(tried.objective), tried.objective, np.inf).reshape(len(unsure), len(FURTHER))
        best = np.arange(len(unsure)) * len(FURTHER) + np.argmin(by_start, axis=1)
        problem = problem.select(best)
        farther = polish(problem, self._newton(problem, tried.coordinates[best]), VALLEY, self.tolerance)
        better = np.flatnonzero(farther.objective < minimum.objective[unsure])
        return minimum.replaced(unsure[better], farther.select(better))

    def _newton(self, problem: Problem, start: Array) -> Array:
        # a sum of absolute values has no second derivative
        return start if problem.loss.kind == "lad" else newton(problem, start, NEWTON, self.tolerance)


def typical_residual(problem: Problem, start: Array) -> float:
    """The median size of residuals at the first start, above 0; 1 where it predicts no number."""
    size = np.abs(residuals(problem.rows(slice(0, 20_000)), start[:1])[0])
    return float(np.median(size[np.isfinite(size)])) + 1e-12 if np.isfinite(size).any() else 1.0


def polish_absolute(problem: Problem, start: Array, max_iterations: int) -> Minimum:
    """Minimise from every start (S, p); `converged` means certified by a subgradient."""
    size = typical_residual(problem, start)
    bend = problem.law.screening > 0
    for width in (size, *(max(size * shrink, 1e-11) for shrink in (1e-1, 1e-2, 1e-4, 1e-6))):
        smooth = replace(problem, loss=problem.loss.smoothed(width))
        minimum = minimise(smooth, start, max_iterations=max_iterations, bend=bend)
        start = minimum.coordinates
    corner = np.array([_corner(problem, theta, size * 1e-5) for theta in minimum.coordinates])
    exact = evaluate(problem, corner).objective
    before = evaluate(problem, minimum.coordinates).objective
    better = exact <= before
    theta = np.where(better[:, None], corner, minimum.coordinates)
    objective = np.where(better, exact, before)
    norm = np.array([certificate(problem, end, size * 1e-5) for end in theta])
    return replace(minimum, coordinates=theta, objective=objective, gradient_norm=norm, converged=norm <= 1e-6)


def _corner(problem: Problem, theta: Array, near: float) -> Array:
    """The point close to theta where the rows with (nearly) no residual have none: a kink of the absolute loss."""
    free = np.flatnonzero(problem.inside(theta))
    corner = theta.copy()
    r, _ = residuals(problem, corner[None, :])
    rows = np.flatnonzero((np.abs(r[0]) < near) & (problem.weights > 0))
    rows = rows[np.argsort(np.abs(r[0][rows]), kind="stable")][: len(free)]
    if not len(rows):
        return theta
    for _ in range(6):
        r, jacobian = residuals(problem, corner[None, :])
        step = np.linalg.lstsq(jacobian[0][free][:, rows].T, -r[0][rows], rcond=None)[0]
        corner[free] += step
        corner = np.clip(corner, problem.lower, problem.upper)
        if np.max(np.abs(step), initial=0.0) < 1e-15:
            break
    return corner


def certificate(problem: Problem, theta: Array, near: float) -> float:
    """How far theta is from a minimum of the absolute loss, 0 where certified.

    A minimum needs v_i in [-1, 1] for the rows without residual such that sum_i w_i v_i J_i + sum_others w_i
    sign(r_i) J_i = 0 in every coordinate that can move; returns the largest remaining component, relative.
    """
    from scipy.optimize import lsq_linear

    r, jacobian = residuals(problem, theta[None, :])
    r, jacobian = r[0], jacobian[0]
    zero = np.abs(r) < max(near, 1e-11)
    pull = jacobian[:, ~zero] @ (problem.weights[~zero] * np.sign(r[~zero]))
    scale = np.maximum(np.abs(jacobian) @ problem.weights, 1e-300)
    moves = problem.free & ~((theta <= problem.lower) & (pull >= 0)) & ~((theta >= problem.upper) & (pull <= 0))
    if not zero.any():
        return float(np.max(np.abs(pull / scale)[moves], initial=0.0))
    corner = (jacobian[:, zero] * problem.weights[zero])[moves] / scale[moves, None]
    solved = lsq_linear(corner, -(pull / scale)[moves], bounds=(-1.0, 1.0), tol=1e-14)
    return float(np.max(np.abs(corner @ solved.x + (pull / scale)[moves]), initial=0.0))
