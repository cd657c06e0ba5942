"""How often the 95 % confidence set of a crossover holds the true one, over simulated studies.

    python tests/benchmarks/bench_crossover_coverage.py [STUDIES=400]

Two tokenizers of known curves at three generator sizes and five budgets, gFID noise of 6 % a point, tokenizers of one
configuration that differ by 0, 10 or 20 %. Each study is compared twice: along the front that the other seeds select,
as tokenlaw does, and along each seed's own lower envelope. The table is the one in docs/analysis.md.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pandas as pd

from analysis.tokenizers.comparisons.crossover import crossover_of
from analysis.tokenizers.fronts import Design, Front, compared_fronts, fronts

SIZES = {"XS": 2e4, "S": 1.2e5, "M": 5e5}
IMAGES = 2.0 ** np.arange(14, 19)
NOISE = 0.06
TOKENIZERS = {"coarse": (8.0, 0.9), "fine": (0.0, 1.35)}
"""Floor, and factor of the part that falls with compute."""


def _truth(family: str) -> pd.DataFrame:
    """Noise-free gFID of one tokenizer at every size and budget."""
    floor, factor = TOKENIZERS[family]
    rows = []
    for size, parameters in SIZES.items():
        flops = 6 * 16 * parameters * IMAGES
        gfid = floor + factor * (9.0 * (parameters / 2e4) ** -0.25 + 30.0 * (IMAGES / IMAGES[0]) ** -0.7)
        rows.append(pd.DataFrame({"size": size, "path_flops": flops, "gfid": gfid, "parameters_other": parameters}))
    return pd.concat(rows, ignore_index=True).assign(family=family)


def _study(random: np.random.Generator, seeds: int, spread: float) -> pd.DataFrame:
    parts = []
    for family in TOKENIZERS:
        clean = _truth(family)
        for seed in range(seeds):
            noise = random.normal(0, NOISE, len(clean)) + random.normal(0, spread)
            parts.append(clean.assign(gfid=clean["gfid"] * np.exp(noise), tokenizer_seed=seed, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _holds(sides: list[dict[int, Front]], design: Design, truth: float) -> bool:
    found = crossover_of("coarse", "fine", design, (sides[0], sides[1]))
    low = -math.inf if found.interval_low is None else found.interval_low
    high = math.inf if found.interval_high is None else found.interval_high
    return not found.excluded and low <= truth <= high


def main(studies: int = 400) -> None:
    """Print the table."""
    clean = pd.concat([_truth(family).assign(tokenizer_seed=0, seed=0) for family in TOKENIZERS])
    single = Design((0,), tuple(SIZES))
    sides = [fronts(clean, family, single) for family in TOKENIZERS]
    true = crossover_of("coarse", "fine", single, (sides[0], sides[1])).flops
    assert true is not None, "the two true fronts must cross"
    print(f"true crossover {true:.3g} FLOPs; {studies} studies a cell; in brackets without selection on other seeds")
    print("| seeds | tokenizers alike | sd 10 % between tokenizers | sd 20 % |\n|---|---|---|---|")
    for seeds in (2, 3, 5, 8):
        design, cells = Design(tuple(range(seeds)), tuple(SIZES)), []
        for spread in (0.0, 0.1, 0.2):
            random = np.random.default_rng([seeds, int(spread * 100)])
            hits = np.zeros(2)
            for _ in range(studies):
                points = _study(random, seeds, spread)
                for i, choose in enumerate((compared_fronts, fronts)):
                    hits[i] += _holds([choose(points, family, design) for family in TOKENIZERS], design, true)
            cells.append(f"{hits[0] / studies:.0%} ({hits[1] / studies:.0%})")
        print(f"| {seeds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
