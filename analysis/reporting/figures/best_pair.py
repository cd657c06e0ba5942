"""What to train at a budget: the best pairs and their probabilities, and reconstruction against generation.

At small compute the tokenizer that reconstructs worse can be the better one.
"""

from __future__ import annotations

import math
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
            axis.set_xlabel(f"expected {frames.measure.name}")
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
    curve = probability_curve(points, curves=frames.curves_of_pairs)
    if curve is None or len(curve) < 2:
        return None
    palette = Palette.of(frames.families, points)
    order = [f for f in palette.colours if f in curve]
    with look.new_figure(style, 0.34) as (figure, axis):
        flops, colours = curve.index.to_numpy(), [palette.colours[f] for f in order]
        axis.stackplot(flops, curve[order].to_numpy().T, colors=colours, labels=order, alpha=0.85, lw=0)
        for best in answer.best_pairs:
            axis.axvline(best.flops, color="white", lw=1.0, ls=":")
        look.counting_axis(axis)
        axis.set_xlim(flops[0], flops[-1])
        axis.set_ylim(0, 1)
        axis.set_ylabel("probability")
        axis.set_yticks([0, 0.5, 1])
        axis.grid(color=MUTED)
        figure.legend(loc="outside right upper", title="tokenizer of\nthe best pair")
    return figure


Line = tuple[float, dict[str, SeedEstimate]]
"""A compute budget, and the gFID of each family there."""


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
    lines: list[Line] = []
    for best in answer.best_pairs:
        gfid = {}
        for family in rfid:
            by_seed = family_fronts(points, family).items()
            logs = {seed: float(front.log_gfid(np.log(best.flops))) for seed, front in by_seed}
            usable = {seed: math.exp(value) for seed, value in logs.items() if math.isfinite(value)}
            if usable:
                gfid[family] = over_seeds(usable, scale="level", paired=False)
        if gfid:
            lines.append((best.flops, gfid))
    if not any(len(gfid) > 1 for _, gfid in lines):
        return None
    with look.new_figure(style, 0.6) as (figure, axis):
        for i, line in enumerate(lines):
            _draw_line(axis, line, rfid, BUDGET_SHADES[min(i + max(0, 3 - len(lines)), 2)], palette, plain)
        shown = [estimate.value for _, gfid in lines for estimate in gfid.values()]
        look.log_value_axis(axis, "rFID of the tokenizer   (reconstructs worse →)", rfid.values(), "x")
        look.log_value_axis(axis, f"{frames.measure.name} of the best generator   (generates worse →)", shown)
        _headroom(axis, [family for family in rfid if any(family in gfid for _, gfid in lines)], rfid, shown, palette)
        axis.set_title(_title(lines, rfid, plain))
    return figure


def _rfid(frames: StudyFrames) -> dict[str, float]:
    """rFID of each family, the lowest first."""
    table = frames.tokenizers
    if "rfid" not in table:
        return {}
    table = table[table["rfid"].notna() & table["family"].isin(set(frames.ranked["family"]))]
    estimates = {str(family): estimate_of(rows, "rfid", "level") for family, rows in groups(table, "family")}
    values = {family: estimate.value for family, estimate in estimates.items() if estimate is not None}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def _draw_line(axis: Axes, line: Line, rfid: dict[str, float], shade: str, palette: Palette, plain: set[str]) -> None:
    flops, gfid = line
    joined = [family for family in gfid if family in plain]
    axis.plot([rfid[f] for f in joined], [gfid[f].value for f in joined], color=shade, lw=1.6, zorder=2)
    best = min(gfid, key=lambda f: gfid[f].value)
    for family, e in gfid.items():
        x, colour = rfid[family], palette.colours[family]
        if e.low is not None and e.high is not None:
            axis.plot([x, x], [e.low, e.high], color=colour, lw=1.1, alpha=0.8, zorder=3)
        fill = colour if family in plain else "white"
        axis.plot(x, e.value, "o", ms=7.5, color=colour, mfc=fill, mew=1.5, zorder=4)
        if family == best:
            axis.plot(x, e.value, "o", ms=13, mfc="none", mec=shade, mew=1.4, zorder=5)
    place: Any = {"ha": "right", "va": "center", "fontsize": "small", "color": shade, "weight": "bold"}
    at = (min(rfid[f] for f in gfid), gfid[next(iter(joined or gfid))].value)
    look.note(axis, f"{wording.flops(flops)} FLOPs", at, (-13, 0), **place)


def _headroom(axis: Axes, present: list[str], rfid: dict[str, float], shown: list[float], palette: Palette) -> None:
    """Family names above the highest point, each over its own rFID, and room for the budget labels on the left."""
    low, high = min(shown), max(shown)
    span = math.log(high / low)
    left, right = rfid[present[0]], rfid[present[-1]]
    width = math.log(right / left) or 0.3
    axis.set_xlim(left * math.exp(-0.24 * width - 0.02), right * math.exp(0.12 * width + 0.02))
    previous, level = -math.inf, 0
    for family in present:
        x = math.log(rfid[family])
        level = (level + 1) % 3 if x - previous < 0.22 * width else 0
        previous = x
        y = high * math.exp(span * (0.10 + 0.085 * level))
        axis.plot([rfid[family]] * 2, [low, y], color=palette.colours[family], lw=0.7, alpha=0.35, zorder=1)
        place: Any = {"ha": "center", "va": "bottom", "fontsize": "small", "color": palette.colours[family]}
        look.note(axis, family, (rfid[family], y), (0, 0), **place)
    axis.set_ylim(low * math.exp(-0.10 * span), high * math.exp(0.38 * span))


def _title(lines: list[Line], rfid: dict[str, float], plain: set[str]) -> str:
    """What the two outer budgets say about the plain tokenizers that both have; neutral where they agree."""
    least, most = lines[0][1], lines[-1][1]
    common = [family for family in rfid if family in plain and family in least and family in most]
    if len(common) >= 2:
        small, large = (gfid[common[-1]].value < gfid[common[0]].value for gfid in (least, most))
        if small and not large:
            return "At small compute the worse tokenizer is the better one"
        if small and large:
            return "The tokenizer that reconstructs worse is the better one here"
    return "Reconstruction against generation"
