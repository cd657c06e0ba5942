"""How sure a fit is: bootstraps over rows, clusters or residuals, sandwich errors, prediction intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.fitting.laws.law import Array, Law
from analysis.fitting.minimiser import Minimum
from analysis.fitting.polishing import refit
from analysis.fitting.problem import BLOCK, Problem, bounds_of, residuals
from analysis.fitting.result import FitResult, ParameterEstimate, predict_with
from results.errors import FitError, UsageError

from .sandwich import KERNEL_ROWS, moving_slopes, points_of, problem_of, sandwich, spread_of

KINDS = ("rows", "clusters", "wild")
METHODS = {
    "rows": "bootstrap over rows",
    "clusters": "bootstrap over clusters",
    "wild": "wild bootstrap of residuals",
    "sandwich": "sandwich standard errors (asymptotic)",
}
FEW_CLUSTERS = 6  # with fewer, percentiles of resampled clusters are no interval
FEW_ROWS_A_PARAMETER = 10
TOLERANCE = 1e-6  # of a replicate's scaled gradient: far below its sampling error
SMOOTH = 0.5  # of the wild bootstrap's noise, in robust deviations times n^(-1/5)
BALANCED = 50  # resamples of one batch from which they are balanced
NOISE_LEVELS = 199
LEAST_BEYOND = 5  # replicates beyond an end of a percentile interval, below which that end is mostly chance
LARGE = 4e8  # replicates x rows beyond which resampling gives way to the sandwich


@dataclass(frozen=True)
class Bootstrap:
    """Refits of resampled points: `coordinates` (R, p), natural `parameters` and `derived` by name, each (R,)."""

    result: FitResult
    kind: str
    coordinates: Array
    parameters: Mapping[str, Array]
    derived: Mapping[str, Array]
    converged: float
    seconds: float
    warnings: tuple[str, ...] = ()

    def estimate(self, values: Array, at: float | None, interval: float = 0.95) -> ParameterEstimate:
        """Standard deviation and percentile interval of a quantity's replicates (R,), around its estimate `at`."""
        finite = values[np.isfinite(values)]
        return ParameterEstimate(at, float(np.std(finite)), *percentiles(finite, interval).tolist())

    def derive(self, quantity: Callable[[Mapping[str, Array]], Array], interval: float = 0.95) -> ParameterEstimate:
        """Estimate and interval of any function of the natural parameters, given as arrays by name."""
        fitted = self.result.scales.natural_at(self.result.law, self.result.coordinates)
        return self.estimate(quantity(self.parameters), float(np.asarray(quantity(fitted)).reshape(-1)[0]), interval)

    def predict(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Predictions of every replicate (R, n) at new columns."""
        return predict_with(self.result.law, self.result.scales, self.coordinates, columns)


def percentiles(values: Array, interval: float, axis: int | None = None) -> Array:
    """Both ends (2, ...) of the central `interval` of values; raises UsageError where that is no share."""
    if not 0 < interval < 1:
        raise UsageError(f"interval={interval!r} is not between 0 and 1")
    tail = 50 * (1 - interval)
    return np.percentile(values, [tail, 100 - tail], axis=axis)


def _times_drawn(units: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each unit is in each resample (count, units), every unit equally often in all of them together.

    Balancing (Davison, Hinkley & Schechtman 1986, Biometrika 73) takes out the part of the Monte-Carlo error that is
    linear in the frequencies. It narrows a spread by 1 / (2 count), which matters in small batches: those are drawn
    independently.
    """
    if count < BALANCED:
        return rng.multinomial(units, np.full(units, 1 / units), size=count)
    return _counts(rng.permutation(np.repeat(np.arange(units), count)).reshape(count, units), units)


def _counts(drawn: NDArray[np.int64], units: int) -> NDArray[np.int64]:
    """How often each of the units is in each row of drawn (count, m): (count, units)."""
    flat = drawn + units * np.arange(len(drawn))[:, None]
    return np.bincount(flat.ravel(), minlength=units * len(drawn)).reshape(len(drawn), units)


def random_signs(unit: NDArray[np.int64], count: int, rng: np.random.Generator) -> Array:
    """Signs (count, n) at random, one for all rows of a `unit` (n,)."""
    return rng.choice([-1.0, 1.0], size=(count, int(unit.max()) + 1))[:, unit]


def bootstrap(
    result: FitResult,
    *,
    replicates: int = 4000,
    kind: str | None = None,
    seed: int = 0,
    resamples: NDArray[np.int64] | None = None,
) -> Bootstrap:
    """Refit resampled points, all replicates at once.

    kind: "rows" draws rows with replacement, "clusters" whole clusters (default where the points name them), "wild"
    flips the sign of each residual (of a whole cluster's) at random after giving it its leverage back. Default without
    clusters: rows with 30 of them a parameter, else wild, because resampling few rows under a nearly absolute
    loss gives intervals that are too wide (97.5 % for nominal 95 % at 60 rows and 5 parameters, where the wild
    bootstrap has 95 %: docs/validation.md).
    resamples: (R, n) row indices drawn elsewhere, instead. Every replicate starts at the fit.

    Raises UsageError for an unknown kind, too few replicates, or clusters that are not named; FitError where fewer
    than half of the replicates reach a minimum.
    """
    began = time.perf_counter()
    problem, points = problem_of(result), points_of(result)
    n, weights, unit = len(points), points.weights, points.units
    if kind is None:
        many = n >= KERNEL_ROWS * int(problem.free.sum())
        kind = "clusters" if points.clusters is not None else "rows" if many else "wild"
    if kind not in KINDS:
        raise UsageError(f"bootstrap kind={kind!r} is not one of {', '.join(KINDS)}")
    if kind == "clusters" and points.clusters is None:
        raise UsageError("bootstrap over clusters: no cluster column was named")
    if resamples is not None:
        resamples = np.asarray(resamples)
        if resamples.ndim != 2 or resamples.min() < 0 or resamples.max() >= n:
            raise UsageError(f"resamples: shape {resamples.shape} is not (replicates, rows) of indices below {n}")
        replicates = len(resamples)
    if replicates < 20:
        raise UsageError(f"bootstrap replicates={replicates} is not at least 20")
    if problem.loss.kind == "lad":
        r = np.abs(residuals(problem, result.coordinates[None, :])[0])
        problem = replace(problem, loss=problem.loss.smoothed(float(max(np.median(r) * 1e-2, 1e-10))))
    rng = np.random.default_rng(seed)
    chunk = int(np.clip(BLOCK // 8 // n, 8, 400))  # a block and its Jacobian stay within a few megabytes
    # the number of the unit that each row belongs to, of those that are drawn: rows without weight are not
    drawn = unit if kind == "clusters" else np.maximum(np.cumsum(weights > 0) - 1, 0)
    if kind == "wild":
        fitted, spread, noise = _wild_parts(problem, result.coordinates)
    refits: list[Minimum] = []
    for begin in range(0, replicates, chunk):
        size = min(chunk, replicates - begin)
        if resamples is not None:
            sample = replace(problem, weights=_counts(resamples[begin : begin + size], n) * weights)
        elif kind == "wild":
            moved = spread * random_signs(unit, size, rng)
            if noise:
                moved = moved + noise * rng.standard_normal((size, n))
            sample = replace(problem, target=fitted + moved)
        else:
            sample = replace(problem, weights=_times_drawn(int(drawn.max()) + 1, size, rng)[:, drawn] * weights)
        start = np.repeat(result.coordinates[None, :], size, axis=0)
        refits.append(refit(sample.without_idle_rows(), [start], TOLERANCE))
    coordinates = np.concatenate([minimum.coordinates for minimum in refits])
    converged = np.concatenate([minimum.converged | (minimum.gradient_norm <= 1e-4) for minimum in refits])
    share = float(converged.mean())
    if share < 0.5:
        raise FitError(
            f"bootstrap: only {share:.0%} of {replicates} replicates reach a minimum; too few rows for the law"
        )
    warnings = _warnings(result, kind, share)
    kind = kind if resamples is None else "given resamples"
    return _bootstrap_of(result, kind, coordinates[converged], began, share, warnings)


def _bootstrap_of(
    result: FitResult, kind: str, draws: Array, began: float, converged: float = 1.0, warnings: tuple[str, ...] = ()
) -> Bootstrap:
    natural = result.scales.natural_at(result.law, draws)
    derived = dict(result.law.derived(natural))
    return Bootstrap(result, kind, draws, natural, derived, converged, time.perf_counter() - began, warnings)


def _warnings(result: FitResult, kind: str, share: float) -> tuple[str, ...]:
    points, free = points_of(result), int(problem_of(result).free.sum())
    out = []
    if points.clusters is not None and kind == "rows":
        out.append(
            "rows were resampled although clusters are named: rows of one run are correlated, intervals too narrow"
        )
    if kind == "clusters" and points.clusters is not None:
        count = len(np.unique(points.clusters))
        if count < FEW_CLUSTERS:
            out.append(f"{count} clusters are fewer than {FEW_CLUSTERS}: no interval is given")
    elif len(points) < FEW_ROWS_A_PARAMETER * free:
        out.append(f"{len(points)} rows for {free} free parameters: intervals may cover less than they say")
    if share < 0.99:
        out.append(f"{share:.1%} of the replicates reached a minimum; the others are left out")
    return tuple(out)


def left_out(problem: Problem, theta: Array, r: Array, slopes: Array) -> Array:
    """Residuals (n,) as if each row had been left out, from those of the fit and their slopes (m, n).

    Leaving row i out moves its residual by h_i psi(r_i) / E[psi'], h_i being its leverage (r / (1 - h) for squares,
    the correction of Feng, He & Hu 2011 for quantiles).
    """
    q, _ = np.linalg.qr((slopes * np.sqrt(problem.weights)).T)
    leverage = np.clip(np.sum(q**2, axis=1), 0.0, 0.9)
    return r + leverage / (1.0 - leverage) * problem.loss.terms(r)[1] / spread_of(problem, theta)[1]


def _wild_parts(problem: Problem, theta: Array) -> tuple[Array, Array, float]:
    """Fitted targets (n,), residuals as if each row had been left out (n,), and the width of the smoothing noise.

    A loss that is nearly absolute passes through p rows exactly, and their vanishing residuals would make every
    replicate stick there: noise of 0.9 s n^(-1/5) smooths that out.
    """
    r, slopes, _ = moving_slopes(problem, theta)
    used = problem.weights > 0
    noise = SMOOTH * (1.4826 * float(np.median(np.abs(r[used])))) * float(np.sum(used)) ** -0.2
    return problem.target + r, left_out(problem, theta, r, slopes), 0.0 if problem.loss.kind == "squares" else noise


def sandwich_draws(result: FitResult, count: int = 4000, seed: int = 0) -> Bootstrap:
    """Draws from the asymptotic normal distribution of the coordinates, in the shape of a bootstrap."""
    began = time.perf_counter()
    draws = np.random.default_rng(seed).multivariate_normal(
        result.coordinates, sandwich(result), size=count, method="eigh", check_valid="ignore"
    )
    lower, upper = bounds_of(result.law)
    return _bootstrap_of(result, "sandwich", np.clip(draws, lower, upper), began)


def uncertainty(result: FitResult, *, replicates: int = 4000, kind: str | None = None, seed: int = 0) -> Bootstrap:
    """The bootstrap, or draws from the sandwich where the rows are too many to resample (and a warning says so)."""
    if replicates * result.rows > LARGE:
        drawn = sandwich_draws(result, min(replicates, 4000), seed)
        note = f"{result.rows} rows are too many to resample {replicates} times: sandwich standard errors instead"
        return replace(drawn, warnings=(note,))
    return bootstrap(result, replicates=replicates, kind=kind, seed=seed)


def with_intervals(result: FitResult, drawn: Bootstrap, interval: float = 0.95) -> FitResult:
    """The result with standard errors and percentile intervals; none for what is not identified."""
    blank = drawn.kind == "clusters" and any("no interval" in w for w in drawn.warnings)
    warnings = result.warnings + drawn.warnings
    beyond = len(drawn.coordinates) * (1 - interval) / 2
    if not blank and beyond < LEAST_BEYOND:
        warnings += (f"{len(drawn.coordinates)} replicates leave {beyond:.2g} beyond each end: the ends are rough",)

    open_low, open_high = _open_ends(result.law, drawn.coordinates, interval)
    opened = [q.name for q in result.law.parameters if q.name in open_low | open_high]
    opened = [name for name in opened if result.parameters[name].value is not None and name not in result.at_bound]
    if opened and not blank:
        warnings += (f"resamples of {', '.join(opened)} reach the end of what the law allows: an open interval end",)

    def complete(estimate: ParameterEstimate, values: Array, name: str = "") -> ParameterEstimate:
        if estimate.value is None or not np.isfinite(values).any():
            return estimate
        full = drawn.estimate(values, estimate.value, interval)
        low = None if blank or name in open_low else full.low
        return replace(full, low=low, high=None if blank or name in open_high else full.high)

    return replace(
        result,
        parameters={k: complete(e, drawn.parameters[k], k) for k, e in result.parameters.items()},
        derived={k: complete(e, drawn.derived[k]) for k, e in result.derived.items()},
        warnings=warnings,
        interval=interval,
        noise=None if blank else noise_quantiles(result),
        draws=None if blank else drawn.coordinates,  # predictions from so few clusters would have no interval either
        interval_method=METHODS.get(drawn.kind, drawn.kind),
        seconds=result.seconds + drawn.seconds,
    )


def _open_ends(law: Law, coordinates: Array, interval: float) -> tuple[set[str], set[str]]:
    """Parameters whose interval ends, below and above, lie on a bound of the law: the data leave that side open.

    A coefficient without logarithm (a floor) may well be at its bound, zero, and is not meant.
    """
    lower, upper = bounds_of(law)
    tail = (1 - interval) / 2
    low = np.mean(coordinates <= lower, axis=0) > tail
    high = np.mean(coordinates >= upper, axis=0) > tail
    meant = [not q.linear or q.log for q in law.parameters]
    names = np.array(law.names)
    return set(names[low & meant].tolist()), set(names[high & meant].tolist())


def noise_of(result: FitResult) -> tuple[Array, Array]:
    """Residuals (n,) around their median as a new observation has them, scaled by sqrt(n / (n - p)); their weights."""
    problem = problem_of(result)
    r, _, moving = moving_slopes(problem, result.coordinates)
    w = problem.weights
    spare = max(float(np.sum(w > 0)) - len(moving), 1.0)
    return (-r - np.median(-r)) * np.sqrt(np.sum(w > 0) / spare), w


def noise_quantiles(result: FitResult) -> Array:
    """NOISE_LEVELS quantiles of `noise_of`, evenly spaced: what a file needs for intervals of a new observation."""
    noise, w = noise_of(result)
    order = np.argsort(noise)
    reached = (np.cumsum(w[order]) - 0.5 * w[order]) / w.sum()
    return np.interp((np.arange(NOISE_LEVELS) + 0.5) / NOISE_LEVELS, reached, noise[order])


def observation_interval(result: FitResult, curves: Array, interval: float = 0.95) -> tuple[Array, Array]:
    """Ends (m,) of the interval of one new observation at m places from the curves (R, m) of all resamples there.

    Every curve meets every quantile of the noise (`result.noise`). Raises UsageError for a fit that carries none.
    """
    if result.noise is None:
        raise UsageError("this fit carries no noise: fit the data again, with a bootstrap")
    ends = np.empty((2, curves.shape[1]))
    for i, curve in enumerate(curves.T):
        ends[:, i] = percentiles(_observed(result, curve[:, None], result.noise), interval)
    return ends[0], ends[1]


def _observed(result: FitResult, curves: Array, noise: Array) -> Array:
    """New observations around predicted curves."""
    return curves * np.exp(noise) if result.residual == "log" else curves + noise * result.scales.metric


@dataclass(frozen=True)
class Prediction:
    """A predicted metric at m points with intervals, each (m,): for the curve, and for one new observation."""

    value: Array
    low: Array
    high: Array
    observation_low: Array
    observation_high: Array


def predict(drawn: Bootstrap, columns: Mapping[str, ArrayLike], interval: float = 0.95, seed: int = 0) -> Prediction:
    """Predictions at new columns with intervals from the replicates.

    The observation's interval adds residuals of the fit, drawn at random and scaled by n/(n-p), to the curve's.
    """
    curves = drawn.predict(columns)
    noise, w = noise_of(drawn.result)
    extra = np.random.default_rng(seed).choice(noise, size=curves.shape, p=w / w.sum())
    seen = _observed(drawn.result, curves, extra)
    ends = *percentiles(curves, interval, axis=0), *percentiles(seen, interval, axis=0)
    return Prediction(drawn.result.predict(columns), *ends)
