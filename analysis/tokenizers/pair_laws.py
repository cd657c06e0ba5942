"""What one tokenizer with one generator reaches at a compute: between its budgets measured, beyond them by its law.

A pair's gFID beyond its longest run follows gFID = E + A_s C^-alpha, with one exponent and one share of the floor for all
its seeds and an amplitude for each. A few budgets do not tell E from alpha, so neither is fixed: E is spread evenly from
the measured rfid_floor (0 where there is none) to the lowest gFID, each E weighted by how well the rest then fits, with a
wide prior on alpha. What comes out is the law's prediction and how far it may be off: an interval that opens with the
distance. Source of the form: arXiv 2412.16326, Sec. 3.3, which takes E as known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from results.errors import FitError, UsageError

from .fronts import averaged
from .rows import groups

Array = np.ndarray
Floor = Literal["free", "rfid_floor"] | float
"""E between the measured floor and the lowest gFID; held at each tokenizer's rfid_floor; or held at a number."""

SHARES = np.linspace(0.0, 0.98, 50)
"""Where E lies between its lower end and the lowest gFID of the seed."""
ALPHA_MEAN, ALPHA_SD = 0.5, 0.4
"""The prior of alpha, cut at 0: exponents of gFID against compute, printed and measured, lie between 0.1 and 1."""
NOISE_SD, NOISE_DF = 0.03, 2.0
"""The prior of the noise of log gFID: worth two observations, so that points on a line by luck are not taken as exact."""
LAW_DRAWS = 4000


@dataclass(frozen=True)
class SeedCurve:
    """One generator seed on one tokenizer: ln FLOPs of training `x` (k,) rising, ln gFID `y`, ln images (NaN: unknown).

    `offset` is what the compute axis has beside training the generator (compute.py); `floor` the tokenizer's rfid_floor.
    """

    tokenizer_seed: int
    x: Array
    y: Array
    images: Array
    offset: float
    floor: float

    def training(self, cost: float) -> float:
        """ln FLOPs of training that are left of `cost`; -inf if none are."""
        return math.log(cost - self.offset) if cost > self.offset else -math.inf

    def images_at(self, x: float) -> float:
        """ln training images that ln FLOPs buy; beyond the last budget in proportion."""
        return float(np.interp(x, self.x, self.images) + max(0.0, x - self.x[-1]))


@dataclass(frozen=True)
class PairCurves:
    """All runs of one tokenizer family with one generator size."""

    family: str
    size: str
    curves: tuple[SeedCurve, ...]

    @property
    def name(self) -> str:
        """For people: tokenizer and generator."""
        return f"{self.family} + {self.size}"

    @property
    def low(self) -> float:
        """The least compute measured, on the axis of costs."""
        return min(math.exp(c.x[0]) + c.offset for c in self.curves)

    @property
    def high(self) -> float:
        """The largest compute measured, on the axis of costs."""
        return max(math.exp(c.x[-1]) + c.offset for c in self.curves)

    @cached_property
    def law(self) -> PairLaw:
        """Its law, E free."""
        return PairLaw.of(self.curves, "free")


@dataclass(frozen=True)
class PairLaw:
    """The posterior of a pair's law over shares of the floor (G,): weights, exponents and their spread without the noise.

    `amplitude` (G, S) is ln (gFID - E) of each seed at its `centre` (G, S) of ln FLOPs, `floors` (G, S) its E. `noise` is the
    scale of the noise of log gFID, with `df` degrees of freedom.
    """

    weights: Array
    alpha: Array
    alpha_sd: Array
    amplitude: Array
    centre: Array
    floors: Array
    noise: Array
    df: float

    @classmethod
    def of(cls, curves: Sequence[SeedCurve], floor: Floor) -> PairLaw:
        """Fitted to the points of all seeds. Raises FitError for a floor that is not below every gFID, or unknown."""
        shares = SHARES if floor == "free" else np.zeros(1)
        lowest = np.array([math.exp(c.y.min()) for c in curves])
        if floor == "free":
            least = np.array([0.0 if math.isnan(c.floor) else c.floor for c in curves])
            # A generator that undercuts its tokenizer's floor, by noise or by guidance, has none.
            least = np.where(least < 0.97 * lowest, least, 0.0)
        elif floor == "rfid_floor":
            least = np.array([c.floor for c in curves])
            if np.isnan(least).any():
                raise FitError("floor = rfid_floor, which was not measured of each tokenizer as its gFID was")
        else:
            least = np.full(len(curves), float(floor))
        if (least >= lowest).any():
            raise FitError(f"floor = {least.max():.4g} is not below every gFID; the lowest is {lowest.min():.4g}")
        floors = least + shares[:, None] * (lowest - least)
        n = sum(len(c.x) for c in curves)
        sxx, sxz, szz = (np.zeros(len(shares)) for _ in range(3))
        amplitude, centre = np.empty_like(floors), np.empty_like(floors)
        evidence = np.zeros(len(shares))
        for s, curve in enumerate(curves):
            above = np.exp(curve.y) - floors[:, s, None]
            # Noise of log gFID is noise of log (gFID - E) times gFID / (gFID - E).
            weight = (above / np.exp(curve.y)) ** 2
            z, total = np.log(above), weight.sum(axis=1)
            centre[:, s] = (weight * curve.x).sum(axis=1) / total
            amplitude[:, s] = (weight * z).sum(axis=1) / total
            dx, dz = curve.x - centre[:, s, None], z - amplitude[:, s, None]
            sxx += (weight * dx**2).sum(axis=1)
            sxz += (weight * dx * dz).sum(axis=1)
            szz += (weight * dz**2).sum(axis=1)
            evidence -= 0.5 * np.log(total)
        # The prior of alpha counts as an observation of the slope, in units of the noise.
        ridge = (NOISE_SD / ALPHA_SD) ** 2
        alpha = (ridge * ALPHA_MEAN - sxz) / (sxx + ridge)
        squares = szz + 2 * alpha * sxz + alpha**2 * sxx + ridge * (alpha - ALPHA_MEAN) ** 2
        squares = np.maximum(squares, 0.0) + NOISE_DF * NOISE_SD**2
        df = n - len(curves) + NOISE_DF
        evidence += -0.5 * np.log(sxx + ridge) - 0.5 * df * np.log(squares)
        weights = np.exp(evidence - evidence.max())
        noise = np.sqrt(squares / df)
        return cls(weights / weights.sum(), alpha, (sxx + ridge) ** -0.5, amplitude, centre, floors, noise, df)

    def draws(self, x: Sequence[float], count: int, seed: int) -> Array:
        """ln gFID of every seed at its ln FLOPs x (S,): (count, S) draws of the law common to all seeds."""
        random = np.random.default_rng(seed)
        g = random.choice(len(self.weights), size=count, p=self.weights)
        sd = self.noise[g] * np.sqrt(self.df / random.chisquare(self.df, count))
        alpha = np.maximum(self.alpha[g] + sd * self.alpha_sd[g] * random.standard_normal(count), 0.0)
        above = self.amplitude[g] - alpha[:, None] * (np.asarray(x) - self.centre[g])
        return np.log(self.floors[g] + np.exp(above))


def pair_curves(points: pd.DataFrame, floor_known: bool = True) -> list[PairCurves]:
    """Every pair of the points with a gFID at a known compute, by family and size.

    Budgets of one seed are one curve, whether they are forks of one run or runs of their own; repeats count with their
    mean. `floor_known`: whether the column rfid_floor may serve as a lower end of E.
    """
    points = points[points["gfid"].notna() & points["path_flops"].notna()]
    repeat = ["tokenizer_seed", "seed" if "seed" in points else "run_id"]
    pairs = []
    for (family, size), rows in groups(points, ["family", "size"]):
        curves = []
        for _, run in groups(rows, repeat):
            offset = float(run["offset"].mean()) if "offset" in run else 0.0
            floor = float(run["rfid_floor"].mean()) if floor_known and "rfid_floor" in run else math.nan
            flops = run["path_flops"].to_numpy(dtype=float) - offset
            x, y = averaged(flops, run["gfid"].to_numpy(dtype=float))
            images = run["images"].to_numpy(dtype=float)
            known = bool(np.isfinite(images).all() and (images > 0).all())
            logs = averaged(flops, images)[1] if known else np.full(len(x), math.nan)
            curves.append(SeedCurve(int(run["tokenizer_seed"].iloc[0]), x, y, logs, offset, floor))
        pairs.append(PairCurves(str(family), str(size), tuple(curves)))
    return pairs


def floor_named(text: str) -> Floor:
    """free, rfid_floor or a number as typed. Raises UsageError for anything else."""
    if text in ("free", "rfid_floor"):
        return text  # type: ignore[return-value]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"floor = {text!r} is not allowed; allowed: free, rfid_floor, or a number from 0 on")
    return value
