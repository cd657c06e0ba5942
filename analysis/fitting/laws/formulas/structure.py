"""What a formula is linear in, what its other parameters do, and where a search over them starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..law import Array, Columns, Parameter, Values
from .grammar import Tree
from .tape import Tape

GRID_MOST = 2048
FLOORS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97)
"""Shares of the smallest metric at which a floor starts that is not a linear parameter."""
CEILINGS = (1.003, 1.01, 1.03, 1.1, 1.3, 2.0)
"""Shares of the largest metric at which a ceiling starts."""


@dataclass(frozen=True)
class Use:
    """What a parameter does in a formula. exponent: it stands in an exponent; falling: and there in 1/x^a or x^-a only.

    rate: it multiplies something within exp or tanh; shift: it is added there.
    """

    exponent: bool = False
    falling: bool = False
    rate: bool = False


def positive_names(tree: Tree) -> set[str]:
    """Names that have to be positive for the formula to be a real number: in bases of powers and in logarithms.

    A base or argument is taken to be built of positive parts: of a sum each term, of a difference the first. Whole
    constant powers allow any sign.
    """
    names: set[str] = set()
    if tree.kind in ("log", "log2", "log10", "sqrt"):
        names |= _built_of(tree.parts[0])
    if tree.kind == "^":
        base, exponent = tree.parts
        whole = exponent.kind == "number" and float(exponent.value).is_integer()
        if not whole:
            names |= _built_of(base)
    for part in tree.parts:
        names |= positive_names(part)
    return names


def _built_of(tree: Tree) -> set[str]:
    if tree.kind == "name":
        return {str(tree.value)}
    if tree.kind in ("+", "*", "/", "min"):
        return _built_of(tree.parts[0]) | _built_of(tree.parts[1])
    if tree.kind in ("-", "^", "max"):
        return _built_of(tree.parts[0])
    return set()


def uses_of(tree: Tree, columns: Sequence[str]) -> dict[str, Use]:
    """What each parameter does, wherever it stands."""
    places: dict[str, list[tuple[str, bool]]] = {}

    def walk(part: Tree, where: str, below: bool) -> None:
        if part.kind == "name":
            if part.value not in columns:
                places.setdefault(str(part.value), []).append((where, below))
        elif part.kind == "^":
            walk(part.parts[0], where, below)
            walk(part.parts[1], "exponent", below)
        elif part.kind == "/":
            walk(part.parts[0], where, below)
            walk(part.parts[1], where, not below)
        elif part.kind == "neg":
            walk(part.parts[0], where, (not below) if where == "exponent" else below)
        elif part.kind in ("exp", "tanh"):
            walk(part.parts[0], "rate", False)
        else:
            for inner in part.parts:
                walk(inner, where, below)

    walk(tree, "outside", False)
    return {
        name: Use(
            exponent=any(where == "exponent" for where, _ in seen),
            falling=all(below for where, below in seen if where == "exponent"),
            rate=all(where == "rate" for where, _ in seen),
        )
        for name, seen in places.items()
    }


class Structure:
    """The linear parameters of a formula, and the others, over which a search goes.

    Where the formula is one exponential (beside other terms) of something linear, these are the linear parameters:
    log(metric - other terms) is linear in them. A coefficient that also stands elsewhere (A of the data-constrained
    law, in A/N'^alpha and within N') is linear where it is a coefficient; elsewhere a start takes it as 1, which is its
    order of magnitude in the units of a search.
    """

    def __init__(
        self,
        tape: Tape,
        names: Sequence[str],
        logarithms: Collection[str] = (),
        floors: Collection[str] = (),
        ceilings: Collection[str] = (),
        coefficients: Collection[str] = (),
    ) -> None:
        """logarithms: parameters that count by their logarithm. floors, ceilings: what bounds the metric.

        coefficients: those that stand in no exponent and in no exp or tanh.
        """
        self.tape, self.names, self.logarithms = tape, tuple(names), frozenset(logarithms)
        self._ceilings = frozenset(ceilings)
        direct = self._linear(tape.root)
        within = self._within_exponential()
        self.exponential = None
        self.linear = direct
        self._elsewhere: frozenset[int] = frozenset()
        if within is not None and len(within[1]) > len(direct):
            self.exponential, self.linear = within
        elif not logarithms:
            self._elsewhere, repeated = self._repeated(direct, coefficients)
            self.linear = tuple(name for name in names if name in direct or name in repeated)
        self.searched = tuple(name for name in names if name not in self.linear)
        constant = [name for name in direct if self._is_alone(name)]
        self.alone = constant[0] if len(constant) == 1 else None
        self._floors = frozenset(floors) | {name for name in direct if name in self.searched}

    def _linear(self, root: int) -> tuple[str, ...]:
        """Parameters in which the formula is linear, all of them together; the first ones where not all can be."""
        chosen: tuple[str, ...] = ()
        present = self.tape.operations[root].parameters
        for name in self.names:
            if name in present and self._degree(root, {*chosen, name}) <= 1:
                chosen = (*chosen, name)
        return chosen

    def _repeated(self, direct: Sequence[str], coefficients: Collection[str]) -> tuple[frozenset[int], set[str]]:
        """Coefficients that also stand where the formula is not linear in them, and these places."""
        chosen: set[str] = set()
        places: set[int] = set()
        for name in self.names:
            if name in direct or name not in coefficients:
                continue
            held: set[int] = set()
            together = self._degree(self.tape.root, {*direct, *chosen, name}, held)
            if together == 1 and self._degree(self.tape.root, {name}, set()) == 1:
                chosen.add(name)
                places = held
        return frozenset(places), chosen

    def _degree(self, number: int, names: set[str], held: set[int] | None = None) -> float:
        """The degree of a step as a polynomial in these parameters; infinite where it is none.

        held: takes the steps that are none, which then count as constants.
        """
        degrees: dict[int, float] = {}
        for at in range(number + 1):
            operation = self.tape.operations[at]
            of = [degrees[part] for part in operation.of]
            if operation.kind == "parameter":
                degrees[at] = np.inf if operation.value in self.logarithms & names else float(operation.value in names)
            elif operation.kind == "log" and self._is_logarithm(operation.of[0], names):
                degrees[at] = 1.0
            elif not any(of):
                degrees[at] = 0.0
            elif operation.kind in ("+", "-", "neg"):
                degrees[at] = max(of)
            elif operation.kind == "*":
                degrees[at] = sum(of)
            elif operation.kind == "/" and of[1] == 0:
                degrees[at] = of[0]
            elif operation.kind == "square":
                degrees[at] = 2 * of[0]
            elif held is not None:
                held.add(at)
                degrees[at] = 0.0
            else:
                degrees[at] = np.inf
        return degrees[number]

    def _is_logarithm(self, number: int, names: set[str]) -> bool:
        operation = self.tape.operations[number]
        return operation.kind == "parameter" and operation.value in self.logarithms & names

    def _is_alone(self, name: str) -> bool:
        """Whether the parameter is a term by itself."""
        return any(
            self.tape.operations[term].kind == "parameter" and self.tape.operations[term].value == name
            for term, sign in self._terms(self.tape.root, 1)
            if sign > 0
        )

    def _terms(self, number: int, sign: int) -> list[tuple[int, int]]:
        operation = self.tape.operations[number]
        if operation.kind == "+":
            return [term for part in operation.of for term in self._terms(part, sign)]
        if operation.kind == "-":
            return self._terms(operation.of[0], sign) + self._terms(operation.of[1], -sign)
        if operation.kind == "neg":
            return self._terms(operation.of[0], -sign)
        return [(number, sign)]

    def _within_exponential(self) -> tuple[int, tuple[str, ...]] | None:
        """The first term exp(...) and the parameters of which it alone is made and its exponent is linear in."""
        terms = self._terms(self.tape.root, 1)
        for term, sign in terms:
            operation = self.tape.operations[term]
            if operation.kind != "exp" or sign < 0:
                continue
            elsewhere = {name for other, _ in terms if other != term for name in self.tape.operations[other].parameters}
            inside = tuple(name for name in self._linear(operation.of[0]) if name not in elsewhere)
            if len(inside) > 1:
                return term, inside
        return None

    # --- the linear problem ---

    def system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        """See Law.linear_system: columns (S, n) of the linear parameters, target and weight."""
        if not self.linear:
            return None
        rows = len(next(iter(p.values()))) if p else 1
        root, elsewhere = self.tape.root, self._elsewhere
        inside = frozenset().union(*(self.tape.operations[number].parameters for number in elsewhere))
        at = {name: np.full((rows, 1), float(name in inside)) for name in self.linear}
        values = self.tape.values({**p, **at}, x)
        if self.exponential is None:
            slopes = self.tape.slopes(values, held=elsewhere)
            basis = [np.asarray(slopes[name]) for name in self.linear]
            rest = values[root] - sum(slopes[name] * at[name] for name in self.linear if name in inside)
            return basis, np.asarray(metric - rest), 1.0 / metric**2
        inner = self.tape.operations[self.exponential].of[0]
        slopes = self.tape.slopes(values, inner)
        rest = values[root] - values[self.exponential]
        left = np.maximum(metric - rest, 1e-3 * np.abs(metric))
        target = np.log(left) - values[inner]
        return [np.asarray(slopes[name]) for name in self.linear], np.asarray(target), np.square(left / metric)

    def residual_system(self, p: Values, x: Columns, metric_name: str) -> tuple[list[Array], Array, Array] | None:
        """The same for an equation, log(left) - log(right) = 0, at the metric that was seen."""
        if not self.linear:
            return None
        rows = max(len(value) for value in p.values())
        at_zero = {name: np.full((rows, 1), float(name in self.logarithms)) for name in self.linear}
        values = self.tape.values({**p, **at_zero}, x)
        slopes = self.tape.slopes(values)
        relative = slopes[metric_name] * p[metric_name]
        basis = [np.asarray(slopes[name]) for name in self.linear]
        return basis, np.asarray(-values[self.tape.root]), np.asarray(1.0 / np.square(relative))

    # --- where to start ---

    def grid(self, parameters: Sequence[Parameter], fixed: Mapping[str, float]) -> dict[str, Array]:
        """Values (S,) of the parameters that are searched over: a low-discrepancy sequence over their usual ranges."""
        searched = [q for q in parameters if q.name in self.searched]
        free = [q for q in searched if q.name not in fixed]
        count = min(GRID_MOST, 64 * 2 ** len(free)) if free else 1
        unit = _low_discrepancy(count, len(free))
        grid = {q.name: self._spread(q, unit[:, k]) for k, q in enumerate(free)}
        return {q.name: grid.get(q.name, np.full(count, fixed.get(q.name, 0.0))) for q in searched}

    def _spread(self, q: Parameter, unit: Array) -> Array:
        """Values of a parameter for shares (S,) of its usual range."""
        for names, shares in ((self._floors, FLOORS), (self._ceilings, CEILINGS)):
            if q.name in names:
                return np.asarray(shares)[(unit * len(shares)).astype(int)]
        lower, upper = q.lower, q.upper
        if q.log:
            low, high = max(lower, 1e-3), min(upper, 1e3)
            low, high = (low, high) if low < high else (lower, upper)
            return np.exp(np.log(low) + unit * np.log(high / low))
        if lower == 0 and upper >= 1:
            return 0.03 * (min(upper, 3.0) / 0.03) ** unit
        if np.isfinite(lower) and np.isfinite(upper) and upper - lower < 10:
            return lower + unit * (upper - lower)
        size = 0.03 * (100.0 ** np.abs(2 * unit - 1))
        return np.clip(np.sign(unit - 0.5) * size, lower, upper)

    def to_data(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        """Floors and ceilings from shares of the smallest and the largest metric to the metric's unit."""
        ends = dict.fromkeys(self._floors, metric.min()) | dict.fromkeys(self._ceilings, metric.max())
        return {name: value * ends.get(name, 1.0) for name, value in p.items()}


def _low_discrepancy(count: int, dimensions: int) -> Array:
    """Points (count, dimensions) in the unit cube: Roberts' R_d sequence, from the roots of t^(d + 1) = t + 1."""
    root = 2.0
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
