"""What laws are made of: parameters of the usual kinds, power terms, grids of exponents."""

from __future__ import annotations

import numpy as np

from .law import LOSS, Array, Columns, Parameter, Term, UnitPower, Values

EXPONENTS = tuple(float(v) for v in np.geomspace(0.03, 2.0, 12))
COARSE_EXPONENTS = tuple(float(v) for v in np.geomspace(0.05, 2.0, 7))
MAX_EXPONENT = 10.0


def floor_of(name: str = "E", lower: float = 0.0) -> Parameter:
    return Parameter(name, lower=lower, linear=True, unit={LOSS: 1.0})


def amplitude_of(name: str, column: str, exponent: str) -> Parameter:
    return Parameter(
        name, lower=1e-9, upper=1e9, log=True, linear=True, unit={LOSS: 1.0, column: lambda p: p[exponent]}
    )


def exponent_of(name: str, grid: tuple[float, ...] = EXPONENTS) -> Parameter:
    return Parameter(name, lower=0.0, upper=MAX_EXPONENT, grid=grid)


def scale_of(name: str, exponent: str, loss: UnitPower = 1.0) -> Parameter:
    """The factor before a curve of x, of the unit loss * x^exponent: over many more orders than an amplitude."""
    return Parameter(name, 1e-30, 1e30, log=True, linear=True, unit={LOSS: loss, "x": lambda p: p[exponent]})


def power_of(p: Values, x: Columns, coefficient: str, column: str, exponent: str) -> Term:
    """coefficient * column^-exponent"""
    log = x.log(column)
    value = np.exp(-p[exponent] * log)
    return Term(coefficient, value, {exponent: value * -log})


def share(part: Array, other: Array) -> Array:
    """part / (part + other), nan where both are 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part / (part + other))
