"""Pareto fronts of gFID against compute, and which seeds and sizes a fair comparison of two of them rests on.

A front is the lower envelope of the curves of one tokenizer (one seed): gFID against compute for each generator size,
straight in log gFID against log FLOPs between the budgets of that size. A gFID once reached stays affordable, so a
front never rises; beyond the last budget it is flat up to the largest compute that was measured, and outside the
measured range it does not exist. Source of the comparison: arXiv 2412.16326, Sec. 3.3-3.6, which has one seed and no
intervals; those are this package's (docs/analysis.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from results.errors import FitError

from .rows import groups

Array = np.ndarray


JUMP = 1e-9
"""Width in ln FLOPs of a step between two sizes: a front stays a function of compute."""


@dataclass(frozen=True)
class Front:
    """Lower envelope of one tokenizer by its corners: `flops` rising, `gfid` falling or flat, straight in logs between.

    `sizes` names the generator at each corner; `low` and `high` are the smallest and largest compute measured.
    """

    flops: Array
    gfid: Array
    sizes: tuple[str, ...]
    low: float
    high: float

    def log_gfid(self, log_flops: Array) -> Array:
        """ln gFID at ln FLOPs, NaN outside the measured range."""
        x = np.asarray(log_flops, dtype=float)
        y = np.interp(x, np.log(self.flops), np.log(self.gfid))
        slack = 1e-9
        inside = (x >= math.log(self.low) - slack) & (x <= math.log(self.high) + slack)
        return np.where(inside, y, np.nan)

    def log_flops_at(self, log_gfid: Array) -> Array:
        """The smallest ln FLOPs at which the front reaches ln gFID; NaN outside the front's own gFID range."""
        y = np.asarray(log_gfid, dtype=float)
        rising = np.log(self.gfid)[::-1]
        x = np.interp(y, rising, np.log(self.flops)[::-1])
        slack = 1e-9
        return np.where((y >= rising[0] - slack) & (y <= rising[-1] + slack), x, np.nan)


@dataclass(frozen=True)
class Curve:
    """gFID of one generator size against compute: `x` ln FLOPs (k,) rising, `y` ln gFID (k,) or (seeds, k)."""

    size: str
    x: Array
    y: Array


def pareto_mask(flops: Array, gfid: Array) -> Array:
    """Which points no other point beats: nothing at most as costly has a gFID as low. Shapes (n,), ties keep one."""
    flops, gfid = np.asarray(flops, dtype=float), np.asarray(gfid, dtype=float)
    order = np.lexsort((gfid, flops))
    best = np.minimum.accumulate(np.concatenate([[np.inf], gfid[order]]))[:-1]
    mask = np.zeros(len(flops), dtype=bool)
    mask[order] = gfid[order] < best
    return mask


def front(points: pd.DataFrame) -> Front:
    """The front of points with columns path_flops, gfid and size; points of one size and cost count with their
    geometric mean. Raises FitError without a usable point.
    """
    points = points[points["gfid"].notna()]
    if points.empty:
        raise FitError("no gFID was measured, so there is no Pareto front")
    curves = [
        Curve(str(size), *averaged(rows["path_flops"].to_numpy(float), rows["gfid"].to_numpy(float)))
        for size, rows in groups(points, "size")
    ]
    curves = _ladder(curves)
    return _along(curves, [curve.y for curve in curves], [curve.y for curve in curves])


def _ladder(curves: Sequence[Curve]) -> list[Curve]:
    """Where every size has one budget alone there are no curves: the Pareto-optimal points are joined as one, as the
    paper draws fronts."""
    single = [curve for curve in curves if len(curve.x) == 1]
    if len(single) < max(2, len(curves)):
        return list(curves)
    x, y = (np.array([getattr(curve, axis)[0] for curve in single]) for axis in ("x", "y"))
    keep = np.flatnonzero(pareto_mask(x, y))
    keep = keep[np.argsort(x[keep])]
    beaten = [curve for i, curve in enumerate(single) if i not in keep]
    joined = Curve("-".join(dict.fromkeys(single[i].size for i in (keep[0], keep[-1]))), x[keep], y[keep])
    return [joined, *beaten]


def averaged(flops: Array, gfid: Array) -> tuple[Array, Array]:
    """ln FLOPs, rising and each once, and the mean ln gFID there. Closed forms repeat up to a last digit."""
    _, where = np.unique(np.log(flops).round(9), return_inverse=True)
    count = np.bincount(where)
    return np.bincount(where, np.log(flops)) / count, np.bincount(where, np.log(gfid)) / count


def _along(curves: Sequence[Curve], judged: Sequence[Array], read: Sequence[Array]) -> Front:
    """The front that follows, at each compute, the curve whose `judged` values are the lowest, with its `read` values.

    Judged and read alike that is the lower envelope. Judged on other seeds it may step where it changes its size.
    """
    x = _corners(curves, judged)
    low, high = float(x[0]), float(x[-1])
    if low == high:
        best = min(range(len(curves)), key=lambda i: float(judged[i][0]))
        return Front(np.exp(x), np.exp(read[best][:1]), (curves[best].size,), math.exp(low), math.exp(high))
    # Between two corners one size is the best, or the best so far is kept: its middle tells which.
    middle = (x[:-1] + x[1:]) / 2
    values = _on(curves, judged, middle)
    which = values.argmin(axis=0)
    current = values.min(axis=0)
    ends = _on(curves, judged, x)
    best_so_far = np.minimum.accumulate(ends.min(axis=0))[:-1]
    # Where the best so far was reached, and with which size.
    first = np.searchsorted(-np.minimum.accumulate(ends.min(axis=0)), -best_so_far, side="left")
    held = current > best_so_far + 1e-12
    source = np.where(held, ends.argmin(axis=0)[first], which)
    starts, stops = np.where(held, x[first], x[:-1]), np.where(held, x[first], x[1:])
    corners: list[tuple[float, float, str]] = []
    for i, curve in enumerate(source.tolist()):
        inner, outer = np.interp([starts[i], stops[i]], curves[curve].x, read[curve])
        size = curves[curve].size
        _step_to(corners, float(x[i]), float(inner), size)
        corners.append((float(x[i + 1]), float(outer), size))
    last = int(ends[:, -1].argmin())
    if ends[last, -1] < best_so_far[-1] and ends[last, -1] < values[source[-1], -1] - 1e-12:
        # A size whose only budget is the largest compute.
        _step_to(corners, float(x[-1]), float(read[last][-1]), curves[last].size)
    # What is flat to the end needs no corner there.
    while len(corners) > 1 and corners[-1][1] == corners[-2][1]:
        corners.pop()
    xs, ys, sizes = zip(*corners, strict=True)
    return Front(np.exp(np.array(xs)), np.exp(np.array(ys)), tuple(sizes), math.exp(low), math.exp(high))


def _step_to(corners: list[tuple[float, float, str]], x: float, y: float, size: str) -> None:
    """Add a corner at x; where the front steps there, its last corner moves aside: at x itself the new value holds."""
    if corners and abs(corners[-1][1] - y) <= 1e-12:
        return
    if corners:
        before, value, name = corners.pop()
        corners.append((before - JUMP, value, name))
    corners.append((x, y, size))


def _on(curves: Sequence[Curve], values: Sequence[Array], x: Array) -> Array:
    """Values (curves, k) at ln FLOPs x (k,): flat after a curve's last budget, infinite before its first."""
    return np.stack([np.interp(x, curve.x, y, left=np.inf) for curve, y in zip(curves, values, strict=True)])


def sign_changes(x: Array, d: Array) -> Array:
    """Where a piecewise-linear curve d (k,) over x (k,) goes from one sign to the other; exact for each piece."""
    i = np.flatnonzero(d[:-1] * d[1:] < 0)
    return x[i] + (x[i + 1] - x[i]) * d[i] / (d[i] - d[i + 1])


def _corners(curves: Sequence[Curve], judged: Sequence[Array]) -> Array:
    """ln FLOPs (k,) where the envelope of the judged curves may bend: budgets, crossings, returns below the best."""
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    values = _on(curves, judged, x)
    crossings = [x]
    for i, j in combinations(range(len(curves)), 2):
        # A curve that begins inside an interval begins at one of its ends, so differences are straight in between.
        begun = np.isfinite(values[i]) & np.isfinite(values[j])
        crossings.append(sign_changes(x, np.where(begun, values[i], 0.0) - np.where(begun, values[j], 0.0)))
    x = np.unique(np.concatenate(crossings))
    values = _on(curves, judged, x)
    lowest = values.min(axis=0)
    best = np.minimum.accumulate(lowest)
    # Up to the next corner run the curves that have begun: one that begins there may lie far below.
    until = np.where(np.isfinite(values[:, :-1]), values[:, 1:], np.inf).min(axis=0)
    back = np.flatnonzero((lowest[:-1] > best[:-1]) & (until < best[:-1]))
    share = (lowest[back] - best[back]) / (lowest[back] - until[back])
    x = np.unique(np.concatenate([x, x[back] + share * (x[back + 1] - x[back])]))
    # Corners closer than a step is wide are one.
    return x[np.concatenate([[True], np.diff(x) > 4 * JUMP])]


@dataclass(frozen=True)
class Design:
    """Which seeds and sizes a comparison of two tokenizers rests on, so that both sides had the same choices."""

    seeds: tuple[int, ...]
    sizes: tuple[str, ...]


def designs(points: pd.DataFrame, a: str, b: str) -> list[Design]:
    """Balanced comparisons of families a and b: first the one with most paired seeds, then the one with most sizes.

    A design's sizes were run with both families on every one of its seeds. Empty if no seed has a size in common.
    """
    per_family = [
        {int(s): set(rows["size"]) for s, rows in groups(measured(points, family), "tokenizer_seed")}
        for family in (a, b)
    ]
    common = {s: per_family[0][s] & per_family[1][s] for s in per_family[0].keys() & per_family[1].keys()}
    common = {seed: sizes for seed, sizes in common.items() if sizes}
    if not common:
        return []
    every = in_order(points, set().union(*common.values()))
    subsets = [c for k in range(1, len(every) + 1) for c in combinations(every, k)] if len(every) <= 8 else []
    subsets += [tuple(size for size in every if size in sizes) for sizes in common.values()]
    balanced = [Design(tuple(sorted(s for s in common if common[s].issuperset(subset))), subset) for subset in subsets]
    balanced = [design for design in balanced if design.seeds]
    most_seeds = max(balanced, key=lambda d: (len(d.seeds), len(d.sizes), d.sizes))
    most_sizes = max(balanced, key=lambda d: (len(d.sizes), len(d.seeds), d.sizes))
    return [most_seeds] if most_sizes == most_seeds else [most_seeds, most_sizes]


def in_order(points: pd.DataFrame, sizes: Collection[str] | None = None) -> list[str]:
    """All generator sizes, or those named, from the smallest to the largest, by parameters outside the vocabulary."""
    known = ["parameters_other", *[c for c in ("path_flops",) if c in points]]
    # Of rows measured elsewhere parameters may be unknown: their cheapest run tells.
    order = points.groupby("size")[known].agg({"parameters_other": "median"} | dict.fromkeys(known[1:], "min"))
    order = order.sort_values(known, kind="stable")
    return [str(size) for size in order.index if sizes is None or size in sizes]


def first_design(points: pd.DataFrame, a: str, b: str) -> Design:
    """The balanced comparison with most paired seeds. Raises FitError if no seed has a size in common."""
    balanced = designs(points, a, b)
    if not balanced:
        raise FitError(f"{a} and {b} share no tokenizer seed with a generator size run on both")
    return balanced[0]


def measured(points: pd.DataFrame, family: str, design: Design | None = None) -> pd.DataFrame:
    """The points of a family that have a gFID, of the design's sizes and seeds (all without a design)."""
    rows = points[(points["family"] == family) & points["gfid"].notna()]
    if design is None:
        return rows
    return rows[rows["size"].isin(design.sizes) & rows["tokenizer_seed"].isin(design.seeds)]


def fronts(points: pd.DataFrame, family: str, design: Design | None = None) -> dict[int, Front]:
    """The front of a family on each tokenizer seed, over the design's sizes (all without a design)."""
    return {int(seed): front(rows) for seed, rows in groups(measured(points, family, design), "tokenizer_seed")}


def pareto_points(points: pd.DataFrame, family: str) -> dict[int, tuple[Array, Array]]:
    """FLOPs and gFID, both (k,), of each tokenizer seed's measured points that no other beats, cheapest first."""
    optimal = {}
    for seed, rows in groups(measured(points, family), "tokenizer_seed"):
        flops, gfid = rows["path_flops"].to_numpy(dtype=float), rows["gfid"].to_numpy(dtype=float)
        keep = np.flatnonzero(pareto_mask(flops, gfid))
        keep = keep[np.argsort(flops[keep])]
        optimal[int(seed)] = flops[keep], gfid[keep]
    return optimal


def select_elsewhere(curves: Sequence[Curve]) -> list[Front]:
    """Each seed's curve along the front that the *other* seeds select; `y` of the curves is (seeds, k).

    The lowest of several noisy gFIDs is too low, the more so the flatter the front, which would shift a crossover.
    Choosing size and budget on the mean of the other seeds and reading their gFID off this one removes that bias. So
    `gfid` of these fronts need not fall. Needs two seeds or more.
    """
    seeds = len(curves[0].y)
    return [
        _along(
            curves,
            [(curve.y.sum(axis=0) - curve.y[seed]) / (seeds - 1) for curve in curves],
            [curve.y[seed] for curve in curves],
        )
        for seed in range(seeds)
    ]


def compared_fronts(points: pd.DataFrame, family: str, design: Design) -> dict[int, Front]:
    """The fronts by which families are compared: selected on the other seeds (`select_elsewhere`); with one seed its
    own.

    Uses the points, by size and FLOPs, that every seed of the design has; repeated ones count with their geometric
    mean.
    """
    if len(design.seeds) == 1:
        return fronts(points, family, design)
    rows = measured(points, family, design)
    # Closed forms give one cell the same FLOPs on every seed; rounding guards against a last digit.
    x, y = (np.log(rows[column].to_numpy(dtype=float)) for column in ("path_flops", "gfid"))
    logs = rows.assign(x=x.round(9), y=y)
    table = logs.pivot_table(index=["size", "x"], columns="tokenizer_seed", values="y", aggfunc="mean").dropna()
    if table.empty:
        return fronts(points, family, design)
    curves = [
        Curve(str(size), cells.index.get_level_values("x").to_numpy(dtype=float), cells.to_numpy(dtype=float).T)
        for size, cells in groups(table, "size")
    ]
    seeds = [int(s) for s in table.columns.tolist()]
    return dict(zip(seeds, select_elsewhere(curves), strict=True))


def family_fronts(points: pd.DataFrame, family: str) -> dict[int, Front]:
    """One family's fronts for showing: as compared where all its seeds have the same sizes, else each its own."""
    balanced = designs(points, family, family)
    return compared_fronts(points, family, balanced[0]) if len(balanced) == 1 else fronts(points, family)


def mean_front(fronts_by_seed: Mapping[int, Front], points: int = 121) -> tuple[Array, Array]:
    """Geometric mean of several seeds' fronts over the compute range they share: FLOPs (k,) and gFID (k,)."""
    low = max(f.low for f in fronts_by_seed.values())
    high = min(f.high for f in fronts_by_seed.values())
    if not low < high:
        return np.empty(0), np.empty(0)
    grid = np.linspace(math.log(low), math.log(high), points)
    logs = np.stack([f.log_gfid(grid) for f in fronts_by_seed.values()])
    return np.exp(grid), np.exp(logs.mean(axis=0))
