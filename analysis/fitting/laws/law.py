"""What a law is: named parameters with bounds and units, a formula over columns, and its slopes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from results.errors import UsageError

Array = NDArray[np.floating[Any]]
Values = Mapping[str, Array]
UnitPower = float | Callable[[Values], Array | np.float64]

MAX_GRID = 1500
LOSS = "loss"  # the unit of the predicted quantity, whatever metric it is


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    `lower` and `upper` bound it in scaled units (columns divided by their geometric mean, the metric by its median),
    so that they mean the same for 1e6 and for 1e12 parameters. `log` tells the minimiser to move in its logarithm.
    `unit` maps a column (or `LOSS`) to the power with which the parameter scales with it: A of A/N^alpha has
    {LOSS: 1, "params": alpha}. `linear` marks a parameter that the law is linear in (solved for, not searched);
    the others give a `grid` of values to start from. `plain` is the value to prefer where the data leave it open.
    """

    name: str
    lower: float = 0.0
    upper: float = np.inf
    log: bool = False
    linear: bool = False
    unit: Mapping[str, UnitPower] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    plain: float | None = None


class Columns:
    """The explaining columns of n rows, scaled, with what follows from them alone computed once.

    A column has shape (n,); where each of S resamples has rows of its own, (S, n). Laws work on them elementwise.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        self._values = dict(values)
        self._derived: dict[Hashable, Array] = {}

    def value(self, name: str) -> Array:
        """The column, shape (n,) or (S, n)."""
        return self._values[name]

    def log(self, name: str) -> Array:
        """The natural logarithm of the column, shape (n,) or (S, n)."""
        return self.derived(name, lambda columns: np.log(columns.value(name)))

    def derived(self, key: Hashable, compute: Callable[[Columns], Array]) -> Array:
        """What `compute` makes of the columns row by row, shape (n,) or (S, n); computed once for each `key`."""
        if key not in self._derived:
            self._derived[key] = compute(self)
        return self._derived[key]

    def rows(self, chosen: slice | NDArray[np.int64]) -> Columns:
        """The same columns for some of the rows: (m,), or (S, m), other ones for each resample."""
        return self._each(lambda column: column[..., chosen])

    def select(self, starts: NDArray[np.int64]) -> Columns:
        """The columns of some of the resamples, where each has its own."""
        return self._each(lambda column: column[starts] if column.ndim == 2 else column)

    @staticmethod
    def stacked(tables: Sequence[Columns], rows: int) -> Columns:
        """The columns of K tables, (K, rows): shorter ones repeat their last row."""
        return Columns({name: padded([table.value(name) for table in tables], rows) for name in tables[0]._values})

    def _each(self, change: Callable[[Array], Array]) -> Columns:
        cut = Columns({name: change(column) for name, column in self._values.items()})
        cut._derived = {key: change(column) for key, column in self._derived.items()}
        return cut


def padded(arrays: Sequence[Array], rows: int, mode: Literal["edge", "constant"] = "edge") -> Array:
    """K arrays of different lengths side by side, (K, rows): shorter ones repeat their last value, or 0."""
    return np.stack([np.pad(array, (0, rows - len(array)), mode=mode) for array in arrays])


class Law(ABC):
    """A scaling law: a value that can predict and differentiate itself for many parameter vectors at once.

    A subclass sets `name`, `formula`, `source`, `columns` and `parameters` and implements `predict`; it should
    implement `evaluate` too (the default differentiates `predict` by the complex step, exact but slower) and
    `linear_system` where fixing some parameters leaves a linear problem. See `SeparableLaw` for the usual case.
    """

    name: str
    formula: str
    source: str
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    metric_columns: tuple[str, ...] = ()  # columns in the unit of the metric (a floor), scaled with it
    constant_columns: Mapping[str, float] = MappingProxyType({})  # columns that the law itself fills with a number
    optional_columns: Mapping[str, float] = MappingProxyType({})  # columns that `filled` makes up where none is given
    signed_columns: tuple[str, ...] = ()  # columns that may be negative or 0
    scaled_with: Mapping[str, str] = MappingProxyType({})  # columns divided by the scale of another, and of which
    free_coefficients: tuple[str, ...] = ()  # coefficients of `linear_system` without a sign, whatever their bounds
    floor_parameter: str | None = None  # the irreducible part of the metric, where the law has one
    unscaled: frozenset[str] = frozenset()  # columns, or LOSS, that keep their unit in a fit
    enough: int = 0  # starts tried first, of those that `screening` asks for: where a third agree, no more are
    floor_signs: bool = False  # a metric that is negative somewhere gives this law a floor of either sign
    signed_floor: bool = False  # whether its floor has either sign already
    positive: bool = False  # whether every value that the law can take is positive
    falls_with: tuple[str, ...] = ()  # columns with which the law can fall, but not rise
    smooth_trial: bool = False  # starts are tried by least squares: for surfaces with kinks on the way to the minimum
    patience: int = 1  # by how much a start may take longer than others: in long, bent valleys
    screening: int = 0  # starts tried briefly before the best are polished: for surfaces with many minima and valleys

    @abstractmethod
    def predict(self, p: Values, x: Columns) -> Array:
        """The predicted metric, shape (S, n), for S parameter vectors; each p[name] has shape (S, 1)."""

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        """The prediction and its slope in each parameter, in the order of `parameters`; each of shape (S, n)."""
        value = np.asarray(self.predict(p, x))
        slopes = []
        step = 1e-30
        for parameter in self.parameters:
            moved = dict(p)
            moved[parameter.name] = p[parameter.name] + 1j * step  # type: ignore[assignment]
            slopes.append(np.imag(self.predict(moved, x)) / step)
        return value, slopes

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        """For non-linear parameters p (S, 1): the columns multiplying each linear coefficient, target and weight.

        The linear coefficients then minimise sum(weight * (columns @ coefficients - target)^2). None: nothing is
        linear, and the grid alone gives the starts.
        """
        return None

    def complete(self, p: Values, coefficients: Mapping[str, Array]) -> dict[str, Array]:
        """All parameters from the non-linear ones and the coefficients solved for."""
        return {**p, **coefficients}

    def derived(self, p: Values) -> dict[str, Array]:
        """Quantities that follow from the parameters alone (natural units), such as a = beta / (alpha + beta)."""
        return {}

    def starting_grid(self, fixed: Mapping[str, float]) -> dict[str, Array]:
        """Values of the non-linear parameters, each (S,), at which the linear ones are solved for.

        All combinations of the parameters' grids, or a fixed pseudo-random subset where these are too many.
        """
        solved = self.solved_for
        searched = [q for q in self.parameters if q.name not in solved]
        axes = [[fixed[q.name]] if q.name in fixed else list(q.grid) or usual_values(q) for q in searched]
        size = int(np.prod([len(axis) for axis in axes], dtype=float))
        if size <= MAX_GRID:
            points = np.array(list(product(*axes)), dtype=float).reshape(size, len(axes))
        else:
            draw = np.random.Generator(np.random.PCG64(20240404))  # a constant: the same law has the same grid
            points = np.stack([draw.choice(axis, MAX_GRID) for axis in axes], axis=1)
        return {q.name: points[:, k] for k, q in enumerate(searched)}

    @property
    def solved_for(self) -> tuple[str, ...]:
        """The linear parameters that `linear_system` solves for; none where the law does not implement it."""
        if type(self).linear_system is Law.linear_system:
            return ()
        return tuple(q.name for q in self.parameters if q.linear)

    def basins(self, grid: Values) -> list[Array]:
        """Labels, each (S,), of grid points that may lead to different minima: the best of each combination starts."""
        return []

    def further(self, p: Values, x: Columns, times: Array) -> dict[str, Array] | None:
        """Parameters (S, 1) `times` (S, 1) as far along a valley in which p (S, 1) may lie.

        A valley: parameters that grow together, to the bounds, while the prediction hardly changes. Steps along its
        bends are small; a law that knows its valleys spares hundreds of them. None: the law knows of no valley.
        """
        return None

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        """Non-linear parameters to start from, given grid values that may be relative to the (scaled) data."""
        return dict(p)

    def with_floor(self, value: float | None, called: str) -> tuple[Law, dict[str, float]]:
        """The law with its floor at `value`, or in a column (None), and the parameters that `fit` then holds fixed.

        Raises UsageError, by the name that the law was called, for a floor that it cannot have.
        """
        if self.floor_parameter not in self.names:
            raise UsageError(f"law {called} has no floor")
        if value is None:
            raise UsageError(f"law {called} takes FREE or a number; a column serves law power alone")
        least = next(q.lower for q in self.parameters if q.name == self.floor_parameter)
        if value < least and self.floor_signs:
            return self.with_signed_floor(), {str(self.floor_parameter): value}
        if value < least:
            raise UsageError(f"{self.floor_parameter} of law {called} is at least {least:g}")
        return self, {str(self.floor_parameter): value}

    def with_signed_floor(self) -> Law:
        """The same law with a floor of either sign. Raises UsageError where its floor is no coefficient of the law."""
        floor = next((q for q in self.parameters if q.name == self.floor_parameter), None)
        if floor is None or floor.log or not floor.linear:
            raise UsageError(f"law {self.name} has no floor that could be negative")
        law = copy(self)
        law.parameters = tuple(replace(q, lower=-np.inf) if q is floor else q for q in self.parameters)
        law.signed_floor = True
        return law

    def for_columns(self, names: Collection[str]) -> Law:
        """The law for a table of which columns of these roles are given: some laws have forms of one and of two."""
        return self

    def coded(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The columns with numbers in the place of texts, in columns of labels."""
        return dict(columns)

    def prepared(self, columns: Columns) -> Columns:
        """The columns with what rows have to know of each other, before any rows are cut or resampled."""
        return columns

    def filled(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        """The columns with those that the law itself fills with a number, each (rows,)."""
        return {**columns, **{name: np.full(rows, value) for name, value in self.constant_columns.items()}}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def label(self) -> str:
        """What the law is called where several are compared."""
        return self.name + "".join(f"({value})" for value in self.options().values())

    def options(self) -> dict[str, float | str | int]:
        """The options with which `laws.law_named` builds this law again."""
        return {}


def usual_values(q: Parameter) -> list[float]:
    """Values to start from of a parameter without a grid, inside its bounds (scaled units)."""
    if q.log:
        low, high = max(q.lower, 1e-3), min(q.upper, 1e3)
        return [float(v) for v in np.geomspace(low, high, 7)] if low < high else [q.lower]
    sizes = (0.03, 0.1, 0.3, 0.6, 1.0, 2.0)
    values = [v for v in (*sizes, *(-size for size in sizes)) if q.lower <= v <= q.upper]
    # bounds that leave out all of these are narrow or far from 0
    far = np.linspace(max(q.lower, -1e3), min(q.upper, 1e3), 5) if not values else ()
    return values or [float(v) for v in far]


@dataclass(frozen=True)
class Term:
    """One term of a separable law: coefficient * value, with the slopes of value in the non-linear parameters.

    `coefficient` names a linear parameter; None stands for a term with the coefficient 1 (an offset).
    """

    coefficient: str | None
    value: Array | float
    slopes: Mapping[str, Array] = field(default_factory=dict)


class SeparableLaw(Law):
    """A law that is a sum of coefficient * function terms: give `terms` and everything else follows."""

    @abstractmethod
    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        """The terms; each value and slope broadcasts to (S, n)."""

    def predict(self, p: Values, x: Columns) -> Array:
        total: Array | float = 0.0
        for term in self.terms(p, x):
            total = total + (term.value if term.coefficient is None else p[term.coefficient] * term.value)
        return np.asarray(total)

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        total: Array | float = 0.0
        slopes: dict[str, Array] = {}
        for term in self.terms(p, x):
            if term.coefficient is None:
                total = total + term.value
                coefficient: Array | float = 1.0
            else:
                coefficient = p[term.coefficient]
                total = total + coefficient * term.value
                slopes[term.coefficient] = np.asarray(term.value)
            for name, slope in term.slopes.items():
                move = coefficient * slope
                slopes[name] = slopes[name] + move if name in slopes else move
        for name in self.names:
            if name not in slopes:
                raise UsageError(
                    f"law {self.name}: no term has {name!r} as its coefficient, and none has a slope in {name!r}"
                )
        return np.asarray(total), [slopes[name] for name in self.names]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        basis: dict[str, Array] = {}
        offset: Array | float = 0.0
        solved = self.solved_for
        for term in self.terms({**dict.fromkeys(solved, np.ones((1, 1))), **p}, x):
            if term.coefficient is None:
                offset = offset + term.value
            elif term.coefficient not in solved:  # searched, not solved for
                offset = offset + p[term.coefficient] * term.value
            else:
                value = np.asarray(term.value)
                basis[term.coefficient] = basis.get(term.coefficient, 0.0) + value
        missing = [name for name in solved if name not in basis]
        if missing:
            raise UsageError(f"law {self.name}: {missing[0]!r} is marked linear, but is no term's coefficient")
        columns = [basis[name] for name in solved]
        # relative residuals stand in for logarithmic ones: (prediction - metric) / metric ~ log(prediction / metric)
        return columns, metric - offset, 1.0 / metric**2
