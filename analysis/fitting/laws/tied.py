"""A law two of whose parameters are one, such as chinchilla with alpha = beta."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from results.errors import UsageError

from .law import Array, Columns, Law, UnitPower, Values


class TiedLaw(Law):
    """Another law with parameters that follow others: they are left out of `parameters`, and equal in natural units.

    ties: the name of each parameter that follows, and of the one that it follows.

    Raises UsageError for a name that the law has not, and for two that cannot be equal.
    """

    name = "tied"

    def __init__(self, law: Law, ties: Mapping[str, str]) -> None:
        self.law, self.ties = law, dict(ties)
        parameters = {q.name: q for q in law.parameters}
        for name in (*ties, *ties.values()):
            if name not in parameters:
                raise UsageError(f"tie: law {law.label} has no parameter {name!r}; it has {', '.join(law.names)}")
        for name, other in ties.items():
            if other in ties:
                raise UsageError(f"tie {name}={other}: {other!r} itself follows {ties[other]!r}")
            if parameters[name].log != parameters[other].log or parameters[name].linear != parameters[other].linear:
                raise UsageError(f"tie {name}={other}: one is an exponent or a coefficient and the other is not")
        told = ", ".join(f"{name} = {other}" for name, other in ties.items())
        self.formula, self.source = f"{law.formula} with {told}", law.source
        self.columns = law.columns
        self.parameters = tuple(
            replace(q, unit={key: self._followed(power) for key, power in q.unit.items()})
            for q in law.parameters
            if q.name not in ties
        )
        self.metric_columns, self.constant_columns = law.metric_columns, law.constant_columns
        self.signed_columns, self.scaled_with = law.signed_columns, law.scaled_with
        self.free_coefficients, self.screening, self.enough = law.free_coefficients, law.screening, law.enough
        self.optional_columns, self.positive, self.falls_with = law.optional_columns, law.positive, law.falls_with
        self.smooth_trial, self.patience = law.smooth_trial, law.patience
        self.floor_parameter = None if law.floor_parameter in ties else law.floor_parameter
        both = [parameters[name].unit for name in (*ties, *ties.values())]
        self.unscaled = law.unscaled.union(*both)  # what is equal in natural units is so in these
        linear = list(law.solved_for)
        self._order = [linear.index(q.name) for q in self.parameters if q.name in linear]
        self._sums = [(linear.index(name), linear.index(other)) for name, other in ties.items() if name in linear]

    def _followed(self, power: UnitPower) -> UnitPower:
        return (lambda p: power(self._whole(p))) if callable(power) else power

    def _whole(self, p: Values) -> dict[str, Array]:
        return {**p, **{name: p[other] for name, other in self.ties.items() if other in p}}

    @property
    def solved_for(self) -> tuple[str, ...]:
        return tuple(name for name in self.law.solved_for if name not in self.ties)

    def coded(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        return self.law.coded(columns)

    def prepared(self, columns: Columns) -> Columns:
        return self.law.prepared(columns)

    def predict(self, p: Values, x: Columns) -> Array:
        return self.law.predict(self._whole(p), x)

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        value, slopes = self.law.evaluate(self._whole(p), x)
        by_name = dict(zip(self.law.names, slopes, strict=True))
        for name, other in self.ties.items():
            by_name[other] = by_name[other] + by_name[name]
        return value, [by_name[name] for name in self.names]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        system = self.law.linear_system(self._whole(p), x, metric)
        if system is None:
            return None
        basis, target, weight = system
        basis = list(basis)
        for name, other in self._sums:
            basis[other] = basis[other] + basis[name]
        return [basis[k] for k in self._order], target, weight

    def complete(self, p: Values, coefficients: Mapping[str, Array]) -> dict[str, Array]:
        return self._without(self.law.complete(self._whole(p), self._whole(coefficients)))

    def derived(self, p: Values) -> dict[str, Array]:
        return self.law.derived(self._whole(p))

    def starting_grid(self, fixed: Mapping[str, float]) -> dict[str, Array]:
        grid = self._without(self.law.starting_grid(fixed))
        if not grid:
            return grid
        points = np.unique(np.stack(list(grid.values()), axis=1), axis=0)
        return dict(zip(grid, points.T, strict=True))

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        return self._without(self.law.start_values(self._whole(p), x, metric))

    def _without(self, p: Values) -> dict[str, Array]:
        return {name: value for name, value in p.items() if name not in self.ties}

    def options(self) -> dict[str, float | str | int]:
        return {"law": self.law.name, "options": json.dumps(self.law.options()), "ties": json.dumps(self.ties)}

    @property
    def label(self) -> str:
        return f"{self.law.label} ({', '.join(f'{name} = {other}' for name, other in self.ties.items())})"
