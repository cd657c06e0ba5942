"""Which tokenizer and generator to train together at a given compute, and how sure that is: a hierarchical model.

At compute C the log gFID of run r, of tokenizer family f, size z, on tokenizer seed s is modelled as

    y_r = mu[f, z] + u[f, s] + e_r,      u ~ N(0, rho v),  e ~ N(0, (1 - rho) v)

with a flat prior on every mu, p(v) ~ 1 / v, and rho uniform on [0, 1). u is what all generators on one tokenizer share.
The posterior is exact: rho on a grid, v scaled inverse chi-square given rho with (runs - pairs) degrees of freedom, mu
normal given both; hence the marginal of each mu is a mixture of Student t. The probability that a pair is best is the
share of joint draws in which its mu is the lowest. Pairs with one seed borrow v and rho from those with several.
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
from .rows import Record, groups
from .seed_intervals import CONFIDENCE, SeedEstimate

Array = np.ndarray

PAIR = ["family", "size"]
DRAWS = 20_000
RHO = np.linspace(0.0, 0.95, 20)
"""Share of the variance that belongs to the tokenizer seed."""


@dataclass(frozen=True)
class Pair(Record):
    """One tokenizer family with one generator size at a compute budget.

    `gfid` is its expected gFID (geometric mean over seeds, by the model), `low` and `high` its 95 % interval (None
    where no variance can be estimated), `probability` that of being the best pair at this budget. `train_images` is how
    many images the budget buys. `held`: the budget exceeds the pair's longest run, whose gFID is used unchanged.
    """

    family: str
    size: str
    gfid: float
    low: float | None
    high: float | None
    probability: float | None
    runs: int
    seeds: tuple[int, ...]
    train_images: float
    held: bool

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
    """All pairs measured at compute `flops`, lowest expected gFID first; `families` sums probabilities over sizes.

    `df` are the degrees of freedom of the variance, 0 if no pair was run twice (then probabilities are None), `sd` its
    square root (in log gFID) and `seed` that of the draws.
    """

    flops: float
    pairs: tuple[Pair, ...]
    families: tuple[FamilyChance, ...]
    df: int
    sd: float | None
    draws: int
    seed: int

    @property
    def best(self) -> Pair:
        """The pair with the highest probability of being best; without probabilities the lowest gFID."""
        return max(self.pairs, key=lambda p: (p.probability or 0.0, -p.gfid))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, with the name of the best pair."""
        return super().to_dict() | {"best": self.best.name}


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


def best_pairs(points: pd.DataFrame, flops: float, *, draws: int = DRAWS, seed: int = 0) -> BestPairs:
    """Expected gFID of every pair at compute `flops` and the probability of each being best.

    Each run is interpolated between its budgets in log-log. A pair whose runs end below `flops` is `held` at its last
    gFID (it is affordable, so this is an upper bound); one whose runs begin above is left out. Raises FitError if no
    pair was measured at this compute.
    """
    runs = _runs_at(points, flops)
    mean = runs.groupby(PAIR)["y"].mean().to_numpy()
    low: Sequence[float | None] = [None] * len(mean)
    high, probability, sd, df = low, low, None, 0
    posterior = _posterior(runs, draws, seed)
    if posterior is not None:
        mean, draws_of_mu, sd, df = posterior
        probability = (np.bincount(draws_of_mu.argmin(axis=1), minlength=len(mean)) / len(draws_of_mu)).tolist()
        low, high = np.exp(np.quantile(draws_of_mu, [0.025, 0.975], axis=0)).tolist()
    pairs = []
    for i, ((family, size), rows) in enumerate(groups(runs, PAIR)):
        pairs.append(
            Pair(
                family=str(family),
                size=str(size),
                gfid=float(np.exp(mean[i])),
                low=low[i],
                high=high[i],
                probability=probability[i],
                runs=len(rows),
                seeds=tuple(sorted({int(s) for s in rows["tokenizer_seed"]})),
                train_images=float(np.exp(np.log(rows["images"]).mean())),
                held=bool(rows["held"].any()),
            )
        )
    sums = [
        FamilyChance(f, None if posterior is None else sum(p.probability or 0.0 for p in pairs if p.family == f))
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
    )


def _runs_at(points: pd.DataFrame, flops: float) -> pd.DataFrame:
    """Runs interpolated to one compute: family, size, tokenizer_seed, y (ln gFID), images, held."""
    if not (math.isfinite(flops) and flops > 0):
        raise FitError(f"flops = {flops} is no compute budget; allowed: a positive number")
    points = points[points["gfid"].notna()]
    target, rows = math.log(flops), []
    for _, run in groups(points.sort_values("path_flops"), "run_id"):
        x = np.log(run["path_flops"].to_numpy(dtype=float))
        beyond = target > x[-1] + 1e-9
        if target < x[0] - 1e-9:
            continue
        log_gfid, log_images = (np.interp(target, x, np.log(run[c].to_numpy(float))) for c in ("gfid", "images"))
        labels = run[["family", "size", "tokenizer_seed"]].iloc[0].to_dict()
        rows.append(labels | {"y": float(log_gfid), "images": math.exp(log_images), "held": beyond})
    if not rows:
        raise FitError(f"no run was measured at {flops:.3g} FLOPs")
    table = pd.DataFrame(rows)
    # A run that ends below the budget adds nothing where the same pair has runs that reach it.
    reach = table.groupby(PAIR)["held"].transform("all")
    return table[~table["held"] | reach].reset_index(drop=True)


def _posterior(runs: pd.DataFrame, draws: int, seed: int) -> tuple[Array, Array, float, int] | None:
    """Posterior mean of mu (k,), draws of mu (draws, k), posterior-mean sd, df; None without repeated pairs.

    Batched over the grid of rho: with V = (1 - rho) I + rho J (J: same cluster), mu_hat = (X' V^-1 X)^-1 X' V^-1 y, the
    weight of rho is |V|^-1/2 |X' V^-1 X|^-1/2 (residual sum)^(-df/2), its prior being uniform.
    """
    y = runs["y"].to_numpy()
    pair, cluster = (runs.groupby(by).ngroup().to_numpy() for by in (PAIR, ["family", "tokenizer_seed"]))
    n, k = len(runs), pair.max() + 1
    df = n - k
    if df < 1:
        return None
    x = (pair[:, None] == np.arange(k)).astype(float)
    same = (cluster[:, None] == cluster).astype(float)
    v = (1 - RHO)[:, None, None] * np.eye(n) + RHO[:, None, None] * same
    solved = np.linalg.solve(v, np.broadcast_to(np.column_stack([x, y]), (len(RHO), n, k + 1)))
    information = np.einsum("nk,rnm->rkm", x, solved[:, :, :k])
    covariance = np.linalg.inv(information)
    mu = np.einsum("rkm,rm->rk", covariance, np.einsum("nk,rn->rk", x, solved[:, :, k]))
    residual = y - mu @ x.T
    weighted = np.linalg.solve(v, residual[:, :, None])[:, :, 0]
    squares = np.maximum(np.einsum("rn,rn->r", residual, weighted), 1e-300)
    log_weight = -0.5 * (np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + df * np.log(squares))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(RHO), size=draws, p=weight)
    variance = squares[chosen] / generator.chisquare(df, size=draws)
    factor = np.linalg.cholesky(covariance)[chosen]
    normal = generator.standard_normal((draws, k))
    drawn = mu[chosen] + np.sqrt(variance)[:, None] * np.einsum("dkm,dm->dk", factor, normal)
    sd = math.sqrt(float(weight @ squares) / df)
    return weight @ mu, drawn, sd, df


def probability_curve(
    points: pd.DataFrame, *, count: int = 33, draws: int = 4000, seed: int = 0
) -> pd.DataFrame | None:
    """P(the best pair uses this family), a column each, by compute in FLOPs over the range of `default_budgets`.

    None without repeated pairs.
    """
    ends = default_budgets(points, 2)
    grid = np.exp(np.linspace(math.log(ends[0]), math.log(ends[-1]), count))
    results = [best_pairs(points, float(c), draws=draws, seed=seed) for c in grid]
    if any(r.df == 0 for r in results):
        return None
    return pd.DataFrame([dict(r.families) for r in results], index=grid).fillna(0.0)


def expected_crossover(
    points: pd.DataFrame, first: str, second: str, *, count: int = 65, draws: int = 4000, seed: int = 0
) -> Crossover | None:
    """Crossover of two families' expected fronts by the model: for designs whose sizes were not run on every seed.

    The expected front is the lowest mu over a family's sizes at each compute; sizes with one seed borrow the variance
    of those with several and are corrected for their tokenizer's luck as seen at other sizes. The interval is the set
    of compute values whose central 95 % interval of the log ratio of the fronts contains 0. None if no pair has repeats
    or the measured ranges do not overlap.
    """
    rows = points[points["family"].isin([first, second]) & points["gfid"].notna()]
    spans = rows.groupby("family")["path_flops"].agg(["min", "max"])
    if len(spans) < 2:
        return None
    low, high = float(spans["min"].max()), float(spans["max"].min())
    if not low < high:
        return None
    grid = np.linspace(math.log(low), math.log(high), count)
    mean, bounds = np.empty(count), np.empty((2, count))
    tail = (1 - CONFIDENCE) / 2
    for i, x in enumerate(grid):
        runs = _runs_at(rows, math.exp(x))
        posterior = _posterior(runs, draws, seed)
        if posterior is None:
            return None
        drawn = posterior[1]
        of_first = np.array([family == first for (family, _), _ in groups(runs, PAIR)])
        ratio = drawn[:, of_first].min(axis=1) - drawn[:, ~of_first].min(axis=1)
        mean[i] = np.median(ratio)
        bounds[:, i] = np.quantile(ratio, [tail, 1 - tail])
    seeds = tuple(sorted({int(s) for s in rows["tokenizer_seed"]}))
    sizes = tuple(in_order(rows))
    method = f"hierarchical model over {len(seeds)} tokenizer seeds, sizes with one seed borrowing their variance"
    ends = (np.exp([mean[i], bounds[0, i], bounds[1, i]]).tolist() for i in (0, count - 1))
    at_low, at_high = (SeedEstimate(value, under, over, method, "ratio", seeds, ()) for value, under, over in ends)
    design, band = Design(seeds, sizes), (bounds[0], bounds[1])
    return Crossover(first, second, design, low, high, grid, mean, band, at_low, at_high, method)
