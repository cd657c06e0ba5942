"""How much of a full grid's compute runs chosen by `next` need for its decision, beside other ways to choose them.

    python tests/benchmarks/bench_next.py synthetic [STUDIES=200]
    python tests/benchmarks/bench_next.py scalebench [TASK ...]

`synthetic`: five tokenizers with two sizes, truths drawn from the joint law; the grid runs every pair on three seeds up
to the compute of the decision. All begin with a short run of every pair on one seed, which counts. `scalebench`: rows
of tasks of arXiv 2604.22753 chosen for 1, 5 and 10 % of the cost of all (its costs: N D, or N E of experts), beside as
many at random; R2 on the test rows, clipped to [-1, 1], mean over the task's laws.
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.allocation.next_rows import next_rows
from analysis.fitting.request import FitRequest
from analysis.tokenizers.next_runs import next_runs
from analysis.tokenizers.pair_laws import pair_curves
from analysis.tokenizers.pairs import best_pairs
from results.errors import TokenlawError

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_studies import FORK, OWN_LUCK, SIZES, TOKENIZER, TRUNK, Truth, name_of, per_image

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data"
KINDS = ((16, 16, 0.0), (128, 16, 0.0), (1024, 16, 0.0), (64, 64, 0.0), (1024, 16, 0.25))
GRID_SEEDS, FIRST_SEEDS, FIRST = 3, 1, (8192.0, 16384.0)
SHARES = (0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 1.0)
BATCH = 0.05
TOKENIZER_FLOPS = 2.5e12
POLICIES = ("next", "random", "cheapest first", "successive halving")


class Run(NamedTuple):
    """A run of a synthetic world."""

    family: str
    size: str
    seed: int
    images: float


class World:
    """A truth with its luck: what any run would measure, the same however often it is asked."""

    def __init__(self, number: int, flops: float, sizes: tuple[str, ...] = ("XS", "S")) -> None:
        self.number, self.flops, self.sizes = number, flops, sizes
        self.truth = Truth.drawn(np.random.default_rng((number, 21)))
        self.kinds = {name_of(kind): kind for kind in KINDS}
        self.pairs = [(f, z) for f in self.kinds for z in sizes]

    def each(self, family: str, size: str) -> float:
        codes, tokens, _ = self.kinds[family]
        return per_image(codes, tokens, size)

    def longest(self, family: str, size: str) -> float:
        """Images that the compute of the decision buys."""
        return self.flops / self.each(family, size)

    def cost(self, run: Run, trained: set[tuple[str, int]]) -> float:
        tokenizer = 0.0 if (run.family, run.seed) in trained else TOKENIZER_FLOPS
        return run.images * self.each(run.family, run.size) + tokenizer

    def _random(self, *what: object) -> np.random.Generator:
        return np.random.default_rng((self.number, *(abs(hash(str(w))) % 2**31 for w in map(_stable, what))))

    def gfid(self, run: Run, images: float) -> float:
        codes, tokens, weight = self.kinds[run.family]
        of_tokenizer = self._random(run.family, run.seed).normal(0, 1, 2)
        floor = self.truth.floor(codes, tokens, weight) * np.exp(TOKENIZER * of_tokenizer[0])
        x = self.truth.excess(codes, tokens, weight, SIZES[run.size][0], images)
        value = floor + self.truth.kappa * x**self.truth.gamma * np.exp(OWN_LUCK * of_tokenizer[1])
        trunk = self._random(run.family, run.size, run.seed).normal(0, TRUNK)
        return float(value * np.exp(trunk + self._random(*run, images).normal(0, FORK)))

    def truth_of(self, family: str, size: str) -> float:
        codes, tokens, weight = self.kinds[family]
        return float(self.truth.gfid(codes, tokens, weight, SIZES[size][0], self.longest(family, size)))

    def points(self, runs: list[Run]) -> pd.DataFrame:
        """Rows of these runs: each at its end, and at halves of it down to the shortest length."""
        rows = []
        for run in dict.fromkeys(runs):
            codes, tokens, weight = self.kinds[run.family]
            lengths = [run.images]
            while lengths[-1] / 2 >= FIRST[0] * 0.99:
                lengths.append(lengths[-1] / 2)
            each = self.each(run.family, run.size)
            rows += [
                {
                    "run_id": "-".join(map(str, run)), "family": run.family, "size": run.size,
                    "tokenizer_seed": run.seed, "seed": run.seed, "images": images, "path_flops": each * images,
                    "gfid": self.gfid(run, images), "flops_per_image": each, "tokenizer_flops": TOKENIZER_FLOPS,
                    "codebook_size": codes, "tokens_per_image": tokens, "regulariser_weight": weight,
                    "parameters_other": SIZES[run.size][0],
                    "rfid_floor": self.truth.floor(codes, tokens, weight)
                    * np.exp(TOKENIZER * self._random(run.family, run.seed).normal(0, 1, 2)[0]),
                }
                for images in lengths
            ]  # fmt: skip
        return pd.DataFrame(rows)

    def regret(self, runs: list[Run]) -> float:
        """By how much the true gFID of the pair decided for exceeds the lowest, in percent."""
        points = self.points(runs)
        best = best_pairs(points, self.flops, draws=1000, curves=pair_curves(points)).best
        values = {pair: self.truth_of(*pair) for pair in self.pairs if self.longest(*pair) >= FIRST[1]}
        return 100 * (values[best.family, best.size] / min(values.values()) - 1)


def _stable(value: object) -> str:
    """Text whose digest does not depend on the process."""
    from hashlib import sha256

    return str(int(sha256(repr(value).encode()).hexdigest()[:8], 16))


def spent(world: World, runs: list[Run]) -> float:
    """FLOPs of all runs and of the tokenizers that they need."""
    tokenizers = {(run.family, run.seed) for run in runs}
    return len(tokenizers) * TOKENIZER_FLOPS + sum(run.images * world.each(run.family, run.size) for run in runs)


def grid_of(world: World) -> list[Run]:
    """Every pair on every seed up to the compute of the decision."""
    usable = [pair for pair in world.pairs if world.longest(*pair) >= FIRST[1]]
    return [Run(f, z, s, world.longest(f, z)) for f, z in usable for s in range(GRID_SEEDS)]


def first_of(world: World) -> list[Run]:
    """What every policy begins with."""
    usable = [pair for pair in world.pairs if world.longest(*pair) >= FIRST[1]]
    return [Run(f, z, s, FIRST[1]) for f, z in usable for s in range(FIRST_SEEDS)]


def by_next(world: World, whole: float) -> Iterator[Run]:
    """The runs that next chooses, in batches of BATCH of the grid's compute."""
    runs = first_of(world)
    while True:
        points = world.points(runs)
        chosen = next_runs(points, pair_curves(points), world.flops, max(BATCH * whole, 3.2e12), most=3).runs
        new = [Run(r.family, r.size, r.seed, float(r.images)) for r in chosen]
        new = [run for run in new if run not in runs]
        if not new:
            return
        runs += new
        yield from new


def at_random(world: World, whole: float) -> Iterator[Run]:
    """Runs of the grid in a random order."""
    grid = grid_of(world)
    order = np.random.default_rng((world.number, 22)).permutation(len(grid))
    yield from (grid[i] for i in order)


def cheapest_first(world: World, whole: float) -> Iterator[Run]:
    """Shortest runs first, at doubled lengths."""
    runs = []
    for run in grid_of(world):
        length = 2 * FIRST[1]
        while length < run.images:
            runs.append(run._replace(images=length))
            length *= 2
        runs.append(run)
    yield from sorted(runs, key=lambda run: run.images * world.each(run.family, run.size))


def successive_halving(world: World, whole: float) -> Iterator[Run]:
    """All pairs at a fraction of the compute, the better half at four times that, until one is left at all of it."""
    usable = [pair for pair in world.pairs if world.longest(*pair) >= FIRST[1]]
    share = 4.0 ** -(np.ceil(np.log2(len(usable))) - 1)
    while usable:
        runs = [
            Run(f, z, s, max(world.longest(f, z) * min(share, 1.0), FIRST[1]))
            for f, z in usable
            for s in range(GRID_SEEDS)
        ]
        yield from runs
        if len(usable) == 1:
            return
        means = {pair: np.mean([world.gfid(r, r.images) for r in runs if r[:2] == pair]) for pair in usable}
        usable = sorted(usable, key=lambda pair: means[pair])[: max(len(usable) // 2, 1)]
        share *= 4


CHOICES: dict[str, Callable[[World, float], Iterator[Run]]] = dict(
    zip(POLICIES, (by_next, at_random, cheapest_first, successive_halving), strict=True)
)


def course(world: World, policy: str) -> tuple[list[float], float]:
    """Regret in percent at each of SHARES of the grid's compute, and the share at which the policy ended."""
    whole = spent(world, grid_of(world))
    runs = first_of(world)
    regrets: list[float] = []
    source = CHOICES[policy](world, whole)
    pending = next(source, None)
    for share in SHARES:
        moved = not regrets
        while pending is not None and spent(world, [*runs, pending]) <= share * whole * (1 + 1e-9):
            runs.append(pending)
            moved, pending = True, next(source, None)
        regrets.append(world.regret(runs) if moved else regrets[-1])
    return regrets, spent(world, runs) / whole


EVERY = 25
"""Truths after which a table is printed."""


def synthetic(count: int) -> Iterator[str]:
    """Tables of mean regret by share of the grid's compute, and the share at which each reaches the grid's: every
    EVERY truths and at the end."""
    of_grid: list[float] = []
    courses: dict[str, list[tuple[list[float], float]]] = {policy: [] for policy in POLICIES}
    for i in range(count):
        flops = float(f"{np.exp(np.random.default_rng((i, 23)).uniform(np.log(2e12), np.log(2e13))):.2e}")
        world = World(i, flops)
        of_grid.append(world.regret(grid_of(world)))
        for policy in POLICIES:
            courses[policy].append(course(world, policy))
        if (i + 1) % EVERY == 0 or i + 1 == count:
            yield _table(of_grid, courses)


def _table(of_grid: list[float], courses: dict[str, list[tuple[list[float], float]]]) -> str:
    grid = float(np.mean(of_grid))
    lines = [f"{len(of_grid)} truths; regret of the full grid's decision {grid:.2f} %"]
    lines.append("policy              " + "".join(f"{share:8.0%}" for share in SHARES) + "   ended  needed")
    for policy, ways in courses.items():
        means = np.array([regrets for regrets, _ in ways]).mean(axis=0)
        # From this share on the mean stays within a tenth of the grid's.
        above = [i for i, mean in enumerate(means) if mean > 1.1 * grid + 0.02]
        needed = "more" if above and above[-1] + 1 == len(SHARES) else f"{SHARES[above[-1] + 1 if above else 0]:.0%}"
        ended = np.mean([share for _, share in ways])
        lines.append(f"{policy:20}" + "".join(f"{m:8.2f}" for m in means) + f"{ended:8.0%}  {needed}")
    return "\n".join(lines)


COSTS = {"moe": "N*E", "farseer": "N*D", "data_constrained": "N*D", "lr_bsz": "P*D"}
PARTS = (0.01, 0.05, 0.1)
ROUNDS = 6
START, START_PART = 1.5, 0.2
"""Rows a parameter with which the choice begins, spread over what a part of the budget pays for."""


class Task(NamedTuple):
    """A task of the benchmark with one of its laws: rows to choose from, rows to predict, the law, costs (sum 1)."""

    train: pd.DataFrame
    test: pd.DataFrame
    law: str
    columns: dict[str, str]
    price: str

    @property
    def costs(self) -> np.ndarray:
        """Cost of each row of `train`, as a part of the cost of all."""
        cost = np.prod([self.train[name].to_numpy(float) for name in self.price.split("*")], axis=0)
        return cost / cost.sum()

    def request(self, rows: list[int]) -> FitRequest:
        """A fit to some of the rows."""
        return FitRequest(self.train.loc[rows], self.law, columns=self.columns, metric="y")

    def score(self, rows: list[int]) -> float:
        """R2 on the test rows of the law fitted to these, clipped to [-1, 1]; -1 where there is no fit."""
        columns = {role: self.test[name].to_numpy(float) for role, name in self.columns.items()}
        try:
            predicted = self.request(rows).fit().predict(columns)
        except TokenlawError:
            return -1.0
        y = self.test["y"].to_numpy(float)
        r2 = 1 - float(np.sum((predicted - y) ** 2) / np.sum((y - y.mean()) ** 2))
        return float(np.clip(r2, -1, 1)) if np.isfinite(r2) else -1.0


def spread_rows(task: Task, count: int, part: float) -> list[int]:
    """`count` rows that are far from each other in the logarithms of the columns, none of more than its share of the
    part; the cheapest where so many are not that cheap."""
    cost = task.costs
    cheap = np.flatnonzero(cost <= part / count)
    if len(cheap) < count:
        return [int(i) for i in np.argsort(cost, kind="stable")[:count]]
    logs = np.log(task.train.loc[cheap, list(task.columns.values())].to_numpy(float))
    logs /= np.maximum(np.ptp(logs, axis=0), 1e-9)
    taken = [int(cost[cheap].argmax())]
    while len(taken) < count:
        distances = np.square(logs[:, None] - logs[taken][None]).sum(axis=-1).min(axis=1)
        taken.append(int(distances.argmax()))
    return [int(cheap[i]) for i in taken]


def chosen_rows(task: Task, part: float) -> list[int]:
    """Rows that next chooses for a part of the cost of all, in ROUNDS, each fitted to what is there."""
    cost = task.costs
    parameters = len(task.request([0, 1]).one_law.law.parameters)
    rows = spread_rows(task, math.ceil(START * parameters), START_PART * part)
    spent = float(cost[rows].sum())
    for turn in range(ROUNDS):
        left = part - spent
        others = np.array([i for i in range(len(cost)) if i not in rows and cost[i] <= left])
        if not len(others):
            break
        share = max(left / (ROUNDS - turn), cost[others].min())
        candidates = task.train.loc[others].assign(cost=cost[others])
        try:
            chosen = next_rows(task.request(rows), candidates, task.test, "cost", share)
            new = [int(others[choice.option]) for choice in chosen.choices]
        except TokenlawError:
            # Where the law cannot be fitted yet, the cheapest of what is left.
            new = [int(i) for i in others[np.argsort(cost[others], kind="stable")][:parameters]]
        new = [i for i, total in zip(new, np.cumsum(cost[new]), strict=True) if spent + total <= part * (1 + 1e-9)]
        spent += float(cost[new].sum())
        rows += new
    return rows


def random_rows(task: Task, part: float, number: int) -> list[int]:
    """Rows in a random order, those that fit."""
    cost, rows, spent = task.costs, [], 0.0
    for i in np.random.default_rng((number, 24)).permutation(len(cost)):
        if spent + cost[i] <= part:
            rows.append(int(i))
            spent += cost[i]
    return rows


def scalebench(name: str) -> str:
    """Mean R2 of the laws of a task at each of PARTS of the cost of all rows, chosen and at random, and of all rows."""
    with (HERE / "scalebench.toml").open("rb") as file:
        about = tomllib.load(file)[name]
    train, test = (pd.read_parquet(DATA / "scalebench" / f"{name}_{split}.parquet") for split in ("train", "test"))
    names = {v: k for k, v in about["columns"].items()} | {about["metric"]: "y"}
    train, test = (t.rename(columns=names)[list(names.values())].reset_index(drop=True) for t in (train, test))
    scores: dict[str, list[float]] = {}
    for number, law in enumerate(about["laws"]):
        task = Task(train, test, law, {name: name for name in about["columns"]}, COSTS[name])
        for part in PARTS:
            scores.setdefault(f"{part:.0%} chosen", []).append(task.score(chosen_rows(task, part)))
            scores.setdefault(f"{part:.0%} at random", []).append(task.score(random_rows(task, part, number)))
        scores.setdefault("all", []).append(task.score(list(range(len(train)))))
        print(f"  {law}: " + " ".join(f"{values[-1]:.2f}" for values in scores.values()), flush=True)
    words = "  ".join(f"{how} {np.mean(v):.2f}" for how, v in scores.items())
    return f"{name}: {words}  ({len(about['laws'])} laws, {len(train)} rows)"


def main() -> None:
    """Print the table of what is named."""
    what, *rest = sys.argv[1:] or ["synthetic"]
    if what == "synthetic":
        for table in synthetic(int((rest or ["200"])[0])):
            print(table, flush=True)
    elif what == "scalebench":
        for task in rest or list(COSTS):
            print(scalebench(task), flush=True)
    else:
        raise SystemExit(f"{what!r} is not allowed; allowed: synthetic, scalebench")


if __name__ == "__main__":
    main()
