"""The causal regulariser at equal compute: its effect on gFID and cross-entropy, budget by budget, with intervals;
and the compute multiplier at equal gFID: how much less compute one tokenizer needs than another.

As the paper's Fig. 7 (arXiv 2412.16326), but paired by seed and with intervals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.reporting import wording
from analysis.reporting.answer import Answer
from analysis.tokenizers.contrasts import Contrast
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import geometric_means, groups
from analysis.tokenizers.seed_intervals import half_width

from . import style as look
from .style import INK, MUTED, Palette


def regulariser_effect(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """gFID with and without, then the paired effect per budget and pooled on gFID, rFID and nats per image."""
    if not answer.regulariser:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.new_figure(style, 0.46, ncols=3, width_ratios=[1.0, 1.25, 1.05]) as (figure, axes):
        _curves(axes[0], frames, answer.regulariser, palette)
        _effects(axes[1], answer.regulariser, "gfid", palette)
        _effects(axes[2], answer.regulariser, "nats_per_image", palette)
        look.legend_below(figure, palette.handles(_families(answer.regulariser), sizes=False))
    return figure


def _families(contrasts: tuple[Contrast, ...]) -> list[str]:
    return list(dict.fromkeys(f for c in contrasts for f in (c.base, c.treatment)))


def _curves(axis: Axes, frames: StudyFrames, contrasts: tuple[Contrast, ...], palette: Palette) -> None:
    sizes = list(dict.fromkeys(s for c in contrasts for e in c.pooled for s in e.sizes))
    points = frames.ranked[frames.ranked["size"].isin(sizes)]
    for family in _families(contrasts):
        rows = points[points["family"] == family]
        for size, group in groups(rows, "size"):
            for _, run in groups(group.sort_values("images"), "run_id"):
                axis.plot(run["path_flops"], run["gfid"], color=palette.colours[family], lw=0.6, alpha=0.5)
            mean = geometric_means(group, ["path_flops", "gfid"], "images")
            marks: Any = {"color": palette.colours[family], "marker": palette.markers[str(size)], "ms": 4.5}
            axis.plot(mean["path_flops"], mean["gfid"], palette.dashes[family], **marks)
    default = not (frames.compute.total or frames.compute.serve)
    look.counting_axis(axis, label="training FLOPs" if default else frames.compute.label)
    look.log_value_axis(axis, frames.measure.label, points["gfid"])
    axis.set_title(f"{frames.measure.name}, {', '.join(sizes)}")


def _effects(axis: Axes, contrasts: tuple[Contrast, ...], metric: str, palette: Palette) -> None:
    """Point and interval at each budget, then the pooled effect and, for gFID, the ratio of rFID."""
    budgets = sorted({e.budget for c in contrasts for e in c.per_budget if e.metric == metric and e.budget})
    labels = [wording.images(b) for b in budgets] + ["all"] + (["rFID"] if metric == "gfid" else [])
    for i, c in enumerate(contrasts):
        offset = (i - (len(contrasts) - 1) / 2) * 0.18
        colour = palette.colours[c.treatment]
        placed = [(budgets.index(e.budget), e) for e in c.per_budget if e.metric == metric and e.budget]
        pooled = c.effect(metric)
        if pooled is not None:
            placed.append((len(budgets), pooled))
        rfid = c.effect("rfid")
        if metric == "gfid" and rfid is not None:
            placed.append((len(budgets) + 1, rfid))
        for position, effect in placed:
            e, x = effect.estimate, position + offset
            if e.low is not None and e.high is not None:
                axis.plot([x, x], [e.low, e.high], color=colour, lw=1.4)
            spread = np.linspace(-0.06, 0.06, len(e.per_seed)) if len(e.per_seed) > 1 else [0.0]
            axis.plot(x + np.asarray(spread), e.per_seed, ".", color=colour, ms=3.5, alpha=0.6)
            main = position >= len(budgets)
            axis.plot(x, e.value, "D" if main else "o", color=colour, ms=5.5 if main else 4.5)
    neutral = 1.0 if metric == "gfid" else 0.0
    axis.axhline(neutral, color=INK, lw=0.9)
    axis.axvline(len(budgets) - 0.5, color=MUTED, lw=0.6)
    axis.set_xticks(range(len(labels)), labels, fontsize="x-small")
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(axis="x", visible=False)
    axis.set_xlabel("training images")
    if metric == "gfid":
        values = [v for line in axis.lines for v in np.asarray(line.get_ydata(), dtype=float)]
        look.log_value_axis(axis, "ratio, with / without (< 1 helps)", [*values, 1.0])
        axis.set_title("gFID (and rFID)")
    else:
        axis.set_ylabel("with − without (< 0 helps)")
        axis.set_title("nats per image")


def compute_multiplier(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """One line a regularised tokenizer: the horizontal gap of the fronts; seeds thin, with the t interval over them."""
    shown = [(m, m.estimate) for m in answer.compute_multiplier if m.estimate is not None and m.curve.size]
    if not shown:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.new_figure(style, 0.42) as (figure, axis):
        values = [1.0]
        for m, estimate in shown:
            colour = palette.colours[m.treatment]
            logs = np.log(m.curve)
            for row in m.curve:
                axis.plot(m.curve_gfid, row, color=colour, lw=0.7, alpha=0.5)
            mean = logs.mean(axis=0)
            gap = f"{wording.number(estimate.value)} on average{wording.span(estimate)}"
            label = f"{m.treatment} over {m.base}: {gap}"
            axis.plot(m.curve_gfid, np.exp(mean), color=colour, lw=2.2, label=label)
            half, _, _ = half_width(logs, None)
            if half is not None:
                low, high = np.exp(mean - half), np.exp(mean + half)
                axis.fill_between(m.curve_gfid, low, high, color=colour, alpha=0.15, lw=0)
            values += [float(v) for v in m.curve[np.isfinite(m.curve)]]
        axis.axhline(1, color=INK, lw=0.9)
        levels = np.concatenate([m.curve_gfid for m, _ in shown])
        name = frames.measure.name
        look.log_value_axis(axis, f"{name} to be reached   (better →)", levels, "x")
        axis.invert_xaxis()
        look.log_value_axis(axis, "compute multiplier", values)
        axis.set_ylim(min(values) * 0.8, max(values) * 1.25)
        axis.legend(loc="best")
        axis.set_title(f"above 1: the same {name} for less compute")
    return figure
