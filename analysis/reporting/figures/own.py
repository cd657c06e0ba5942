"""Metrics of one's own against compute, a panel each: what a study shows in which no gFID was measured."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import groups, said

from . import style as look

PANELS = 6
"""Metrics shown at most; the table has all."""
SERIES = len(look.COLOURS)
"""Lines that colours can tell apart."""


def own_metrics(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Every measurement a dot, the means of each series joined: a series is a tokenizer, or of runs of no stage the
    value of the setting with the fewest values."""
    rows = frames.own
    metrics = list(dict.fromkeys(rows["metric"]))[:PANELS]
    if not metrics:
        return None
    with look.applied(style) as chosen:
        columns = min(2, len(metrics))
        height = 0.45 * -(-len(metrics) // columns) if columns == 2 else 0.55
        figure, axes = look.new_figure(chosen, height, ncols=columns, nrows=-(-len(metrics) // columns), squeeze=False)
        for axis in axes.flat[len(metrics) :]:
            axis.set_axis_off()
        rows = rows.assign(series=_series(frames, rows))
        names = sorted(rows["series"].unique(), key=lambda name: (len(name), name))
        colours = {name: look.COLOURS[i % SERIES] for i, name in enumerate(names)}
        for axis, metric in zip(axes.flat, metrics, strict=False):
            _panel(axis, metric, rows[rows["metric"] == metric], colours)
        if 1 < len(colours) <= SERIES:
            handles = [Line2D([], [], color=colour, lw=2.2, label=name) for name, colour in colours.items()]
            look.legend_below(figure, handles, chosen)
    return figure


def _series(frames: StudyFrames, rows: pd.DataFrame) -> pd.Series:
    """What each row is drawn as."""
    counts = {c: rows[c].astype(str).nunique() for c in frames.settings.columns if c.startswith("run.") and c in rows}
    if len(counts) < 2:
        return rows["family"].fillna("run").astype(str)
    setting = min(counts, key=lambda c: counts[c])
    told = f"{setting.removeprefix('run.')} = " + rows[setting].map(said)
    return rows["family"].where(rows["family"].notna(), told).astype(str)


def _panel(axis: Axes, metric: str, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    along = next((c for c in ("path_flops", "images") if (rows[c] > 0).all()), "step")
    for name, series in groups(rows, "series"):
        axis.scatter(series[along], series["value"], s=15, color=colours[name], alpha=0.5, lw=0)
        mean = series.groupby(along)["value"].mean()
        axis.plot(mean.index, mean, color=colours[name], lw=1.4)
    if (rows["value"] > 0).all():
        look.log_value_axis(axis, "", rows["value"])
    axis.set_title(metric.removeprefix("own_").replace("_", " "))
    if along == "path_flops":
        look.flops_axis(axis, "training FLOPs")
    else:
        look.images_axis(axis, "training images" if along == "images" else "steps")
