"""Whether the probabilities given to pairs hold when budgets are hidden: a table of reliability.

    python tests/benchmarks/bench_hidden_budgets.py [fashion | synthetic] [STUDIES=60]

`fashion`: the committed study with the last one or two budgets of any pairs hidden (242 cuts), judged at every budget
so hidden; the truth is the pair with the lowest expected gFID by all data. Its judgements are of few underlying calls,
so they are also counted by the call: hidden budget and pair. `synthetic`: studies whose truth is known exactly, of a
form that is not the fitted one (gFID follows from the excess of the loss over N and D by a power), judged beyond random
cuts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.tokenizers.frames import load
from analysis.tokenizers.pairs import best_pairs

STUDY = Path(__file__).parents[2] / "docs" / "studies" / "fashion"
BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
DRAWS = 1000
SIZES = {"XS": 1.4e4, "S": 9e4, "M": 4.2e5}
IMAGES = 2.0 ** np.arange(13, 19)


class Judgement(NamedTuple):
    """The probability given to a pair at a budget, whether it is truly the best, and what underlies it."""

    probability: float
    right: bool
    call: tuple[object, ...]


def judged(seen: pd.DataFrame, flops: float, winner: str, study: object) -> Iterator[Judgement]:
    """One for every pair judged from `seen`, where any of them stands by its law."""
    found = best_pairs(seen, flops, draws=DRAWS)
    if found.df == 0 or not any(pair.extrapolated for pair in found.pairs) or len(found.pairs) < 2:
        return
    for pair in found.pairs:
        yield Judgement(pair.probability or 0.0, pair.name == winner, (study, round(np.log(flops), 3), pair.name))


def of_committed_study() -> Iterator[Judgement]:
    """Every cut of the last one or two budgets of any pairs of the committed study."""
    points = load(STUDY).ranked
    pairs = sorted(set(zip(points["family"], points["size"], strict=True)))
    truths: dict[float, str] = {}
    for cut in product((0, 1, 2), repeat=len(pairs)):
        hidden = pd.Series(False, index=points.index)
        for (family, size), last in zip(pairs, cut, strict=True):
            of_pair = (points["family"] == family) & (points["size"] == size)
            longest = sorted(points.loc[of_pair, "images"].unique())
            hidden |= of_pair & points["images"].isin(longest[len(longest) - last :])
        for flops in points[hidden].groupby(["family", "size", "images"])["path_flops"].min():
            if flops not in truths:
                truths[flops] = min(best_pairs(points, flops, draws=DRAWS).pairs, key=lambda pair: pair.gfid).name
            yield from judged(points[~hidden], flops, truths[flops], "fashion")


def of_synthetic_studies(count: int) -> Iterator[Judgement]:
    """Two or three tokenizers, two or three sizes, 3 tokenizer seeds, runs of unequal length, judged up to 8 times
    beyond where the shortest ends."""
    for study in range(count):
        random = np.random.default_rng((study, 7))
        rows, truth = [], {}
        families = int(random.integers(2, 4))
        sizes = list(SIZES)[: int(random.integers(2, 4))]
        shape = {"gamma": random.uniform(0.7, 1.5), "alpha": random.uniform(0.1, 0.3), "beta": random.uniform(0.3, 0.7)}
        for f in range(families):
            codes, tokens = int(2 ** random.integers(4, 13)), int(random.choice([16, 64]))
            rate = tokens * np.log2(codes)
            floor = 60 * rate**-0.6 * np.exp(random.normal(0, 0.15))
            a, b = (np.exp(random.normal(m, 0.15)) * (rate / 100) ** p for m, p in ((2.6, 0.5), (4.6, 0.6)))
            lucks = random.normal(0, 0.04, 3)
            for size in sizes:
                n = SIZES[size]
                each = 6.0 * tokens * (n + 0.5 * n**0.5 * codes)

                def gfid(images, n=n, a=a, b=b, floor=floor, shape=shape):
                    excess = a * (n / 1e4) ** -shape["alpha"] + b * (images / 1e3) ** -shape["beta"]
                    return floor + 0.5 * excess ** shape["gamma"]

                truth[f"F{f} + {size}"] = (each, gfid)
                lasts = int(random.integers(3, len(IMAGES) + 1))
                for s, luck in enumerate(lucks.tolist()):
                    run = random.normal(0, 0.01)
                    for images in IMAGES[:lasts].tolist():
                        value = gfid(images) * np.exp(luck + run + random.normal(0, 0.015))
                        rows.append((f"{f}-{size}-{s}", f"F{f}", size, s, s, images, each * images, value))
        names = ["run_id", "family", "size", "tokenizer_seed", "seed", "images", "path_flops", "gfid"]
        points = pd.DataFrame(rows, columns=names)
        ends = points.groupby(["family", "size"])["path_flops"].agg(["min", "max"])
        for flops in np.geomspace(ends["min"].min() * 2, ends["max"].min() * 8, 4).tolist():
            begun = ends.index[ends["min"] <= flops]
            values = {f"{f} + {z}": truth[f"{f} + {z}"] for f, z in begun}
            if len(values) > 1:
                winner = min(values, key=lambda name: float(values[name][1](flops / values[name][0])))
                yield from judged(points, flops, winner, study)


def table(judgements: list[Judgement]) -> str:
    """Judgements, their mean probability and the share that was right, by what was given; and the same by the call."""
    lines = [f"{'given':>12} {'judgements':>10} {'mean':>6} {'right':>6} {'calls':>6} {'mean':>6} {'right':>6}"]
    for low, high in pairwise(BINS):
        chosen = [j for j in judgements if low <= j.probability < high or (high == 1 and j.probability == 1)]
        if not chosen:
            continue
        calls: dict[tuple[object, ...], list[Judgement]] = {}
        for j in chosen:
            calls.setdefault(j.call, []).append(j)
        means = [np.mean([j.probability for j in same]) for same in calls.values()]
        rights = [np.mean([j.right for j in same]) for same in calls.values()]
        lines.append(
            f"{low:5.2f} - {high:4.2f} {len(chosen):10d} {np.mean([j.probability for j in chosen]):6.2f} "
            f"{np.mean([j.right for j in chosen]):6.2f} {len(calls):6d} {np.mean(means):6.2f} {np.mean(rights):6.2f}"
        )
    top = [j for j in judgements if j.probability > 0.95]
    lines.append(f"more than 95 % to a pair that loses: {sum(not j.right for j in top)} of {len(top)}")
    error = np.mean([(j.probability - j.right) ** 2 for j in judgements])
    return "\n".join([*lines, f"Brier score {error:.4f} over {len(judgements)} judgements"])


def main() -> None:
    """Print the table of what is named."""
    what = sys.argv[1] if len(sys.argv) > 1 else "fashion"
    studies = of_committed_study() if what == "fashion" else of_synthetic_studies(int((sys.argv[2:] or ["60"])[0]))
    print(table(list(studies)))


if __name__ == "__main__":
    main()
