"""What single runs measured: training curves, memorisation, and metrics of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.tokenizers.rows import groups, said
from results.schema import TRUNK

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import COLOURS, DASHES, INK, MARKERS
from .registry import Evidence, NotDrawn, Plot, Shown

TERMS = {
    "tokenizer": ("perceptual", "squared_error"),
    "generator": ("cross_entropy", "loss", "nats_per_token"),
    "run": ("loss",),
}
"""The first of these that was recorded is drawn, else the first term by name."""
TITLES = {"tokenizer": "tokenizers", "generator": "generators", "run": "runs of no stage"}


def _training(evidence: Evidence) -> Shown:
    frames = evidence.frames
    facts = frames.runs[["run_id", "stage", "family", "size", "tokenizer_seed"]]
    curves = frames.curves.merge(facts, on="run_id", how="inner")
    curves = curves[curves["value"] > 0]
    parts, words = [], []
    for stage in TITLES:
        own = curves[curves["stage"] == stage]
        if own.empty:
            continue
        present = set(own["term"])
        term = next((t for t in TERMS[stage] if t in present), min(present))
        rows = own[own["term"] == term]
        wanted = "validation" if stage == "generator" and (rows["split"] == "validation").any() else "train"
        rows = rows[rows["split"] == wanted] if (rows["split"] == wanted).any() else rows
        parts.append(rows)
        words.append(f"{term.replace('_', ' ')} of {TITLES[stage]} ({rows['split'].iloc[0]} split)")
    if not parts:
        raise NotDrawn("its training curves have no positive value")
    columns = [
        "stage",
        "run_id",
        "family",
        "size",
        "tokenizer_seed",
        "branch",
        "step",
        "images",
        "split",
        "term",
        "value",
    ]
    caption = f"Training curves of every run: {' and '.join(words)}; a line a run, dotted where a decay was forked."
    return Shown(pd.concat(parts, ignore_index=True)[columns], caption)


def training(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a stage, a line a run and branch."""
    stages = [stage for stage in TITLES if (rows["stage"] == stage).any()]
    axes = page.panels(len(stages), 0.8) if len(stages) > 1 else [page.axes()]
    for axis, stage in zip(axes, stages, strict=True):
        own = rows[rows["stage"] == stage]
        along = "images" if own["images"].notna().all() else "step"
        for _, run in groups(own.sort_values(along), "run_id"):
            family = run["family"].iloc[0]
            colour = page.palette.colours.get(family, COLOURS[0])
            for branch, curve in groups(run, "branch"):
                trunk = branch == TRUNK
                dash = page.palette.dashes.get(family, "-") if stage == "tokenizer" else "-" if trunk else ":"
                axis.plot(curve[along], curve["value"], color=colour, ls=dash, lw=0.8, alpha=0.75 if trunk else 0.5)
                if stage == "generator" and trunk and np.isfinite(curve["value"].iloc[-1]):
                    marker = page.palette.markers.get(str(run["size"].iloc[0]), "o")
                    axis.plot(curve[along].iloc[-1], curve["value"].iloc[-1], marker, color=colour, ms=4)
        scales.compute_axis(axis, along)
        name = own["term"].iloc[0].replace("_", " ")
        label = {"tokenizer": f"{name} loss", "generator": "cross-entropy (nats per token)"}.get(stage, name)
        scales.log_value_axis(axis, label, own["value"])
        page.title(axis, TITLES[stage])
    handles = page.palette.handles(page.palette.present(rows))
    page.legend([*handles, *page.palette.size_handles(page.palette.sizes(rows))])
    return axes


EXPECTED_COPIES = 0.01
"""near_copy_fraction of held-out real images, by its definition."""
COPYING = ("memorisation_ratio", "near_copy_fraction")


def _memorisation(evidence: Evidence) -> Shown:
    points = evidence.frames.points
    metrics = [m for m in COPYING if m in points and points[m].notna().any()]
    if not metrics:
        raise NotDrawn("neither the distance to training images nor near copies were measured")
    rows = points[points[metrics].notna().all(axis=1)].sort_values("images").drop_duplicates("run_id", keep="last")
    caption = (
        "Do generators copy training images? The distance of samples to their nearest training image over that of "
        "held-out "
        "images, and the share of samples closer than 99 % of held-out images are; each run at its longest budget. "
        "Lines: "
        "held-out images themselves."
    )
    return Shown(rows[["family", "size", "tokenizer_seed", "images", *metrics]].reset_index(drop=True), caption)


def memorisation(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A dot a run, a line a pair."""
    metrics = [metric for metric in COPYING if metric in rows]
    present = set(zip(rows["family"], rows["size"], strict=True))
    pairs = [(f, s) for f in page.palette.colours for s in page.palette.markers if (f, s) in present]
    axes = page.tall(0.2 * len(pairs) + 0.75, len(metrics), sharey=True)
    labels = {
        "near_copy_fraction": "near copies among\nsamples (%)",
        "memorisation_ratio": "nearest-neighbour distance,\nsamples / held-out",
    }
    for axis, metric in zip(axes, metrics, strict=True):
        factor = 100 if metric == "near_copy_fraction" else 1
        for y, (family, size) in enumerate(pairs):
            own = rows[(rows["family"] == family) & (rows["size"] == size)]
            values = own[metric].to_numpy(dtype=float) * factor
            look: Any = {"color": page.palette.colours[family], "ms": 4.5, "alpha": 0.75}
            axis.plot(values, np.full(len(values), y), page.palette.markers[size], **look)
        held_out = 100 * EXPECTED_COPIES if factor == 100 else 1.0
        axis.axvline(held_out, color=INK, lw=0.9)
        page.label(axis, "held-out", np.full(9, held_out), np.linspace(-0.5, len(pairs) - 0.5, 9), INK, prefer=0.5)
        axis.margins(x=0.12)
        axis.set_xlabel(labels[metric], linespacing=0.95)
    axes[0].set_yticks(range(len(pairs)), [f"{family} + {size}" for family, size in pairs])
    axes[0].set_ylim(len(pairs) - 0.4, -0.6)
    return axes


PANELS = 6
"""Metrics shown at most; the table has all."""
SERIES = len(COLOURS)
"""Lines that colours can tell apart."""


def _own(evidence: Evidence) -> Shown:
    rows = evidence.frames.own
    metrics = list(dict.fromkeys(rows["metric"]))
    kept = rows[rows["metric"].isin(metrics[:PANELS])]
    kept = kept.assign(series=_series(evidence, kept))
    columns = [
        "series",
        "metric",
        "family",
        "size",
        "run_id",
        "tokenizer_seed",
        "step",
        "images",
        "path_flops",
        "value",
    ]
    caption = "Metrics of one's own: a mark is a measurement, a line the mean of a series."
    left = len(metrics) - PANELS
    notes = (f"{left} more metrics are not shown: {', '.join(metrics[PANELS:])}.",) if left > 0 else ()
    return Shown(kept[columns].reset_index(drop=True), caption, notes=notes)


def _series(evidence: Evidence, rows: pd.DataFrame) -> pd.Series:
    """What each row is drawn as: a tokenizer, or of runs of no stage the setting with the fewest values."""
    columns = map(str, evidence.frames.settings.columns)
    counts = {c: rows[c].astype(str).nunique() for c in columns if c.startswith("run.") and c in rows}
    if len(counts) < 2:
        return rows["family"].fillna("run").astype(str)
    setting = min(counts, key=lambda c: counts[c])
    told = f"{setting.removeprefix('run.')} = " + rows[setting].map(said)
    return rows["family"].where(rows["family"].notna(), told).astype(str)


def own_metrics(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a metric, a line a series."""
    metrics = list(dict.fromkeys(rows["metric"]))
    axes = page.panels(len(metrics), 0.75, across=2) if len(metrics) > 1 else [page.axes()]
    names = sorted(rows["series"].unique(), key=lambda name: (len(name), name))
    looks = {name: (COLOURS[i % SERIES], DASHES[i % len(DASHES)], MARKERS[i % SERIES]) for i, name in enumerate(names)}
    for axis, metric in zip(axes, metrics, strict=True):
        own = rows[rows["metric"] == metric]
        along = next((c for c in ("path_flops", "images") if (own[c] > 0).all()), "step")
        for name, series in groups(own, "series"):
            colour, dash, marker = looks[name]
            axis.scatter(series[along], series["value"], s=13, color=colour, marker=marker, alpha=0.5, lw=0)
            mean = series.groupby(along)["value"].mean()
            axis.plot(mean.index, mean, color=colour, ls=dash, lw=1.4)
        words = metric.removeprefix("own_").replace("_", " ")
        if (own["value"] > 0).all():
            scales.log_value_axis(axis, words, own["value"])
        axis.set_ylabel(words)
        page.title(axis, words)
        scales.compute_axis(axis, along)
    if 1 < len(names) <= SERIES:
        page.legend([Line2D([], [], color=looks[n][0], ls=looks[n][1], marker=looks[n][2], label=n) for n in names])
    return axes


PLOTS = (
    Plot("training", "training curves of every run, by stage", training, _training, of="curves", report=True),
    Plot("memorisation", "do generators copy? nearest training images of samples against those of held-out images",
         memorisation, _memorisation, of="points", report=True),
    Plot("own-metrics", "metrics of your own against compute, images or steps", own_metrics, _own,
         of="own", report=True),
)  # fmt: skip
