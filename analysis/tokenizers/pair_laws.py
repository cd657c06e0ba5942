"""What one tokenizer with one generator reaches at a compute: between its budgets measured, beyond them by its law.

A pair's gFID beyond its longest run follows gFID = E + A_s C^-alpha, with one exponent and one share of the floor for
all its seeds and an amplitude for each. A few budgets do not tell E from alpha, so neither is fixed: E is spread evenly
from the measured rfid_floor (0 where there is none) to the lowest gFID, each weighted by how well the rest then fits, a
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

Array = np.ndarray
Floor = Literal["free", "rfid_floor"] | float
"""E between the measured floor and the lowest gFID; held at each tokenizer's rfid_floor; or held at a number."""

SHARES = np.linspace(0.0, 0.98, 34)
"""Where E lies between its lower end and the lowest gFID of the seed."""
ALPHAS = np.linspace(0.02, 1.7, 43)
ALPHA_MEAN, ALPHA_SD = 0.5, 0.4
"""The grid of alpha and its prior: exponents of gFID against compute, printed and measured, lie between 0.1 and 1."""
NOISE_SD, NOISE_DF = 0.03, 2.0
"""The prior of the noise of log gFID: worth two observations, so that points on a line by luck are
not taken as exact."""
MANY_SEEDS = 8
LAW_DRAWS = 4000
STEPS = 8
"""Gauss-Newton steps of an amplitude; it is a root in one dimension, and close at the start."""


@dataclass(frozen=True)
class SeedCurve:
    """One generator seed on one tokenizer: ln FLOPs of training `x` (k,) rising, ln gFID `y`, ln images (NaN: unknown).

    `offset` is what the compute axis has beside training the generator (compute.py); `floor` the
    tokenizer's rfid_floor.
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
    """The posterior of a pair's law on a grid of G exponents and shares of the floor, by their `weights` (G,).

    `amplitude` (G, S) is ln (gFID - E) of each seed at its `centre` (S,) of ln FLOPs, `floors` (G, S) its E.
    """

    weights: Array
    alpha: Array
    amplitude: Array
    centre: Array
    floors: Array

    @classmethod
    def of(cls, curves: Sequence[SeedCurve], floor: Floor) -> PairLaw:
        """Fitted to the points of all seeds. Raises FitError for a floor that is not below every gFID, or unknown.

        Given exponent and E the amplitudes are least squares of log gFID (Gauss-Newton) and integrated out around that;
        the noise is integrated out under its prior.
        """
        least, lowest = _floor_range(curves, floor)
        # Many seeds tell the law so well that a coarser grid does.
        every = 1 if len(curves) <= MANY_SEEDS else 3
        spread = SHARES[::every] if floor == "free" else np.zeros(1)
        shares, alpha = (grid.ravel() for grid in np.meshgrid(spread, ALPHAS[::every]))
        floors = least + shares[:, None] * (lowest - least)
        # Seeds with fewer budgets than others are filled up with points of no weight.
        budgets = np.array([len(c.x) for c in curves])
        known = np.arange(budgets.max()) < budgets[:, None]
        x, y = np.zeros(known.shape), np.zeros(known.shape)
        x[known], y[known] = np.concatenate([c.x for c in curves]), np.concatenate([c.y for c in curves])
        centre = x.sum(axis=1) / budgets
        e = floors[:, :, None]
        fall = np.exp(-alpha[:, None, None] * (x - centre[:, None]))
        # Start where the law goes through the mean of the points.
        above = np.where(known, np.maximum(np.exp(y) - e, 1e-3 * np.exp(y)), 0.0)
        amplitude = np.log(above.sum(axis=2) / budgets)
        for _ in range(STEPS):
            residual, slope = _residuals(amplitude, fall, e, y, known)
            step = np.clip((slope * residual).sum(axis=2) / (slope**2).sum(axis=2), -1.0, 1.0)
            amplitude = amplitude + step
            if np.abs(step).max() < 1e-6:
                break
        residual, slope = _residuals(amplitude, fall, e, y, known)
        squares = NOISE_DF * NOISE_SD**2 + (residual**2).sum(axis=(1, 2))
        evidence = -0.5 * ((alpha - ALPHA_MEAN) / ALPHA_SD) ** 2
        # Flat in the level of the curve at its lowest point, of which E is a share: flat in the amplitude itself would
        # favour what has next to none, a floor just below the data.
        at_end = slope[:, np.arange(len(curves)), budgets - 1]
        evidence -= 0.5 * np.log((slope**2).sum(axis=2) / at_end**2).sum(axis=1)
        evidence -= 0.5 * (budgets.sum() - len(curves) + NOISE_DF) * np.log(squares)
        weights = np.exp(evidence - evidence.max())
        return cls(weights / weights.sum(), alpha, amplitude, centre, floors)

    def draws(self, x: Sequence[float], count: int, seed: int) -> Array:
        """ln gFID of every seed at its ln FLOPs x (S,): (count, S) draws of the law common to all seeds."""
        if (count, seed) not in self._drawn:
            g = np.random.default_rng(seed).choice(len(self.weights), size=count, p=self.weights)
            # Most draws fall on few points of the grid.
            met = np.flatnonzero(np.bincount(g, minlength=len(self.weights)))
            self._drawn[count, seed] = met, np.searchsorted(met, g).astype(np.int16)
        met, drawn = self._drawn[count, seed]
        above = self.amplitude[met] - self.alpha[met, None] * (np.asarray(x) - self.centre)
        return np.log(self.floors[met] + np.exp(above))[drawn]

    @cached_property
    def _drawn(self) -> dict[tuple[int, int], tuple[Array, Array]]:
        """By count and seed: the points of the grid that were drawn, and which of them each draw is. A curve asks for
        the same draws at many compute values."""
        return {}


def _residuals(amplitude: Array, fall: Array, e: Array, y: Array, known: Array) -> tuple[Array, Array]:
    """Of ln gFID: what is left of y (S, k), and its derivative by the amplitude (G, S), both (G, S, k), 0 where no
    point is known."""
    above = np.exp(amplitude)[:, :, None] * fall
    value = e + above
    return np.where(known, y - np.log(value), 0.0), np.where(known, above / value, 0.0)


def _floor_range(curves: Sequence[SeedCurve], floor: Floor) -> tuple[Array, Array]:
    """The lower end of E and the lowest gFID of each seed (S,), as `floor` says; errors as `PairLaw.of`."""
    lowest = np.array([math.exp(c.y.min()) for c in curves])
    if floor == "free":
        known = np.array([0.0 if math.isnan(c.floor) else c.floor for c in curves])
        # A generator that undercuts its tokenizer's floor, by noise or by guidance, has none.
        return np.where(known < 0.97 * lowest, known, 0.0), lowest
    if floor == "rfid_floor":
        least = np.array([c.floor for c in curves])
        if np.isnan(least).any():
            raise FitError("floor = rfid_floor, which was not measured of each tokenizer as its gFID was")
    else:
        least = np.full(len(curves), float(floor))
    if (least >= lowest).any():
        raise FitError(f"floor = {least.max():.4g} is not below every gFID; the lowest is {lowest.min():.4g}")
    return least, lowest


def pair_curves(points: pd.DataFrame, floor_known: bool = True) -> list[PairCurves]:
    """Every pair of the points with a gFID at a known compute, by family and size.

    Budgets of one seed are one curve, whether they are forks of one run or runs of their own; repeats count with their
    mean. `floor_known`: whether the column rfid_floor may serve as a lower end of E.
    """
    points = points[points["gfid"].notna() & points["path_flops"].notna()]
    if points.empty:
        return []
    keys = ["family", "size", "tokenizer_seed", "seed" if "seed" in points else "run_id"]
    codes = [pd.factorize(points[key], sort=True, use_na_sentinel=False)[0] for key in keys]
    _, first, run = np.unique(np.column_stack(codes), axis=0, return_index=True, return_inverse=True)
    run = run.ravel()
    offsets = _means(_floats(points, "offset", 0.0), run)
    floors = _means(_floats(points, "rfid_floor" if floor_known else "", math.nan), run)
    logs = np.log(_floats(points, "path_flops") - offsets[run])
    images = _floats(points, "images")
    images = np.log(np.where(images > 0, images, math.nan))
    # Closed forms repeat up to a last digit.
    order = np.lexsort((logs.round(9), run))
    changes = np.diff(run[order]) != 0
    place = np.concatenate([[0], np.cumsum(changes | (np.diff(logs[order].round(9)) != 0))])
    counts = np.bincount(place)
    x, y, pictures = (
        np.bincount(place, values[order]) / counts for values in (logs, np.log(_floats(points, "gfid")), images)
    )
    ends = np.flatnonzero(np.concatenate([[True], changes]))
    bounds = [*place[ends].tolist(), len(counts)]
    facts = points.iloc[first]
    pairs: dict[tuple[str, str], list[SeedCurve]] = {}
    names = zip(facts["family"], facts["size"], facts["tokenizer_seed"], strict=True)
    for i, (family, size, seed) in enumerate(names):
        part = slice(bounds[i], bounds[i + 1])
        seen = pictures[part] if np.isfinite(pictures[part]).all() else np.full(part.stop - part.start, math.nan)
        curve = SeedCurve(int(seed), x[part], y[part], seen, float(offsets[i]), float(floors[i]))
        pairs.setdefault((str(family), str(size)), []).append(curve)
    return [PairCurves(family, size, tuple(curves)) for (family, size), curves in pairs.items()]


def _floats(points: pd.DataFrame, column: str, default: float = math.nan) -> Array:
    """A column as floats; `default` throughout where there is no such column."""
    return points[column].to_numpy(dtype=float) if column in points else np.full(len(points), default)


def _means(values: Array, group: Array) -> Array:
    """The mean of each group 0, 1, ..., missing values left out; NaN where all are missing."""
    known, count = np.isfinite(values), int(group.max()) + 1
    with np.errstate(invalid="ignore"):
        return np.bincount(group[known], values[known], count) / np.bincount(group[known], minlength=count)


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
