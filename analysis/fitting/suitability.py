"""Whether a law can follow a metric at all: metrics that rise where the law only falls, and negative ones."""

from __future__ import annotations

import numpy as np

from results.errors import FitError

from .laws.law import Array, Law
from .problem import Scales, parameters_of
from .reading.points import Points

FLAT = 0.02
"""A law that moves by less than this share of the metric's range along a column does not follow it."""
RISING = 0.6
"""Rank correlation from which a metric is said to rise with a column, where it is also TIMES its standard error."""
TIMES = 4.0


def suited(law: Law, points: Points, residual: str) -> Law:
    """The law for the sign of this metric: with a floor of either sign where the metric is negative somewhere.

    Raises FitError where most of the metric is negative and the law positive everywhere.
    """
    if residual == "log" or not (points.metric < 0).any():
        return law
    if law.floor_signs:
        return law.with_signed_floor()
    if law.positive and np.median(points.metric) < 0:
        name = points.names.get("metric", "metric")
        raise FitError(
            f"law {law.name} is positive everywhere, but {name!r} is negative in most rows: take law power, "
            "signed-power or another one with a floor"
        )
    return law


def refuse_rising(law: Law, points: Points, scales: Scales, coordinates: Array) -> None:
    """Raise FitError where the metric rises with a column with which this law can only fall, and so stays flat.

    coordinates (p,): where the fit ended. A metric rises where its ranks do with those of the column, those of the
    law's other columns held (a linear regression of ranks).
    """
    if not law.falls_with:
        return
    used = points.weights > 0
    metric = points.metric[used]
    columns = {name: points.columns[name][used] for name in law.columns if name not in law.metric_columns}
    middle = {name: float(np.exp(np.mean(np.log(column)))) for name, column in columns.items()}
    for name in law.falls_with:
        ends = np.array([columns[name].min(), columns[name].max()])
        at = {
            key: ends if key == name else np.repeat(middle.get(key, np.mean(points.columns[key])), 2)
            for key in law.columns
        }
        value = law.predict(parameters_of(law, coordinates[None, :]), scales.apply(at)) * scales.metric
        # nan is no number that tells anything: only a law that is flat for certain is refused
        if not np.ptp(value * np.ones(2)) <= FLAT * np.ptp(metric):
            continue
        correlation, times = _rank_correlation(metric, columns, name)
        if correlation < RISING or times < TIMES:
            continue
        shown, column = points.names.get("metric", "metric"), points.names.get(name, name)
        others = "signed-power (E - A x^-alpha), logistic (shares), " if law.columns == ("x",) else ""
        raise FitError(
            f"law {law.name} only falls with {name}, but {shown!r} rises with {column!r} (rank correlation "
            f"{correlation:+.2f}): take law product (a power that rises), {others}or a formula such as "
            f"'E - A/{name}^alpha'"
        )


def _rank_correlation(metric: Array, columns: dict[str, Array], name: str) -> tuple[float, float]:
    """The partial rank correlation of the metric with a column, and how many standard errors it is from 0."""
    others = [_ranks(column) for key, column in columns.items() if key != name]
    design = np.stack([np.ones(len(metric)), *others], axis=1)

    def left_over(values: Array) -> Array:
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    first, second = left_over(_ranks(metric)), left_over(_ranks(columns[name]))
    size = np.sqrt(np.sum(first**2) * np.sum(second**2))
    if size <= 1e-9 * len(metric) ** 2:
        return 0.0, 0.0
    correlation = float(np.clip(np.sum(first * second) / size, -1.0, 1.0))
    freedom = max(len(metric) - design.shape[1] - 1, 1)
    return correlation, correlation * np.sqrt(freedom / max(1.0 - correlation**2, 1e-12))


def _ranks(values: Array) -> Array:
    """Ranks from 0; equal values share their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2.0)[which])
