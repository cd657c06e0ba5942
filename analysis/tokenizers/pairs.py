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

from .crossover import Crossover
from .fronts import Design, in_order
from .hierarchy import posterior
from .pair_laws import LAW_DRAWS, Floor, PairCurves, PairLaw, pair_curves
from .rows import Record
from .seed_intervals import CONFIDENCE, SeedEstimate

Array = np.ndarray

DRAWS = 20_000
SLACK = 1e-9
"""In ln FLOPs: closed forms repeat up to a last digit."""


@dataclass(frozen=True)
class Pair(Record):
    """One tokenizer family with one generator size at a compute budget.

    `gfid` is its expected gFID (geometric mean over seeds, by the model), `low` and `high` its 95 % interval (None
    where no variance can be estimated), `probability` that of being the best pair at this budget. `train_images` is how
    many images the budget buys, None where images are not known. `extrapolated`: the budget exceeds the pair's longest
    run, by the factor `reach`, so that its gFID is a prediction of its law.
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

    @property
    def name(self) -> str:
        """For people: tokenizer and generator."""
        return f"{self.family} + {self.size}"


class FamilyChance(NamedTuple):
    """Probability of a family to hold the best pair."""

    family: str
    probability: float | None


class NotJudged(NamedTuple):
    """A pair that says nothing at a compute, and why."""

    name: str
    reason: str


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
    at = _Standing.at(curves, flops, draws, seed, laws, within_range)
    k = len(at.judged)
    low: list[float | None] = [None] * k
    high, probability = list(low), list(low)
    mean, sd, df = at.mean, None, 0
    if at.drawn is not None:
        probability = (np.bincount(at.drawn.argmin(axis=1), minlength=k) / len(at.drawn)).tolist()
        low, high = np.exp(np.quantile(at.drawn, [0.025, 0.975], axis=0)).tolist()
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


@dataclass(frozen=True)
class _Standing:
    """The pairs judged at one compute (k of them): expected ln gFID (k,), joint draws (draws, k) or None, and facts."""

    judged: tuple[PairCurves, ...]
    mean: Array
    drawn: Array | None
    sd: float | None
    df: int
    runs: tuple[int, ...]
    seeds: tuple[tuple[int, ...], ...]
    images: tuple[float, ...]
    extrapolated: tuple[bool, ...]
    not_judged: tuple[NotJudged, ...]

    @classmethod
    def at(
        cls,
        curves: Sequence[PairCurves],
        flops: float,
        draws: int,
        seed: int,
        laws: dict[str, PairLaw] | None = None,
        within_range: bool = False,
    ) -> _Standing:
        if not (math.isfinite(flops) and flops > 0):
            raise FitError(f"flops = {flops} is no compute budget; allowed: a positive number")
        judged: list[PairCurves] = []
        not_judged, extrapolated, images, seeds = [], [], [], []
        y: list[float] = []
        pair: list[int] = []
        cluster: list[tuple[str, int]] = []
        errors: dict[int, Array] = {}
        for number, candidate in enumerate(curves):
            left = [c.training(flops) for c in candidate.curves]
            begun = [(c, x) for c, x in zip(candidate.curves, left, strict=True) if x >= c.x[0] - SLACK]
            reaching = [(c, x) for c, x in begun if x <= c.x[-1] + SLACK]
            if not begun:
                not_judged.append(NotJudged(candidate.name, f"its runs begin at {candidate.low:.2g}"))
                continue
            if not reaching and within_range:
                not_judged.append(NotJudged(candidate.name, f"its runs end at {candidate.high:.2g}"))
                continue
            if reaching:
                # A run that ends below the budget adds nothing where the same pair has runs that reach it.
                chosen, values = reaching, [float(np.interp(x, c.x, c.y)) for c, x in reaching]
            else:
                chosen = begun
                law = (laws or {}).get(candidate.name) or (
                    candidate.law if len(begun) == len(candidate.curves) else PairLaw.of([c for c, _ in begun], "free")
                )
                predicted = law.draws([x for _, x in begun], LAW_DRAWS, seed + number)
                values = predicted.mean(axis=0).tolist()
                errors[len(judged)] = (predicted - predicted.mean(axis=0)).mean(axis=1)
            y += values
            pair += [len(judged)] * len(chosen)
            cluster += [(candidate.family, c.tokenizer_seed) for c, _ in chosen]
            images.append(float(np.mean([c.images_at(x) for c, x in chosen])))
            seeds.append(tuple(sorted({c.tokenizer_seed for c, _ in chosen})))
            extrapolated.append(not reaching)
            judged.append(candidate)
        if not judged:
            raise FitError(f"no run was measured at {flops:.3g} FLOPs")
        numbers = {name: i for i, name in enumerate(dict.fromkeys(cluster))}
        of_pair = np.array(pair)
        found = posterior(np.array(y), of_pair, np.array([numbers[name] for name in cluster]), draws, seed)
        mean = np.bincount(of_pair, y) / np.bincount(of_pair)
        drawn = None
        if found is not None:
            mean, drawn = found.mean, found.drawn
            for i, error in errors.items():
                # The law is one for all seeds of a pair: its error does not average out over them.
                drawn[:, i] += np.resize(error, draws)
        return cls(
            judged=tuple(judged),
            mean=mean,
            drawn=drawn,
            sd=found.sd if found else None,
            df=found.df if found else 0,
            runs=tuple(np.bincount(of_pair).tolist()),
            seeds=tuple(seeds),
            images=tuple(images),
            extrapolated=tuple(extrapolated),
            not_judged=tuple(not_judged),
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
        standing = _Standing.at(curves, min(max(math.exp(x), low), high), draws, seed)
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
