"""An estimate over tokenizer seeds: its value, its interval, and how many independent units the interval stands on.

The statistical unit is the tokenizer seed. Forks of one trunk, and trunks on one tokenizer, share that tokenizer's
luck, so an interval over rows or trunks would be far too narrow. Hence: Student t over two or more seeds (in log space
for ratios and levels), a percentile bootstrap over seeds from six on where a caller asks for it, and with one seed no
interval but the measurement noise where that is known, said to be conditional on this tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from results.errors import FitError

from .rows import Record

Scale = Literal["ratio", "level", "difference"]
"""ratio and level: averaged as logarithms (geometric mean); difference: averaged as they are."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """Measurement noise of log gFID on one tokenizer: standard deviation, and its degrees of freedom.

    `df` is None where the standard deviation is given rather than estimated. `source` says where it comes from.
    """

    sd: float
    df: int | None
    source: str


@dataclass(frozen=True)
class SeedEstimate(Record):
    """A value with its interval. `low` and `high` are None where the data give no interval on that side.

    `seeds` are the tokenizer seeds it stands on and `per_seed` their values, in the same order; `df` the degrees of
    freedom of a t interval; `method` says in words what the interval is.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    scale: Scale
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    df: int | None = None
    confidence: float = CONFIDENCE

    @property
    def conditional(self) -> bool:
        """Whether it holds for one tokenizer only: nothing is known about what another seed would give."""
        return len(self.seeds) == 1

    @property
    def decided(self) -> bool:
        """Whether the interval excludes no effect: 1 for ratios, 0 for differences."""
        neutral = 0.0 if self.scale == "difference" else 1.0
        return (self.low is not None and self.low > neutral) or (self.high is not None and self.high < neutral)


def t_factor(df: int) -> float:
    """Two-sided Student t quantile at CONFIDENCE."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + CONFIDENCE / 2))


def half_width(values: np.ndarray, noise: Noise | None) -> tuple[Any, int | None, str]:
    """Half width of the interval of the mean over seeds, its degrees of freedom, and what the interval is.

    `values` (seeds,) or (seeds, k). One seed has measurement noise alone, that of the difference of two measurements;
    without it the half width is None.
    """
    n = len(values)
    if n >= 2:
        half = t_factor(n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
        return half, n - 1, f"paired t-test over {n} tokenizer seeds at each compute, inverted (df {n - 1})"
    if noise is not None:
        half = np.full(values.shape[1:], t_factor(noise.df or 10**9) * noise.sd * math.sqrt(2.0))
        return half, noise.df, f"conditional on this tokenizer: measurement noise only ({noise.source})"
    return None, None, "conditional on this tokenizer: one seed, no interval"


def over_seeds(
    values: Mapping[int, float], *, scale: Scale, noise: Noise | None = None, paired: bool = True
) -> SeedEstimate:
    """Mean over tokenizer seeds with its t interval; ratios and levels are averaged as logarithms.

    `values` maps seed -> value. With one seed the interval comes from `noise` alone, if given: its variance is twice
    noise.sd^2 (the difference of two measurements), in log space. Raises FitError for no values, values that are not
    finite, or ratios that are not positive, naming the seed.
    """
    if not values:
        raise FitError("no tokenizer seed has both measurements, so there is nothing to average")
    seeds = tuple(sorted(values))
    raw = np.array([float(values[seed]) for seed in seeds])
    logarithmic = scale != "difference"
    for seed, value in zip(seeds, raw, strict=True):
        if not math.isfinite(value) or (logarithmic and value <= 0):
            allowed = "a positive number" if logarithmic else "a finite number"
            raise FitError(f"tokenizer seed {seed} has the value {value}; allowed: {allowed}")
    x = np.log(raw) if logarithmic else raw
    back = np.exp if logarithmic else (lambda y: y)
    center, n = float(x.mean()), len(seeds)
    half, df, method = half_width(x, noise if logarithmic else None)
    if n >= 2:
        over = "paired tokenizer seeds" if paired else "tokenizer seeds"
        method = f"Student t over {n} {over}{' in log space' if logarithmic else ''}, df {df}"
    return SeedEstimate(
        value=float(back(center)),
        low=None if half is None else float(back(center - half)),
        high=None if half is None else float(back(center + half)),
        method=method,
        scale=scale,
        seeds=seeds,
        per_seed=tuple(float(v) for v in raw),
        df=df,
    )
