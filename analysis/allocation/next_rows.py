"""Which rows to measure so that any fitted law predicts target rows most surely: V-optimal design by its draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.fitting.reading.columns import TableColumns
from analysis.fitting.result import FitResult
from analysis.inference.bootstrap import bootstrap
from results.errors import DataError, FitError

from .next_runs import Choice, Option, choose

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fitting.request import FitRequest

Array = np.ndarray

REPLICATES = 200
LEAST_NOISE = 1e-6


@dataclass(frozen=True)
class NextRows:
    """The rows to measure, in order (`option` counts rows of the candidates), and the root mean square of the standard
    deviation of ln prediction at the target, now and as expected after each."""

    choices: tuple[Choice, ...]
    now: float
    notes: tuple[str, ...]


def next_rows(
    request: FitRequest,
    candidates: pd.DataFrame,
    target: pd.DataFrame,
    cost: str,
    budget: float,
    *,
    most: int = 1000,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> NextRows:
    """For the law of a request, fitted to its table.

    candidates, target: tables with the columns that the law reads. cost: arithmetic of the candidates' columns. Raises
    what fitting raises, DataError for rows that a law cannot take, UsageError for a cost that is not positive.
    """
    result = request.fit()
    at = [_columns(request, result, rows) for rows in (candidates, target)]
    drawn = bootstrap(result, replicates=replicates, seed=seed)
    prices = TableColumns(candidates).values(cost).to_numpy(dtype=float)
    logs = []
    for columns, what in zip(at, ("candidates", "target"), strict=True):
        predicted = drawn.predict(columns)
        if not (predicted > 0).all():
            raise FitError(f"the law's draws are not positive at the {what}; the criterion is of logarithms")
        logs.append(np.log(predicted))
    observed, values = logs
    assert result.points is not None
    left = np.log(result.predict(result.points.columns)) - np.log(result.points.metric)
    # Robust: a law fitted by an absolute loss passes through some rows.
    noise = max(1.4826 * float(np.median(np.abs(left))), LEAST_NOISE) ** 2
    options = [Option(f"row {i}", float(p), (i,)) for i, p in enumerate(prices)]
    chosen = choose(
        options, values, observed, np.full(len(options), noise), budget, criterion="variance", most=most, seed=seed
    )
    now = float(np.sqrt(np.trace(np.atleast_2d(np.cov(values, rowvar=False))) / values.shape[1]))
    notes = []
    if not chosen:
        cheapest = min(prices)
        notes.append(
            f"no row fits: the cheapest costs {cheapest:.3g}" if cheapest > budget else "no row would tell anything new"
        )
    rooted = tuple(replace(c, before=c.before**0.5, after=c.after**0.5) for c in chosen)
    return NextRows(rooted, now, tuple(notes))


def _columns(request: FitRequest, result: FitResult, rows: pd.DataFrame) -> dict[str, Array]:
    """The law's columns of rows, by the request's names for them."""
    columns = {}
    given = {"params": request.params, "tokens": request.tokens, "flops": request.flops, "x": request.x}
    for role in result.law.columns:
        if role in result.law.constant_columns:
            continue
        name = request.columns.get(role) or given.get(role) or role
        if name not in rows.columns and role in rows.columns:
            name = role
        columns[role] = request.column(rows, name).to_numpy(dtype=float)
        if not np.isfinite(columns[role]).all():
            raise DataError(f"column {name!r} of a candidate or target row is empty or not a number")
    return columns
