"""The figure of one fit: data, law, interval band, and residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.fitting.law import Array
from analysis.fitting.points import Points
from analysis.fitting.problem import residuals
from analysis.fitting.result import FitResult, predict_with
from analysis.inference.sandwich import problem_of
from analysis.reporting import wording
from results.errors import UsageError

from . import style as look

LABELS = {
    "params": "parameters N",
    "tokens": "training tokens D",
    "flops": "training FLOPs C",
    "unique_tokens": "unique tokens",
    "params_vocabulary": "vocabulary parameters",
    "params_non_vocabulary": "non-vocabulary parameters",
}
SYMBOLS = {"params": "N", "tokens": "D", "flops": "C", "params_non_vocabulary": "Nnv", "params_vocabulary": "Nv"}
CURVES = 5
WIDEST_TITLE = 80  # characters of the text width
STEPS = 120


def fit_figure(result: FitResult, style: str = "report") -> Figure:
    """Points, the fitted curve with its interval band, and the residuals below.

    A law of several columns is drawn against the one that varies most, with curves at CURVES values of the next (of a
    floor given by a column, where that is all that differs). Raises UsageError for a fit without points (read from a
    file).
    """
    points = result.points
    if points is None:
        raise UsageError("this fit carries no points to draw: fit the data again")
    along, by = _drawn_columns(result, points)
    with look.new_figure(style, 0.75, nrows=2, sharex=True, height_ratios=[3, 1]) as (figure, (top, bottom)):
        metric = points.names.get("metric", "metric")
        used = points.weights > 0
        shade = _colours(None if by is None else points.columns[by][used], points, by)
        top.scatter(points.columns[along][used], points.metric[used], s=11, c=shade, lw=0, alpha=0.85, zorder=3)
        handles = []
        banded = result.draws is not None and not result.not_identified
        for value, columns_at in _curves(result, points, along, by):
            colour = _colours(value, points, by)
            top.plot(columns_at[along], result.predict(columns_at), color=colour, lw=1.2)
            if value is not None and by is not None:
                text = f"{SYMBOLS.get(by, points.names.get(by, by))} = {_exact(value)}"
                handles.append(Line2D([], [], color=colour, label=text))
            if banded:
                low, high = _band(result, columns_at)
                top.fill_between(columns_at[along], low, high, color=colour, alpha=0.18, lw=0)
        top.set_xscale("log")
        top.set_ylabel(metric)
        if np.all(points.metric > 0):
            look.log_value_axis(top, metric, points.metric)
        words = f"({result.status.value.replace('_', ' ')}, {result.rows} rows)"
        between = "   " if len(result.law.formula) + len(words) < WIDEST_TITLE else "\n"
        top.set_title(f"{result.law.formula}{between}{words}", loc="left", fontsize=look.mpl.rcParams["font.size"])
        r = residuals(problem_of(result), result.coordinates[None, :])[0][0]
        r = -r if result.residual == "log" else -r * result.scales.metric
        bottom.axhline(0, color=look.MUTED, lw=0.8)
        bottom.scatter(points.columns[along][used], r[used], s=9, c=shade, lw=0, alpha=0.85)
        far = {flag.row for flag in result.flagged if flag.used}
        marked = np.isin(points.rows, list(far)) & used
        ring: Any = {"ls": "", "marker": "o", "ms": 5.1, "mfc": "none", "mec": look.COLOURS[1], "mew": 0.9}
        bottom.plot(points.columns[along][marked], r[marked], **ring)
        bottom.set_ylabel("log residual" if result.residual == "log" else "residual")
        bottom.set_xlabel(_label(points, along))
        if banded:
            level = f"{100 * (result.interval or 0.95):.4g} % interval of the curve"
            handles.append(Line2D([], [], color=look.MUTED, lw=7, alpha=0.3, label=level))
        if marked.any():
            handles.append(Line2D([], [], label="flagged: far from the law", **ring))
        for other in result.law.columns:
            if other not in (along, by, *result.law.metric_columns):
                middle = _exact(float(np.median(points.columns[other])))
                text = f"curves at the median {points.names.get(other, other)} = {middle}"
                handles.append(Line2D([], [], ls="", label=text))
        if handles:
            look.legend_below(figure, handles)
        return figure


def _drawn_columns(result: FitResult, points: Points) -> tuple[str, str | None]:
    """The column along the axis, and the one that tells the curves apart (None where one curve says it all)."""
    law = result.law
    columns = [c for c in law.columns if c not in law.metric_columns]
    spread = {c: float(np.ptp(np.log(points.columns[c]))) for c in columns}
    along = max(columns, key=lambda c: spread[c])
    others = [c for c in columns if c != along]
    if others:
        return along, max(others, key=lambda c: spread[c])
    floors = [c for c in law.metric_columns if c not in law.constant_columns and np.ptp(points.columns[c]) > 0]
    return along, floors[0] if floors else None


def _exact(value: float) -> str:
    """A value of the data as it stands there: 1024, 65536, 1.25e9; four digits where six do not say it."""
    if value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return wording.number(value, next((d for d in range(1, 7) if float(f"{value:.{d}g}") == value), 4))


def _label(points: Points, along: str) -> str:
    """The axis: what it is, and how the data call it."""
    name, known = points.names.get(along, along), LABELS.get(along)
    if known is None or name in (along, SYMBOLS.get(along)):
        return known or name
    return f"{known} = {name}" if " / (6 " in name else f"{known} ({name})"


def _band(result: FitResult, columns_at: Mapping[str, Array]) -> tuple[Array, Array]:
    """The interval of the curve at each of the places."""
    assert result.draws is not None
    some = result.draws[:: max(1, len(result.draws) // 400)]
    tail = 50 * (1 - (result.interval or 0.95))
    drawn = predict_with(result.law, result.scales, some, columns_at)
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return low, high


def _colours(values: Array | float | None, points: Points, by: str | None) -> Any:
    """A colour, or an array of them, for values of the column `by`; one colour for all without such a column."""
    if by is None or values is None:
        return look.COLOURS[0]
    column = points.columns[by]
    if column.min() > 0:
        column, values = np.log(column), np.log(values)
    share = (values - column.min()) / max(float(np.ptp(column)), 1e-12)
    return look.mpl.colormaps["viridis_r"](0.08 + 0.9 * np.clip(share, 0, 1))


def _curves(
    result: FitResult, points: Points, along: str, by: str | None
) -> list[tuple[float | None, Mapping[str, Array]]]:
    """Columns to draw curves at: `along` over its range, `by` at quantiles, everything else at its middle."""
    low, high = points.columns[along].min(), points.columns[along].max()
    line = np.geomspace(low / (high / low) ** 0.03, high * (high / low) ** 0.03, STEPS)
    others = [n for n in result.law.columns if n not in (along, by, *result.law.constant_columns)]
    middle = {name: np.full(STEPS, float(np.median(points.columns[name]))) for name in others}
    if by is None:
        return [(None, {**middle, along: line})]
    values = np.unique(points.columns[by])
    if len(values) > CURVES:
        values = np.quantile(points.columns[by], np.linspace(0.03, 0.97, CURVES), method="nearest")
    return [(float(v), {**middle, along: line, by: np.full(STEPS, float(v))}) for v in dict.fromkeys(values.tolist())]
