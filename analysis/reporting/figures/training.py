"""Training curves: loss terms of the tokenizers, cross-entropy of the generators with decays, terms of other runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import groups
from results.schema import TRUNK

from . import style as look
from .style import Palette

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
    with look.applied(style) as chosen:
        figure, axes = look.new_figure(chosen, 0.45, ncols=max(2, len(stages)), squeeze=False)
        for axis in axes[0][len(stages) :]:
            axis.set_axis_off()
        for axis, stage in zip(axes[0], stages, strict=False):
            _panel(axis, stage, curves[curves["stage"] == stage], palette)
        handles = palette.handles(palette.present(curves), sizes=False)
        if handles:
            look.legend_below(figure, handles, chosen)
    return figure


def _panel(axis: Axes, stage: str, curves: pd.DataFrame, palette: Palette) -> None:
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
    look.images_axis(axis, "training images" if along == "images" else "steps")
    name = term.replace("_", " ")
    label = {"tokenizer": f"{name} loss", "generator": "cross-entropy, nats per token"}.get(stage, name)
    look.log_value_axis(axis, label, rows["value"])
    if stage == "generator":
        axis.legend(handles=palette.size_handles(), loc="upper right", ncols=2)
