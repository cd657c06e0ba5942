"""Where the Pareto fronts of two tokenizers cross, with an interval over tokenizer seeds and censored seeds kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from results.errors import FitError

from ..fronts import Array, Design, Front, compared_fronts, first_design, sign_changes
from ..rows import Record, plain
from ..seed_intervals import CONFIDENCE, Noise, SeedEstimate, half_width, over_seeds

SCAN_POINTS = 801
"""Compute values, log-spaced, at which the test behind a confidence set is evaluated."""
BOOTSTRAP_CLUSTERS = 6
"""A percentile bootstrap over fewer independent units than this covers far less than its nominal level."""
BOOTSTRAP_DRAWS = 1000
LEAD = 1.05
"""The least ratio of gFIDs that is called a lead where there is no interval."""


def split_point(x: Array, d: Array) -> tuple[float | None, int]:
    """Where a piecewise-linear difference curve changes sign for good; None if it does not. Shapes (k,) and (k,).

    Noise can make fronts cross several times. The estimate is the zero that best separates the two signs: it minimises
    the area |d| dx on the wrong side, which for a single crossing is that crossing. The second value is the sign of d
    before it (or throughout). Zeros of each linear piece are exact.
    """
    x, d = np.asarray(x, dtype=float), np.asarray(d, dtype=float)
    if len(x) < 2:
        return None, int(np.sign(d[0])) if len(d) else 0
    zeros = np.sort(np.concatenate([sign_changes(x, d), x[1:-1][d[1:-1] == 0]]))
    knots = np.concatenate([x, zeros])
    order = np.argsort(knots, kind="stable")
    values = np.concatenate([d, np.zeros(len(zeros))])[order]
    knots = knots[order]
    area = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (values[1:] + values[:-1]) / 2)])
    total = area[-1]
    if len(zeros) == 0:
        return None, int(np.sign(total))
    separation = 2 * np.interp(zeros, knots, area) - total
    best = int(np.argmax(np.abs(separation)))
    if abs(separation[best]) <= abs(total):
        return None, int(np.sign(total))
    return float(zeros[best]), int(np.sign(separation[best]))


Placement = Literal["within", "above", "below", "reversed"]


@dataclass(frozen=True)
class SeedCrossing(Record):
    """The crossover of one paired seed: at `flops` within the range, or censored at the end of the range.

    above: `first` is still lower at the largest common compute; below: `second` is lower from the smallest on;
    reversed: they cross the other way round.
    """

    seed: int
    placement: Placement
    flops: float


@dataclass(frozen=True)
class Crossover(Record):
    """Where two tokenizers' fronts cross. `first` is the one expected to have the lower gFID at small compute.

    It follows from the mean over seeds of the log ratio of the fronts, `log_ratio`, and its `band` (None: no interval),
    at ln FLOPs `log_flops`, all (k,), over [low, high], the compute range common to all fronts; `at_low` and `at_high`
    are the ratios at its ends. `bootstrap` is the percentile interval over seeds, from six seeds on;
    `by_law` names pairs that stand by their law beyond their longest run.
    """

    first: str
    second: str
    design: Design
    low: float
    high: float
    log_flops: Array
    log_ratio: Array
    band: tuple[Array, Array] | None
    at_low: SeedEstimate
    at_high: SeedEstimate
    method: str
    per_seed: tuple[SeedCrossing, ...] = ()
    bootstrap: tuple[float | None, float | None] | None = None
    by_law: tuple[str, ...] = ()

    @cached_property
    def _split(self) -> tuple[float | None, int]:
        return split_point(self.log_flops, self.log_ratio)

    @cached_property
    def _zone(self) -> tuple[float | None, float | None] | None:
        return (None, None) if self.band is None else confidence_set(self.log_flops, self.log_ratio, *self.band)

    @property
    def flops(self) -> float | None:
        """Where the mean log ratio changes sign; None without a crossing in the range."""
        return None if self._split[0] is None else math.exp(self._split[0])

    @property
    def interval_low(self) -> float | None:
        """Lower bound of the 95 % confidence set: all compute values at which the paired t-test over seeds cannot tell
        the two apart. None: the set reaches that end of the range, so the crossover may lie beyond."""
        return self._zone[0] if self._zone else None

    @property
    def interval_high(self) -> float | None:
        """Upper bound of the confidence set, as `interval_low`."""
        return self._zone[1] if self._zone else None

    @property
    def excluded(self) -> bool:
        """Whether the confidence set is empty: no crossover in the range at this confidence."""
        return self._zone is None

    @property
    def lower_before(self) -> str:
        """The better family below the crossing (in the whole range without one)."""
        return self.first if self._split[1] < 0 else self.second

    @property
    def lower_after(self) -> str:
        """The better family above the crossing (in the whole range without one)."""
        return self.first if (self._split[1] < 0) == (self.flops is None) else self.second

    @property
    def seeds(self) -> tuple[int, ...]:
        """Tokenizer seeds it stands on."""
        return self.design.seeds

    @property
    def conditional(self) -> bool:
        """Whether it stands on one tokenizer of each kind."""
        return len(self.seeds) == 1

    @property
    def established(self) -> bool:
        """Whether both sides of the crossing are beyond the noise: the interval ends inside the measured range."""
        return self.flops is not None and self.interval_low is not None and self.interval_high is not None

    @property
    def slight(self) -> float | None:
        """Without an interval: the largest lead, as a ratio below LEAD, on the weaker side of the crossing; else None.

        One tokenizer and one run each leave nothing to judge by; seeds alone move gFID by more than that.
        """
        if self.flops is None or self.band is not None:
            return None
        before = self.log_flops <= math.log(self.flops)
        lead = math.exp(min(np.abs(self.log_ratio[side]).max(initial=0.0) for side in (before, ~before)))
        return lead if lead < LEAD else None

    @property
    def expected_direction(self) -> bool:
        """Whether `first` is the better one at small compute and `second` at large."""
        return self.flops is not None and self.lower_before == self.first

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, without the curves."""
        names = ("first", "second", "seeds", "flops", "established", "excluded", "lower_before", "lower_after")
        return {name: plain(getattr(self, name)) for name in (*names, "per_seed", "method")} | {
            "sizes": list(self.design.sizes),
            "range_flops": [self.low, self.high],
            "interval": [self.interval_low, self.interval_high],
            "bootstrap_interval": plain(self.bootstrap),
            "gfid_ratio_at_low": self.at_low.to_dict(),
            "gfid_ratio_at_high": self.at_high.to_dict(),
        }


def crossover(
    points: pd.DataFrame, first: str, second: str, *, design: Design | None = None, noise: Noise | None = None
) -> Crossover:
    """Where the fronts of two families cross, over the design's seeds and sizes (by default most paired seeds).

    `noise` gives the interval of a single-seed comparison. Raises FitError if no tokenizer seed has both families at a
    common size, or if their measured compute ranges do not overlap.
    """
    design = design or first_design(points, first, second)
    sides = (compared_fronts(points, first, design), compared_fronts(points, second, design))
    return crossover_of(first, second, design, sides, noise=noise)


def crossover_of(
    first: str,
    second: str,
    design: Design,
    sides: tuple[Mapping[int, Front], Mapping[int, Front]],
    *,
    noise: Noise | None = None,
) -> Crossover:
    """The crossover of two families whose `sides` map each of the design's seeds to its front; as `crossover`."""
    low = max(f.low for side in sides for f in side.values())
    high = min(f.high for side in sides for f in side.values())
    if not low < high:
        raise FitError(f"{first} and {second} were measured at compute ranges that do not overlap")
    knots = np.concatenate([np.log(f.flops) for side in sides for f in side.values()])
    knots = knots[(knots > math.log(low)) & (knots < math.log(high))]
    grid = np.unique(np.concatenate([knots, np.linspace(math.log(low), math.log(high), SCAN_POINTS)]))
    d = np.stack([sides[0][s].log_gfid(grid) - sides[1][s].log_gfid(grid) for s in design.seeds])
    half, _, method = half_width(d, noise)
    mean = d.mean(axis=0)

    def ratio_at(i: int) -> SeedEstimate:
        values = dict(zip(design.seeds, np.exp(d[:, i]).tolist(), strict=True))
        return over_seeds(values, scale="ratio", noise=noise)

    return Crossover(
        first=first,
        second=second,
        design=design,
        low=low,
        high=high,
        log_flops=grid,
        log_ratio=mean,
        band=None if half is None else (mean - half, mean + half),
        at_low=ratio_at(0),
        at_high=ratio_at(-1),
        method=method,
        per_seed=tuple(_seed_crossing(s, grid, row) for s, row in zip(design.seeds, d, strict=True)),
        bootstrap=_bootstrap(grid, d),
    )


def confidence_set(log_flops: Array, mean: Array, low: Array, high: Array) -> tuple[float | None, float | None] | None:
    """Hull of the FLOPs where 0 lies within [low, high]; None for a side that reaches the range's end. Shapes (k,).

    None instead of the pair if the set is empty. A sign change of the mean itself always belongs to the set.
    """
    excess = np.maximum(low, -high)
    flips = np.flatnonzero(mean[:-1] * mean[1:] < 0)
    inside = excess <= 0
    inside[flips] = inside[flips + 1] = True
    if not inside.any():
        return None
    i, j = int(np.argmax(inside)), len(inside) - 1 - int(np.argmax(inside[::-1]))

    def edge(out: int, into: int) -> float:
        share = excess[out] / (excess[out] - excess[into]) if excess[into] < 0 else 1.0
        return math.exp(log_flops[out] + share * (log_flops[into] - log_flops[out]))

    return (None if i == 0 else edge(i - 1, i)), (None if j == len(inside) - 1 else edge(j + 1, j))


def _bootstrap(grid: Array, d: Array) -> tuple[float | None, float | None] | None:
    """Percentile interval of the crossing over resampled seeds (whole clusters); None for an end out of the range.

    None instead of the pair for fewer than BOOTSTRAP_CLUSTERS seeds.
    """
    n = len(d)
    if n < BOOTSTRAP_CLUSTERS:
        return None
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=BOOTSTRAP_DRAWS) / n
    places = []
    for row in weights @ d:
        at, sign = split_point(grid, row)
        places.append(at if at is not None else -math.inf if sign > 0 else math.inf)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(np.exp(end)) for end in np.quantile(places, [tail, 1 - tail], method="nearest"))
    return (low if 0 < low < math.inf else None), (high if 0 < high < math.inf else None)


def _seed_crossing(seed: int, grid: Array, d: Array) -> SeedCrossing:
    at, sign = split_point(grid, d)
    if at is not None:
        return SeedCrossing(seed, "within" if sign < 0 else "reversed", math.exp(at))
    return SeedCrossing(seed, "above" if sign < 0 else "below", math.exp(grid[-1] if sign < 0 else grid[0]))


def crossing_over_seeds(result: Crossover) -> SeedEstimate | None:
    """Geometric mean of the seeds' own crossings with its t interval; None as soon as one is censored or reversed."""
    if not result.per_seed or any(s.placement != "within" for s in result.per_seed):
        return None
    return over_seeds({s.seed: s.flops for s in result.per_seed}, scale="level")


def median_bound(result: Crossover) -> tuple[Literal["above", "below"], float, float] | None:
    """One-sided statement that needs no distribution: (side, FLOPs, confidence) for the median over tokenizer seeds.

    With n seeds the smallest of their crossings (a seed censored above counts with the end of the range) bounds the
    median from below with confidence 1 - 2^-n; likewise the largest from above. None if seeds are censored on both
    sides, some reversed, or none censored (then there is an interval).
    """
    placements = {s.placement for s in result.per_seed}
    if not placements or "reversed" in placements or placements == {"within"} or {"above", "below"} <= placements:
        return None
    confidence = 1 - 0.5 ** len(result.per_seed)
    if "above" in placements:
        return "above", min(s.flops for s in result.per_seed), confidence
    return "below", max(s.flops for s in result.per_seed), confidence
