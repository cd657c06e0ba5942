"""Further sentences of the answer: the best codebook, what cross-entropy ranks, metrics of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.tokenizers.comparisons.loss_ranking import LossRanking
from analysis.tokenizers.comparisons.rate_optimum import RateOptimum
from analysis.tokenizers.compute import Compute
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.measure import NAMES
from analysis.tokenizers.rows import groups

from . import wording
from .rendering import table_estimate
from .sentences import Statement, flops_unit

SHOWN = 6
"""Comparisons of one kind in the short answer: those at the largest compute; the section has all."""


def rate_statements(optima: Sequence[RateOptimum], metric: str, compute: Compute = Compute()) -> list[Statement]:
    """Where along a ladder of codebooks the metric is the lowest, and how sure that is."""
    statements = []
    shown = sorted(optima, key=lambda o: o.flops or math.inf)[-SHOWN:]
    for o in optima:
        ladder = f"{wording.number(o.rungs[0])} to {wording.number(o.rungs[-1])} bits a token"
        where = f" at {wording.flops(o.flops)} {flops_unit(compute)}" if o.flops else ""
        text = f"Over codebooks of {ladder} with generator {o.size}{where} {metric} "
        if o.inner:
            text += f"has an inner optimum near {wording.number(o.bits)} bits"
            ends = [f"from {wording.number(o.low)}" if o.low else "open below",
                    f"to {wording.number(o.high)}" if o.high else "open above"]  # fmt: skip
            text += f" (95 % interval {' '.join(ends) if o.low and o.high else ' and '.join(ends)})"
        else:
            text += f"is the lowest at {wording.number(o.bits)} bits, with no inner optimum shown"
        text += (
            f": {wording.number(min(o.gfids))} to {wording.number(max(o.gfids))}, a factor of {wording.number(o.span)}"
        )
        text += "." if o.repeated else ", of runs that were not repeated: the interval is the scatter about a parabola."
        statements.append(Statement("compression", text, conditional=not o.repeated, main=o in shown))
    return statements


def loss_statements(rankings: Sequence[LossRanking], metric: str, compute: Compute = Compute()) -> list[Statement]:
    """Where the lowest cross-entropy does not have the best images; the short answer has each generator's longest."""
    statements = []
    longest = {r.size: r for r in sorted(rankings, key=lambda r: r.flops)}
    shown = list(longest.values())[-SHOWN:]
    for r in rankings:
        place = "the worst" if r.place == len(r.families) else f"place {r.place} by"
        text = (
            f"Cross-entropy does not rank tokenizers: of {len(r.families)} of one rate with generator {r.size} at "
            f"{wording.flops(r.flops)} {flops_unit(compute)}, {r.lowest_loss} has the lowest "
            f"{NAMES.get(r.loss, r.loss)} ({wording.number(r.loss_value)}) and {place} {metric} "
            f"({wording.number(r.gfid)} against {wording.number(r.best_gfid)} of {r.best})."
        )
        statements.append(Statement("compression", text, conditional=r.seeds == 1, main=r in shown))
    return statements


def own_statements(frames: StudyFrames) -> list[Statement]:
    """The range of each metric of one's own over the configurations, whatever direction is the better one."""
    statements = []
    for metric, rows in groups(frames.own, "metric"):
        last = rows[rows["images"].isna() | (rows["images"] == rows.groupby("name")["images"].transform("max"))]
        # As the table of these metrics averages.
        estimates = {name: table_estimate(measured) for name, measured in groups(last, "name")}
        means = pd.Series({name: e.value for name, e in estimates.items() if e is not None})
        seeds = last.groupby("name")["tokenizer_seed"].nunique()
        text = f"{metric}: {wording.number(float(means.iloc[0]))} ({means.index[0]})"
        if len(means) > 1:
            low, high = str(means.idxmin()), str(means.idxmax())
            text = (
                f"{metric} ranges from {wording.number(float(means[low]))} ({low}) to "
                f"{wording.number(float(means[high]))} ({high}) over {len(means)} configurations"
            )
        many = int(seeds.max())
        count = " to ".join(map(str, sorted({int(seeds.min()), many})))
        text += f", mean over {count} seed{'s' * (many > 1)} each."
        statements.append(Statement("own", text, conditional=many == 1))
    return statements
