"""Which runs a study should add before it decides at a compute: longer ones, further seeds, tokenizers not trained.

A pair's gFID at the compute is H + E: what its tokenizers have shown (hierarchy.py) and how far its law may be off
there (pair_laws.py). A longer run on a tokenizer that the study has measures E, up to the noise of a run; a run on a
new tokenizer seed measures H + E with the luck of that tokenizer; a tokenizer not trained stands by the joint law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.allocation.next_runs import Choice, Criterion, Option, choose
from results.errors import FitError

from .joint.allocation import candidates, joint_optimum, untrained_draws
from .joint.answer import MISFIT_DF, JointAnswer
from .pair_laws import LAW_DRAWS, PairCurves
from .rows import Record
from .standing import Standing

Array = np.ndarray

DRAWS = LAW_DRAWS
USUAL_SD = 0.06
"""Between runs of a pair, in ln gFID, where no pair was run twice."""
RUN_SHARE = 0.5
"""Of that deviation what runs on one tokenizer differ by."""
DOUBLINGS = 6
MOST_NEW_SEEDS = 3


@dataclass(frozen=True)
class NextRun(Record):
    """A generator run to add: its pair, seed and training images; `trains_tokenizer` where its tokenizer has to be
    trained first; `like` names the family whose configuration it follows (its own, or for a tokenizer not trained the
    nearest). `cost` in FLOPs, its tokenizer included where it is the first run to need it."""

    family: str
    size: str
    seed: int
    images: int
    cost: float
    trains_tokenizer: bool
    like: str
    codes: float
    weight: float
    why: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.family} + {self.size} seed {self.seed}"


@dataclass(frozen=True)
class NextRuns(Record):
    """The runs to add for a budget, first what gives most per FLOP, and the criterion now and as it is expected after
    each. `criterion`: `regret` (of ln gFID) or `variance` (of ln R*)."""

    flops: float
    budget: float
    criterion: str
    now: float
    runs: tuple[NextRun, ...]
    after: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def cost(self) -> float:
        """FLOPs of all of them."""
        return sum(run.cost for run in self.runs)


@dataclass
class _Beliefs:
    """Draws of the decision (columns of `values`) and of what runs would measure, in the making."""

    values: list[Array]
    observed: list[Array]
    noise: list[float]
    options: list[Option]
    runs: list[NextRun]

    def add(self, run: NextRun, sees: Array, noise: float, needs: str | None, generator: float) -> None:
        self.options.append(Option(run.name, generator, (len(self.observed),), needs))
        self.observed.append(sees)
        self.noise.append(noise)
        self.runs.append(run)


def next_runs(
    points: pd.DataFrame,
    curves: Sequence[PairCurves],
    flops: float,
    budget: float,
    *,
    joint: JointAnswer | None = None,
    criterion: Criterion = "regret",
    most: int = 50,
    seed: int = 0,
) -> NextRuns:
    """What to run for `budget` FLOPs so that the decision at compute `flops` is expected to lose least.

    points: as `StudyFrames.ranked`, with flops_per_image and tokenizer_flops. joint: of the study, for tokenizers not
    trained and, with criterion "variance", for R*. Raises FitError where no pair can be judged or costs are not known.
    """
    notes: list[str] = []
    beliefs = _Beliefs([], [], [], [], [])
    standing = Standing.at(curves, flops, DRAWS, seed)
    sd = standing.sd
    if sd is None or standing.drawn is None:
        sd = USUAL_SD
        notes.append(f"no pair was run twice: {100 * USUAL_SD:.0f} % between runs of a pair is assumed")
        random = np.random.default_rng((seed, 74))
        drawn = standing.mean + sd * random.standard_normal((DRAWS, len(standing.mean)))
    else:
        drawn = standing.drawn
    costs, batches = _costs(points), _batches(points)
    prices: dict[str, float] = {}
    for column, pair in enumerate(standing.judged):
        beliefs.values.append(drawn[:, column])
        each, tokenizer, codes, weight = costs[pair.family, pair.size]
        law = pair.law
        seeds = sorted({c.tokenizer_seed for c in pair.curves})
        of_family = sorted(set(points.loc[points["family"] == pair.family, "tokenizer_seed"].astype(int)))
        target = [c.training(flops) for c in pair.curves]
        at_end = law.draws(target, DRAWS, seed + column).mean(axis=1) if standing.extrapolated[column] else None
        longest = max(float(np.exp(c.x[-1])) for c in pair.curves)
        for length in _lengths(longest, math.exp(max(target)), each, batches[pair.size]):
            x = math.log(length * each)
            error = np.zeros(DRAWS)
            if x > math.log(longest) + 1e-6 and at_end is not None:
                beyond = law.draws([x] * len(pair.curves), DRAWS, seed + column).mean(axis=1)
                error = beyond - beyond.mean()
            of_end = at_end - at_end.mean() if at_end is not None else np.zeros(DRAWS)
            pair_alone = drawn[:, column] - drawn[:, column].mean() - np.resize(of_end, DRAWS)
            common = (pair.family, codes, weight)
            if error.any():
                for s in seeds:
                    run = _run(pair, s, length, each * length, False, common, "longer than any run of the pair")
                    beliefs.add(run, error, (RUN_SHARE * sd) ** 2, None, each * length)
            new = [s for s in of_family if s not in seeds]
            fresh = max(of_family) + 1
            for s in [*new, *range(fresh, fresh + MOST_NEW_SEEDS)]:
                trains = s >= fresh
                needs = f"{pair.family} seed {s}" if trains else None
                if needs:
                    prices[needs] = tokenizer
                why = "a further tokenizer seed" if trains else "a seed that this size lacks"
                run = _run(pair, s, length, each * length, trains, common, why)
                beliefs.add(run, pair_alone + error, sd**2, needs, each * length)
    if joint is not None and joint.unpredicted is not None:
        notes.append(f"no tokenizer that was not trained is looked at: {joint.unpredicted}")
    elif joint is not None:
        _add_untrained(beliefs, prices, joint, points, batches, flops, sd, seed)
    values = np.column_stack(beliefs.values)
    if criterion == "variance":
        if joint is None or joint.prices is None or joint.fitted.drawn is None:
            raise FitError("R* needs a joint law over tokenizers, which this study does not have")
        values = _rates(joint, flops, seed, beliefs)
    if not beliefs.options:
        return NextRuns(flops, budget, criterion, 0.0, (), (), ("no run is known that would add anything",))
    observed = np.column_stack(beliefs.observed)
    chosen = choose(
        beliefs.options, values, observed, np.array(beliefs.noise), budget,
        criterion=criterion, price_of_needs=prices, most=most, seed=seed,
    )  # fmt: skip
    now = chosen[0].before if chosen else 0.0
    if not chosen:
        cheapest = min(option.cost for option in beliefs.options)
        notes.append(
            f"no run fits: the cheapest that would tell something costs {cheapest:.3g} FLOPs"
            if cheapest > budget
            else "no run would change the decision"
        )
    runs = tuple(_priced(beliefs.runs[c.option], c) for c in chosen)
    return NextRuns(flops, budget, criterion, now, runs, tuple(c.after for c in chosen), tuple(notes))


def _priced(run: NextRun, choice: Choice) -> NextRun:
    values = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return NextRun(**{**values, "cost": choice.cost})


def _run(
    pair: PairCurves, seed: int, images: float, cost: float, trains: bool, common: tuple[str, float, float], why: str
) -> NextRun:
    like, codes, weight = common
    return NextRun(pair.family, pair.size, seed, round(images), cost, trains, like, codes, weight, why)


def _costs(points: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """FLOPs of a training image, of the tokenizer, codes and weight of the regulariser, of each pair."""
    known = points.assign(
        weight=points["regulariser_weight"].astype(float).fillna(0.0), codes=points["codebook_size"].astype(float)
    )
    table = known.groupby(["family", "size"])[["flops_per_image", "tokenizer_flops", "codes", "weight"]].median()
    lacking = table[table["flops_per_image"].isna() | table["tokenizer_flops"].isna()]
    if len(lacking):
        raise FitError(f"what runs cost is not known of {' + '.join(map(str, lacking.index[0]))}")
    return {
        (str(family), str(size)): tuple(float(v) for v in row)  # type: ignore[misc]
        for (family, size), row in zip(table.index, table.to_numpy(dtype=float), strict=True)
    }


def _batches(points: pd.DataFrame) -> dict[str, float]:
    """Images of a batch by generator size; 1 where it is not known."""
    known = points.assign(batch=points["batch_size"].astype(float) if "batch_size" in points else 1.0)
    each = known.groupby("size")["batch"].max().fillna(1.0)
    return dict(zip(map(str, each.index), each.tolist(), strict=True))


def _whole(images: float, batch: float) -> float:
    """The images of a run of whole batches: what it trains on and costs."""
    return math.ceil(images / batch - 1e-9) * batch


def _lengths(longest: float, most: float, each: float, batch: float) -> list[float]:
    """Training images of runs to consider: doublings of the pair's longest, and what the budget buys, from FLOPs."""
    if most <= longest * 1.001:
        return [_whole(most / each, batch)]
    doubled = [longest * 2.0**i for i in range(1, DOUBLINGS + 1)]
    return [_whole(x / each, batch) for x in (*(x for x in doubled if x < most * 0.75), most)]


def _add_untrained(
    beliefs: _Beliefs,
    prices: dict[str, float],
    joint: JointAnswer,
    points: pd.DataFrame,
    batches: dict[str, float],
    flops: float,
    sd: float,
    seed: int,
) -> None:
    """Tokenizers not trained, on a seed of their own, each with every size that the compute can train."""
    assert joint.prices is not None
    told = joint.fitted.identified.names
    kinds = candidates(joint.fitted.table) if told & {"p", "q"} else []
    misfit = (joint.misfit, MISFIT_DF + joint.tested)
    rows, drawn = untrained_draws(joint.fitted, joint.prices, kinds, flops, misfit, DRAWS, seed)
    first = points.drop_duplicates("family")
    for i in range(len(rows)):
        row = rows.iloc[i]
        alike = first[
            (first["tokens_per_image"].astype(float) == float(row["tokens"]))
            & ((first["regulariser_weight"].astype(float).fillna(0.0) > 0) == (float(row["weight"]) > 0))
        ]
        if alike.empty:
            continue
        nearest = alike.iloc[int(np.argmin(np.abs(np.log(alike["codebook_size"].astype(float) / float(row["codes"])))))]
        beliefs.values.append(drawn[:, i])
        each = float(joint.prices.per_image(*(np.array([float(row[n])]) for n in ("params", "codes", "tokens")))[0])
        images = _whole(float(row["images"]), batches[str(row["size"])])
        needs = f"{row['family']} seed 0"
        rate, weight = (np.array([float(row[name])]) for name in ("rate", "weight"))
        prices[needs] = float(joint.prices.tokenizer(rate, weight)[0])
        run = NextRun(
            str(row["family"]), str(row["size"]), 0, round(images), each * images, True, str(nearest["family"]),
            float(row["codes"]), float(row["weight"]), "a tokenizer not trained, by the joint law",
        )  # fmt: skip
        beliefs.add(run, drawn[:, i], sd**2, needs, each * images)


def _rates(joint: JointAnswer, flops: float, seed: int, beliefs: _Beliefs) -> Array:
    """Draws (DRAWS, 1) of ln R*, and what runs would measure by the same draws of the joint law, in the place of what
    `beliefs` holds."""
    assert joint.prices is not None
    best = joint_optimum(joint.fitted, joint.prices, flops, seed)
    rates = np.log(np.resize(best.rate_draws, DRAWS))
    rows = pd.DataFrame(
        [(run.size, run.codes, run.weight, run.images, run.like) for run in beliefs.runs],
        columns=["size", "codes", "weight", "images", "like"],
    )
    table = joint.fitted.table.drop_duplicates("family").set_index("family")
    sizes = dict(zip(joint.prices.sizes, joint.prices.params.tolist(), strict=True))
    rows["tokens"] = rows["like"].map(table["tokens"]).astype(float)
    rows["params"] = rows["size"].map(sizes).astype(float)
    rows["rate"] = rows["tokens"] * np.log2(rows["codes"])
    # Draw i of the optimum and of these is the same draw of the law.
    seen = np.log(joint.fitted.draws(rows, len(best.rate_draws), seed))
    beliefs.observed[:] = list(np.resize(seen, (DRAWS, seen.shape[1])).T)
    return rates[:, None]
