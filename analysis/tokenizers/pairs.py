"""Which tokenizer and generator to train together at a given compute, and how sure that is.

At compute C every pair stands with the gFID of its runs there: interpolated between their budgets, or, beyond them, by
the pair's law (pair_laws.py), never by its last value held. The hierarchical model (hierarchy.py) makes of them an
expected gFID with its interval; where a law was asked, the law's own uncertainty is added. The probability that a pair
is best is the share of joint draws in which it is the lowest. Pairs with one seed borrow the variance of those with
several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results.errors import FitError

from .pair_laws import Floor, PairCurves, PairLaw, pair_curves
from .rows import Record
from .standing import NotJudged, Standing

DRAWS = 20_000


@dataclass(frozen=True)
class Pair(Record):
    """One tokenizer family with one generator size at a compute budget.

    `gfid` is its expected gFID (geometric mean over seeds, by the model), `low` and `high` its 95 % interval (None
    where no variance can be estimated), `probability` that of being the best pair at this budget. `train_images` is how
    many images the budget buys, None where images are not known. `regret` is by how much its gFID is expected to exceed
    that of the best, as a share (0.02: 2 %), should it be trained. `extrapolated`: the budget exceeds the pair's
    longest run, by the factor `reach`, so that its gFID is a prediction of its law.
    """

    family: str
    size: str
    gfid: float
    low: float | None
    high: float | None
    probability: float | None
    runs: int
    seeds: tuple[int, ...]
    train_images: float | None
    extrapolated: bool
    reach: float
    regret: float | None = None

    @property
    def name(self) -> str:
        """For people: tokenizer and generator."""
        return f"{self.family} + {self.size}"


class FamilyChance(NamedTuple):
    """Probability of a family to hold the best pair."""

    family: str
    probability: float | None


@dataclass(frozen=True)
class BestPairs(Record):
    """All pairs judged at compute `flops`, lowest expected gFID first; `families` sums probabilities over sizes.

    `df` are the degrees of freedom of the variance, 0 if no pair was run twice (then probabilities are None), `sd` its
    square root (in log gFID) and `seed` that of the draws. `not_judged` are the other pairs measured.
    """

    flops: float
    pairs: tuple[Pair, ...]
    families: tuple[FamilyChance, ...]
    df: int
    sd: float | None
    draws: int
    seed: int
    not_judged: tuple[NotJudged, ...] = ()

    @property
    def best(self) -> Pair:
        """The pair with the highest probability of being best; without probabilities the lowest gFID."""
        return max(self.pairs, key=lambda p: (p.probability or 0.0, -p.gfid))

    @property
    def alone(self) -> str:
        """What a pair without others is, for people: by its law it was judged there, not measured."""
        return f"the only pair {'judged' if self.best.extrapolated else 'measured'} there"

    @property
    def extrapolated(self) -> tuple[Pair, ...]:
        """The pairs on whose laws the choice rests: those beyond their longest run that could be the best; without
        probabilities the best and its runner-up."""
        close = self.pairs if self.df else self.pairs[:2]
        return tuple(p for p in close if p.extrapolated and (p.probability is None or p.probability >= 0.005))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, with the name of the best pair and what its probability rests on."""
        basis = "extrapolation" if self.extrapolated else "measured"
        return super().to_dict() | {"best": self.best.name, "basis": basis}


def default_budgets(points: pd.DataFrame, count: int = 3) -> tuple[float, ...]:
    """`count` compute budgets, log-spaced inside the range in which at least two families (or one, alone) were
    measured.

    The outermost lie a tenth of the log range inside its ends; all are rounded to two digits.
    """
    points = points[points["gfid"].notna()]
    if points.empty:
        raise FitError("no gFID was measured, so no budget can be compared")
    lows = np.sort(points.groupby("family")["path_flops"].min().to_numpy())
    highs = np.sort(points.groupby("family")["path_flops"].max().to_numpy())[::-1]
    second = min(1, len(lows) - 1)
    low, high = math.log(lows[second]), math.log(highs[second])
    if high <= low:
        low, high = math.log(lows[0]), math.log(highs[0])
    margin = 0.1 * (high - low)
    spaced = np.exp(np.linspace(low + margin, high - margin, count))
    return tuple(dict.fromkeys(float(f"{c:.1e}") for c in spaced))


def best_pairs(
    points: pd.DataFrame,
    flops: float,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    floor: Floor = "free",
    floor_known: bool = True,
    within_range: bool = False,
    curves: Sequence[PairCurves] | None = None,
) -> BestPairs:
    """Expected gFID of every pair at compute `flops` and the probability of each being best.

    A pair whose runs end below `flops` is predicted by its law with E as `floor` says (see pair_laws.Floor), with
    `within_range` it is not judged; one whose runs begin above is not judged either. `floor_known`: whether rfid_floor
    is in gFID's own protocol. `curves`: those of `pair_curves`, where several questions are asked of them. Raises
    FitError if no pair can be judged at this compute.
    """
    curves = pair_curves(points, floor_known) if curves is None else curves
    laws = {c.name: PairLaw.of(c.curves, floor) for c in curves if floor != "free" and c.high < flops}
    return _best(curves, laws, flops, draws, seed, within_range)


def _best(
    curves: Sequence[PairCurves], laws: dict[str, PairLaw], flops: float, draws: int, seed: int, within_range: bool
) -> BestPairs:
    at = Standing.at(curves, flops, draws, seed, laws, within_range)
    k = len(at.judged)
    low: list[float | None] = [None] * k
    high, probability, regret = list(low), list(low), list(low)
    mean, sd, df = at.mean, None, 0
    if at.drawn is not None:
        probability = (np.bincount(at.drawn.argmin(axis=1), minlength=k) / len(at.drawn)).tolist()
        low, high = np.exp(np.quantile(at.drawn, [0.025, 0.975], axis=0)).tolist()
        regret = np.expm1(at.drawn - at.drawn.min(axis=1, keepdims=True)).mean(axis=0).tolist()
        sd, df = at.sd, at.df
    pairs = [
        Pair(
            family=curve.family,
            size=curve.size,
            gfid=float(np.exp(mean[i])),
            low=low[i],
            high=high[i],
            probability=probability[i],
            runs=at.runs[i],
            seeds=at.seeds[i],
            train_images=None if math.isnan(at.images[i]) else math.exp(at.images[i]),
            extrapolated=at.extrapolated[i],
            reach=flops / curve.high,
            regret=regret[i],
        )
        for i, curve in enumerate(at.judged)
    ]
    sums = [
        FamilyChance(f, None if at.drawn is None else sum(p.probability or 0.0 for p in pairs if p.family == f))
        for f in dict.fromkeys(p.family for p in pairs)
    ]
    return BestPairs(
        flops=float(flops),
        pairs=tuple(sorted(pairs, key=lambda p: p.gfid)),
        families=tuple(sorted(sums, key=lambda item: -(item.probability or 0.0))),
        df=df,
        sd=sd,
        draws=draws,
        seed=seed,
        not_judged=at.not_judged,
    )


def probability_curve(
    points: pd.DataFrame,
    *,
    count: int = 33,
    draws: int = 4000,
    seed: int = 0,
    curves: Sequence[PairCurves] | None = None,
) -> pd.DataFrame | None:
    """P(the best pair uses this family), a column each, by compute in FLOPs over the range of `default_budgets`.

    `curves` as of `best_pairs`. None without repeated pairs.
    """
    ends = default_budgets(points, 2)
    grid = np.exp(np.linspace(math.log(ends[0]), math.log(ends[-1]), count))
    curves = pair_curves(points) if curves is None else curves
    results = [_best(curves, {}, float(c), draws, seed, False) for c in grid]
    if any(r.df == 0 for r in results):
        return None
    return pd.DataFrame([dict(r.families) for r in results], index=grid).fillna(0.0)
