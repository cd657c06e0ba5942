"""What one change of the tokenizer does at equal compute: paired by seed, per budget and pooled, with t intervals.

Two families are contrasted at the same generator size, generator seed, tokenizer seed and budget, hence at the same
stage-2 FLOPs; what differs is the tokenizer alone. Pooling averages over budgets within a seed first, then over seeds:
the seed is the statistical unit. The compute multiplier says the same the other way round: how much less compute one
needs than the other for the same gFID.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from results.errors import FitError
from results.settings import differing

from ..frames import StudyFrames
from ..fronts import Array, Design, first_design, fronts, in_order, measured
from ..names import configurations
from ..rows import Record, by_seed, groups
from ..seed_intervals import Noise, Scale, SeedEstimate, half_width, over_seeds

GENERATOR_METRICS: dict[str, Scale] = {"gfid": "ratio", "nats_per_image": "difference"}
TOKENIZER_METRICS: dict[str, Scale] = {"rfid": "ratio", "rfid_floor": "ratio", "codebook_utilisation": "difference"}


@dataclass(frozen=True)
class Effect(Record):
    """The effect of `treatment` over `base` on one metric: a ratio or a difference. `budget` None: pooled or none."""

    metric: str
    budget: int | None
    sizes: tuple[str, ...]
    estimate: SeedEstimate


@dataclass(frozen=True)
class Contrast(Record):
    """All effects of exchanging tokenizer `base` for `treatment`, which differ in `facets`.

    `per_budget` holds gFID and nats per image at each budget, `pooled` the same over all budgets, `stage1` the metrics
    of the tokenizers themselves. `tokenizer_flops_ratio` is that of stage-1 training FLOPs, `stage2_flops_difference`
    the largest relative difference of stage-2 FLOPs between paired runs; `unpaired_runs` were left out for want of a
    partner.
    """

    base: str
    treatment: str
    facets: tuple[str, ...]
    per_budget: tuple[Effect, ...]
    pooled: tuple[Effect, ...]
    stage1: tuple[Effect, ...]
    tokenizer_flops_ratio: float
    stage2_flops_difference: float
    unpaired_runs: int
    regulariser: str = "causal"

    def effect(self, metric: str) -> Effect | None:
        """The pooled (or stage-1) effect on a metric, or None if it was not measured."""
        return next((e for e in (*self.pooled, *self.stage1) if e.metric == metric), None)


def facets(frames: StudyFrames, a: str, b: str) -> tuple[str, ...]:
    """In which facets two families differ, from their full specifications: such as ("regulariser",).

    Facets are top-level fields of the specification; seeds and the evaluation do not count. Without specifications the
    columns of `runs` decide. Number of training images rides along with a regulariser, whose cost it may compensate.
    """
    table = frames.families.set_index("family", drop=False)
    names = dict.fromkeys(name.split(".")[0] for name in differing(configurations(table.loc[[a, b]])))
    unimportant = {"evaluation"} | ({"train_images"} if "regulariser" in names else set())
    return tuple(name for name in names if name not in unimportant)


def regulariser_contrasts(frames: StudyFrames) -> list[tuple[str, str]]:
    """Pairs (base, treatment) of families that differ in the regulariser alone, base being the one without."""
    table = frames.families
    # Who differ in a column that tells a field of theirs need no look at their specifications.
    alike = ["quantizer", "codebook_size", "tokens_per_image", "downsampling"]
    plain, treated = (
        table.loc[rows, ["family", *alike]] for rows in (table["regulariser"].isna(), table["regulariser"].notna())
    )
    pairs = plain.merge(treated, on=alike, suffixes=("_a", "_b"))
    named = [(str(a), str(b)) for a, b in zip(pairs["family_a"], pairs["family_b"], strict=True)]
    return [(a, b) for a, b in named if facets(frames, a, b) == ("regulariser",)]


def contrast(frames: StudyFrames, base: str, treatment: str) -> Contrast:
    """The effect of `treatment` over `base` at equal compute. Raises FitError if no run of one has a partner."""
    points = frames.ranked
    # Of rows measured elsewhere the images may be unknown: equal FLOPs are an equal budget then.
    cost = points["path_flops"].astype(float).apply(math.log).round(2)
    length = points["images"].astype(float).fillna(cost)
    points = points.assign(_length=length)
    cell = ["tokenizer_seed", "seed", "size", "_length"]
    sides = []
    for family in (base, treatment):
        rows = measured(points, family)
        metrics = [m for m in (*GENERATOR_METRICS, "path_flops", "images") if m in rows]
        # A fork and a from-scratch run of one cell repeat one measurement: their geometric mean stands for it.
        sides.append(rows.groupby(cell)[metrics].agg(_center).reset_index())
    pairs = sides[0].merge(sides[1], on=cell, suffixes=("_a", "_b")).rename(columns={"images_a": "images"})
    pairs["images"] = pairs["images"].fillna(pairs["_length"])
    counted = points["images"].notna().all()
    pairs["parameters_other"] = pairs["size"].map(points.groupby("size")["parameters_other"].median())
    if pairs.empty:
        raise FitError(f"{base} and {treatment} have no pair of runs with equal seeds, size and budget")
    named = frames.families.dropna(subset=["regulariser"])
    kinds = dict(zip(named["family"], named["regulariser"], strict=True))
    per_budget, pooled = [], []
    for metric, scale in GENERATOR_METRICS.items():
        if f"{metric}_a" not in pairs:
            continue
        effect = _change(pairs[f"{metric}_a"].astype(float), pairs[f"{metric}_b"].astype(float), scale)
        usable = pairs.assign(effect=effect)[np.isfinite(effect)]
        if usable.empty:
            continue
        noise = frames.noise if metric == "gfid" else None
        for budget, group in groups(usable, "images") if counted else ():
            per_budget.append(mean_effect(group, metric, scale, int(budget), noise))
        pooled.append(mean_effect(usable, metric, scale, None, noise))
    spent = points.groupby("family")["tokenizer_flops"].median()
    return Contrast(
        base=base,
        treatment=treatment,
        facets=facets(frames, base, treatment),
        per_budget=tuple(per_budget),
        pooled=tuple(pooled),
        stage1=tuple(tokenizer_effects(tokenizer_scores(frames), base, treatment)),
        tokenizer_flops_ratio=float(spent[treatment] / spent[base]) if spent[base] > 0 else math.nan,
        stage2_flops_difference=float((pairs["path_flops_b"] / pairs["path_flops_a"] - 1).abs().max()),
        unpaired_runs=len(sides[0]) + len(sides[1]) - 2 * len(pairs),
        regulariser=str(kinds.get(treatment) or kinds.get(base) or "causal"),
    )


def tokenizer_scores(frames: StudyFrames) -> pd.DataFrame:
    """The tokenizers with their metrics; of a table whose generators' rows alone have them, as printed there."""
    if len(frames.tokenizers):
        return frames.tokenizers
    points = frames.points
    metrics = [metric for metric in TOKENIZER_METRICS if metric in points]
    return points.drop_duplicates(["family", "tokenizer_seed"])[["family", "tokenizer_seed", *metrics]]


def tokenizer_effects(tokenizers: pd.DataFrame, base: str, treatment: str) -> list[Effect]:
    """Effects on the tokenizers' own metrics, paired by tokenizer seed; metrics that one side lacks are left out."""
    effects = []
    for metric, scale in TOKENIZER_METRICS.items():
        if metric not in tokenizers:
            continue
        means = tokenizers.groupby(["tokenizer_seed", "family"])[metric].mean().unstack()
        means = means.reindex(columns=[base, treatment])
        values = by_seed(_change(means[base], means[treatment], scale))
        if values:
            effects.append(Effect(metric, None, (), over_seeds(values, scale=scale)))
    return effects


def _center(values: pd.Series) -> float:
    """Geometric mean of positive values, so that repetitions of one cell count once."""
    array = values.to_numpy(dtype=float)
    return float(np.exp(np.log(array).mean())) if (array > 0).all() else float(array.mean())


def _change(a: pd.Series, b: pd.Series, scale: Scale) -> pd.Series:
    """b against a, row by row of the same index."""
    return b / a if scale == "ratio" else b - a


def _balanced(pairs: pd.DataFrame) -> pd.DataFrame:
    """Only the (size, budget) cells that every paired tokenizer seed has, so that all seeds average over the same."""
    cell = ["size", "images"]
    seeds = pairs["tokenizer_seed"].nunique()
    full = pairs.groupby(cell)["tokenizer_seed"].nunique() == seeds
    keep = pd.MultiIndex.from_frame(pairs[cell]).isin(full.index[full])
    return pairs[keep] if keep.any() else pairs


def mean_effect(rows: pd.DataFrame, metric: str, scale: Scale, budget: int | None, noise: Noise | None) -> Effect:
    """Mean of paired effects within each tokenizer seed (over budgets, sizes, generator seeds), then over seeds.

    `rows`: one row a pair of runs and budget, with columns effect, tokenizer_seed, size, images, parameters_other.
    """
    balanced = _balanced(rows)
    by_tokenizer = balanced.groupby("tokenizer_seed")["effect"]
    per_seed = by_seed(by_tokenizer.agg(_center) if scale == "ratio" else by_tokenizer.mean())
    estimate = over_seeds(per_seed, scale=scale, noise=noise)
    return Effect(metric, budget, tuple(in_order(balanced)), estimate)


class NoOverlap(NamedTuple):
    """A seed on which the fronts share no gFID range, and which family is lower there."""

    seed: int
    lower: str


@dataclass(frozen=True)
class Multiplier(Record):
    """Compute multiplier of `treatment` over `base` at equal gFID: base FLOPs / treatment FLOPs, above 1 a saving.

    The horizontal gap of the fronts, averaged in log over the gFID range both reach, per seed. `curve_gfid` (k,) and
    `curve` (seeds, k): the multiplier by gFID level. `without_overlap`: seeds left out.
    """

    base: str
    treatment: str
    sizes: tuple[str, ...]
    estimate: SeedEstimate | None
    without_overlap: tuple[NoOverlap, ...]
    curve_gfid: Array
    curve: Array

    @property
    def along(self) -> tuple[Array, Array]:
        """Levels of the metric (k,), falling quality last, and the geometric mean over seeds there (k,): where all have
        one."""
        if not len(self.curve):
            return np.empty(0), np.empty(0)
        every = np.isfinite(self.curve).all(axis=0)
        return self.curve_gfid[every], np.exp(np.log(self.curve[:, every]).mean(axis=0))

    @property
    def band(self) -> tuple[Array, Array] | None:
        """The 95 % t interval over seeds at each level of `along`, both (k,); None for one seed."""
        if len(self.curve) < 2:
            return None
        every = np.isfinite(self.curve).all(axis=0)
        half, _, _ = half_width(np.log(self.curve[:, every]), None)
        middle = self.along[1]
        return middle * np.exp(-half), middle * np.exp(half)

    @property
    def no_difference(self) -> float | None:
        """p of the t test over seeds that the mean log multiplier is 0; None for one seed."""
        if self.estimate is None or len(self.estimate.per_seed) < 2:
            return None
        from scipy.special import stdtr

        logs = np.log(np.array(self.estimate.per_seed))
        spread = logs.std(ddof=1) / math.sqrt(len(logs))
        return float(2 * stdtr(len(logs) - 1, -abs(logs.mean()) / spread)) if spread > 0 else float(logs.mean() == 0)


def multiplier(
    points: pd.DataFrame, base: str, treatment: str, *, design: Design | None = None, noise: Noise | None = None
) -> Multiplier:
    """The compute multiplier of `treatment` over `base`. Raises FitError as `crossover` does.

    For one seed the noise of log gFID is turned into noise of log FLOPs by the fronts' mean slope in the overlap.
    """
    design = design or first_design(points, base, treatment)
    sides = {family: fronts(points, family, design) for family in (base, treatment)}
    values, without, spans, steepness = {}, [], {}, math.nan
    for seed in design.seeds:
        a, b = sides[base][seed], sides[treatment][seed]
        span = (math.log(max(a.gfid[-1], b.gfid[-1])), math.log(min(a.gfid[0], b.gfid[0])))
        if not span[0] < span[1]:
            without.append(NoOverlap(seed, base if a.gfid[0] < b.gfid[0] else treatment))
            continue
        levels = np.concatenate([np.log(a.gfid), np.log(b.gfid), span])
        # A flat piece of a front is a step of its inverse: a level just below its own has the step behind it.
        levels = np.concatenate([levels, levels - 1e-9])
        levels = np.unique(levels[(levels >= span[0]) & (levels <= span[1])])
        gap = a.log_flops_at(levels) - b.log_flops_at(levels)
        area = float(((gap[1:] + gap[:-1]) / 2 * np.diff(levels)).sum())
        values[seed] = math.exp(area / (span[1] - span[0]))
        spans[seed] = span
        reach = [f.log_flops_at(np.array(span)) for f in (a, b)]
        steepness = float(np.mean([(r[0] - r[1]) / (span[1] - span[0]) for r in reach]))
    estimate, levels, curve = None, np.empty(0), np.empty((0, 0))
    if values:
        # It counts with one seed alone, whose steepness is the last one.
        scaled = None if noise is None else Noise(noise.sd * steepness, noise.df, noise.source)
        estimate = over_seeds(values, scale="ratio", noise=scaled)
        levels = np.linspace(min(s[0] for s in spans.values()), max(s[1] for s in spans.values()), 61)
        curve = np.exp([sides[base][s].log_flops_at(levels) - sides[treatment][s].log_flops_at(levels) for s in spans])
    return Multiplier(base, treatment, design.sizes, estimate, tuple(without), np.exp(levels), curve)
