"""What laws are made of: parameters of the usual kinds, power terms, grids of exponents."""

from __future__ import annotations

import numpy as np

from .law import LOSS, Columns, Parameter, Term, UnitPower, Values

EXPONENTS = tuple(float(v) for v in np.geomspace(0.03, 2.0, 12))
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


def floor_and_powers(
    *powers: tuple[str, str, str], grid: tuple[float, ...] = EXPONENTS, lower: float = 0.0
) -> tuple[Parameter, ...]:
    """The parameters of a floor E and of powers (coefficient, column, exponent): coefficients first, then exponents."""
    amplitudes = (amplitude_of(*power) for power in powers)
    return floor_of(lower=lower), *amplitudes, *(exponent_of(exponent, grid) for *_, exponent in powers)


def power_of(p: Values, x: Columns, coefficient: str, column: str, exponent: str) -> Term:
    """coefficient * column^-exponent"""
    log = x.log(column)
    value = np.exp(-p[exponent] * log)
    return Term(coefficient, value, {exponent: value * -log})
