"""Which parameters the data leave open: directions that change no prediction, and ridges along which fits are equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .law import Array, Law
from .minimiser import minimise
from .problem import Problem, residuals
from .scales import Scales

SINGULAR = 1e-8  # a direction of the normalised slopes below this is not identified
DEAD = 1e-7  # root mean square of a parameter's (scaled) slopes below which it moves no prediction
PART = 1e-3  # a parameter at an edge is known to be there unless it has this part in a direction that changes nothing
MAX_ROWS = 4000
TIE = 1e-6
"""Objectives this close, relatively, are equal: single precision of a metric with 1 % noise moves them more."""
PROFILE = np.geomspace(1e-2, 1.0, 40)
MOVED = 0.01  # a parameter that changes by less, relatively above 1, is not what the ridge is about


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
    values = scales.natural_at(law, theta)
    for direction in np.where(edge & (np.abs(null) < PART), 0.0, null):
        step = np.zeros_like(theta)
        step[moving] = direction / np.where(dead, 1.0, size)
        step *= 1e-4 / np.max(np.abs(step))
        moved = scales.natural_at(law, theta + step)
        for name, [value] in values.items():
            if abs(moved[name][0] - value) > 1e-9 * max(abs(value), 1e-300):
                lost.add(name)
    return [name for name in law.names if name in lost]


def plainest(problem: Problem, coordinates: Array, objective: float, lost: list[str]) -> tuple[Array, list[str]]:
    """Coordinates (p,) that fit as well as the given ones and are less extreme, and the parameters that are open.

    A parameter with a `plain` value that is `lost` (not identified) or at a bound may lie on a ridge, along which the
    objective changes by nothing that the data could tell: a break between the last two points bends the curve after
    it to any slope. Its profile says so; of the values that fit as well, the one nearest to the plain value is taken,
    because predictions beyond the data follow from it.
    """
    open_names: list[str] = []
    for k, q in enumerate(problem.law.parameters):
        at_bound = coordinates[k] <= problem.lower[k] or coordinates[k] >= problem.upper[k]
        if q.plain is None or not problem.free[k] or not (at_bound or q.name in lost):
            continue
        start = np.repeat(coordinates[None, :], len(PROFILE), axis=0)
        start[:, k] = q.plain + PROFILE * (coordinates[k] - q.plain)
        free = problem.free.copy()
        free[k] = False
        profile = minimise(replace(problem, free=free), start, max_iterations=40, bend=True)
        equal = np.flatnonzero(profile.objective <= objective * (1 + TIE))
        if not equal.size or equal[0] == len(PROFILE) - 1:
            continue
        plain = profile.coordinates[equal[0]]
        change = np.abs(plain - coordinates) > MOVED * np.maximum(1.0, np.abs(coordinates))
        open_names += [r.name for r, changed in zip(problem.law.parameters, change, strict=True) if changed]
        coordinates = plain
    return coordinates, open_names
