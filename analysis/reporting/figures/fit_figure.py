"""The figure of one fit: data, law, interval band, and residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.fitting.laws.formulas.typeset import typeset
from analysis.fitting.laws.law import Array
from analysis.fitting.problem import residuals
from analysis.fitting.reading.points import Points
from analysis.fitting.result import FitResult, predict_with
from analysis.inference.sandwich import problem_of
from analysis.reporting import wording
from results.errors import UsageError

from .drawing import axes as scales
from .drawing import style as look
from .drawing.page import Page

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
OVERHANG = 1.05  # of a curve over the last row that is not yet an extrapolation


def fit_figure(
    result: FitResult,
    style: str = "report",
    *,
    misses: bool = True,
    beyond: float = 1.0,
    width: float | None = None,
) -> Figure:
    """Points, the fitted curve with its interval band, and the residuals below (without `misses`, not).

    A law of several columns is drawn against the one that varies most, with curves at CURVES values of the next (of a
    floor given by a column, where that is all that differs). beyond: up to how many times the largest value along the
    axis the curves go on, dashed on a shaded ground. width: in inches; None for the style's.

    Raises UsageError for a fit without points (read from a file).
    """
    points = _points_of(result)
    along, by = _drawn_columns(result, points)
    with look.applied(style) as chosen:
        page = Page(chosen, 2, look.NO_PALETTE, inches=width)
        top, bottom = page.stacked([3, 1], 0.75) if misses else (page.axes(0.6), None)
        metric = points.names.get("metric", "metric")
        used = points.weights > 0
        shade = _colours(None if by is None else points.columns[by][used], points, by)
        top.scatter(points.columns[along][used], points.metric[used], s=11, c=shade, lw=0, alpha=0.85, zorder=3)
        handles = []
        banded = result.draws is not None and not result.not_identified
        for value, columns_at in _curves(result, points, along, by, beyond):
            colour = _colours(value, points, by)
            _draw_curve(top, columns_at[along], result.predict(columns_at), float(points.columns[along].max()), colour)
            if value is not None and by is not None:
                text = f"{SYMBOLS.get(by, points.names.get(by, by))} = {_exact(value)}"
                handles.append(Line2D([], [], color=colour, label=text))
            if banded:
                low, high = _band(result, columns_at)
                top.fill_between(columns_at[along], low, high, color=colour, alpha=0.18, lw=0)
        top.set_xscale("log")
        top.set_ylabel(metric)
        if np.all(points.metric > 0):
            scales.log_value_axis(top, metric, points.metric)
        handles += _mark_extrapolation(top, points, along, beyond)
        words = f"({result.status.value.replace('_', ' ')}, {result.rows} rows)"
        between = "   " if len(result.law.formula) + len(words) < WIDEST_TITLE else "\n"
        formula = typeset(result.law.formula) or result.law.formula
        if not chosen.paper:
            top.set_title(f"{formula}{between}{words}", weight="normal")
        far = {flag.row for flag in result.flagged if flag.used}
        marked = np.isin(points.rows, list(far)) & used
        ring: Any = {"ls": "", "marker": "o", "ms": 5.1, "mfc": "none", "mec": look.COLOURS[1], "mew": 0.9}
        (top if bottom is None else bottom).set_xlabel(_label(points, along))
        if bottom is None:
            top.plot(points.columns[along][marked], points.metric[marked], **ring)
        else:
            _draw_residuals(bottom, result, along, used, shade)
            bottom.plot(points.columns[along][marked], misses_of(result)[marked], **ring)
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
        page.legend(handles)
        return page.finish()


def misses_of(result: FitResult) -> Array:
    """How far each row lies from the law (n,): the metric over the prediction as a logarithm, or their difference."""
    r = residuals(problem_of(result), result.coordinates[None, :])[0][0]
    return -r if result.residual == "log" else -r * result.scales.metric


def groups_figure(
    results: Mapping[str, FitResult], style: str = "report", *, beyond: float = 1.0, width: float | None = None
) -> Figure:
    """The fits of several groups in one pair of axes with one legend, each with its band; other columns at medians."""
    first = _points_of(next(iter(results.values())))
    along, _ = _drawn_columns(next(iter(results.values())), first)
    with look.applied(style) as chosen:
        page = Page(chosen, 2, look.NO_PALETTE, inches=width)
        axes = page.axes(0.6)
        handles = []
        for number, (name, result) in enumerate(results.items()):
            points, colour = _points_of(result), look.COLOURS[number % len(look.COLOURS)]
            used = points.weights > 0
            dots: dict[str, Any] = {"s": 11, "color": colour, "lw": 0, "alpha": 0.85, "zorder": 3}
            axes.scatter(points.columns[along][used], points.metric[used], **dots)
            [(_, columns_at)] = _curves(result, points, along, None, beyond)
            _draw_curve(axes, columns_at[along], result.predict(columns_at), float(points.columns[along].max()), colour)
            if result.draws is not None and not result.not_identified:
                axes.fill_between(columns_at[along], *_band(result, columns_at), color=colour, alpha=0.18, lw=0)
            handles.append(Line2D([], [], color=colour, marker=".", label=name))
        axes.set_xscale("log")
        axes.set_xlabel(_label(first, along))
        axes.set_ylabel(first.names.get("metric", "metric"))
        metrics = np.concatenate([_points_of(result).metric for result in results.values()])
        if np.all(metrics > 0):
            scales.log_value_axis(axes, first.names.get("metric", "metric"), metrics)
        formula = next(iter(results.values())).law.formula
        if not chosen.paper:
            axes.set_title(typeset(formula) or formula, weight="normal")
        others = [c for c in first.columns if c in next(iter(results.values())).law.columns and c != along]
        if others:
            names = " and ".join(first.names.get(other, other) for other in others)
            handles.append(Line2D([], [], ls="", label=f"curves at the median {names} of the group"))
        page.legend([*handles, *_mark_extrapolation(axes, first, along, beyond)])
        return page.finish()


def _points_of(result: FitResult) -> Points:
    if result.points is None:
        raise UsageError("this fit carries no points to draw: fit the data again")
    return result.points


def _draw_curve(axes: Any, x: Array, y: Array, last: float, colour: Any) -> None:
    """A curve, dashed beyond the last row."""
    inside = x <= last * OVERHANG
    axes.plot(x[inside], y[inside], color=colour, lw=1.2)
    if not inside.all():
        begin = int(inside.sum()) - 1
        axes.plot(x[begin:], y[begin:], color=colour, lw=1.2, ls="--")


def _mark_extrapolation(axes: Any, points: Points, along: str, beyond: float) -> list[Line2D]:
    """Shade what lies beyond the rows, where curves are drawn there, and say so in the legend."""
    if beyond <= 1:
        return []
    last = float(points.columns[along].max())
    axes.axvspan(last, last * beyond, color=look.MUTED, alpha=0.1, lw=0)
    return [Line2D([], [], color=look.MUTED, ls="--", label="extrapolated: beyond the fitted rows")]


def _draw_residuals(axes: Any, result: FitResult, along: str, used: Any, shade: Any) -> None:
    points = _points_of(result)
    axes.axhline(0, color=look.MUTED, lw=0.8)
    axes.scatter(points.columns[along][used], misses_of(result)[used], s=9, c=shade, lw=0, alpha=0.85)
    axes.set_ylabel("log residual" if result.residual == "log" else "residual")


def _drawn_columns(result: FitResult, points: Points) -> tuple[str, str | None]:
    """The column along the axis, and the one that tells the curves apart (None where one curve says it all)."""
    law = result.law
    columns = [c for c in law.columns if c not in law.metric_columns]
    spread = {c: _spread(points.columns[c]) for c in columns}
    along = max(columns, key=lambda c: spread[c])
    others = [c for c in columns if c != along]
    if others:
        return along, max(others, key=lambda c: spread[c])
    floors = [c for c in law.metric_columns if c not in law.constant_columns and np.ptp(points.columns[c]) > 0]
    return along, floors[0] if floors else None


def _spread(column: Array) -> float:
    """How far a column reaches: over how many e-folds, or, where it is not positive, relative to its size."""
    if column.min() > 0:
        return float(np.ptp(np.log(column)))
    return float(np.ptp(column) / max(np.abs(column).max(), 1e-300))


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
    result: FitResult, points: Points, along: str, by: str | None, beyond: float
) -> list[tuple[float | None, Mapping[str, Array]]]:
    """Columns to draw curves at: `along` over its range, `by` at quantiles, everything else at its middle."""
    low, high = points.columns[along].min(), points.columns[along].max()
    line = np.geomspace(low / (high / low) ** 0.03, high * max((high / low) ** 0.03, beyond), STEPS)
    others = [n for n in result.law.columns if n not in (along, by, *result.law.constant_columns)]
    middle = {name: np.full(STEPS, float(np.median(points.columns[name]))) for name in others}
    if by is None:
        return [(None, {**middle, along: line})]
    values = np.unique(points.columns[by])
    if len(values) > CURVES:
        values = np.quantile(points.columns[by], np.linspace(0.03, 0.97, CURVES), method="nearest")
    return [(float(v), {**middle, along: line, by: np.full(STEPS, float(v))}) for v in dict.fromkeys(values.tolist())]
