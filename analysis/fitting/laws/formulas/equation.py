"""A law given by an equation that the metric solves, such as (L - e)/(e0 - L)^k = a*x^-c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..law import Array, Columns, Values
from .grammar import Source, Tree, parse
from .law import METRIC_NAMES, Bounds, FormulaLaw
from .structure import Structure
from .units import Units, factors, number_of, units_of

FARTHEST = 60.0
"""How far the metric may lie from the ends of its range: e^-60 of the range's width."""
STEPS = 200
PRECISION = 1e-13


def formula_law(text: str, columns: Sequence[str] | str = (), bounds: Bounds | str = "") -> FormulaLaw:
    """The law of a formula: of `E + A/x^a`, of `L = E + A/x^a`, or of an equation in the metric L.

    Arguments and errors are those of FormulaLaw.
    """
    left, _ = parse(Source(" ".join(text.split())))
    named = tuple(columns.split(",")) if isinstance(columns, str) else tuple(columns)
    explicit = left is None or (left.kind == "name" and left.value not in named)
    return (FormulaLaw if explicit else EquationLaw)(text, columns, bounds)


law = formula_law
"""The public name: `from analysis import law`."""


class EquationLaw(FormulaLaw):
    """A law whose formula is an equation of products, solved for the metric: L, loss or y.

    Both sides are compared by their logarithms, so all factors have to be positive; `L - e` and `e0 - L` among them
    bound the metric from below and above. In between the two sides have to cross once.
    """

    def _solved_for(self, left: Tree | None, right: Tree) -> Tree:
        assert left is not None
        names = left.names() | right.names()
        metric = next((name for name in METRIC_NAMES if name in names and name not in self.columns), None)
        if metric is None:
            self._source.fail(left.place, f"an equation needs the metric in it, as {' or '.join(METRIC_NAMES)}")
        self.metric_name, self.formula = metric, self.text
        terms = _logarithms(left, 1.0) + _logarithms(right, -1.0)
        self._ends(terms)
        tree = terms[0][0]
        for term, sign in terms[1:]:
            tree = Tree("+" if sign > 0 else "-", term.place, (tree, term))
        return tree

    def _ends(self, terms: Sequence[tuple[Tree, float]]) -> None:
        """The parts below and above which the metric cannot be: e of L - e, e0 of e0 - L."""
        self._lowest: Tree | None = None
        self._highest: Tree | None = None
        for term, _ in terms:
            base = term.parts[-1].parts[0] if term.kind == "*" else term.parts[0]
            if self.metric_name not in base.names() or base.kind == "name":
                continue
            first, second = base.parts if base.kind == "-" else (base, base)
            if base.kind == "-" and first.kind == "name" and first.value == self.metric_name:
                self._lowest = second
            elif base.kind == "-" and second.kind == "name" and second.value == self.metric_name:
                self._highest = first
            else:
                self._source.fail(base.place, f"{self.metric_name} may stand alone, as L - e or as e0 - L only")

    def _structure(self, free: Sequence[str], _coefficients: Sequence[str]) -> Structure:
        assert self.metric_name is not None
        powers = {name for name in free if self._is_factor(name)}
        return Structure(
            self.tape,
            free,
            logarithms=powers,
            floors=[] if self._lowest is None else list(self._lowest.names()),
            ceilings=[] if self._highest is None else list(self._highest.names()),
        )

    def _is_factor(self, name: str) -> bool:
        """Whether a parameter occurs by its logarithm alone."""
        users = [
            operation
            for operation in self.tape.operations
            if any(self.tape.operations[part].value == name for part in operation.of if self._is_parameter(part))
        ]
        return bool(users) and all(operation.kind == "log" for operation in users)

    def _is_parameter(self, number: int) -> bool:
        return self.tape.operations[number].kind == "parameter"

    def _units(self, left: Tree | None, right: Tree, unscaled: frozenset[str]) -> Units:
        assert left is not None
        both = Tree("=", (0, 0), (left, right))
        return units_of(both, self.columns, unscaled, metric=self.metric_name)

    def predict(self, p: Values, x: Columns) -> Array:
        with np.errstate(all="ignore"):
            return self._solve(p, x)

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        assert self.metric_name is not None
        with np.errstate(all="ignore"):
            metric = self._solve(p, x)
            slopes = self.tape.slopes(self.tape.values({**p, self.metric_name: metric}, x))
            by_metric = -1.0 / np.asarray(slopes[self.metric_name])
            return metric, [np.asarray(slopes[name] * by_metric) for name in self.names]

    def _solve(self, p: Values, x: Columns) -> Array:
        """The metric (S, n) at which both sides are equal, by Newton steps in its logit, kept within a bracket."""
        assert self.metric_name is not None
        lowest = 0.0 if self._lowest is None else number_of(self._lowest, p)
        width = None if self._highest is None else np.maximum(number_of(self._highest, p) - lowest, 1e-300)
        rows = x.value(self.columns[0])
        count = max((len(value) for value in p.values()), default=1)
        t = np.zeros((count, rows.shape[-1]))
        low, high = t - FARTHEST, t + FARTHEST
        name = self.metric_name

        def at(t: Array) -> tuple[Array, Array, Array]:
            if width is None:
                above = np.exp(t)
                metric, slope = lowest + above, above
            else:
                share = 1.0 / (1.0 + np.exp(-t))
                metric, slope = lowest + width * share, width * share / (1.0 + np.exp(t))
            values = self.tape.values({**p, name: metric}, x)
            by_metric = self.tape.slopes(values, names=frozenset([name]))[name]
            return metric, np.asarray(values[self.tape.root]), by_metric * slope

        for _ in range(STEPS):
            _, apart, slope = at(t)
            too_high = (apart > 0) == (slope > 0)
            high, low = np.where(too_high, t, high), np.where(too_high, low, t)
            step = t - apart / slope
            inside = (step > low) & (step < high)
            following = np.where(inside, step, 0.5 * (low + high))
            moved = np.abs(following - t)
            t = following
            if not np.any(moved > PRECISION * (1.0 + np.abs(t))):
                break
        return at(t)[0]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        # at the metric that was seen the difference of the logarithms is linear in some parameters
        assert self.metric_name is not None
        return self.structure.residual_system({**p, self.metric_name: metric[None, :]}, x, self.metric_name)

    def complete(self, p: Values, coefficients: Mapping[str, Array]) -> dict[str, Array]:
        logs = self.structure.logarithms
        return {**p, **{k: np.exp(np.clip(v, -600, 600)) if k in logs else v for k, v in coefficients.items()}}


def _logarithms(tree: Tree, sign: float) -> list[tuple[Tree, float]]:
    """The logarithm of a product as terms, each log(base) or exponent * log(base), with its sign."""
    terms = []
    for factor, side in factors(tree, sign):
        base, exponents = factor, []
        while base.kind == "^":
            exponents.append(base.parts[1])
            base = base.parts[0]
        term = Tree("log", factor.place, (base,))
        for exponent in exponents:
            term = Tree("*", factor.place, (exponent, term))
        terms.append((term, side))
    return sorted(terms, key=lambda pair: pair[1] < 0)
