"""The parametric route: a law gFID = E + A C^-alpha through each front, and where two tokenizers' laws cross.

A cross-check of the fronts' own crossover, which uses no law. E is either free or held at the tokenizer's rfid_floor
(the paper's L_min, arXiv 2412.16326 Sec. 3.3). Fitted to the Pareto-optimal points of each seed separately; the
seeds give the interval. This file holds the package's only call of the fitting engine for compute laws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from results.errors import DataError, FitError

from .comparisons.crossover import Crossover
from .fronts import pareto_points
from .rows import Record, by_seed
from .seed_intervals import SeedEstimate, over_seeds

Array = np.ndarray
FloorKind = Literal["free", "rfid_floor"]

MIN_POINTS = {"free": 4, "rfid_floor": 3}
"""Fewest front points for a fit: one more than the parameters."""
HUBER_DELTA = 0.1
"""Residuals of log gFID beyond this count linearly: about the noise of one gFID, so that no point dominates."""


@dataclass(frozen=True)
class SeedLaw(Record):
    """The law of one tokenizer: gFID = floor + amplitude (C / pivot)^-alpha, how its fit ended, on how many points."""

    seed: int
    floor: float
    amplitude: float
    alpha: float
    pivot: float
    status: str
    points: int
    r_squared: float

    def gfid(self, flops: Array) -> Array:
        """gFID at compute `flops`."""
        return self.floor + self.amplitude * (np.asarray(flops, dtype=float) / self.pivot) ** -self.alpha


class Skipped(NamedTuple):
    """A seed without a fit, and why."""

    seed: int
    reason: str


class LawCrossing(NamedTuple):
    """Where the laws of one paired seed cross, in FLOPs; None: not within 100 times the measured range."""

    seed: int
    flops: float | None


@dataclass(frozen=True)
class ComputeLaw(Record):
    """A family's laws, one a tokenizer seed, and the exponent over seeds. `skipped`: seeds without a fit, and why."""

    family: str
    floor: FloorKind
    laws: tuple[SeedLaw, ...]
    alpha: SeedEstimate | None
    skipped: tuple[Skipped, ...]


def _seed_law(seed: int, flops: Array, gfid: Array, kind: FloorKind, floor: float | None) -> SeedLaw:
    """The law through one tokenizer's front. Raises FitError or DataError if that is too short or determines none."""
    from analysis.fitting.fit import fit
    from analysis.fitting.laws.known_laws import PowerLaw

    if kind == "rfid_floor" and floor is None:
        raise FitError("its tokenizer has no rfid_floor")
    if len(flops) < MIN_POINTS[kind]:
        raise FitError(f"its front has {len(flops)} points, {MIN_POINTS[kind]} are needed")
    pivot = math.exp(float(np.log(flops).mean()))
    law = PowerLaw("free" if floor is None else floor)
    result = fit(law, {"x": flops / pivot, "metric": gfid}, loss="huber", delta=HUBER_DELTA)
    values = result.values
    unknown = [name for name in ("A", "alpha") if not math.isfinite(values[name])]
    if unknown:
        raise FitError(f"the front does not determine {' and '.join(unknown)}")
    floor = values["E"] if floor is None else floor
    fitted = SeedLaw(seed, floor, values["A"], values["alpha"], pivot, str(result.status), len(flops), math.nan)
    logs = np.log(gfid)
    spread = float(((logs - logs.mean()) ** 2).sum())
    missed = float(((logs - np.log(fitted.gfid(flops))) ** 2).sum())
    return replace(fitted, r_squared=1 - missed / spread if spread > 0 else math.nan)


def compute_law(points: pd.DataFrame, family: str, floor_kind: FloorKind = "free") -> ComputeLaw:
    """Fit the law to each seed's front. Seeds whose front is too short or determines no law are listed, not dropped."""
    laws: list[SeedLaw] = []
    skipped: list[Skipped] = []
    floors: dict[int, float] = {}
    if floor_kind == "rfid_floor" and "rfid_floor" in points:
        floors = by_seed(points[points["family"] == family].groupby("tokenizer_seed")["rfid_floor"].first())
    for seed, (flops, gfid) in pareto_points(points, family).items():
        try:
            laws.append(_seed_law(seed, flops, gfid, floor_kind, floors.get(seed)))
        except (FitError, DataError) as error:
            skipped.append(Skipped(seed, str(error)))
    exponents = {law.seed: law.alpha for law in laws if law.alpha > 0}
    alpha_over_seeds = over_seeds(exponents, scale="level", paired=False) if exponents else None
    return ComputeLaw(family, floor_kind, tuple(laws), alpha_over_seeds, tuple(skipped))


@dataclass(frozen=True)
class LawCrossover(Record):
    """Where two families' fitted laws cross, per paired seed (None: not within 100 times the measured range)."""

    first: str
    second: str
    floor: FloorKind
    per_seed: tuple[LawCrossing, ...]
    estimate: SeedEstimate | None


def law_crossover(first: ComputeLaw, second: ComputeLaw, low: float, high: float) -> LawCrossover | None:
    """Crossing of the laws of each seed that both have; searched from low / 100 to high x 100.

    The estimate needs a crossing on every paired seed; None instead of a result if no seed has both laws.
    """
    others = {law.seed: law for law in second.laws}
    grid = np.exp(np.linspace(math.log(low / 100), math.log(high * 100), 4001))
    per_seed: list[LawCrossing] = []
    for law in first.laws:
        if law.seed not in others:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            d = np.log(law.gfid(grid)) - np.log(others[law.seed].gfid(grid))
        flips = np.flatnonzero((d[:-1] < 0) & (d[1:] >= 0))
        flops = None
        if len(flips):
            i = int(flips[0])
            share = d[i] / (d[i] - d[i + 1])
            flops = float(np.exp(np.log(grid[i]) + share * np.log(grid[i + 1] / grid[i])))
        per_seed.append(LawCrossing(law.seed, flops))
    if not per_seed:
        return None
    crossings = {seed: flops for seed, flops in per_seed if flops is not None}
    estimate = over_seeds(crossings, scale="level") if len(crossings) == len(per_seed) else None
    return LawCrossover(first.family, second.family, first.floor, tuple(per_seed), estimate)


@dataclass(frozen=True)
class Compression(Record):
    """Comparison of two tokenizers of different rate: ratio of rFID (None: not measured of both), fronts, laws."""

    more_compressed: str
    less_compressed: str
    rfid_ratio: SeedEstimate | None
    crossover: Crossover
    fitted_laws: tuple[LawCrossover, ...]
