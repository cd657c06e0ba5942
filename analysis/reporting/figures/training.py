"""Training curves: loss terms of the tokenizers, cross-entropy of the generators with their decays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import groups
from results.schema import TRUNK

from . import style as look
from .style import MUTED, Palette

TOKENIZER_TERMS = ("perceptual", "squared_error")
GENERATOR_TERMS = ("cross_entropy", "loss", "nats_per_token")


def training_curves(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Left: a loss term of every tokenizer run; right: cross-entropy per token of every generator run."""
    facts = ["run_id", "stage", "family", "size", "status"]
    curves = frames.curves.merge(frames.runs[facts], on="run_id", how="inner")
    if curves.empty:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.applied(style) as chosen:
        figure, (left, right) = look.new_figure(chosen, 0.45, ncols=2)
        _tokenizers(left, curves[curves["stage"] == "tokenizer"], palette)
        _generators(right, curves[curves["stage"] == "generator"], palette)
        families = [f for f in frames.families["family"] if f in set(curves["family"])]
        handles = [Line2D([], [], color=palette.colours[f], ls=palette.dashes[f], lw=2, label=f) for f in families]
        look.legend_below(figure, handles, chosen)
    return figure


def _preferred(curves: pd.DataFrame, terms: tuple[str, ...]) -> str | None:
    """The first of the terms that was recorded; else any term that sounds like a loss; None without rows."""
    present = set(curves["term"])
    return next((t for t in terms if t in present), min(present) if present else None)


def _tokenizers(axis: Axes, curves: pd.DataFrame, palette: Palette) -> None:
    term = _preferred(curves, TOKENIZER_TERMS)
    rows = curves[(curves["term"] == term) & (curves["split"] == "train") & (curves["value"] > 0)]
    for (family, _), run in groups(rows, ["family", "run_id"]):
        run = run.sort_values("images")
        axis.plot(run["images"], run["value"], palette.dashes[family], color=palette.colours[family], lw=0.9, alpha=0.8)
    axis.set_title("Tokenizers, train split")
    look.images_axis(axis)
    if not rows.empty:
        look.log_value_axis(axis, f"{str(term).replace('_', ' ')} loss", rows["value"])


def _generators(axis: Axes, curves: pd.DataFrame, palette: Palette) -> None:
    term = _preferred(curves, GENERATOR_TERMS)
    rows = curves[(curves["term"] == term) & (curves["value"] > 0)]
    split = "validation" if (rows["split"] == "validation").any() else "train"
    rows = rows[rows["split"] == split]
    for (family, _), run in groups(rows, ["family", "run_id"]):
        colour = palette.colours[family]
        for branch, part in groups(run, "branch"):
            part = part.sort_values("images")
            main = branch == TRUNK
            axis.plot(
                part["images"],
                part["value"],
                "-" if main else ":",
                color=colour,
                lw=0.9 if main else 0.8,
                alpha=0.75 if main else 0.5,
            )
            if main and np.isfinite(part["value"].iloc[-1]):
                marker = palette.markers.get(str(run["size"].iloc[0]), "o")
                axis.plot(part["images"].iloc[-1], part["value"].iloc[-1], marker, color=colour, ms=4)
    axis.set_title(f"Generators, {split} split")
    look.images_axis(axis)
    if not rows.empty:
        look.log_value_axis(axis, "cross-entropy, nats per token", rows["value"])
    handles = [Line2D([], [], color=MUTED, marker=m, ls="", label=s, ms=4.5) for s, m in palette.markers.items()]
    axis.legend(handles=handles, loc="upper right", ncols=2)
