"""What single runs measured: training curves, memorisation, and metrics of one's own."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import groups, said
from results.schema import TRUNK

from . import style as look
from .style import INK, Palette

TERMS = {
    "tokenizer": ("perceptual", "squared_error"),
    "generator": ("cross_entropy", "loss", "nats_per_token"),
    "run": ("loss",),
}
"""The first of these that was recorded is drawn, else the first term by name."""
TITLES = {"tokenizer": "Tokenizers", "generator": "Generators", "run": "Runs of no stage"}


def training_curves(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """A loss term of every tokenizer run, cross-entropy per token of every generator run, a term of every other run."""
    curves = frames.curves.merge(frames.runs[["run_id", "stage", "family", "size", "status"]], on="run_id", how="inner")
    curves = curves[curves["value"] > 0]
    stages = [stage for stage in TITLES if (curves["stage"] == stage).any()]
    if not stages:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.new_figure(style, 0.45, ncols=max(2, len(stages)), squeeze=False) as (figure, axes):
        for axis in axes[0][len(stages) :]:
            axis.set_axis_off()
        for axis, stage in zip(axes[0], stages, strict=False):
            _curves_panel(axis, stage, curves[curves["stage"] == stage], palette)
        handles = palette.handles(palette.present(curves), sizes=False)
        if handles:
            look.legend_below(figure, handles)
    return figure


def _curves_panel(axis: Axes, stage: str, curves: pd.DataFrame, palette: Palette) -> None:
    present = set(curves["term"])
    term = next((t for t in TERMS[stage] if t in present), min(present))
    rows = curves[curves["term"] == term]
    split = "validation" if stage == "generator" and (rows["split"] == "validation").any() else "train"
    rows = rows[rows["split"] == split] if (rows["split"] == split).any() else rows
    along = "images" if rows["images"].notna().all() else "step"
    for _, run in groups(rows.sort_values(along), "run_id"):
        colour = palette.colours.get(run["family"].iloc[0], look.COLOURS[0])
        for branch, curve in groups(run, "branch"):
            trunk = branch == TRUNK
            # Decays are dotted.
            dash = palette.dashes.get(run["family"].iloc[0], "-") if stage == "tokenizer" else "-" if trunk else ":"
            axis.plot(curve[along], curve["value"], dash, color=colour, lw=0.9, alpha=0.75 if trunk else 0.5)
            if stage == "generator" and trunk and np.isfinite(curve["value"].iloc[-1]):
                marker = palette.markers.get(str(run["size"].iloc[0]), "o")
                axis.plot(curve[along].iloc[-1], curve["value"].iloc[-1], marker, color=colour, ms=4)
    axis.set_title(f"{TITLES[stage]}, {split} split" if stage != "run" else TITLES[stage])
    look.counting_axis(axis, along)
    name = term.replace("_", " ")
    label = {"tokenizer": f"{name} loss", "generator": "cross-entropy, nats per token"}.get(stage, name)
    look.log_value_axis(axis, label, rows["value"])
    if stage == "generator":
        axis.legend(handles=palette.size_handles(), loc="upper right", ncols=2)


EXPECTED_COPIES = 0.01
"""near_copy_fraction of held-out real images, by its definition."""


def memorisation(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Nearest-neighbour distance ratio and share of near copies of each run at its longest budget, a dot a run."""
    points = frames.points
    metrics = [m for m in ("memorisation_ratio", "near_copy_fraction") if m in points and points[m].notna().any()]
    if not metrics:
        return None
    palette = Palette.of(frames.families, points)
    rows = points[points[metrics].notna().all(axis=1)].sort_values("images").drop_duplicates("run_id", keep="last")
    present = set(zip(rows["family"], rows["size"], strict=True))
    pairs = [(f, s) for f in palette.colours for s in palette.markers if (f, s) in present]
    height = (0.23 * len(pairs) + 0.9) / look.named("style", style, look.STYLES).width
    with look.new_figure(style, height, ncols=len(metrics), squeeze=False, sharey=True) as (figure, axes):
        for axis, metric in zip(axes[0], metrics, strict=True):
            percent = metric == "near_copy_fraction"
            for y, (family, size) in enumerate(pairs):
                runs = rows[(rows["family"] == family) & (rows["size"] == size)]
                values = runs[metric].to_numpy(dtype=float) * (100 if percent else 1)
                marker, colour = palette.markers[size], palette.colours[family]
                axis.plot(values, np.full(len(values), y), marker, color=colour, ms=4.5, alpha=0.7)
            axis.axvline(100 * EXPECTED_COPIES if percent else 1.0, color=INK, lw=0.9)
            axis.margins(x=0.12)
            axis.set_xlabel(
                "near copies among\nsamples, %" if percent else "nearest-neighbour distance,\nsamples / held-out"
            )
            axis.set_title("line: held-out images")
        labels = [f"{family} + {size}" for family, size in pairs]
        axes[0][0].set_yticks(range(len(pairs)), labels)
        axes[0][0].set_ylim(len(pairs) - 0.4, -0.6)
    return figure


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
    columns, panel_rows = min(2, len(metrics)), math.ceil(len(metrics) / 2)
    height = 0.45 * panel_rows if columns == 2 else 0.55
    with look.new_figure(style, height, ncols=columns, nrows=panel_rows, squeeze=False) as (figure, axes):
        for axis in axes.flat[len(metrics) :]:
            axis.set_axis_off()
        rows = rows.assign(series=_series(frames, rows))
        names = sorted(rows["series"].unique(), key=lambda name: (len(name), name))
        colours = {name: look.COLOURS[i % SERIES] for i, name in enumerate(names)}
        for axis, metric in zip(axes.flat, metrics, strict=False):
            _metric_panel(axis, metric, rows[rows["metric"] == metric], colours)
        if 1 < len(colours) <= SERIES:
            handles = [Line2D([], [], color=colour, lw=2.2, label=name) for name, colour in colours.items()]
            look.legend_below(figure, handles)
    return figure


def _series(frames: StudyFrames, rows: pd.DataFrame) -> pd.Series:
    """What each row is drawn as."""
    counts = {c: rows[c].astype(str).nunique() for c in frames.settings.columns if c.startswith("run.") and c in rows}
    if len(counts) < 2:
        return rows["family"].fillna("run").astype(str)
    setting = min(counts, key=lambda c: counts[c])
    told = f"{setting.removeprefix('run.')} = " + rows[setting].map(said)
    return rows["family"].where(rows["family"].notna(), told).astype(str)


def _metric_panel(axis: Axes, metric: str, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    along = next((c for c in ("path_flops", "images") if (rows[c] > 0).all()), "step")
    for name, series in groups(rows, "series"):
        axis.scatter(series[along], series["value"], s=15, color=colours[name], alpha=0.5, lw=0)
        mean = series.groupby(along)["value"].mean()
        axis.plot(mean.index, mean, color=colours[name], lw=1.4)
    if (rows["value"] > 0).all():
        look.log_value_axis(axis, "", rows["value"])
    axis.set_title(metric.removeprefix("own_").replace("_", " "))
    look.counting_axis(axis, along, "training FLOPs" if along == "path_flops" else None)
