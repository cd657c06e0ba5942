"""Where the expected fronts of two tokenizers cross by the hierarchical model: ragged designs, pairs by their laws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..fronts import Design, in_order
from ..pair_laws import PairCurves, pair_curves
from ..seed_intervals import CONFIDENCE, SeedEstimate
from ..standing import Standing
from .crossover import Crossover


def expected_crossover(
    points: pd.DataFrame,
    first: str,
    second: str,
    *,
    count: int = 65,
    draws: int = 4000,
    seed: int = 0,
    floor_known: bool = True,
    curves: Sequence[PairCurves] | None = None,
) -> Crossover | None:
    """Crossover of two families' expected fronts by the model: where sizes were not run on every seed, or where pairs
    end at different compute.

    The expected front is the lowest mu over a family's sizes at each compute; sizes with one seed borrow the variance
    of those with several and are corrected for their tokenizer's luck as seen at other sizes, and a pair beyond its
    longest run stands by its law. The interval is the set of compute values whose central 95 % interval of the log
    ratio of the fronts contains 0. `curves` as of `best_pairs`. None if no pair has repeats or the measured ranges do
    not overlap.
    """
    rows = points[points["family"].isin([first, second]) & points["gfid"].notna()]
    spans = rows.groupby("family")["path_flops"].agg(["min", "max"])
    if len(spans) < 2:
        return None
    low, high = float(spans["min"].max()), float(spans["max"].min())
    if not low < high:
        return None
    curves = [c for c in curves or pair_curves(rows, floor_known) if c.family in (first, second)]
    grid = np.linspace(math.log(low), math.log(high), count)
    mean, bounds = np.empty(count), np.empty((2, count))
    tail = (1 - CONFIDENCE) / 2
    by_law: set[str] = set()
    for i, x in enumerate(grid):
        # The range's own ends are measured.
        standing = Standing.at(curves, min(max(math.exp(x), low), high), draws, seed)
        if standing.drawn is None:
            return None
        of_first = np.array([curve.family == first for curve in standing.judged])
        lowest = standing.drawn.argmin(axis=1)
        share = np.bincount(lowest, minlength=len(of_first)) / draws
        ratio = standing.drawn[:, of_first].min(axis=1) - standing.drawn[:, ~of_first].min(axis=1)
        by_law |= {c.name for j, c in enumerate(standing.judged) if standing.extrapolated[j] and share[j] > 0.01}
        mean[i] = np.median(ratio)
        bounds[:, i] = np.quantile(ratio, [tail, 1 - tail])
    seeds = tuple(sorted({int(s) for s in rows["tokenizer_seed"]}))
    sizes = tuple(in_order(rows))
    method = f"hierarchical model over {len(seeds)} tokenizer seeds"
    if alone := [f for f in (first, second) if rows.loc[rows["family"] == f, "tokenizer_seed"].nunique() == 1]:
        method += f", {' and '.join(alone)} with one seed borrowing their variance"
    elif _ragged(curves, seeds):
        method += ", sizes with one seed borrowing their variance"
    if by_law:
        method += f", {', '.join(sorted(by_law))} by the law beyond the longest run"
    ends = (np.exp([mean[i], bounds[0, i], bounds[1, i]]).tolist() for i in (0, count - 1))
    at_low, at_high = (SeedEstimate(value, under, over, method, "ratio", seeds, ()) for value, under, over in ends)
    design, band = Design(seeds, sizes), (bounds[0], bounds[1])
    return Crossover(
        first, second, design, low, high, grid, mean, band, at_low, at_high, method, by_law=tuple(sorted(by_law))
    )


def _ragged(curves: Sequence[PairCurves], seeds: Sequence[int]) -> bool:
    """Whether some pair was not run on every tokenizer seed."""
    return any({c.tokenizer_seed for c in pair.curves} != set(seeds) for pair in curves)
