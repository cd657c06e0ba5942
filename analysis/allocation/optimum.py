"""Compute-optimal allocation: the N and D with the lowest predicted loss for a budget of FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.fitting.costs import Cost, PowerCost
from analysis.fitting.laws.law import Array
from analysis.fitting.result import STATUS_WORDS, FitResult, ParameterEstimate, Status, predict_with
from analysis.inference.bootstrap import percentiles
from results.errors import FitError, UsageError

LOWEST, HIGHEST = np.log(1e3), np.log(1e16)  # parameters searched where there is no closed form
GRID = 240
BELOW = np.log(1e3)  # how far below the fitted rows the search goes, where their unit is none of counts
SIZES = ("params_non_vocabulary", "params", "N")
LENGTHS = ("tokens", "D")
VOCABULARY = "params_vocabulary"
GIVEN, MEASURED, USUAL = "given", "measured", "6ND"  # where a cost comes from
MUCH = 1.2
"""Costs that differ by this factor are worth a word."""
FEWEST_PARAMS, FEWEST_TOKENS = 1e4, 1e5
"""Columns that nowhere reach these are not counts of parameters and tokens, but thousands, millions or billions."""


@dataclass(frozen=True)
class Allocation:
    """The optimum at one budget: N* parameters, D* tokens, the predicted loss, with intervals where there are draws.

    `params_exponent` is d log N* / d log C there, `tokens_exponent` that of D*. `cost_source` says where the cost comes
    from: "given", "measured" (by the fit, from its rows' FLOPs) or "6ND". For the vocabulary law params are the
    non-vocabulary ones, and `vocabulary` the best number of vocabulary parameters.
    """

    flops: float
    params: ParameterEstimate
    tokens: ParameterEstimate
    loss: ParameterEstimate
    params_exponent: ParameterEstimate
    tokens_exponent: ParameterEstimate
    closed_form: bool
    cost: str
    cost_source: str
    vocabulary: ParameterEstimate | None = None
    warnings: tuple[str, ...] = ()


def optimum(
    result: FitResult,
    flops: float,
    *,
    cost: Cost | None = None,
    draws: Array | None = None,
    fixed_columns: Mapping[str, float] | None = None,
    interval: float = 0.95,
) -> Allocation:
    """N*(C), D*(C) from a fitted law of parameters and tokens.

    cost: by default the one that the fit measured (`result.cost`), or C = 6ND where its rows had no FLOPs. draws:
    (R, p) coordinates (a bootstrap's) for intervals; default: those the result carries. fixed_columns: values of a
    law's other columns (unique_tokens). A law typed as a formula may call its columns params or N, tokens or D.
    Closed form for chinchilla and kaplan under a power cost: dL/dlogN / u = dL/dlogD / v along the budget; else a
    search over N. The vocabulary law is charged for N = Nnv + Nv, and the best Nv is found, unless
    fixed_columns has a value of params_vocabulary.

    Raises UsageError for a law without params and tokens or a budget that is not positive, FitError where the fit
    leaves the trade-off open (alpha or beta not identified).
    """
    law, fixed = result.law, fixed_columns or {}
    source = GIVEN if cost is not None else MEASURED if result.cost is not None else USUAL
    cost = cost or result.cost or PowerCost()
    sizes = [name for name in SIZES if name in law.columns]
    lengths = [name for name in LENGTHS if name in law.columns]
    if not sizes or not lengths:
        raise UsageError(f"law {law.name} has no trade-off of params and tokens; fit chinchilla or another such law")
    if not (np.isfinite(flops) and flops > 0):
        raise UsageError(f"flops={flops!r} is not a positive number")
    best_vocabulary = law.name == "vocabulary" and VOCABULARY not in fixed
    searched = (sizes[0], lengths[0], *([VOCABULARY] if best_vocabulary else []))
    missing = [c for c in law.columns if c not in searched and c not in fixed and c not in law.constant_columns]
    if missing:
        raise UsageError(f"law {law.name} needs a value for {missing[0]!r} at the optimum")
    for column in fixed:
        if column not in law.columns or column in searched:
            raise UsageError(f"law {law.name} takes no value for {column!r} at the optimum")
    lost = [name for name in result.not_identified if name != law.floor_parameter]
    if lost:
        raise FitError(f"the fit does not identify {', '.join(lost)}: the optimum could be anywhere")
    draws = result.draws if draws is None else draws
    theta = result.coordinates[None, :] if draws is None else np.vstack([result.coordinates, draws])
    closed = law.name in ("chinchilla", "kaplan") and isinstance(cost, PowerCost)
    choice = _Choice(result, theta, cost, sizes[0], lengths[0], fixed, best_vocabulary)
    if isinstance(cost, PowerCost) and closed:
        log_n, log_d, share = _closed(result, theta, flops, cost)
        _, by_tokens = cost.slopes(log_n, log_d)
        other = (1.0 - cost.params_power * share) / by_tokens
    else:
        step = 0.05  # the local exponents of a numerical optimum, by central differences in log C
        log_n, log_d = choice.search(flops)
        above, below = choice.search(flops * np.exp(step)), choice.search(flops * np.exp(-step))
        share, other = ((more - less) / (2 * step) for more, less in zip(above, below, strict=True))
    at = choice.columns(log_n[:, None], log_d[:, None])
    loss = predict_with(law, result.scales, theta, at)[:, 0]
    n, d = float(np.exp(log_n[0])), float(np.exp(log_d[0]))
    warnings = _warnings(result, flops, cost, source, {"N*": (sizes[0], n), "D*": (lengths[0], d)})
    vocabulary = None
    if best_vocabulary:
        vocabulary = np.asarray(at[VOCABULARY], dtype=float)[:, 0]
        warnings += _outside(result, {"Nv*": (VOCABULARY, float(vocabulary[0]))})
    if not closed and not choice.lowest + 0.01 < log_n[0] < HIGHEST - 0.01:
        warnings.append(
            f"N* is the end of the search ({np.exp(log_n[0]):.3g}): under this cost there is no inner optimum"
        )
    if law.floor_parameter in result.at_bound:
        warnings.append(f"{law.floor_parameter} lies at its bound of 0: the law has no floor in these data")

    def summary(values: Array) -> ParameterEstimate:
        if len(values) < 20:
            return ParameterEstimate(float(values[0]))
        ends = percentiles(values[1:], interval)
        return ParameterEstimate(float(values[0]), float(np.std(values[1:])), *ends.tolist())

    return Allocation(
        flops=float(flops),
        params=summary(np.exp(log_n)),
        tokens=summary(np.exp(log_d)),
        loss=summary(loss),
        params_exponent=summary(share),
        tokens_exponent=summary(other),
        closed_form=closed,
        cost=cost.describe() + (", N = Nnv + Nv" if VOCABULARY in law.columns else ""),
        cost_source=source,
        vocabulary=None if vocabulary is None else summary(vocabulary),
        warnings=tuple(warnings),
    )


def _closed(result: FitResult, theta: Array, flops: float, cost: PowerCost) -> tuple[Array, Array, Array]:
    p = result.scales.natural_at(result.law, theta)
    u, v = cost.params_power, cost.tokens_power
    log_c = np.log(flops / cost.coefficient)
    if result.law.name == "chinchilla":
        alpha, beta = p["alpha"], p["beta"]
        log_ratio = np.log(beta * p["B"] * u) - np.log(alpha * p["A"] * v)
    else:
        # L^(1/alpha_D) = (Nc/N)^(alpha_N/alpha_D) + Dc/D is monotone in L: two power terms again
        alpha, beta = p["alpha_N"] / p["alpha_D"], np.ones_like(p["alpha_D"])
        log_ratio = np.log(p["Dc"] * u) - np.log(alpha * v) - alpha * np.log(p["Nc"])
    # alpha A N^-alpha / u = beta B D^-beta / v with log C = log k + u log N + v log D
    with np.errstate(divide="ignore", invalid="ignore"):
        log_n = (beta * log_c - v * log_ratio) / (alpha * v + beta * u)
        log_d = (log_c - u * log_n) / v
        return log_n, log_d, beta / (alpha * v + beta * u)


def _tokens_for(cost: Cost, params: Array, flops: float) -> Array:
    """log D with cost(N, D) = flops, by bisection in log D; NaN where even no data costs more."""
    if isinstance(cost, PowerCost):
        return (np.log(flops / cost.coefficient) - cost.params_power * np.log(params)) / cost.tokens_power
    low, high = np.full(params.shape, -5.0), np.full(params.shape, 90.0)
    too_much = cost.flops(params, np.exp(low)) > flops
    for _ in range(70):
        middle = 0.5 * (low + high)
        over = cost.flops(params, np.exp(middle)) > flops
        high, low = np.where(over, middle, high), np.where(over, low, middle)
    return np.where(too_much, np.nan, low)


@dataclass(frozen=True)
class _Choice:
    """What a budget can buy: every N, with the D (and the vocabulary) that goes with it."""

    result: FitResult
    theta: Array
    cost: Cost
    size: str
    length: str
    fixed: Mapping[str, float]
    best_vocabulary: bool

    @property
    def lowest(self) -> float:
        """The logarithm of the smallest N that is searched."""
        smallest = self.result.ranges.get(self.size, (np.inf, np.inf))[0]
        return float(min(LOWEST, np.log(smallest) - BELOW))

    def vocabulary(self, log_n: Array) -> Array | float:
        """Parameters of the vocabulary (S, n) beside N non-vocabulary ones: the best, the given, or none counted.

        A parameter costs the same on either side, so that dL/dNnv = dL/dNv at the best.
        """
        if not self.best_vocabulary:
            return float(self.fixed.get(VOCABULARY, 0.0))
        p = {k: v[:, None] for k, v in self.result.scales.natural_at(self.result.law, self.theta).items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.log(p["alpha2"] * p["A2"]) - np.log(p["alpha1"] * p["A1"])
            return np.exp(np.clip((log_ratio + (p["alpha1"] + 1) * log_n) / (p["alpha2"] + 1), 0.0, HIGHEST))

    def columns(self, log_n: Array, log_d: Array) -> dict[str, ArrayLike]:
        """The law's columns at N and D (S, n)."""
        own = {VOCABULARY: self.vocabulary(log_n)} if self.best_vocabulary else {}
        return {self.size: np.exp(log_n), self.length: np.exp(log_d), **self.fixed, **own}

    def tokens_for(self, log_n: Array, flops: float) -> Array:
        """log D that a budget leaves for N (S, n)."""
        return _tokens_for(self.cost, np.exp(log_n) + self.vocabulary(log_n), flops)

    def search(self, flops: float) -> tuple[Array, Array]:
        """log N* and log D* (S,): a grid over log N, then grids around the best point four times finer each."""
        count, law = len(self.theta), self.result.law
        low, high = np.full(count, self.lowest), np.full(count, HIGHEST)
        best = np.zeros(count)
        least = self.result.ranges.get(self.length, (np.inf, np.inf))[0]
        for _ in range(9):
            grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID)[None, :]
            log_d = self.tokens_for(grid, flops)
            fine = np.isfinite(log_d) & (log_d > min(0.0, np.log(least) - BELOW))
            columns = self.columns(grid, np.where(fine, log_d, 0.0))
            with np.errstate(over="ignore"):
                values = predict_with(law, self.result.scales, self.theta, columns)
            values = np.where(fine & np.isfinite(values), values, np.inf)
            if not np.isfinite(values).any(axis=1).all():
                raise UsageError(
                    f"flops={flops:g} buys no model of at least {np.exp(self.lowest):,.4g} parameters under "
                    f"{self.cost.describe()}"
                )
            k = np.argmin(values, axis=1)
            best = grid[np.arange(count), k]
            width = (high - low) / (GRID - 1)
            low, high = np.maximum(best - 4 * width, self.lowest), np.minimum(best + 4 * width, HIGHEST)
            if np.max(width) < 1e-9:
                break
        return best, self.tokens_for(best[:, None], flops)[:, 0]


def _warnings(
    result: FitResult, flops: float, cost: Cost, source: str, best: Mapping[str, tuple[str, float]]
) -> list[str]:
    """What makes this optimum doubtful; best: label -> (column, value)."""
    seen = result.ranges
    out = []
    if result.status is Status.MAX_ITERATIONS:
        out.append(f"the fit ended at its {result.status.value.replace('_', ' ')}: {STATUS_WORDS[result.status]}")
    size, length = (column for column, _ in best.values())
    out += _countless(result, source, size, length)
    if {size, length} <= set(seen):
        most = float(cost.flops(_largest(result, size), seen[length][1]))
        largest = seen["flops"][1] if "flops" in seen else None
        if largest is not None and flops > 10 * largest:
            out.append(f"the budget is {flops / largest:.3g} times the largest fitted one: an extrapolation")
        elif largest is None and flops > most:
            out.append("the budget is beyond the largest model on the most tokens fitted: an extrapolation")
        if source != MEASURED and result.cost is not None:
            times = float(result.cost.flops(_largest(result, size), seen[length][1])) / most
            if not 1 / MUCH < times < MUCH:
                out.append(f"the rows' own FLOPs are {times:.3g} times those of {cost.describe()}")
    return out + _outside(result, best)


def _largest(result: FitResult, size: str) -> float:
    """The most parameters fitted, those of the vocabulary included."""
    vocabulary = result.ranges.get(VOCABULARY, (0.0, 0.0)) if size == SIZES[0] else (0.0, 0.0)
    return result.ranges[size][1] + vocabulary[1]


def _countless(result: FitResult, source: str, size: str, length: str) -> list[str]:
    """A warning for each column whose values are too small to be counts of parameters or tokens."""
    out = []
    for column, least in ((size, FEWEST_PARAMS), (length, FEWEST_TOKENS)):
        low, high = result.ranges.get(column, (np.inf, np.inf))
        if high < least:
            consequence = (
                "the optimum is in the same unit"
                if source == MEASURED
                else "the budget is not in FLOPs then: fit counts"
            )
            out.append(f"{column} runs from {low:,.4g} to {high:,.4g}, which cannot be counts: {consequence}")
    return out


def _outside(result: FitResult, best: Mapping[str, tuple[str, float]]) -> list[str]:
    out = []
    for label, (column, value) in best.items():
        low, high = result.ranges.get(column, (0.0, np.inf))
        if not low / 1.0001 <= value <= high * 1.0001:
            out.append(f"{label} = {value:.3g} lies outside the fitted rows ({low:.3g} to {high:.3g})")
    return out
