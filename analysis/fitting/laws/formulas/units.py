"""The units of a formula's parameters: with which powers of columns and metric each scales, so that fits are scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..law import LOSS, Array, UnitPower, Values
from .grammar import Tree

Number = Array | np.float64
Power = Callable[[Values], Number]
Unit = dict[str, Power]
"""The power of each column (or LOSS) in a quantity, as a function of the parameters: exponents may be among them."""

TRIALS = 3  # random parameter values at which two powers are compared: equal there, they are equal
ZERO = 1e-9


@dataclass(frozen=True)
class Units:
    """What follows for scaling: the unit of each parameter, the columns that are scaled together, those that are not.

    together: column -> the column by whose scale it is divided. unscaled: columns (or LOSS) that keep their unit,
    because the formula compares them with plain numbers (log(N), 1 + b x).
    """

    parameters: Mapping[str, Mapping[str, UnitPower]]
    together: Mapping[str, str]
    unscaled: frozenset[str]


def units_of(tree: Tree, columns: tuple[str, ...], unscaled: frozenset[str], metric: str | None = None) -> Units:
    """The units of all parameters of a formula for the metric; `metric` is the metric's own name in an equation.

    unscaled: what must not be scaled in any case. Where the formula needs a unit that something cannot have (the
    logarithm of a column, a column beside a number), the columns in it are left unscaled too; two columns of which
    only the ratio has to be a number share one scale.
    """
    names = [name for name in tree.names() if name not in columns and name != metric]
    together: dict[str, str] = {}
    while True:
        walk = _Walk(names, columns, together, unscaled, metric)
        try:
            if metric is None:
                walk.require(tree, walk.unit(LOSS))
            else:
                walk.equal(tree.parts)
            walk.settle()
        except _Conflict as conflict:
            keys = sorted(conflict.unit)
            ratio = sorted(round(float(walk.at_trials(conflict.unit[key])[0]), 9) for key in keys)
            if ratio == [-1.0, 1.0] and LOSS not in keys:
                together = {name: keys[0] if keys[1] in (name, other) else other for name, other in together.items()}
                together[keys[1]] = keys[0]
            else:
                unscaled |= set(keys)
            continue
        powers = {name: {key: _plain(walk, power) for key, power in unit.items()} for name, unit in walk.units.items()}
        loose = {name for name in columns if together.get(name, name) in unscaled}
        return Units(powers, {k: v for k, v in together.items() if v not in unscaled}, frozenset(unscaled | loose))


def _plain(walk: _Walk, power: Power) -> UnitPower:
    """The power as a number, where it is one."""
    values = walk.at_trials(power)
    if not np.isfinite(values).all():
        return power
    return float(np.round(values[0], 12)) if np.abs(values - values[0]).max() < ZERO else power


class _Conflict(Exception):
    def __init__(self, unit: Unit) -> None:
        super().__init__(sorted(unit))
        self.unit = unit


@dataclass
class _Walk:
    """One pass over the formula: units demanded from above, found from below."""

    names: list[str]
    columns: tuple[str, ...]
    together: Mapping[str, str]
    unscaled: frozenset[str]
    metric: str | None
    units: dict[str, Unit] = field(default_factory=dict)
    waiting: list[tuple[Tree, Unit]] = field(default_factory=list)
    forced: bool = False

    def __post_init__(self) -> None:
        draw = np.random.Generator(np.random.PCG64(7))  # a constant: the same formula has the same units
        self.trials = {name: draw.uniform(0.2, 1.5, TRIALS) for name in self.names}

    def at_trials(self, power: Power) -> Array:
        with np.errstate(all="ignore"):
            return np.broadcast_to(power(self.trials), (TRIALS,))

    def unit(self, key: str) -> Unit:
        key = self.together.get(key, key)
        return {} if key in self.unscaled else {key: lambda p: np.float64(1.0)}

    def plus(self, first: Unit, second: Unit, sign: float = 1.0) -> Unit:
        """The unit of a product (or of a quotient, for sign -1), without powers that are 0."""
        total = dict(first)
        for key, power in second.items():
            before = total.get(key)
            total[key] = _sum(before, power, sign)
        return {key: power for key, power in total.items() if np.abs(self.at_trials(power)).max() > ZERO}

    def times(self, unit: Unit, exponent: Tree, inverse: bool = False) -> Unit:
        return {key: _product(power, exponent, inverse) for key, power in unit.items()}

    def known(self, tree: Tree) -> Unit | None:
        """The unit of a part, None where it has a parameter whose unit is not known yet."""
        if tree.kind == "number":
            return {}
        if tree.kind == "name":
            name = str(tree.value)
            if name == self.metric:
                return self.unit(LOSS)
            return self.unit(name) if name in self.columns else self.units.get(name)
        if tree.kind in ("neg", "abs"):
            return self.known(tree.parts[0])
        if tree.kind in ("+", "-", "min", "max"):
            # one part tells the unit of all: the others are then required to have it
            units = [unit for unit in map(self.known, tree.parts) if unit is not None]
            return units[0] if units else None
        if tree.kind in ("*", "/"):
            first, second = (self.known(part) for part in tree.parts)
            if first is None or second is None:
                return None
            return self.plus(first, second, 1.0 if tree.kind == "*" else -1.0)
        if tree.kind in ("^", "sqrt"):
            base, exponent = self.known(tree.parts[0]), _exponent(tree)
            if self.varies(exponent):
                return {}
            return None if base is None else self.times(base, exponent)
        return {}

    def varies(self, exponent: Tree) -> bool:
        """Whether an exponent differs from row to row: only a plain number can then be raised to it."""
        return any(name in self.columns or name == self.metric for name in exponent.names())

    def require(self, tree: Tree, unit: Unit) -> None:
        """Give the parameters in a part the units with which it has this unit. Raises _Conflict where none do."""
        if tree.kind in ("number", "name"):
            self._require_leaf(tree, unit)
        elif tree.kind in ("neg", "abs"):
            self.require(tree.parts[0], unit)
        elif tree.kind in ("+", "-", "min", "max"):
            for part in tree.parts:
                self.require(part, unit)
        elif tree.kind in ("*", "/"):
            self._require_product(tree, unit)
        elif tree.kind in ("^", "sqrt") and not self.varies(_exponent(tree)):
            exponent = _exponent(tree)
            self.require(exponent, {})
            self.require(tree.parts[0], self.times(unit, exponent, inverse=True))
        else:  # a function of numbers, giving a number
            for part in tree.parts:
                self.require(part, {})
            if unit:
                raise _Conflict(unit)

    def equal(self, sides: tuple[Tree, ...]) -> None:
        """The same unit for both sides of an equation: that of the side whose unit is known."""
        first, second = sides
        for side in (first, second):  # exponents first: they are numbers
            for exponent in _exponents(side):
                self.require(exponent, {})
        known = self.known(first)
        if known is None:
            known, first, second = self.known(second), second, first
        self.require(first, known or {})
        self.require(second, known or {})

    def _require_leaf(self, tree: Tree, unit: Unit) -> None:
        known = self.known(tree)
        if known is None:
            self.units[str(tree.value)] = unit
            return
        apart = self.plus(unit, known, -1.0)
        if apart:
            raise _Conflict(apart)

    def settle(self) -> None:
        """Give units in products of several parameters, once all that follow from elsewhere are known."""
        while self.waiting:
            before, self.waiting = self.waiting, []
            for tree, unit in before:
                self.require(tree, unit)
            # nothing else tells: the first takes all
            self.forced = len(self.waiting) >= len(before)

    def _require_product(self, tree: Tree, unit: Unit) -> None:
        whole = unit
        unknown: list[tuple[Tree, float]] = []
        for factor, sign in factors(tree, 1.0):
            for exponent in _exponents(factor):
                self.require(exponent, {})
            known = self.known(factor)
            if known is None:
                unknown.append((factor, sign))
            else:
                unit = self.plus(unit, known, -sign)
                self.require(factor, known)
        if len([factor for factor, _ in unknown if factor.kind == "name"]) > 1 and not self.forced:
            self.waiting.append((tree, whole))
            return
        # a bare parameter takes the unit that is left; of several, the first
        unknown.sort(key=lambda pair: pair[0].kind != "name")
        for factor, sign in unknown:
            self.require(factor, unit if sign > 0 else self.plus({}, unit, -1.0))
            unit = {}
        if unit:
            raise _Conflict(unit)


_HALF = Tree("number", (0, 0), value=0.5)


def _exponent(tree: Tree) -> Tree:
    return tree.parts[1] if tree.kind == "^" else _HALF


def factors(tree: Tree, sign: float) -> list[tuple[Tree, float]]:
    """The factors of a product, with -1 for those that divide."""
    if tree.kind == "neg":
        return factors(tree.parts[0], sign)
    if tree.kind not in ("*", "/"):
        return [(tree, sign)]
    first, second = tree.parts
    return factors(first, sign) + factors(second, sign if tree.kind == "*" else -sign)


def _exponents(tree: Tree) -> list[Tree]:
    """The exponents in a part, outermost first."""
    exponents = [tree.parts[1]] if tree.kind == "^" else []
    return exponents + [exponent for part in tree.parts for exponent in _exponents(part)]


def _sum(first: Power | None, second: Power, sign: float) -> Power:
    if first is None:
        return lambda p: sign * second(p)
    return lambda p: first(p) + sign * second(p)


def _product(power: Power, exponent: Tree, inverse: bool) -> Power:
    if inverse:
        return lambda p: power(p) / number_of(exponent, p)
    return lambda p: power(p) * number_of(exponent, p)


def number_of(tree: Tree, p: Values) -> Number:
    """The value of a part that has no columns, for parameters p of any one shape."""
    if tree.kind == "number":
        return np.float64(tree.value)
    if tree.kind == "name":
        return p[str(tree.value)]
    parts = [number_of(part, p) for part in tree.parts]
    with np.errstate(all="ignore"):
        return _NUMBERS[tree.kind](*parts)


_NUMBERS: dict[str, Callable[..., Number]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power, "neg": np.negative,
    "exp": np.exp, "log": np.log, "log2": np.log2, "log10": np.log10, "sqrt": np.sqrt, "tanh": np.tanh,
    "abs": np.abs, "min": np.minimum, "max": np.maximum,
}  # fmt: skip
