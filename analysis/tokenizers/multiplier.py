"""The compute multiplier between two tokenizers: how much less compute one needs than the other for the same gFID."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .fronts import Array, Design, first_design, fronts
from .rows import Record
from .seed_intervals import Noise, SeedEstimate, over_seeds


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
