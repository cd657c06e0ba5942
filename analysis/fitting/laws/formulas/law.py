"""A law typed as a formula: its parameters, their bounds and starts, what it is linear in, all found from the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from results.errors import UsageError

from ..law import Array, Columns, Law, Parameter, Values
from .grammar import Source, Tree, parse
from .structure import Structure, Use, positive_names, uses_of
from .tape import Tape
from .units import Units, units_of

METRIC_NAMES = ("L", "loss", "y")
"""What the metric may be called in a formula: to the left of the equals sign."""
EXPONENT = 10.0
"""An exponent's size is at most this, unless a bound says otherwise."""
SMALLEST = 1e-3
"""And at least this, where it has to be positive."""
LARGEST = 1e30
TRIALS = 48
MANY = 3
"""From so many parameters that are searched over, more starts are tried."""
ENOUGH, TRIES = 12, 64

Bounds = Mapping[str, tuple[float, float]]


class FormulaLaw(Law):
    """A law such as `E + A/N^alpha + B/D^beta`, or `L = ...`; every name that is not a column is a parameter.

    text: the formula. columns: the names in it that are columns of the table. bounds: lower and upper bounds of
    parameters, in natural units; without one, an exponent written as 1/x^a or x^-a is at least 0 and others lie within
    -10 and 10, what stands in the base of a power or in a logarithm is positive, and coefficients have either sign.

    Raises UsageError, in one line that marks the place, for what is no formula, a name that cannot be, a parameter
    that cancels, and bounds that are none.
    """

    name = "formula"
    source = "typed by the user"

    def __init__(self, text: str, columns: Sequence[str] | str = (), bounds: Bounds | str = "") -> None:
        self.text = " ".join(text.split())
        self._source = Source(self.text)
        self.columns = tuple(columns.split(",") if isinstance(columns, str) and columns else columns)
        self.bounds = _bounds_read(bounds) if isinstance(bounds, str) else dict(bounds)
        left, right = parse(self._source)
        tree = self._solved_for(left, right)
        names = tree.names()
        self._check_names(names)
        free = [name for name in names if name not in (*self.columns, self.metric_name)]
        below = {name for name, (lower, _) in self.bounds.items() if lower < 0}
        positive = (positive_names(tree) | {name for name, (lower, _) in self.bounds.items() if lower > 0}) - below
        self.signed_columns = tuple(name for name in self.columns if name not in positive)
        self.tape = Tape(self._source, tree, self.columns, positive)
        uses = uses_of(tree, self.columns)
        plain = [name for name in free if not (uses[name].exponent or uses[name].rate)]
        self.structure = self._structure(free, plain)
        self.units = self._units(left, right, frozenset(self.signed_columns))
        # a bound in natural units is one in scaled units where nothing is scaled
        bounded = [name for name, ends in self.bounds.items() if not set(ends) <= {0.0, np.inf, -np.inf}]
        self.unscaled = frozenset(key for name in bounded for key in self.units.parameters.get(name, {}))
        self.scaled_with = self.units.together
        self.free_coefficients = tuple(self.structure.logarithms)
        self.parameters = tuple(self._parameter(name, uses[name], name in positive) for name in free)
        self._check_cancelled(names)
        alone = self.structure.alone
        self.floor_parameter = alone if alone in self.names else None
        self.screening = 0 if len(self.structure.searched) < MANY else TRIES
        self.enough = ENOUGH

    # --- what the text says ---

    metric_name: str | None = None

    def _solved_for(self, left: Tree | None, right: Tree) -> Tree:
        """The part of the formula that is the metric."""
        if left is not None:
            again = right.names().get(str(left.value))
            if again is not None:
                self._source.fail(again, f"{left.value!r} is the metric; it cannot explain itself")
        self.formula = f"L = {self._source.text[right.place[0] : right.place[1]]}"
        return right

    def _structure(self, free: Sequence[str], coefficients: Sequence[str]) -> Structure:
        return Structure(self.tape, free, coefficients=coefficients)

    def _units(self, left: Tree | None, right: Tree, unscaled: frozenset[str]) -> Units:
        return units_of(right, self.columns, unscaled)

    def _check_names(self, names: Mapping[str, tuple[int, int]]) -> None:
        for column in self.columns:
            if column not in names:
                raise UsageError(f"law: the column {column!r} does not occur in {self.text!r}")
        for name in self.bounds:
            if name not in names or name in self.columns:
                allowed = ", ".join(other for other in names if other not in self.columns)
                raise UsageError(f"bound {name}: {self.text!r} has no parameter {name!r}; it has {allowed}")
        if not set(names) - {*self.columns, self.metric_name}:
            raise UsageError(f"law: {self.text!r} has no parameter to fit")
        if not self.columns:
            listed = ", ".join(names)
            raise UsageError(
                f"law: no name in {self.text!r} is a column; say which of {listed} are (--column NAME=COLUMN)"
            )

    def _parameter(self, name: str, use: Use, positive: bool) -> Parameter:
        lower, upper = self.bounds.get(name, (-np.inf, np.inf))
        unit = self.units.parameters.get(name, {})
        if name not in self.bounds:
            if use.exponent:
                lower, upper = (SMALLEST if positive else 0.0 if use.falling else -EXPONENT), EXPONENT
            else:
                lower, upper = (1.0 / LARGEST, LARGEST) if positive else (-np.inf, np.inf)
        return Parameter(name, lower, upper, log=lower > 0, linear=name in self.structure.linear, unit=unit)

    def _check_cancelled(self, names: Mapping[str, tuple[int, int]]) -> None:
        """A parameter whose slope is 0 whatever the values."""
        draw = np.random.Generator(np.random.PCG64(11))  # a constant: a formula is refused always or never
        x = Columns({name: np.exp(draw.normal(0, 2, TRIALS)) for name in self.columns})
        p = {
            name: np.exp(draw.normal(0, 0.7, (TRIALS, 1)))
            for name in {*self.names} | self.tape.operations[self.tape.root].parameters
        }
        with np.errstate(all="ignore"):
            values = self.tape.values(p, x)
            slopes = self.tape.slopes(values)
            size = np.abs(values[self.tape.root])
            for name in self.names:
                moved = np.abs(slopes.get(name, 0.0) * p[name])
                if not np.any(np.isfinite(moved) & (moved > 1e-12 * size)):
                    self._source.fail(names[name], f"the parameter {name!r} cancels: no value of it changes the law")

    # --- what a law does ---

    def predict(self, p: Values, x: Columns) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.tape.values(p, x)[self.tape.root])

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        with np.errstate(all="ignore"):
            values = self.tape.values(p, x)
            slopes = self.tape.slopes(values)
        return np.asarray(values[self.tape.root]), [np.asarray(slopes[name]) for name in self.names]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        return self.structure.system(p, x, metric)

    def starting_grid(self, fixed: Mapping[str, float]) -> dict[str, Array]:
        return self.structure.grid(self.parameters, fixed)

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        return self.structure.to_data(p, x, metric)

    @property
    def label(self) -> str:
        return self.text

    def options(self) -> dict[str, float | str | int]:
        return {"text": self.text, "columns": ",".join(self.columns), "bounds": _bounds_text(self.bounds)}


_BOUND = re.compile(r"^\s*([^\W\d]\w*)\s*=\s*([^:]*):([^:]*)$")


def bound_of(text: str) -> tuple[str, tuple[float, float]]:
    """The name and the two ends of `alpha=0:2`; an end left out is infinite. Raises UsageError for anything else."""
    match = _BOUND.match(text)
    try:
        if match is None:
            raise ValueError
        name, low, high = match.groups()
        lower = float(low) if low.strip() else -np.inf
        upper = float(high) if high.strip() else np.inf
    except ValueError:
        raise UsageError(f"bound={text!r} is not NAME=LOWER:UPPER, such as alpha=0:2 or A=0:") from None
    if not lower < upper:
        raise UsageError(f"bound={text!r}: the lower end is not below the upper")
    return name, (lower, upper)


def _bounds_read(text: str) -> dict[str, tuple[float, float]]:
    return dict(bound_of(part) for part in text.split(",") if part.strip())


def _bounds_text(bounds: Bounds) -> str:
    return ",".join(f"{name}={lower!r}:{upper!r}" for name, (lower, upper) in bounds.items())
