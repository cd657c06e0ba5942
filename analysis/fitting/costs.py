"""What training costs: FLOPs as a function of parameters N and tokens D."""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from results.errors import DataError, UsageError

from .laws.law import Array

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1
ROUNDING = 1e-9


@dataclass(frozen=True)
class PowerCost:
    """C = coefficient * N^params_power * D^tokens_power; 6ND by default (Kaplan et al. 2020, section 2.1)."""

    coefficient: float = FLOPS_PER_PARAM_TOKEN
    params_power: float = 1.0
    tokens_power: float = 1.0

    def flops(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """FLOPs at (N, D)."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        return np.asarray(self.coefficient * n**self.params_power * d**self.tokens_power)

    def slopes(self, log_params: Array, log_tokens: Array) -> tuple[float, float]:
        """d log C / d log N and d log C / d log D."""
        return self.params_power, self.tokens_power

    def describe(self) -> str:
        """The formula, for people."""
        if (self.params_power, self.tokens_power) == (1.0, 1.0):
            return f"C = {self.coefficient:g} N D"
        return f"C = {self.coefficient:.4g} N^{self.params_power:.4g} D^{self.tokens_power:.4g}"


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_CALLS = {"log": (np.log, 1), "exp": (np.exp, 1), "sqrt": (np.sqrt, 1), "min": (np.minimum, 2), "max": (np.maximum, 2)}
_LONGEST = 300  # characters of a formula: deeper nesting than that would exhaust the stack


@dataclass(frozen=True)
class FormulaCost:
    """A formula in N and D, such as "6*N*D + 2e9*D": arithmetic, log, exp, sqrt, min and max, nothing else.

    Raises UsageError for anything else, and where the formula does not grow with both N and D.
    """

    formula: str

    def __post_init__(self) -> None:
        if len(self.formula) > _LONGEST:
            raise UsageError(f"cost: a formula of {len(self.formula)} characters; allowed: up to {_LONGEST}")
        grid = np.geomspace(1e6, 1e12, 13)
        for letter, values in (("D", self.flops(1e9, grid)), ("N", self.flops(grid, 1e9))):
            if not np.all(np.isfinite(values)) or np.any(np.diff(values) < 0) or not values[-1] > values[0]:
                raise UsageError(f"cost={self.formula!r} does not grow with {letter}")

    def flops(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """FLOPs at (N, D)."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        try:
            tree = ast.parse(self.formula.strip().replace("^", "**"), mode="eval")
        except (SyntaxError, ValueError):
            raise UsageError(f"cost={self.formula!r} is not a formula") from None
        with np.errstate(all="ignore"):  # what is not a number is found by its value
            return np.asarray(self._value(tree.body, {"N": n, "D": d}), dtype=float) * np.ones(np.broadcast(n, d).shape)

    def slopes(self, log_params: Array, log_tokens: Array) -> tuple[Array, Array]:
        """d log C / d log N and d log C / d log D, by central differences."""
        step = 1e-4

        def slope(n_step: float, d_step: float) -> Array:
            more = self.flops(np.exp(log_params + n_step), np.exp(log_tokens + d_step))
            return np.log(more / self.flops(np.exp(log_params - n_step), np.exp(log_tokens - d_step))) / (2 * step)

        return slope(step, 0.0), slope(0.0, step)

    def _value(self, node: ast.expr, names: Mapping[str, Array]) -> Array:
        """The value of a part of the formula: known names, functions and operators, finite numbers, nothing else."""
        match node:
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() | float() as number) if abs(number) <= sys.float_info.max:
                return np.asarray(float(number))
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
                return _OPERATORS[type(sign)](self._value(operand, names))
            case ast.BinOp(op=sign, left=left, right=right) if type(sign) in _OPERATORS:
                return np.asarray(_OPERATORS[type(sign)](self._value(left, names), self._value(right, names)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
                function, count = _CALLS[name]
                if len(args) == count:
                    return np.asarray(function(*(self._value(argument, names) for argument in args)))
        allowed = "N, D, numbers, + - * / ^, log(a), exp(a), sqrt(a), min(a, b), max(a, b)"
        raise UsageError(f"cost={self.formula!r}: only {allowed}")

    def describe(self) -> str:
        """The formula, for people."""
        return f"C = {self.formula}"


def fit_cost(params: ArrayLike, tokens: ArrayLike, flops: ArrayLike) -> PowerCost:
    """The power law C = k N^u D^v through a column of real FLOPs, by least squares in logarithms.

    Raises DataError where N or D does not vary enough to tell u from v.
    """
    n, d, c = (np.log(np.asarray(v, dtype=float)) for v in (params, tokens, flops))
    if len(n) < 3 or not np.all(np.isfinite([*n, *d, *c])):
        raise DataError("cost: a column of FLOPs needs at least 3 rows of positive numbers")
    design = np.stack([np.ones_like(n), n - n.mean(), d - d.mean()], axis=1)
    if np.linalg.matrix_rank(design, tol=1e-6 * np.sqrt(len(n))) < 3:
        raise DataError("cost: params and tokens do not vary independently in the rows; use 6ND or a formula")
    solved = np.linalg.lstsq(design, c, rcond=None)[0]
    u, v = float(solved[1]), float(solved[2])
    if u <= 0 or v <= 0:
        raise DataError(f"cost: FLOPs fall with params (power {u:.3g}) or tokens ({v:.3g}) in these rows")
    if abs(u - 1.0) < ROUNDING and abs(v - 1.0) < ROUNDING:  # rounding of FLOPs that are k N D
        coefficient = math.exp(float(np.mean(c - n - d)))
        plain = float(f"{coefficient:.9g}")
        return PowerCost(plain if abs(plain / coefficient - 1.0) < ROUNDING else coefficient)
    return PowerCost(math.exp(float(solved[0]) - u * float(n.mean()) - v * float(d.mean())), u, v)


Cost = PowerCost | FormulaCost
