"""Held-out extrapolation: hide part of the points, fit the rest, and say how wrong the prediction is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.fitting.fit import as_points, fit
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Array, Law
from analysis.fitting.reading.points import Points, numbers
from analysis.fitting.request import FitRequest
from analysis.fitting.result import FitResult
from results.errors import DataError, FitError, UsageError

from .bootstrap import predict, uncertainty


@dataclass(frozen=True)
class Held:
    """How a law fitted to some rows predicts others.

    rmsle: root mean square of log(prediction / metric), None where a metric or prediction is not positive; rmse: of
    prediction - metric; bias: mean of log(prediction / metric). coverage: the share of held rows inside the prediction
    interval for a new observation, None where no interval was asked for or could be had. `predicted` (m,). warnings:
    those of the fit, and why there is no coverage.
    """

    name: str
    law: str
    trained: int
    held: int
    rmsle: float | None
    rmse: float
    bias: float | None
    coverage: float | None
    interval: float
    result: FitResult
    rows: NDArray[np.int64]
    metric: Array
    predicted: Array
    warnings: tuple[str, ...] = ()


def rmsle(predicted: ArrayLike, metric: ArrayLike) -> float | None:
    """sqrt(mean(log(predicted / metric)^2)), the error of Alabdulmohsin et al. 2022; None where not positive."""
    p, y = np.asarray(predicted, dtype=float), np.asarray(metric, dtype=float)
    if not (np.all(p > 0) and np.all(y > 0)):
        return None
    return float(np.sqrt(np.mean(np.log(p / y) ** 2)))


def compute_of(points: Points) -> Array:
    """The size of each point's training (n,): FLOPs where given, else 6ND, else the single column of the law.

    Raises UsageError where there is none of these.
    """
    columns = points.columns
    if "flops" in columns:
        return columns["flops"]
    for size, data in (("params", "tokens"), ("N", "D"), ("n", "d")):  # a formula's columns have names of its own
        if size in columns and data in columns:
            return 6.0 * columns[size] * columns[data]
    if {"params_non_vocabulary", "params_vocabulary", "tokens"} <= set(columns):
        return 6.0 * (columns["params_non_vocabulary"] + columns["params_vocabulary"]) * columns["tokens"]
    for name in ("x", "tokens", *columns):
        if name in columns and (name in ("x", "tokens") or len(columns) == 1):
            return columns[name]
    raise UsageError("the points have no compute: name flops, params and tokens, or x")


def holdout(
    law: Law | str,
    data: Points | dict[str, Any],
    held: ArrayLike,
    *,
    name: str = "held out",
    replicates: int = 0,
    interval: float = 0.95,
    seed: int = 0,
    **options: Any,
) -> Held:
    """Fit without the rows where `held` (n,) is true, and predict those.

    options go to `fit`. replicates: bootstrap size for the interval coverage, 0 for none.
    Raises DataError where nothing is held out or left to fit.
    """
    points = as_points(law, data, options.get("residual", "log"))
    hidden = np.asarray(held, dtype=bool)
    if hidden.shape != (len(points),):
        raise DataError(f"held: shape {hidden.shape} for {len(points)} rows")
    if not hidden.any() or hidden.all():
        raise DataError(f"{name}: {int(hidden.sum())} of {len(points)} rows are held out; some must be, not all")
    try:
        result = fit(law, points.select(~hidden), **options)
    except (DataError, FitError) as problem:
        raise type(problem)(f"{name}: {problem}") from None
    rest = points.select(hidden)
    predicted = result.predict(rest.columns)
    error = rmsle(predicted, rest.metric)
    coverage, warnings = None, result.warnings
    if replicates:
        try:
            band = predict(uncertainty(result, replicates=replicates, seed=seed), rest.columns, interval, seed)
        except FitError as problem:  # the error stands; only the intervals are missing
            warnings = (*warnings, f"no intervals: {problem}")
        else:
            coverage = float(np.mean((band.observation_low <= rest.metric) & (rest.metric <= band.observation_high)))
    return Held(
        name=name,
        law=result.law.name,
        trained=len(points) - len(rest),
        held=len(rest),
        rmsle=error,
        rmse=float(np.sqrt(np.mean((predicted - rest.metric) ** 2))),
        bias=None if error is None else float(np.mean(np.log(predicted / rest.metric))),
        coverage=coverage,
        interval=interval,
        result=result,
        rows=rest.rows,
        metric=rest.metric,
        predicted=predicted,
        warnings=warnings,
    )


def holdout_above(law: Law | str, data: Points | dict[str, Any], compute: float, **options: Any) -> Held:
    """Hide every row with more than `compute` (FLOPs; see `compute_of`) and predict it."""
    points = as_points(law, data, options.get("residual", "log"))
    size = compute_of(points)
    if not np.any(size > compute):
        raise DataError(f"holdout-above={compute:g}: no row has more; the largest has {size.max():g}")
    if np.all(size > compute):
        raise DataError(f"holdout-above={compute:g}: every row has more; the smallest has {size.min():g}")
    return holdout(law, points, size > compute, name=f"compute above {compute:g}", **options)


def expanding_window(
    law: Law | str, data: Points | dict[str, Any], *, windows: int = 4, least: int | None = None, **options: Any
) -> list[Held]:
    """Train on the smallest-compute rows up to each of `windows` cuts, predict the slice up to the next.

    Cuts are quantiles of compute; the first leaves at least `least` rows (default twice the parameters) to train on.
    Raises DataError where the rows are too few.
    """
    points = as_points(law, data, options.get("residual", "log"))
    if windows < 1:
        raise UsageError(f"windows={windows} is not at least 1")
    least = 2 * len(law_named(law).parameters) if least is None else least
    size = compute_of(points)
    order = np.sort(size)
    if len(order) < least + windows:
        raise DataError(
            f"expanding window: {len(order)} rows are too few for {least} to start with and {windows} windows"
        )
    positions = np.unique(np.linspace(least, len(order), windows + 1).astype(int))
    cuts = [order[p - 1] for p in positions]
    out = []
    for low, high in pairwise(cuts):
        seen = size <= high
        hidden = (size > low)[seen]
        if hidden.any() and not hidden.all():
            out.append(holdout(law, points.select(seen), hidden, name=f"{low:.3g} to {high:.3g}", **options))
    if not out:
        raise DataError("expanding window: all rows have the same compute")
    return out


def leave_one_group_out(law: Law | str, data: Points | dict[str, Any], **options: Any) -> list[Held]:
    """Predict each group (points.groups, else clusters) from the others. Raises UsageError without groups."""
    points = as_points(law, data, options.get("residual", "log"))
    labels = points.groups if points.groups is not None else points.clusters
    if labels is None:
        raise UsageError("leave one group out: no group or cluster column is named")
    names = list(dict.fromkeys(labels.tolist()))
    if len(names) < 2:
        raise DataError(f"leave one group out: there is one group only, {names[0]!r}")
    return [holdout(law, points, labels == name, name=f"without {name}", **options) for name in names]


def validate(
    request: FitRequest,
    *,
    above: float | None = None,
    column: str | None = None,
    windows: int = 4,
    replicates: int = 400,
    interval: float = 0.95,
    seed: int = 0,
) -> list[Held]:
    """Each law asked for, fitted to a part of the rows and judged on the others.

    Hidden are rows with more compute than `above`, or those where `column` is true (not 0); or each of
    the request's groups in turn; else what follows each of `windows` expanding windows.

    Raises UsageError where two of these are asked for, and what `holdout` raises.
    """
    if sum(v is not None for v in (above, column, request.group)) > 1:
        raise UsageError("validate takes one of --holdout-above, --holdout-column and --group")
    judged = []
    for name, law, fixed in request.laws:
        points = request.points(law)
        options: dict[str, Any] = {
            **request.fit_options, "fixed": fixed, "replicates": replicates, "interval": interval, "seed": seed,
        }  # fmt: skip
        if above is not None:
            held = [holdout_above(law, points, above, **options)]
        elif column is not None:
            marks = request.column(request.table, column).loc[points.rows.tolist()].to_numpy()
            truth = numbers(marks, column, points.rows) != 0
            held = [holdout(law, points, truth, name=column, **options)]
        elif request.group is not None:
            held = leave_one_group_out(law, points, **options)
        else:
            held = expanding_window(law, points, windows=windows, **options)
        judged += [replace(hidden, law=name) for hidden in held]
    return judged
