"""How often nominal 95 % intervals hold the truth, over studies drawn from a known joint law.

    python tests/benchmarks/bench_joint_coverage.py [STUDIES=400] [REPLICATES=100]

Studies as of synthetic_studies.py: four tokenizers, one of them regularised, two sizes, three tokenizer seeds, effects
of tokenizer, trunk and fork, pairs that end at unequal budgets. Judged: exponents of the joint law, R*(C) and N*(C),
the compute multiplier of CRT, the crossover of 16 and 1024 codes, and the probability given to the best pair.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.tokenizers.comparisons.contrasts import multiplier
from analysis.tokenizers.comparisons.expected_crossover import expected_crossover
from analysis.tokenizers.joint.allocation import Prices, joint_optimum
from analysis.tokenizers.joint.fitting import fit_joint
from analysis.tokenizers.joint.table import joint_table
from analysis.tokenizers.pair_laws import pair_curves
from analysis.tokenizers.pairs import best_pairs
from results.errors import FitError

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_studies import SIZES, SyntheticStudy, draw_study, name_of, per_image

KINDS = ((16, 16, 0.0), (1024, 16, 0.0), (64, 64, 0.0), (1024, 16, 0.25))
FLOPS = 3e11
REPORT = 4
NAMES = ("alpha", "beta", "p", "q", "s", "gamma")


def clean(study: SyntheticStudy) -> pd.DataFrame:
    """The points of a study without any luck."""
    points = study.points
    kinds = {name_of(kind): kind for kind in study.kinds}
    values = [
        study.truth.gfid(*kinds[family], SIZES[size][0], images)
        for family, size, images in zip(points["family"], points["size"], points["images"], strict=True)
    ]
    return points.assign(gfid=values)


def true_optimum(study: SyntheticStudy, prices: Prices, rates: tuple[float, float]) -> tuple[float, float]:
    """R* and N* of the truth, where `joint_optimum` searches."""
    best = (np.inf, 0.0, 0.0)
    sizes = np.geomspace(prices.params[0], prices.params[-1], 25)
    for tokens in (16.0, 64.0):
        for bits in np.arange(4, 10.1, 0.25):
            if not rates[0] * 0.999 <= tokens * bits <= rates[1] * 1.001:
                continue
            ones = np.ones(len(sizes))
            images = prices.images(FLOPS, sizes, 2.0**bits * ones, tokens * ones, 0 * ones)
            gfid = study.truth.gfid(2.0**bits, tokens, 0.0, sizes, np.maximum(images, 1.0))
            gfid = np.where(images > 2048, gfid, np.inf)
            at = int(gfid.argmin())
            best = min(best, (float(gfid[at]), tokens * float(bits), float(sizes[at])))
    return best[1], best[2]


def judge(number: int, replicates: int, held: dict[str, list[bool]], calls: list[tuple[float, bool]]) -> None:
    """Add to `held`, by quantity, whether its interval holds the truth, and to `calls` the best pair's probability."""
    study = draw_study(number, kinds=KINDS, sizes=("XS", "S"), budgets=(13, 16))
    points, known, truth = study.points, clean(study), study.truth
    table = joint_table(study.frames)
    fitted = fit_joint(table, replicates=replicates, seed=number)
    for name, e in fitted.estimates().items():
        if name in NAMES and e.low is not None and e.high is not None:
            held[name].append(e.low <= getattr(truth, name) <= e.high)
    prices = Prices.of(table, study.frames.compute)
    best = joint_optimum(fitted, prices, FLOPS, number)
    rate, params = true_optimum(study, prices, (64.0, 384.0))
    for name, e, value, ends in (
        ("R*", best.rate, rate, (64.0, 384.0)), ("N*", best.params, params, (prices.params[0], prices.params[-1])),
    ):  # fmt: skip
        # At an end of what is searched lies whatever is best beyond it, and next to nothing can be missed.
        inside = ends[0] * 1.02 < value < ends[1] * 0.98
        # The search has steps: half of one is no error.
        covers = bool(e.low * 0.98 <= value <= e.high * 1.02)  # type: ignore[operator]
        held[name if inside else f"{name} at an end"].append(covers)
    plain, treated = "K1024-T16", "K1024-T16-crt0.25"
    gain, true_gain = multiplier(points, plain, treated), multiplier(known, plain, treated)
    if gain.estimate is not None and true_gain.estimate is not None and gain.estimate.low is not None:
        held["multiplier"].append(gain.estimate.low <= true_gain.estimate.value <= gain.estimate.high)  # type: ignore[operator]
    crossing = expected_crossover(points, "K16-T16", plain, count=33, draws=1000)
    without = expected_crossover(
        known.assign(gfid=known["gfid"] * (1 + 1e-6 * np.arange(len(known)))), "K16-T16", plain
    )
    if crossing is not None and without is not None and without.flops is not None:
        low = -np.inf if crossing.interval_low is None else crossing.interval_low
        high = np.inf if crossing.interval_high is None else crossing.interval_high
        held["crossover"].append(not crossing.excluded and low <= without.flops <= high)
    try:
        choice = best_pairs(points, FLOPS, draws=2000, curves=pair_curves(points))
    except FitError:
        return
    values = {
        p.name: truth.gfid(*next(k for k in KINDS if name_of(k) == p.family), SIZES[p.size][0],
                           FLOPS / per_image(*next(k for k in KINDS if name_of(k) == p.family)[:2], p.size))
        for p in choice.pairs
    }  # fmt: skip
    winner = min(values, key=lambda name: values[name])
    calls.append((choice.best.probability or 0.0, choice.best.name == winner))


def main(studies: int = 400, replicates: int = 100) -> dict[str, list[bool]]:
    """Print the table, and return what it is of."""
    held: dict[str, list[bool]] = defaultdict(list)
    calls: list[tuple[float, bool]] = []
    for number in range(studies):
        judge(number, replicates, held, calls)
        if (number + 1) % REPORT == 0 and number + 1 < studies:
            counts = ", ".join(f"{name} {sum(hits)}/{len(hits)}" for name, hits in held.items())
            print(f"after {number + 1}: {counts}", file=sys.stderr, flush=True)
    for name, hits in held.items():
        print(f"{name:12} {np.mean(hits):6.1%} of {len(hits)}")
    given, right = (np.array(values, dtype=float) for values in zip(*calls, strict=True))
    print(f"best pair    given {given.mean():.1%}, right {right.mean():.1%} of {len(calls)}")
    return held


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
