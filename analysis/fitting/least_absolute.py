"""Least absolute deviations, exactly: Huber losses that close in on it, then the kink, with a certificate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .law import Array
from .minimiser import Minimum, minimise
from .problem import Problem, evaluate, residuals


def typical_residual(problem: Problem, start: Array) -> float:
    """The median size of residuals at the first start, above 0; 1 where it predicts no number."""
    size = np.abs(residuals(problem.rows(slice(0, 20_000)), start[:1])[0])
    return float(np.median(size[np.isfinite(size)])) + 1e-12 if np.isfinite(size).any() else 1.0


def polish_absolute(problem: Problem, start: Array, max_iterations: int) -> Minimum:
    """Minimise from every start (S, p); `converged` means certified by a subgradient."""
    size = typical_residual(problem, start)
    bend = problem.law.screening > 0
    smooth = replace(problem, loss=problem.loss.smoothed(size))
    minimum = minimise(smooth, start, max_iterations=max_iterations, bend=bend)
    total = minimum.iterations
    for shrink in (1e-1, 1e-2, 1e-4, 1e-6):
        smooth = replace(problem, loss=problem.loss.smoothed(max(size * shrink, 1e-11)))
        minimum = minimise(smooth, minimum.coordinates, max_iterations=max_iterations, bend=bend)
        total += minimum.iterations
    corner = np.array([_corner(problem, theta, size * 1e-5) for theta in minimum.coordinates])
    exact = evaluate(problem, corner).objective
    before = evaluate(problem, minimum.coordinates).objective
    better = exact <= before
    theta = np.where(better[:, None], corner, minimum.coordinates)
    objective = np.where(better, exact, before)
    norm = np.array([certificate(problem, end, size * 1e-5) for end in theta])
    return Minimum(theta, objective, norm, norm <= 1e-6, minimum.at_bound, total)


def _corner(problem: Problem, theta: Array, near: float) -> Array:
    """The point close to theta where the rows with (nearly) no residual have none: a kink of the absolute loss."""
    free = np.flatnonzero(problem.free & (theta > problem.lower) & (theta < problem.upper))
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
