"""Which parameters the data leave open: directions of the parameters that change no prediction."""

from __future__ import annotations

import numpy as np

from .law import Array, Law
from .problem import Problem, parameters_of, residuals
from .scales import Scales

SINGULAR = 1e-8  # a direction of the normalised slopes below this is not identified
DEAD = 1e-7  # root mean square of a parameter's (scaled) slopes below which it moves no prediction
PART = 1e-3  # a parameter at an edge is known to be there unless it has this part in a direction that changes nothing
MAX_ROWS = 4000


def not_identified(law: Law, problem: Problem, theta: Array, scales: Scales) -> list[str]:
    """Names of the parameters that the data leave open to first order: those that move along a null direction of the
    slopes without changing any prediction."""
    n = problem.target.shape[-1]
    sample = problem if n <= 20 * MAX_ROWS else problem.rows(slice(0, n, n // MAX_ROWS))
    _, jacobian = residuals(sample, theta[None, :])
    slopes = jacobian[0] * np.sqrt(sample.weights > 0)
    moving = np.flatnonzero(problem.free)
    edge = ((theta <= problem.lower) | (theta >= problem.upper))[moving]
    if not len(moving):
        return []
    chosen = slopes[moving].T
    size = np.sqrt(np.mean(chosen**2, axis=0))
    dead = size < DEAD
    normal = chosen / np.where(dead, 1.0, size) / np.sqrt(len(chosen))
    normal[:, dead] = 0.0
    _, singular, right = np.linalg.svd(np.linalg.qr(normal, mode="r"), full_matrices=True)
    padded = np.zeros(len(moving))
    padded[: len(singular)] = singular
    null = right[padded < SINGULAR]
    lost: set[str] = set()
    natural = scales.natural(law, {k: v[0, 0] for k, v in parameters_of(law, theta[None, :]).items()})
    for direction in np.where(edge & (np.abs(null) < PART), 0.0, null):
        step = np.zeros_like(theta)
        step[moving] = direction / np.where(dead, 1.0, size)
        step *= 1e-4 / np.max(np.abs(step))
        there = scales.natural(law, {k: v[0, 0] for k, v in parameters_of(law, (theta + step)[None, :]).items()})
        for name, value in natural.items():
            if abs(float(there[name]) - float(value)) > 1e-9 * max(abs(float(value)), 1e-300):
                lost.add(name)
    return [name for name in law.names if name in lost]
