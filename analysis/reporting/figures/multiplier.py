"""Compute multiplier at equal gFID: how much less compute one tokenizer needs than another, by the gFID wanted."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from analysis.reporting import wording
from analysis.reporting.answer import Answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.seed_intervals import t_factor

from . import style as look
from .style import INK, Palette


def compute_multiplier(frames: StudyFrames, answer: Answer, style: str = "report") -> Figure | None:
    """One line a regularised tokenizer: the horizontal gap of the fronts; seeds thin, with the t interval over them."""
    shown = [m for m in answer.compute_multiplier if m.estimate is not None and m.curve.size]
    if not shown:
        return None
    palette = Palette.of(frames.families, frames.points)
    with look.applied(style) as chosen:
        figure, axis = look.new_figure(chosen, 0.42)
        values = [1.0]
        for m in shown:
            colour = palette.colours[m.treatment]
            logs = np.log(m.curve)
            for row in m.curve:
                axis.plot(m.curve_gfid, row, color=colour, lw=0.7, alpha=0.5)
            complete = np.isfinite(logs).all(axis=0)
            mean = np.where(complete, np.nanmean(np.where(complete, logs, 0.0), axis=0), np.nan)
            estimate = m.estimate
            assert estimate is not None
            mean_gap = f"{wording.number(estimate.value)} on average{wording.span(estimate)}"
            label = f"{m.treatment} over {m.base}: {mean_gap}"
            axis.plot(m.curve_gfid, np.exp(mean), color=colour, lw=2.2, label=label)
            if len(logs) >= 2:
                half = t_factor(len(logs) - 1) * logs.std(axis=0, ddof=1) / math.sqrt(len(logs))
                axis.fill_between(
                    m.curve_gfid, np.exp(mean - half), np.exp(mean + half), color=colour, alpha=0.15, lw=0
                )
            values += [float(v) for v in m.curve[np.isfinite(m.curve)]]
        axis.axhline(1, color=INK, lw=0.9)
        levels = np.concatenate([m.curve_gfid for m in shown])
        look.log_value_axis(axis, "gFID to be reached   (better →)", levels, "x")
        axis.invert_xaxis()
        look.log_value_axis(axis, "compute multiplier", values)
        axis.set_ylim(min(values) * 0.8, max(values) * 1.25)
        axis.legend(loc="best")
        axis.set_title("above 1: the same gFID for less compute")
    return figure
