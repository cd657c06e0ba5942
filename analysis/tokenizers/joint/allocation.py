"""What the joint law would train: rate, size and images at a compute, and tokenizers that were not trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.fitting.result import ParameterEstimate
from analysis.inference.bootstrap import percentiles
from results.errors import FitError, UsageError

from ..compute import Compute
from ..rows import Record
from .fitting import JointFit

Array = np.ndarray

STEP = 0.25
"""In log2 of K, of the rates that are searched."""
SIZES = 25
DRAWS = 1000
MOST_KINDS = 400
AT_END = 0.25
"""An optimum of which so many draws lie at the end of what is searched is said to lie there or beyond."""


@dataclass(frozen=True)
class Tokenizer(Record):
    """A tokenizer by what the law knows of it: codes K, tokens T, weight of the causal regulariser."""

    codes: float
    tokens: float
    weight: float = 0.0

    @property
    def name(self) -> str:
        """For people, as families are named."""
        return f"K{self.codes:g}-T{self.tokens:g}" + (f"-crt{self.weight:g}" if self.weight else "")

    @property
    def rate(self) -> float:
        """Bits per image."""
        return self.tokens * math.log2(self.codes)

    @classmethod
    def read(cls, text: str) -> Tokenizer:
        """Of `codes=256,tokens=16` or `codes=256,tokens=16,weight=0.25`; raises UsageError for anything else."""
        allowed = "allowed: codes=256,tokens=16 and, if wanted, weight=0.25"
        values = {}
        for item in text.split(","):
            name, sign, value = (part.strip() for part in item.partition("="))
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            least = {"codes": 2.0, "tokens": 1.0, "weight": 0.0}.get(name)
            if not sign or least is None or not (math.isfinite(number) and number >= least):
                raise UsageError(f"candidate = {text!r} is not allowed; {allowed}")
            values[name] = number
        if not {"codes", "tokens"} <= set(values):
            raise UsageError(f"candidate = {text!r} is not allowed; {allowed}")
        return cls(**values)


@dataclass(frozen=True)
class Prices:
    """FLOPs of one training image, 6 T (N + d K) + r T^2, for each size of the study: N, width d and what attention
    and norms add, r, as measured; sizes rise with N. And of training a tokenizer: `stage1` by rate, without the causal
    regulariser, and how many times that it costs with one (`regularised`; None: the study has no two to compare, and
    all are taken to cost alike)."""

    sizes: tuple[str, ...]
    params: Array
    width: Array
    rest: Array
    stage1: pd.Series
    regularised: float | None
    compute: Compute

    @classmethod
    def of(cls, table: pd.DataFrame, compute: Compute) -> Prices:
        """Raises FitError where widths or FLOPs per image are not known."""
        known = table[table["width"].notna() & table["flops_per_image"].notna()]
        lacking = sorted(set(table["size"]) - set(known["size"]))
        if lacking:
            raise FitError(f"what other tokenizers would cost is not known: no width or FLOPs of {', '.join(lacking)}")
        head = 6 * known["tokens"] * (known["params"] + known["width"] * known["codes"])
        rows = known.assign(rest=(known["flops_per_image"] - head) / known["tokens"] ** 2)
        each = rows.groupby("size")[["params", "width", "rest"]].median().sort_values("params")
        stage1, regularised = _stage1(known)
        params, width, rest = (each[name].to_numpy(dtype=float) for name in ("params", "width", "rest"))
        return cls(tuple(map(str, each.index)), params, width, rest, stage1, regularised, compute)

    def per_image(self, params: Array, codes: Array, tokens: Array) -> Array:
        """FLOPs of a training image; width and rest between sizes by interpolation in ln N."""
        at, x = np.log(params), np.log(self.params)
        width, rest = np.exp(np.interp(at, x, np.log(self.width))), np.interp(at, x, self.rest)
        return 6 * tokens * (params + width * codes) + rest * tokens**2

    def tokenizer(self, rate: Array, weight: Array) -> Array:
        """FLOPs of training a tokenizer, interpolated between the rates of those trained; with the causal regulariser
        where its weight is above 0."""
        if self.stage1.empty:
            return np.full(np.shape(rate), np.nan)
        return _between(self.stage1, rate) * np.where(np.asarray(weight) > 0, self.regularised or 1.0, 1.0)

    def assumed(self, tokenizers: Sequence[Tokenizer], table: pd.DataFrame) -> str | None:
        """What is assumed of the FLOPs of these tokenizers' training, by the table of those trained; None: nothing."""
        if self.regularised is not None or {t.weight > 0 for t in tokenizers} <= set(table["weight"] > 0):
            return None
        lacks = "without" if (table["weight"] > 0).all() else "with"
        return f"no tokenizer {lacks} the causal regulariser was trained: it is taken to cost what the others do"

    def images(self, flops: float, params: Array, codes: Array, tokens: Array, weight: Array) -> Array:
        """Training images that a compute buys; 0 or less where none are left."""
        each = self.per_image(params, codes, tokens)
        other = np.zeros_like(each)
        if self.compute.total:
            other += self.tokenizer(tokens * np.log2(codes), weight) / self.compute.generators
        if self.compute.serve:
            other += (2.0 if self.compute.guided else 1.0) * self.compute.serve * each / 3
        return (flops - other) / each


def _stage1(table: pd.DataFrame) -> tuple[pd.Series, float | None]:
    """`stage1` and `regularised` of the prices: the median ratio over rates at which tokenizers were trained with and
    without the regulariser, else over those of any with it, the others' price interpolated there."""
    each = table[table["tokenizer_flops"].notna()].drop_duplicates("tokenizer")
    with_it = each["weight"] > 0
    plain, dear = (rows.groupby("rate")["tokenizer_flops"].median() for rows in (each[~with_it], each[with_it]))
    if plain.empty or dear.empty:
        return (dear if plain.empty else plain), None
    shared = dear[dear.index.isin(plain.index)]
    compared = dear if shared.empty else shared
    return plain, float(np.median(compared.to_numpy(dtype=float) / _between(plain, compared.index.to_numpy(float))))


def _between(prices: pd.Series, rate: Array) -> Array:
    """Prices by rate, interpolated in ln rate; beyond the rates known those at their ends."""
    return np.interp(np.log(rate), np.log(prices.index.to_numpy(dtype=float)), prices.to_numpy(dtype=float))


@dataclass(frozen=True)
class JointOptimum(Record):
    """R*(C) in bits per image, N*(C), D*(C) and gFID there with 95 % intervals, the share of stage 1 in the compute of
    both stages (None: not known), and `warnings`."""

    flops: float
    rate: ParameterEstimate
    params: ParameterEstimate
    images: ParameterEstimate
    gfid: ParameterEstimate
    stage1_share: ParameterEstimate | None
    warnings: tuple[str, ...]
    rate_draws: Array = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready fields."""
        names = ("rate", "params", "images", "gfid", "stage1_share")
        estimates = {name: getattr(self, name) for name in names}
        plain = {name: None if e is None else e.to_json() for name, e in estimates.items()}
        return {"flops": self.flops, **plain, "warnings": list(self.warnings)}


def joint_optimum(fitted: JointFit, prices: Prices, flops: float, seed: int = 0) -> JointOptimum:
    """The lowest gFID that a compute buys by the law, over rates, sizes and images within what was measured.

    Rates are searched at every number of tokens that was trained, K in steps of a quarter of a bit between the smallest
    and the largest codebook, without the regulariser; N between the smallest and the largest size. Each draw of the law
    has its optimum; intervals are their quantiles. Raises FitError where rates do not vary, floors are not known, or
    the compute buys nothing.
    """
    table = fitted.table
    plain = table[table["weight"] == 0] if (table["weight"] == 0).any() else table
    if plain["rate"].nunique() < 2:
        raise FitError("one rate alone was trained: the best rate cannot be known")
    ends = np.log2([plain["codes"].min(), plain["codes"].max()])
    bits = np.arange(ends[0], ends[1] + STEP / 2, STEP) if ends[1] > ends[0] else ends[:1]
    sizes = np.geomspace(prices.params[0], prices.params[-1], SIZES if len(prices.params) > 1 else 1)
    weight = float(plain["weight"].iloc[0])
    grid = pd.DataFrame(
        [(2.0**b, t, n) for t in sorted(set(plain["tokens"])) for b in bits for n in sizes],
        columns=["codes", "tokens", "params"],
    ).assign(weight=weight)
    grid["rate"] = grid["tokens"] * np.log2(grid["codes"])
    # Rates between those trained with one number of tokens belong to the law as well; those outside do not.
    grid = grid[(grid["rate"] >= plain["rate"].min() * 0.999) & (grid["rate"] <= plain["rate"].max() * 1.001)]
    columns = (grid[name].to_numpy(dtype=float) for name in ("params", "codes", "tokens", "weight"))
    grid["images"] = prices.images(flops, *columns)
    grid = grid[grid["images"] > table["images"].min() / 4].reset_index(drop=True)
    if grid.empty:
        raise FitError(f"{flops:.3g} FLOPs buy less than a quarter of the shortest run of anything")
    values = fitted.draws(grid, DRAWS, seed)
    middle = fitted.predict(grid, fitted.floors.predict(grid, fitted.centre))  # type: ignore[union-attr]
    best, at = values.argmin(axis=1), int(middle.argmin())
    rows = np.arange(len(values))

    def estimate(value: float, draws: Array) -> ParameterEstimate:
        return ParameterEstimate(value, float(np.std(draws)), *percentiles(draws, 0.95).tolist())

    facts = {name: grid[name].to_numpy(dtype=float) for name in ("rate", "params", "images")}
    stage1 = prices.tokenizer(facts["rate"], grid["weight"].to_numpy(dtype=float))
    share = stage1 / (stage1 + prices.compute.generators * flops)
    if prices.compute.total:
        share = stage1 / prices.compute.generators / flops
    warnings = []
    for name, words in (("rate", "R*"), ("params", "N*")):
        low, high = facts[name].min(), facts[name].max()
        for end, where in ((low, "the smallest"), (high, "the largest")):
            if low < high and np.mean(np.abs(facts[name][best] / end - 1) < 1e-6) > AT_END:
                warnings.append(f"{words} lies at {where} that was trained ({end:.4g}) or beyond")
    most = float(table["images"].max())
    if facts["images"][at] > 1.001 * most:
        warnings.append(f"D* is {facts['images'][at] / most:.2g} times the longest run: an extrapolation by the law")
    return JointOptimum(
        flops=float(flops),
        **{name: estimate(float(v[at]), v[best]) for name, v in facts.items()},
        gfid=estimate(float(middle[at]), values[rows, best]),
        stage1_share=None if np.isnan(share).any() else estimate(float(share[at]), share[best]),
        warnings=tuple(warnings),
        rate_draws=facts["rate"][best],
    )


def candidates(table: pd.DataFrame) -> list[Tokenizer]:
    """Tokenizers that were not trained, within what was: powers of two for K between the smallest and the largest, at
    each number of tokens and each weight of the regulariser."""
    trained = {(r.codes, r.tokens, r.weight) for r in table.drop_duplicates("family").itertuples()}
    low, high = math.ceil(np.log2(table["codes"].min()) - 1e-9), math.floor(np.log2(table["codes"].max()) + 1e-9)
    kinds = [
        (2.0**b, float(t), float(w))
        for t in sorted(set(table["tokens"]))
        for b in range(low, high + 1)
        for w in sorted(set(table["weight"]))
    ]
    rates = table["rate"].min() * 0.999, table["rate"].max() * 1.001
    new = [Tokenizer(*kind) for kind in kinds if kind not in trained]
    return [t for t in new if rates[0] <= t.rate <= rates[1]][:MOST_KINDS]


def untrained_draws(
    fitted: JointFit,
    prices: Prices,
    tokenizers: Sequence[Tokenizer],
    flops: float,
    misfit: tuple[float, int],
    count: int,
    seed: int = 0,
) -> tuple[pd.DataFrame, Array]:
    """Every tokenizer with every size of the study that a compute can train: a table of family, size, codes, tokens,
    weight, rate, params and images, and draws (count, rows) of ln gFID.

    misfit: by how much ln gFID is off for a tokenizer that the law has not seen, as a scale and the degrees of freedom
    of a Student t. Half of its variance is one draw for all of them: between the rates that were trained errors of form
    go the same way. Only rows whose images reach the shortest run of the study are kept.
    """
    rows = pd.DataFrame(
        [
            (t.name, size, t.codes, t.tokens, t.weight, t.rate, n)
            for t in tokenizers
            for size, n in zip(prices.sizes, prices.params.tolist(), strict=True)
        ],
        columns=["family", "size", "codes", "tokens", "weight", "rate", "params"],
    )
    if rows.empty:
        return rows.assign(images=[]), np.empty((count, 0))
    columns = (rows[name].to_numpy(float) for name in ("params", "codes", "tokens", "weight"))
    rows["images"] = prices.images(flops, *columns)
    rows = rows[rows["images"] >= fitted.table["images"].min()].reset_index(drop=True)
    if rows.empty:
        return rows, np.empty((count, 0))
    kind, _ = pd.factorize(rows["family"])
    random, (scale, df) = np.random.default_rng((seed, 72)), misfit
    spread = scale * np.sqrt(df / random.chisquare(df, size=(count, 1)) / 2)
    off = spread * (random.standard_normal((count, int(kind.max()) + 1)) + random.standard_normal((count, 1)))
    return rows, np.log(fitted.draws(rows, count, seed)) + off[:, kind]
