"""Which rows to measure so that a fit of any law predicts target rows best, for a budget.

Rows are taken one by one, by how much each lowers the error that is expected at the target (expected_error.py) per cost
to a power: per cost itself cheap rows far from the target can crowd out those that decide. Of several powers that is
kept which leaves the lowest error (Leskovec et al. 2007, KDD, sec. 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.fitting.problem import Loss, make_problem, residuals
from analysis.fitting.reading.columns import TableColumns
from analysis.fitting.reading.points import Points
from analysis.fitting.result import FitResult
from results.errors import DataError, FitError, UsageError

from .expected_error import Knowledge, Surroundings, misfit_covariance
from .next_runs import SMALL, Choice

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fitting.request import FitRequest

Array = np.ndarray

COST_POWERS = (0.0, 0.4, 1.0)
"""0: whatever the cost; 0.4: Li et al. 2026 (arXiv 2604.22753); 1: per cost."""
PRIOR = 3.0
"""Standard deviation of a coordinate before any row, in its fitted size or 1 where that is smaller."""
LEAST_RESIDUAL = 5e-3
"""Of ln metric around the law: few rows lie closer to it than further ones would."""
MISFIT = 0.9
"""Of the residuals' variance, how much is the law's own misfit, which near rows share; the rest is noise."""
LENGTH = 0.5
"""Over which part of the range of the columns' logarithms a misfit changes."""

MOST_ROWS = 10_000
"""Target, candidates and data together: their misfits' covariance is held whole, 0.8 GB then."""


@dataclass(frozen=True)
class NextRows:
    """The rows to measure, in order (`option` counts rows of the candidates), and the root mean square over the target
    of the error expected of ln prediction, now and after each."""

    choices: tuple[Choice, ...]
    now: float
    notes: tuple[str, ...]


def next_rows(
    request: FitRequest, candidates: pd.DataFrame, target: pd.DataFrame, cost: str, budget: float, *, most: int = 1000
) -> NextRows:
    """For the law of a request, fitted to its table.

    candidates, target: tables with the columns that the law reads. cost: arithmetic of the candidates' columns. Raises
    what fitting raises, DataError for rows that a law cannot take, UsageError for a budget or a cost that is not
    positive, FitError where the law's predictions are not.
    """
    if not (budget > 0 and np.isfinite(budget)):
        raise UsageError(f"budget = {budget} is not allowed; allowed: a positive number")
    prices = TableColumns(candidates).values(cost).to_numpy(dtype=float)
    for row in np.flatnonzero(~(np.isfinite(prices) & (prices > 0))):
        raise UsageError(f"cost = {prices[row]} of row {row} is not allowed; allowed: a positive number")
    if (together := len(target) + len(candidates) + len(request.table)) > MOST_ROWS:
        raise DataError(f"target, candidates and data have {together} rows together; allowed: {MOST_ROWS}")
    result = request.fit()
    assert result.points is not None
    points = result.points.select(result.points.weights > 0)
    fitted = {name: np.asarray(points.columns[name], dtype=float) for name in _names(result)}
    tables = [_columns(request, result, target), _columns(request, result, candidates), fitted]
    k, q = len(target), len(candidates)
    start = Knowledge.of(_surroundings(result, points, tables, k), np.arange(k + q, k + q + len(points)))
    ways = [_taken(start, np.arange(k, k + q), prices, power, budget, most) for power in COST_POWERS]
    choices = min(ways, key=lambda way: way[-1].after if way else start.error)
    notes: tuple[str, ...] = ()
    if not choices:
        few = f"no row fits: the cheapest costs {prices.min():.3g}"
        notes = (few if prices.min() > budget else "no row would tell anything new",)
    return NextRows(choices, start.error, notes)


def _taken(
    known: Knowledge, numbers: Array, prices: Array, power: float, budget: float, most: int
) -> tuple[Choice, ...]:
    """Rows (by their `numbers`) one by one by what they gain per cost^power, each given those before it."""
    choices: list[Choice] = []
    left, is_open = budget, np.ones(len(prices), dtype=bool)
    while len(choices) < most:
        gains = np.where(is_open & (prices <= left), known.gains(numbers), 0.0)
        i = int((gains / prices**power).argmax())
        if gains[i] <= SMALL * known.error**2 * known.around.targets:
            break
        before, known = known.error, known.after(int(numbers[i]))
        choices.append(Choice(i, float(prices[i]), before, min(known.error, before)))
        left -= float(prices[i])
        is_open[i] = False
    return tuple(choices)


def _surroundings(result: FitResult, points: Points, tables: list[dict[str, Array]], targets: int) -> Surroundings:
    """Target, candidates and data (in this order in `tables`) as the fitted law sees them.

    Raises FitError where law or metric are not positive, so that they have no logarithm.
    """
    missed = _logarithm(result.predict(tables[-1]) / points.metric, "data")
    _logarithm(result.predict(tables[0]), "target")
    variance = max(1.4826 * float(np.median(np.abs(missed))), LEAST_RESIDUAL) ** 2
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    ones = np.ones(sum(len(next(iter(table.values()))) for table in tables))
    everything = Points(columns, ones, ones, np.arange(len(ones)))
    problem = make_problem(result.law, everything, result.scales, "log", Loss("squares"))
    with np.errstate(all="ignore"):
        slopes = residuals(problem, result.coordinates[None])[1][0]
        told = (result.predict(columns) > 0) & np.isfinite(slopes).all(axis=0)
    # A candidate at which the law is not positive tells nothing.
    slopes = np.where(told, slopes, 0.0)
    prior = PRIOR * np.maximum(np.abs(result.coordinates), 1.0)
    moving = np.ones(len(prior), dtype=bool) if result.free is None else result.free
    signed = set(result.law.metric_columns) | set(result.law.signed_columns)
    logs = np.column_stack([column if name in signed else np.log(column) for name, column in columns.items()])
    misfit = misfit_covariance(logs, MISFIT * variance, LENGTH)
    return Surroundings(slopes[moving], misfit, (1 - MISFIT) * variance, prior[moving] ** -2.0, targets)


def _logarithm(values: Array, what: str) -> Array:
    if not (values > 0).all():
        raise FitError(f"the law is not positive at the {what}; the criterion is of logarithms")
    return np.log(values)


def _names(result: FitResult) -> list[str]:
    return [name for name in result.law.columns if name not in result.law.constant_columns]


def _columns(request: FitRequest, result: FitResult, rows: pd.DataFrame) -> dict[str, Array]:
    """The law's columns of rows, by the request's names for them."""
    columns = {}
    given = {"params": request.params, "tokens": request.tokens, "flops": request.flops, "x": request.x}
    for role in _names(result):
        name = request.columns.get(role) or given.get(role) or role
        if name not in rows.columns and role in rows.columns:
            name = role
        columns[role] = request.column(rows, name).to_numpy(dtype=float)
        if not np.isfinite(columns[role]).all():
            raise DataError(f"column {name!r} of a candidate or target row is empty or not a number")
    return columns
