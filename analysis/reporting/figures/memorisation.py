"""Memorisation check: how close samples come to training images, against how close held-out images do."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames

from . import style as look
from .style import INK, Palette

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
    with look.applied(style) as chosen:
        height = (0.23 * len(pairs) + 0.9) / chosen.width
        figure, axes = look.new_figure(chosen, height, ncols=len(metrics), squeeze=False, sharey=True)
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
