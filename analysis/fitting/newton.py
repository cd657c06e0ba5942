"""Finish starts that lie near a minimum by Newton steps with the whole Hessian, many starts at once."""

from __future__ import annotations

import numpy as np

from .law import Array
from .minimiser import GRADIENT_TOLERANCE
from .problem import Problem, evaluate
from .steps import gradient_norm, held_coordinates

STEP = 1e-5  # of central differences of the gradient; coordinates are logarithms and exponents, of the order of 1


def hessian(problem: Problem, coordinates: Array) -> Array:
    """Second derivatives (S, p, p) of the objective: central differences of the exact gradient, inside the bounds."""
    count, size = coordinates.shape
    each = np.arange(size)
    step = STEP * np.maximum(1.0, np.abs(coordinates))
    above = np.repeat(coordinates[:, None, :], size, axis=1)
    below = above.copy()
    above[:, each, each] = np.minimum(coordinates + step, problem.upper)
    below[:, each, each] = np.maximum(coordinates - step, problem.lower)
    apart = (above - below)[:, each, each]
    spread = problem.select(np.tile(np.repeat(np.arange(count), size), 2))
    ends = np.concatenate([above.reshape(-1, size), below.reshape(-1, size)])
    there, back = evaluate(spread, ends).gradient.reshape(2, count, size, size)
    slope = (there - back) / np.where(apart > 0, apart, 1.0)[:, :, None]
    return 0.5 * (slope + slope.transpose(0, 2, 1))


def newton(problem: Problem, start: Array, iterations: int, tolerance: float = GRADIENT_TOLERANCE) -> Array:
    """Coordinates (S, p) after at most `iterations` damped Newton steps from every start (S, p), none of them uphill.

    Levenberg-Marquardt knows the curvature of the loss but not that of the law; where a valley bends more than its
    floor slopes it takes hundreds of steps for what these do in five. Negative eigenvalues of the Hessian, scaled by
    the reweighted curvatures, count by their size, so that a saddle is left.
    """
    theta = np.clip(start, problem.lower, problem.upper)
    each = np.arange(theta.shape[1])
    index, moving, current = np.arange(len(theta)), problem, theta.copy()
    at, damping = evaluate(problem, theta), np.full(len(theta), 1e-3)
    for _ in range(iterations):
        held = held_coordinates(current, at, moving)
        going = np.flatnonzero(gradient_norm(at, held) > tolerance)
        if len(going) < len(index):
            index, current, held, damping = index[going], current[going], held[going], damping[going]
            at, moving = at.select(going), moving.select(going)
        if not len(index):
            break
        curvature = np.maximum(at.reweighted[:, each, each], 1e-300)
        scale = np.sqrt(np.maximum(curvature, 1e-20 * curvature.max(axis=1, keepdims=True)))
        matrix = hessian(moving, current) / (scale[:, :, None] * scale[:, None, :])
        matrix[held] = 0.0
        matrix.transpose(0, 2, 1)[held] = 0.0
        matrix[:, each, each] += held
        usable = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(at.gradient).all(axis=1)
        matrix[~usable] = np.eye(len(each))
        values, vectors = np.linalg.eigh(matrix)
        pull = np.where(held | ~usable[:, None], 0.0, at.gradient / scale)
        along = np.einsum("spk,sp->sk", vectors, pull) / (np.maximum(np.abs(values), 1e-14) + damping[:, None])
        step = -np.einsum("spk,sk->sp", vectors, along) / scale
        trial = np.clip(current + step, problem.lower, problem.upper)
        tried = evaluate(moving, trial)
        with np.errstate(invalid="ignore"):
            good = tried.objective <= at.objective * (1 + 1e-15)
        good &= np.isfinite(tried.gradient).all(axis=1)
        # valleys are flatter than their walls are steep by up to 1e10: a few good steps must do for that
        damping = np.clip(np.where(good, 0.001, 10.0) * damping, 1e-16, 1e16)
        current = np.where(good[:, None], trial, current)
        theta[index] = current
        at = at.improved(tried, good)
    return theta
