"""What to train at a budget: the best pairs and their probabilities, and reconstruction against generation.

At small compute the tokenizer that reconstructs worse can be the better one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.reporting import wording
from analysis.reporting.answer import Answer
from analysis.reporting.rendering import estimate_of
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import family_fronts
from analysis.tokenizers.pairs import probability_curve
from analysis.tokenizers.rows import groups
from analysis.tokenizers.seed_intervals import SeedEstimate, over_seeds

from . import style as look
from .style import BUDGET_SHADES, INK, MUTED, Palette

SHOWN = 5
"""Pairs shown at each budget."""


def best_pair_at_budgets(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """For each budget the pairs with the lowest expected gFID, its 95 % interval, and the probability of being best."""
    if not answer.best_pairs:
        return None
    palette = Palette.of(frames.families, frames.points)
    rows = max(min(SHOWN, len(b.pairs)) for b in answer.best_pairs)
    height = (0.36 * rows + 0.8) / look.named("style", style, look.STYLES).width
    with look.new_figure(style, height, ncols=len(answer.best_pairs), squeeze=False) as (figure, axes):
        for axis, best in zip(axes[0], answer.best_pairs, strict=True):
            pairs = best.pairs[:rows]
            for y, pair in enumerate(pairs):
                colour = palette.colours[pair.family]
                if pair.low is not None and pair.high is not None:
                    axis.plot([pair.low, pair.high], [y, y], color=colour, lw=1.6)
                axis.plot(pair.gfid, y, palette.markers[pair.size], color=colour, ms=6)
                chance = "" if pair.probability is None else f"  {wording.percent(pair.probability)}"
                weight = "bold" if pair is best.best else "normal"
                place: Any = {"xycoords": ("axes fraction", "data"), "va": "bottom", "fontsize": "x-small"}
                look.note(axis, f"{pair.name}{chance}", (0.0, y), (3, 5), **place, weight=weight, color=INK)
            axis.set_ylim(rows - 0.45, -0.75)
            axis.set_yticks([])
            axis.set_xlabel("expected gFID")
            axis.xaxis.set_major_locator(look.mpl.ticker.MaxNLocator(4))
            axis.grid(axis="y", visible=False)
            axis.spines["left"].set_visible(False)
            axis.set_title(f"{wording.flops(best.flops)} FLOPs")
    return figure


def best_tokenizer_by_compute(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """Probability that the best pair uses each tokenizer, stacked, against compute; needs pairs with several seeds."""
    points = frames.ranked
    if points["family"].nunique() < 2:
        return None
    curve = probability_curve(points)
    if curve is None or len(curve.flops) < 2:
        return None
    palette = Palette.of(frames.families, points)
    order = [f for f in palette.colours if f in curve.families]
    with look.new_figure(style, 0.34) as (figure, axis):
        table = curve.probability[:, [curve.families.index(f) for f in order]]
        axis.stackplot(curve.flops, table.T, colors=[palette.colours[f] for f in order], labels=order, alpha=0.85, lw=0)
        for best in answer.best_pairs:
            axis.axvline(best.flops, color="white", lw=1.0, ls=":")
        look.counting_axis(axis)
        axis.set_xlim(curve.flops[0], curve.flops[-1])
        axis.set_ylim(0, 1)
        axis.set_ylabel("probability")
        axis.set_yticks([0, 0.5, 1])
        axis.grid(color=MUTED)
        figure.legend(loc="outside right upper", title="tokenizer of\nthe best pair")
    return figure


@dataclass(frozen=True)
class _Spot:
    family: str
    rfid: SeedEstimate
    gfid: SeedEstimate


def worse_is_better(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """rFID of each tokenizer against the gFID of its Pareto front, one line for each compute budget of the answer.

    A line that falls to the right says that at this budget the worse tokenizer gives the better images. Bars are 95 %
    intervals over tokenizer seeds; families with one seed have none. Regularised tokenizers are drawn, not joined.
    """
    points = frames.ranked
    rfid = _rfid(frames)
    plain = set(frames.families.loc[frames.families["regulariser"].isna(), "family"])
    if len(rfid) < 2 or not answer.best_pairs:
        return None
    palette = Palette.of(frames.families, points)
    lines = []
    for best in answer.best_pairs:
        spots = []
        for family, estimate in rfid.items():
            by_seed = family_fronts(points, family).items()
            logs = {seed: float(front.log_gfid(np.log(best.flops))) for seed, front in by_seed}
            usable = {seed: math.exp(value) for seed, value in logs.items() if math.isfinite(value)}
            if usable:
                spots.append(_Spot(family, estimate, over_seeds(usable, scale="level", paired=False)))
        if spots:
            lines.append((best.flops, sorted(spots, key=lambda s: s.rfid.value)))
    if not any(len(spots) > 1 for _, spots in lines):
        return None
    with look.new_figure(style, 0.6) as (figure, axis):
        for i, (flops, spots) in enumerate(lines):
            shade = BUDGET_SHADES[min(i + max(0, 3 - len(lines)), 2)]
            _line(axis, flops, spots, shade, palette, plain)
        shown = [s.gfid.value for _, spots in lines for s in spots]
        widths = [e.value for e in rfid.values()]
        look.log_value_axis(axis, "rFID of the tokenizer   (reconstructs worse →)", widths, "x")
        look.log_value_axis(axis, "gFID of the best generator   (generates worse →)", shown)
        _headroom(axis, lines, rfid, shown, palette)
        axis.set_title(_title(lines, plain))
    return figure


def _rfid(frames: StudyFrames) -> dict[str, SeedEstimate]:
    table = frames.tokenizers
    if "rfid" not in table:
        return {}
    table = table[table["rfid"].notna() & table["family"].isin(set(frames.ranked["family"]))]
    estimates = {str(family): estimate_of(rows, "rfid", "level") for family, rows in groups(table, "family")}
    return {family: estimate for family, estimate in estimates.items() if estimate is not None}


def _line(axis: Axes, flops: float, spots: list[_Spot], shade: str, palette: Palette, plain: set[str]) -> None:
    joined = [s for s in spots if s.family in plain]
    axis.plot([s.rfid.value for s in joined], [s.gfid.value for s in joined], color=shade, lw=1.6, zorder=2)
    best = min(spots, key=lambda s: s.gfid.value)
    for s in spots:
        colour = palette.colours[s.family]
        if s.gfid.low is not None and s.gfid.high is not None:
            axis.plot([s.rfid.value] * 2, [s.gfid.low, s.gfid.high], color=colour, lw=1.1, alpha=0.8, zorder=3)
        fill = colour if s.family in plain else "white"
        axis.plot(s.rfid.value, s.gfid.value, "o", ms=7.5, color=colour, mfc=fill, mew=1.5, zorder=4)
        if s is best:
            axis.plot(s.rfid.value, s.gfid.value, "o", ms=13, mfc="none", mec=shade, mew=1.4, zorder=5)
    end = joined[0] if joined else spots[0]
    place: Any = {"ha": "right", "va": "center", "fontsize": "small", "color": shade, "weight": "bold"}
    at = (min(s.rfid.value for s in spots), end.gfid.value)
    look.note(axis, f"{wording.flops(flops)} FLOPs", at, (-13, 0), **place)


def _headroom(
    axis: Axes,
    lines: list[tuple[float, list[_Spot]]],
    rfid: dict[str, SeedEstimate],
    shown: list[float],
    palette: Palette,
) -> None:
    """Family names above the highest point, each over its own rFID, and room for the budget labels on the left."""
    low, high = min(shown), max(shown)
    span = math.log(high / low)
    present = sorted({s.family for _, spots in lines for s in spots}, key=lambda f: rfid[f].value)
    xs = [rfid[f].value for f in present]
    width = math.log(xs[-1] / xs[0]) or 0.3
    axis.set_xlim(xs[0] * math.exp(-0.24 * width - 0.02), xs[-1] * math.exp(0.12 * width + 0.02))
    previous, level = -math.inf, 0
    for family in present:
        x = math.log(rfid[family].value)
        level = (level + 1) % 3 if x - previous < 0.22 * width else 0
        previous = x
        y = high * math.exp(span * (0.10 + 0.085 * level))
        axis.plot([rfid[family].value] * 2, [low, y], color=palette.colours[family], lw=0.7, alpha=0.35, zorder=1)
        place: Any = {"ha": "center", "va": "bottom", "fontsize": "small", "color": palette.colours[family]}
        look.note(axis, family, (rfid[family].value, y), (0, 0), **place)
    axis.set_ylim(low * math.exp(-0.10 * span), high * math.exp(0.38 * span))


def _title(lines: list[tuple[float, list[_Spot]]], plain: set[str]) -> str:
    """What the two outer budgets say about the plain tokenizers that both have; neutral where they agree."""
    ends = [{s.family: s for s in spots if s.family in plain} for _, spots in (lines[0], lines[-1])]
    common = sorted(ends[0].keys() & ends[1].keys(), key=lambda f: ends[0][f].rfid.value)
    if len(common) >= 2:
        a, b = common[0], common[-1]
        small = ends[0][b].gfid.value < ends[0][a].gfid.value
        large = ends[1][b].gfid.value < ends[1][a].gfid.value
        if small and not large:
            return "At small compute the worse tokenizer is the better one"
        if small and large:
            return "The tokenizer that reconstructs worse is the better one here"
    return "Reconstruction against generation"
