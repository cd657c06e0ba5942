"""The units in which a fit is computed: columns over their geometric mean, the metric over its median."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .law import LOSS, Array, Columns, Law, Parameter
from .points import Points
from .problem import parameters_of


@dataclass(frozen=True)
class Scales:
    """By what each column and the metric were divided before fitting: geometric mean and median."""

    columns: Mapping[str, float]
    metric: float

    @staticmethod
    def of(law: Law, points: Points) -> Scales:
        """The scales of these points; 1 for columns no parameter of the law has a unit in."""
        weights = points.weights / points.weights.sum()
        units = {key for q in law.parameters for key in q.unit}
        metric = weighted_median(np.abs(points.metric), points.weights) if LOSS in units else 1.0
        if metric <= 0:
            metric = float(np.max(np.abs(points.metric))) or 1.0
        scales = {}
        for name in law.columns:
            unit = law.scaled_with.get(name, name)
            if name in law.metric_columns:
                scales[name] = metric
            elif unit in units:
                base = points.columns[unit]
                scales[name] = float(np.exp(np.sum(weights * np.log(base))))
            else:
                scales[name] = 1.0
        return Scales(scales, metric)

    def apply(self, columns: Mapping[str, Array]) -> Columns:
        """The columns in scaled units."""
        return Columns({name: columns[name] / scale for name, scale in self.columns.items()})

    def unit(self, key: str) -> float:
        """By what the column of that name was divided, or the metric, for `LOSS`."""
        return self.metric if key == LOSS else self.columns[key]

    def natural(self, law: Law, p: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters in natural units from scaled ones."""
        return {q.name: p[q.name] * np.exp(self._log_unit(q, p)) for q in law.parameters}

    def natural_at(self, law: Law, coordinates: Array) -> dict[str, Array]:
        """Parameters in natural units, each (S,), at coordinates (S, p) or (p,)."""
        p = parameters_of(law, np.atleast_2d(coordinates))
        return {name: value[:, 0] for name, value in self.natural(law, p).items()}

    def scaled(self, law: Law, p: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters in scaled units from natural ones."""
        return {q.name: p[q.name] * np.exp(-self._log_unit(q, p)) for q in law.parameters}

    def _log_unit(self, q: Parameter, p: Mapping[str, Array]) -> Array:
        # powers depend on exponents alone, and those have no unit: scaled or natural p give the same
        total: Array | float = 0.0
        for key, power in q.unit.items():
            amount = power(p) if callable(power) else power
            total = total + amount * np.log(self.unit(key))
        return np.asarray(total)


def weighted_median(values: Array, weights: Array) -> float:
    """The value at which half of the weight lies below; the mean of two where it falls between them."""
    used = weights > 0
    order = np.argsort(values[used], kind="stable")
    ordered, cumulative = values[used][order], np.cumsum(weights[used][order])
    half = cumulative[-1] / 2
    k = int(np.searchsorted(cumulative, half * (1 - 1e-12)))
    if abs(cumulative[k] - half) <= 1e-12 * half and k + 1 < len(ordered):
        return float(0.5 * (ordered[k] + ordered[k + 1]))
    return float(ordered[k])
