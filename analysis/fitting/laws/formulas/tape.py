"""A formula as a list of elementary operations, each computed once, with exact slopes by reverse differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ..law import Array, Columns, Values
from .grammar import Source, Tree

Number = Array | float

_UNARY: dict[str, Callable[[Number], Number]] = {
    "neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "abs": np.abs,
    "square": np.square,
}  # fmt: skip
_BINARY: dict[str, Callable[[Number, Number], Number]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power, "min": np.minimum, "max": np.maximum
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One step: `kind` on the results of earlier steps `of`; a number, column or parameter has none.

    columns: whether the result depends on any; parameters: those that it depends on. positive: whether it is above 0
    whatever they are. place: where it stands in the formula.
    """

    kind: str
    of: tuple[int, ...] = ()
    value: float | str = 0.0
    columns: bool = False
    parameters: frozenset[str] = frozenset()
    positive: bool = False
    place: tuple[int, int] = (0, 0)


class Tape:
    """The operations of a formula in an order in which each follows those it needs; the last gives the formula.

    columns: names that are columns; every other is a parameter. positive: names of either that are above 0.

    Raises UsageError, with the place, for numbers that are not finite or not real: 1/0, log(-1), 10^400.
    """

    def __init__(self, source: Source, tree: Tree, columns: Collection[str], positive: Collection[str]) -> None:
        self._source, self._columns, self._positive = source, frozenset(columns), frozenset(positive)
        self.operations: list[Operation] = []
        self._known: dict[tuple[str, tuple[int, ...], float | str], int] = {}
        self.root = self._built(tree)
        self._order = self._needed()

    # --- building ---

    def _built(self, tree: Tree) -> int:
        kind, place = tree.kind, tree.place
        if kind == "number":
            return self._number(float(tree.value), place)
        if kind == "name":
            name = str(tree.value)
            role = "column" if name in self._columns else "parameter"
            return self._add(role, (), place, value=name)
        parts = tuple(self._built(part) for part in tree.parts)
        if kind in ("^", "/"):
            return (self._power if kind == "^" else self._quotient)(parts[0], parts[1], place)
        if kind == "log":
            return self._logarithm(parts[0], place)
        if kind in ("log2", "log10"):
            scale = self._number(1.0 / math.log(2.0 if kind == "log2" else 10.0), place)
            return self._add("*", (scale, self._logarithm(parts[0], place)), place)
        return self._add(kind, parts, place)

    def _number(self, value: float, place: tuple[int, int]) -> int:
        if not math.isfinite(value):
            self._source.fail(place, "this number is too large")
        return self._add("number", (), place, value=value)

    def _quotient(self, above: int, below: int, place: tuple[int, int]) -> int:
        divisor = self.operations[below]
        if divisor.kind == "number" and divisor.value == 0:
            self._source.fail(place, "division by zero")
        if divisor.kind == "exp":  # a / x^b is a * x^-b: one operation less on every row
            return self._add("*", (above, self._add("exp", (self._negated(divisor.of[0], place),), place)), place)
        return self._add("/", (above, below), place)

    def _negated(self, number: int, place: tuple[int, int]) -> int:
        operation = self.operations[number]
        if operation.kind == "neg":
            return operation.of[0]
        if operation.kind == "*":  # the sign goes to the factor that has no rows
            first, second = operation.of
            if self.operations[first].columns and not self.operations[second].columns:
                return self._add("*", (first, self._negated(second, place)), place)
            return self._add("*", (self._negated(first, place), second), place)
        return self._add("neg", (number,), place)

    def _power(self, base: int, exponent: int, place: tuple[int, int]) -> int:
        power, below = self.operations[exponent], self.operations[base]
        if power.kind == "number" and below.kind != "number":
            if power.value == 1.0:
                return base
            if power.value == 2.0:
                return self._add("square", (base,), place)
            if power.value == 0.5:
                return self._add("sqrt", (base,), place)
            if power.value == -1.0:
                return self._quotient(self._number(1.0, place), base, place)
        if below.kind == "exp":  # (x^a)^b
            return self._add("exp", (self._add("*", (exponent, below.of[0]), place),), place)
        if below.positive and below.kind != "number":
            return self._add("exp", (self._add("*", (exponent, self._logarithm(base, place)), place),), place)
        if below.kind == "number" and float(below.value) > 0 and power.kind != "number":
            factor = self._number(math.log(float(below.value)), place)
            return self._add("exp", (self._add("*", (exponent, factor), place),), place)
        return self._add("^", (base, exponent), place)

    def _logarithm(self, of: int, place: tuple[int, int]) -> int:
        operation = self.operations[of]
        if operation.kind == "exp":
            return operation.of[0]
        if operation.positive and operation.kind in ("*", "/"):
            kind = "+" if operation.kind == "*" else "-"
            return self._add(kind, tuple(self._logarithm(part, place) for part in operation.of), place)
        return self._add("log", (of,), place)

    def _add(self, kind: str, of: tuple[int, ...], place: tuple[int, int], value: float | str = 0.0) -> int:
        parts = [self.operations[part] for part in of]
        zero = [part.kind == "number" and part.value == 0 for part in parts]
        if (kind == "-" and of[0] == of[1]) or (kind == "*" and any(zero)) or (kind == "/" and zero[0]):
            return self._number(0.0, place)
        if (kind == "/" and of[0] == of[1]) or (kind == "^" and zero[1]):
            return self._number(1.0, place)
        if kind in ("+", "-") and zero[1]:
            return of[0]
        if kind == "+" and zero[0]:
            return of[1]
        if parts and all(part.kind == "number" for part in parts):
            return self._number(self._folded(kind, [float(part.value) for part in parts], place), place)
        key = (kind, of, value)
        if key not in self._known:
            self._known[key] = len(self.operations)
            self.operations.append(
                Operation(
                    kind,
                    of,
                    value,
                    columns=kind == "column" or any(part.columns for part in parts),
                    parameters=frozenset([str(value)] if kind == "parameter" else []).union(
                        *(part.parameters for part in parts)
                    ),
                    positive=self._is_positive(kind, parts, value),
                    place=place,
                )
            )
        return self._known[key]

    def _folded(self, kind: str, numbers: list[float], place: tuple[int, int]) -> float:
        with np.errstate(all="ignore"):
            compute = _UNARY.get(kind) or _BINARY[kind]
            value = float(compute(*numbers))  # type: ignore[call-arg]
        if math.isnan(value):
            self._source.fail(place, "this is not a real number")
        if math.isinf(value):
            zero = (kind == "log" or kind == "^") and numbers[0] == 0.0
            self._source.fail(place, "this is infinite" if zero else "this number is too large")
        return value

    def _is_positive(self, kind: str, parts: list[Operation], value: float | str) -> bool:
        if kind == "number":
            return float(value) > 0
        if kind in ("column", "parameter"):
            return value in self._positive
        if kind == "max":
            return any(part.positive for part in parts)
        return kind == "exp" or (kind in ("+", "*", "/", "sqrt", "min") and all(part.positive for part in parts))

    def _needed(self) -> list[int]:
        """The steps that the formula needs and that depend on parameters, in order."""
        needed, left = set(), [self.root]
        while left:
            number = left.pop()
            if number not in needed:
                needed.add(number)
                left.extend(self.operations[number].of)
        return [number for number in sorted(needed) if self.operations[number].parameters]

    # --- computing ---

    def values(self, p: Values, x: Columns) -> dict[int, Number]:
        """The result of every step that the formula needs, by number; (n,), (S, 1) or (S, n).

        Steps that depend on columns alone are computed once for each set of columns.
        """
        values: dict[int, Number] = {}
        if not self.operations[self.root].parameters:
            values[self.root] = self._of_columns(self.root, x)
        for number in self._order:
            operation = self.operations[number]
            if operation.kind == "parameter":
                values[number] = p[str(operation.value)]
                continue
            of = [values[part] if part in values else self._of_columns(part, x) for part in operation.of]
            values.update(zip(operation.of, of, strict=True))
            compute = _UNARY.get(operation.kind) or _BINARY[operation.kind]
            values[number] = compute(*of)  # type: ignore[call-arg]
        return values

    def _of_columns(self, number: int, x: Columns) -> Number:
        operation = self.operations[number]
        if operation.kind == "number":
            return float(operation.value)
        if operation.kind == "column":
            return x.value(str(operation.value))
        if operation.kind == "log" and self.operations[operation.of[0]].kind == "column":
            return x.log(str(self.operations[operation.of[0]].value))

        def compute(columns: Columns) -> Array:
            of = [self._of_columns(part, columns) for part in operation.of]
            return np.asarray((_UNARY.get(operation.kind) or _BINARY[operation.kind])(*of))  # type: ignore[call-arg]

        return x.derived((self, number), compute)

    def slopes(
        self,
        values: Mapping[int, Number],
        of: int | None = None,
        names: frozenset[str] | None = None,
        held: Collection[int] = (),
    ) -> dict[str, Number]:
        """The derivative of the formula, or of a step, in its parameters (or some), from the results of all steps.

        held: steps whose results count as constants.
        """
        pending: dict[int, Number] = {self.root if of is None else of: 1.0}
        names = self.operations[self.root].parameters if names is None else names
        slopes: dict[str, Number] = {}
        for number in reversed(self._order):
            adjoint = pending.pop(number, None)
            if adjoint is None or number in held:
                continue
            operation = self.operations[number]
            if operation.kind == "parameter":
                slopes[str(operation.value)] = adjoint
                continue
            for part, slope in self._pulled(operation, number, values, adjoint):
                if self.operations[part].parameters & names:
                    pending[part] = pending[part] + slope if part in pending else slope
        return slopes

    def _pulled(
        self, operation: Operation, number: int, values: Mapping[int, Number], adjoint: Number
    ) -> list[tuple[int, Number]]:
        """The derivative of the formula in each argument of a step, from that in its result."""
        kind, of = operation.kind, operation.of
        value, first = values[number], values[of[0]]
        if len(of) == 1:
            return [(of[0], _by_one(kind, adjoint, value, first))]
        second = values[of[1]]
        wanted = [bool(self.operations[part].parameters) for part in of]
        both: list[Number | None] = [None, None]
        if kind == "+":
            both = [adjoint, adjoint]
        elif kind == "-":
            both = [adjoint, _times(-1.0, adjoint)]
        elif kind == "*":
            both = [_times(adjoint, second) if wanted[0] else None, _times(adjoint, first) if wanted[1] else None]
        elif kind == "/":
            share = _times(adjoint, 1.0 / second)
            both = [share, -share * value if wanted[1] else None]
        elif kind in ("min", "max"):
            takes_first = (first <= second) if kind == "min" else (first >= second)
            both = [np.where(takes_first, adjoint, 0.0), np.where(takes_first, 0.0, adjoint)]
        elif kind == "^":
            by_base = _times(adjoint, second * np.power(first, second - 1.0)) if wanted[0] else None
            # 0^b stays 0 whatever b is
            log = np.log(np.where(value == 0, 1.0, first)) if wanted[1] else 0.0
            both = [by_base, _times(adjoint, value * log) if wanted[1] else None]
        return [(part, slope) for part, slope in zip(of, both, strict=True) if slope is not None]


def _by_one(kind: str, adjoint: Number, value: Number, argument: Number) -> Number:
    """The derivative in the argument of a function of one."""
    if kind == "neg":
        return _times(-1.0, adjoint)
    if kind == "exp":
        return _times(adjoint, value)
    if kind == "log":
        return _times(adjoint, 1.0 / argument)
    if kind == "sqrt":
        return _times(adjoint, 0.5 / value)
    if kind == "tanh":
        return _times(adjoint, 1.0 - np.square(value))
    if kind == "abs":
        return _times(adjoint, np.sign(argument))
    return _times(adjoint, 2.0 * argument)  # square


def _times(a: Number, b: Number) -> Number:
    """a * b, without a pass over the rows where one of them is 1."""
    if isinstance(a, float):
        if a == 1.0:
            return b
        if a == -1.0:
            return -b
    return a if isinstance(b, float) and b == 1.0 else a * b
