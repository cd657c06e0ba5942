"""Which tokenizer and generator to train at a budget, and with what probability each is the best."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from analysis.reporting import wording
from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.pairs import probability_curve

from . import style as look
from .style import INK, MUTED, Palette

SHOWN = 5
"""Pairs shown at each budget."""


def best_pair_at_budgets(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """For each budget the pairs with the lowest expected gFID, its 95 % interval, and the probability of being best."""
    if not answer.best_pairs:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.applied(style) as chosen:
        rows = max(min(SHOWN, len(b.pairs)) for b in answer.best_pairs)
        height = (0.36 * rows + 0.8) / chosen.width
        figure, axes = look.new_figure(chosen, height, ncols=len(answer.best_pairs), squeeze=False)
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
    with look.applied(style) as chosen:
        figure, axis = look.new_figure(chosen, 0.34)
        table = curve.probability[:, [curve.families.index(f) for f in order]]
        axis.stackplot(curve.flops, table.T, colors=[palette.colours[f] for f in order], labels=order, alpha=0.85, lw=0)
        for best in answer.best_pairs:
            axis.axvline(best.flops, color="white", lw=1.0, ls=":")
        look.flops_axis(axis)
        axis.set_xlim(curve.flops[0], curve.flops[-1])
        axis.set_ylim(0, 1)
        axis.set_ylabel("probability")
        axis.set_yticks([0, 0.5, 1])
        axis.grid(color=MUTED)
        figure.legend(loc="outside right upper", title="tokenizer of\nthe best pair")
    return figure
