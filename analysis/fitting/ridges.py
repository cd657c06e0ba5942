"""The plainest of the minima along a ridge that leads a parameter to the end of its range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .law import Array
from .minimiser import minimise
from .problem import Problem

TIE = 1e-6
"""Objectives this close, relatively, are equal: single precision of a metric with 1 % noise moves them more."""
PROFILE = np.geomspace(1e-2, 1.0, 40)
MOVED = 0.01  # a parameter that changes by less, relatively above 1, is not what the ridge is about


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
        minima = minimise(replace(problem, free=free), start, max_iterations=40, bend=True)
        equal = np.flatnonzero(minima.objective <= objective * (1 + TIE))
        if not equal.size or equal[0] == len(PROFILE) - 1:
            continue
        there = minima.coordinates[equal[0]]
        change = np.abs(there - coordinates) > MOVED * np.maximum(1.0, np.abs(coordinates))
        open_names += [r.name for r, changed in zip(problem.law.parameters, change, strict=True) if changed]
        coordinates = there
    return coordinates, open_names
