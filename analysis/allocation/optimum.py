"""Compute-optimal allocation: the N and D with the lowest predicted loss for a budget of FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.fitting.costs import Cost, PowerCost
from analysis.fitting.law import Array
from analysis.fitting.result import FitResult, ParameterEstimate, predict_with
from analysis.inference.bootstrap import percentiles
from results.errors import FitError, UsageError

LOWEST, HIGHEST = np.log(1e3), np.log(1e16)  # parameters searched where there is no closed form
GRID = 240


@dataclass(frozen=True)
class Allocation:
    """The optimum at one budget: N* parameters, D* tokens, the predicted loss, with intervals where there are draws.

    `params_exponent` is d log N* / d log C there, `tokens_exponent` that of D*. `extrapolation` is the factor by which
    the budget exceeds the largest of the fitted rows (None where unknown).
    """

    flops: float
    params: ParameterEstimate
    tokens: ParameterEstimate
    loss: ParameterEstimate
    params_exponent: ParameterEstimate
    tokens_exponent: ParameterEstimate
    closed_form: bool
    cost: str
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
    """N*(C), D*(C) from a fitted two-variable law under a cost, C = 6ND by default.

    draws: (R, p) coordinates (a bootstrap's) for intervals; default: those the result carries. fixed_columns: values
    of a law's other columns (unique_tokens, params_vocabulary). Closed form for chinchilla and kaplan under a power
    cost: dL/dlogN / u = dL/dlogD / v along the budget; else a search over N.

    Raises UsageError for a law without params and tokens or a budget that is not positive, FitError where the fit
    leaves the trade-off open (alpha or beta not identified).
    """
    cost, law, fixed = cost or PowerCost(), result.law, fixed_columns or {}
    first = "params_non_vocabulary" if "params_non_vocabulary" in law.columns else "params"
    if first not in law.columns or "tokens" not in law.columns:
        raise UsageError(f"law {law.name} has no trade-off of params and tokens; fit chinchilla or another such law")
    if not (np.isfinite(flops) and flops > 0):
        raise UsageError(f"flops={flops!r} is not a positive number")
    missing = [c for c in law.columns if c not in (first, "tokens") and c not in fixed]
    if missing:
        raise UsageError(f"law {law.name} needs a value for {missing[0]!r} at the optimum")
    for column in fixed:
        if column not in law.columns or column in (first, "tokens"):
            raise UsageError(f"law {law.name} takes no value for {column!r} at the optimum")
    lost = [name for name in result.not_identified if name != law.floor_parameter]
    if lost:
        raise FitError(f"the fit does not identify {', '.join(lost)}: the optimum could be anywhere")
    draws = result.draws if draws is None else draws
    theta = result.coordinates[None, :] if draws is None else np.vstack([result.coordinates, draws])
    closed = law.name in ("chinchilla", "kaplan") and isinstance(cost, PowerCost)
    if isinstance(cost, PowerCost) and closed:
        log_n, log_d, share = _closed(result, theta, flops, cost)
    else:
        step = 0.05  # the local exponent of a numerical optimum, by a central difference in log C
        log_n, log_d = _search(result, theta, flops, cost, first, fixed)
        above, _ = _search(result, theta, flops * np.exp(step), cost, first, fixed)
        below, _ = _search(result, theta, flops * np.exp(-step), cost, first, fixed)
        share = (above - below) / (2 * step)
    at: dict[str, ArrayLike] = {first: np.exp(log_n)[:, None], "tokens": np.exp(log_d)[:, None], **fixed}
    loss = predict_with(law, result.scales, theta, at)[:, 0]
    by_params, by_tokens = cost.slopes(log_n, log_d)
    other = (1.0 - by_params * share) / by_tokens
    warnings = _warnings(result, flops, cost, first, float(np.exp(log_n[0])), float(np.exp(log_d[0])))
    if not closed and not LOWEST + 0.01 < log_n[0] < HIGHEST - 0.01:
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
        cost=cost.describe(),
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


def _search(
    result: FitResult, theta: Array, flops: float, cost: Cost, first: str, extra: Mapping[str, float]
) -> tuple[Array, Array]:
    """Minimise over log N, all draws at once: a grid, then grids around the best point four times finer each."""
    count = len(theta)
    low, high = np.full(count, LOWEST), np.full(count, HIGHEST)
    best = np.zeros(count)
    for _ in range(9):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID)[None, :]
        log_d = _tokens_for(cost, np.exp(grid), flops)
        fine = np.isfinite(log_d) & (log_d > 0)
        columns = {first: np.exp(grid), "tokens": np.exp(np.where(fine, log_d, 0.0)), **extra}
        values = np.where(fine, predict_with(result.law, result.scales, theta, columns), np.inf)
        if not np.isfinite(values).any(axis=1).all():
            raise UsageError(f"flops={flops:g} buys no model of at least 1,000 parameters under {cost.describe()}")
        k = np.argmin(values, axis=1)
        best = grid[np.arange(count), k]
        width = (high - low) / (GRID - 1)
        low, high = np.maximum(best - 4 * width, LOWEST), np.minimum(best + 4 * width, HIGHEST)
        if np.max(width) < 1e-9:
            break
    return best, _tokens_for(cost, np.exp(best), flops)


def _warnings(result: FitResult, flops: float, cost: Cost, first: str, n: float, d: float) -> list[str]:
    seen = result.ranges
    out = []
    if {first, "tokens"} <= set(seen):
        most = float(cost.flops(seen[first][1], seen["tokens"][1]))
        largest = seen["flops"][1] if "flops" in seen else None
        if largest is not None and flops > 10 * largest:
            out.append(f"the budget is {flops / largest:.3g} times the largest fitted one: an extrapolation")
        elif largest is None and flops > most:
            out.append("the budget is beyond the largest model on the most tokens fitted: an extrapolation")
        for label, value, key in (("N*", n, first), ("D*", d, "tokens")):
            low, high = seen[key]
            if not low / 1.0001 <= value <= high * 1.0001:
                out.append(f"{label} = {value:.3g} lies outside the fitted rows ({low:.3g} to {high:.3g})")
    return out
