"""Steps towards a minimum: damped normal equations, the bend of a valley, bounds, and what a step would gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .law import Array
from .problem import Evaluation, Problem, parameters_of

OFFSET = 1e-6  # a relative offset below which the objective is within 1e-12 of its local minimum


def gradient_norm(at: Evaluation, held: NDArray[np.bool_]) -> Array:
    """The largest gradient component relative to what it would be without cancellation: 0 at a minimum, at most 1.

    Where a coordinate moves only rows whose residuals are next to nothing (OFFSET of the others), there is nothing to
    gain from it, though nothing cancels.
    """
    diagonal = np.arange(at.gradient.shape[1])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        most = np.sqrt(np.maximum(at.reweighted[:, diagonal, diagonal] * at.objective[:, None], 0.0))
        scale = np.fmax(at.gradient_scale, OFFSET * most)
        share = np.where(scale > 0, np.abs(at.gradient) / scale, 0.0)
    return np.max(np.where(held, 0.0, share), axis=1, initial=0.0)


def held_coordinates(coordinates: Array, at: Evaluation, problem: Problem) -> NDArray[np.bool_]:
    """Coordinates that cannot move: fixed ones, and those at a bound that the gradient pushes against."""
    blocked = (coordinates <= problem.lower) & (at.gradient >= 0)
    blocked |= (coordinates >= problem.upper) & (at.gradient <= 0)
    return blocked | ~problem.free


@dataclass(frozen=True)
class System:
    """Damped normal equations: `matrix` (S, p, p) for coordinates times `scale` (S, p); `held` ones do not move."""

    matrix: Array
    scale: Array
    held: NDArray[np.bool_]
    bad: NDArray[np.bool_]

    def solve(self, gradient: Array) -> Array:
        """The step (S, p) down a gradient (S, p); 0 where the system is not finite."""
        right = np.where(self.held | self.bad[:, None], 0.0, gradient / self.scale)
        right = np.where(np.isfinite(right).all(axis=1, keepdims=True), right, 0.0)
        step = np.linalg.solve(self.matrix, -right[:, :, None])[:, :, 0] / self.scale
        return np.where(np.isfinite(step), step, 0.0)


def system_of(at: Evaluation, damping: Array, held: NDArray[np.bool_]) -> System:
    """The system (newton + damping * reweighted) step = -gradient of each start; damping (S,), held (S, p)."""
    diagonal = np.arange(at.gradient.shape[1])
    matrix = at.newton + damping[:, None, None] * at.reweighted
    curvature = at.reweighted[:, diagonal, diagonal]
    # a coordinate that moves no prediction stays where it is, rather than be thrown about by rounding
    held = held | (curvature <= 1e-24 * np.max(curvature, axis=1, keepdims=True))
    scale = np.sqrt(np.maximum(curvature, 1e-300))
    scale = np.where(np.isfinite(scale), scale, 1.0)
    matrix = matrix / (scale[:, :, None] * scale[:, None, :])
    matrix[held] = 0.0
    matrix.transpose(0, 2, 1)[held] = 0.0
    matrix[:, diagonal, diagonal] += 1e-13 + 0.1 * damping[:, None] + held
    bad = ~np.isfinite(matrix).all(axis=(1, 2))
    matrix[bad] = np.eye(len(diagonal))
    return System(matrix, scale, held, bad)


def along_bounds(
    problem: Problem,
    current: Array,
    at: Evaluation,
    held: NDArray[np.bool_],
    damping: Array,
    clipped: Array,
    *,
    bend: bool,
) -> Array:
    """Where starts (S, p) whose step crosses a bound go instead: what crossed stops there, the rest follows suit.

    clipped: where the step would lead, inside the bounds. A step that is merely clipped no longer points down, and a
    coordinate would only creep up to its bound.
    """
    stopped = (clipped <= problem.lower) | (clipped >= problem.upper)
    move = np.where(stopped, clipped - current, 0.0)
    inside = system_of(at, damping, held | stopped)
    curvature = at.newton + damping[:, None, None] * at.reweighted
    step = np.where(stopped, move, inside.solve(at.gradient + np.einsum("spq,sq->sp", curvature, move)))
    if bend and at.slopes is not None:
        step = bent(problem, current, at, inside, step)
    return np.minimum(np.maximum(current + step, problem.lower), problem.upper)


def bent(problem: Problem, coordinates: Array, at: Evaluation, system: System, step: Array) -> Array:
    """The step plus half its geodesic acceleration: Transtrum & Sethna 2012 (arXiv 1201.5885), section 3.

    The second derivative of the residuals along the step is a finite difference (their equation 13, h = 0.1). Where
    the correction is more than 0.75 / 2 of the step, the step stays straight.
    """
    assert at.residual is not None and at.slopes is not None and at.ratio is not None
    h = 0.1
    near = np.clip(coordinates + h * step, problem.lower, problem.upper)
    with np.errstate(all="ignore"):
        value = problem.law.predict(parameters_of(problem.law, near), problem.columns)
        if problem.residual == "log":
            value = np.log(np.maximum(value, 1e-300))
        along = np.matmul(step[:, None, :], at.slopes)[:, 0, :]
        second = (2.0 / h) * ((value - problem.target - at.residual) / h - along)
        pull = np.matmul(at.slopes, (at.ratio * second)[:, :, None])[:, :, 0]
        turn = system.solve(pull)
        size = np.sum((turn * system.scale) ** 2, axis=1)
        small = 4.0 * size <= 0.75**2 * np.sum((step * system.scale) ** 2, axis=1)
    return np.where(small[:, None], step + 0.5 * turn, step)


def relative_offset(at: Evaluation, held: NDArray[np.bool_]) -> Array:
    """sqrt(2 * what an undamped Newton step would gain / objective), (S,): 0 at a minimum, whatever the scales.

    For least squares sqrt(2) times the cosine of residuals and tangent plane: Bates & Watts 1981, Technometrics 23.
    """
    system = system_of(at, np.zeros(len(held)), held)
    gain = -np.einsum("sp,sp->s", np.where(system.held, 0.0, at.gradient), system.solve(at.gradient))
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.sqrt(np.maximum(gain, 0.0) / np.maximum(at.objective, 1e-300))
    return np.where(system.bad | ~np.isfinite(out), np.inf, out)
