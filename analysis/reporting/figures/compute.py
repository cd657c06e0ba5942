"""gFID and cross-entropy against training compute: Pareto fronts, their crossover, and what each size reaches.

As the paper's Fig. 4, 5 and 6 (arXiv 2412.16326), with seeds and the crossover's interval, which it does not show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.reporting import wording
from analysis.reporting.answer import Answer
from analysis.tokenizers.crossover import Crossover
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import family_fronts, mean_front
from analysis.tokenizers.rows import geometric_means, groups

from . import style as look
from .style import INK, MUTED, Palette


def gfid_against_compute(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Fronts of every tokenizer; below, the ratio of the two fronts that are compared first, with its interval."""
    points = frames.ranked
    if points.empty:
        return None
    palette = Palette.of(frames.families, points)
    cross = answer.compression[0].crossover if answer.compression else None
    rows = {"nrows": 2, "sharex": True, "height_ratios": [3.1, 1.3]} if cross else {"nrows": 1}
    with look.new_figure(style, 0.72 if cross else 0.55, **rows) as (figure, axes):
        top: Axes = axes[0] if cross else axes
        families = palette.present(points)
        for family in families:
            _family(top, points[points["family"] == family], family, palette)
        look.log_value_axis(top, frames.measure.label, points["gfid"])
        look.counting_axis(top, label="" if cross else frames.compute.label)
        look.legend_below(figure, palette.handles(families))
        if cross is not None:
            _crossover_band(top, cross)
            _ratio(axes[1], cross, frames)
    return figure


def _family(axis: Axes, points: pd.DataFrame, family: str, palette: Palette) -> None:
    colour = palette.colours[family]
    for size, group in groups(points, "size"):
        axis.scatter(
            group["path_flops"], group["gfid"], marker=palette.markers[str(size)], s=15, color=colour, alpha=0.38, lw=0
        )
    by_seed = family_fronts(points, family)
    for front in by_seed.values():
        axis.plot(front.flops, front.gfid, color=colour, lw=0.7, alpha=0.55, ls=palette.dashes[family])
    flops, gfid = mean_front(by_seed)
    axis.plot(flops, gfid, color=colour, lw=2.2, ls=palette.dashes[family], solid_capstyle="round")


def _crossover_band(axis: Axes, cross: Crossover) -> None:
    _crossover_line(axis, cross)
    if cross.flops is None:
        return
    low, high = wording.crossover_ends(cross, "<{}", ">{}")
    span = "" if cross.band is None else f"\n95 %: {low} to {high}"
    place: Any = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "top", "fontsize": "small"}
    look.note(axis, f"fronts cross\nat {wording.flops(cross.flops)}{span}", (cross.flops, 1.0), (-5, -2), **place)


def _ratio(axis: Axes, cross: Crossover, frames: StudyFrames) -> None:
    flops, ratio = np.exp(cross.log_flops), np.exp(cross.log_ratio)
    shown = [ratio]
    if cross.band is not None:
        low, high = np.exp(cross.band[0]), np.exp(cross.band[1])
        axis.fill_between(flops, low, high, color=MUTED, alpha=0.28, lw=0)
        shown += [np.clip(low, ratio / 4, None), np.clip(high, None, ratio * 4)]
    axis.plot(flops, ratio, color=INK, lw=1.4)
    axis.axhline(1, color=INK, lw=0.8)
    _crossover_line(axis, cross)
    values = np.concatenate([*shown, [1.0]])
    look.log_value_axis(axis, f"{frames.measure.name} ratio", values)
    axis.set_ylim(values.min() * 0.9, values.max() * 1.12)
    look.counting_axis(axis, label=frames.compute.label)
    kind = "95 % interval" if cross.band is not None else "one seed, no interval"
    axis.set_title(f"{cross.first} / {cross.second}, below 1: {cross.first} is better ({kind})", weight="normal")


def _crossover_line(axis: Axes, cross: Crossover) -> None:
    if cross.flops is None:
        return
    if cross.band is not None:
        axis.axvspan(cross.interval_low or cross.low, cross.interval_high or cross.high, color=MUTED, alpha=0.16, lw=0)
    axis.axvline(cross.flops, color=INK, lw=0.9, ls=":")


def cross_entropy_against_compute(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Bits per pixel against compute, and gFID against bits per pixel: cross-entropy ranks no tokenizers by itself."""
    points = frames.points
    if "bits_per_pixel" not in points or points["bits_per_pixel"].notna().sum() == 0:
        return None
    points = points[points["bits_per_pixel"].notna()]
    palette = Palette.of(frames.families, points)
    families = palette.present(points)
    with look.new_figure(style, 0.45, ncols=2) as (figure, (left, right)):
        for family in families:
            rows = points[points["family"] == family]
            colour, dash = palette.colours[family], palette.dashes[family]
            for size, group in groups(rows, "size"):
                mean = geometric_means(group, ["path_flops", "bits_per_pixel", "gfid"], "images")
                marker = palette.markers[str(size)]
                left.plot(mean["path_flops"], mean["bits_per_pixel"], dash, color=colour, marker=marker, lw=1.1, ms=4)
                right.plot(mean["bits_per_pixel"], mean["gfid"], dash, color=colour, marker=marker, lw=1.1, ms=4)
        look.counting_axis(left)
        look.log_value_axis(left, "bits per pixel, held-out", points["bits_per_pixel"])
        if points["gfid"].notna().any():
            look.log_value_axis(right, "gFID, no guidance", points["gfid"].dropna())
        right.set_xlabel("bits per pixel, held-out")
        left.set_title("Cross-entropy falls with compute")
        right.set_title("but ranks no two tokenizers")
        look.legend_below(figure, palette.handles(families))
    return figure
