"""What is minimised: a law, rows in scaled units and a loss, evaluated for many parameter vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from results.errors import UsageError

from .laws.law import LOSS, Array, Columns, Law, Parameter
from .reading.points import Points

BLOCK = 400_000  # elements of one (starts x rows) block: the Jacobian of a block stays within a few megabytes
LOSSES = ("huber", "lad", "squares", "envelope")


@dataclass(frozen=True)
class Loss:
    """rho(r) of a residual r = prediction - observation (or of their logarithms).

    squares: r^2/2. huber: r^2/2 within delta, delta (|r| - delta/2) beyond (Huber 1964), the convention of Hoffmann
    et al. 2022. lad: |r|. envelope: the Huber loss times (1 - quantile) where the law lies above the point and
    quantile where below, so that the law follows the lower edge of the cloud (a smoothed pinball loss).
    """

    kind: str = "huber"
    delta: float = 1e-3
    quantile: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in LOSSES:
            raise UsageError(f"loss={self.kind!r} is not one of {', '.join(LOSSES)}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise UsageError(f"delta={self.delta!r} is not a positive number")
        if not 0 < self.quantile < 1:
            raise UsageError(f"quantile={self.quantile!r} is not between 0 and 1")

    def scaled(self, unit: float) -> Loss:
        """The same loss for residuals divided by `unit`."""
        return Loss(self.kind, self.delta / unit, self.quantile)

    def smoothed(self, delta: float) -> Loss:
        """The Huber loss that stands in for lad while it is minimised."""
        return Loss("huber", delta)

    def terms(self, r: Array) -> tuple[Array, Array, Array, Array]:
        """(rho, its derivative psi, the second derivative, psi / r), each of the shape of r.

        The second derivative makes Newton steps, psi / r those of iteratively reweighted least squares.
        """
        if self.kind == "squares":
            ones = np.ones_like(r)
            return 0.5 * r * r, r, ones, ones
        size = np.abs(r)
        if self.kind == "lad":
            tiny = np.maximum(size, 1e-300)
            return size, np.sign(r), np.zeros_like(r), 1.0 / tiny
        inside = np.minimum(size, self.delta)
        rho = inside * (size - 0.5 * inside)
        psi = np.clip(r, -self.delta, self.delta)
        second = (size < self.delta).astype(float)
        ratio = self.delta / np.maximum(size, self.delta)
        if self.kind == "envelope":
            side = np.where(r > 0, 1.0 - self.quantile, self.quantile)
            return rho * side, psi * side, second * side, ratio * side
        return rho, psi, second, ratio


@dataclass(frozen=True)
class Scales:
    """By what each column and the metric were divided before fitting: geometric mean and median."""

    columns: Mapping[str, float]
    metric: float

    @staticmethod
    def of(law: Law, points: Points, unscaled: Collection[str] = ()) -> Scales:
        """The scales of these points; 1 for columns no parameter of the law has a unit in, and those `unscaled`."""
        weights = points.weights / points.weights.sum()
        units = {key for q in law.parameters for key in q.unit} - law.unscaled - set(unscaled)
        metric = weighted_median(np.abs(points.metric), points.weights) if LOSS in units else 1.0
        if metric <= 0:
            metric = float(np.max(np.abs(points.metric))) or 1.0
        scales = {}
        for name in law.columns:
            unit = law.scaled_with.get(name, name)
            if name in law.metric_columns:
                scales[name] = metric
            elif unit in units:
                base = points.columns[unit]
                scales[name] = float(np.exp(np.sum(weights * np.log(base))))
            else:
                scales[name] = 1.0
        return Scales(scales, metric)

    def apply(self, columns: Mapping[str, Array]) -> Columns:
        """The columns in scaled units."""
        return Columns({name: columns[name] / scale for name, scale in self.columns.items()})

    def unit(self, key: str) -> float:
        """By what the column of that name was divided, or the metric, for `LOSS`."""
        return self.metric if key == LOSS else self.columns[key]

    def natural(self, law: Law, p: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters in natural units from scaled ones."""
        return {q.name: p[q.name] * np.exp(self._log_unit(q, p)) for q in law.parameters}

    def natural_at(self, law: Law, coordinates: Array) -> dict[str, Array]:
        """Parameters in natural units, each (S,), at coordinates (S, p) or (p,)."""
        p = parameters_of(law, np.atleast_2d(coordinates))
        return {name: value[:, 0] for name, value in self.natural(law, p).items()}

    def scaled(self, law: Law, p: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters in scaled units from natural ones."""
        return {q.name: p[q.name] * np.exp(-self._log_unit(q, p)) for q in law.parameters}

    def _log_unit(self, q: Parameter, p: Mapping[str, Array]) -> Array:
        # powers depend on exponents alone, and those have no unit: scaled or natural p give the same
        total: Array | float = 0.0
        for key, power in q.unit.items():
            amount = power(p) if callable(power) else power
            total = total + amount * np.log(self.unit(key))
        return np.asarray(total)


def weighted_median(values: Array, weights: Array) -> float:
    """The value at which half of the weight lies below; the mean of two where it falls between them."""
    used = weights > 0
    order = np.argsort(values[used], kind="stable")
    ordered, cumulative = values[used][order], np.cumsum(weights[used][order])
    half = cumulative[-1] / 2
    k = int(np.searchsorted(cumulative, half * (1 - 1e-12)))
    if abs(cumulative[k] - half) <= 1e-12 * half and k + 1 < len(ordered):
        return float(0.5 * (ordered[k] + ordered[k + 1]))
    return float(ordered[k])


@dataclass(frozen=True)
class Problem:
    """What is minimised: sum over rows of weight * loss(residual), everything in scaled units.

    `target` (n,) or (S, n): the scaled metric, or its logarithm for residual "log". `weights`: (n,) or (S, n).
    `lower`, `upper`: (p,) bounds in coordinates; `free`: (p,) or (S, p), which coordinates may move.
    """

    law: Law
    columns: Columns
    target: Array
    weights: Array
    residual: str
    loss: Loss
    lower: Array
    upper: Array
    free: NDArray[np.bool_]

    def select(self, starts: NDArray[np.int64]) -> Problem:
        """The problem of some of the starts."""
        by_row = {name: getattr(self, name) for name in ("target", "weights", "free")}
        chosen = {name: values[starts] for name, values in by_row.items() if values.ndim == 2}
        return replace(self, columns=self.columns.select(starts), **chosen)

    def without_idle_rows(self) -> Problem:
        """The same problem for weights (S, n) with many zeros: each start keeps rows of its own, those with weight."""
        if self.weights.ndim != 2 or self.target.ndim != 1:
            return self
        used = self.weights > 0
        most = int(used.sum(axis=1).max(initial=1))
        if most > 0.8 * used.shape[1]:
            return self
        rows = np.argsort(~used, axis=1, kind="stable")[:, :most]
        weights = np.take_along_axis(self.weights, rows, axis=1)
        return replace(self, columns=self.columns.rows(rows), target=self.target[rows], weights=weights)

    def inside(self, coordinates: Array) -> NDArray[np.bool_]:
        """Which coordinates are neither fixed nor at a bound, of the shape of `coordinates`."""
        return self.free & (coordinates > self.lower) & (coordinates < self.upper)

    def rows(self, chosen: slice | NDArray[np.int64]) -> Problem:
        """The problem of some of the rows."""
        return replace(
            self,
            columns=self.columns.rows(chosen),
            target=self.target[..., chosen],
            weights=self.weights[..., chosen],
        )


def make_problem(
    law: Law, points: Points, scales: Scales, residual: str, loss: Loss, fixed: Mapping[str, float] | None = None
) -> Problem:
    """The minimisation problem of these points in scaled units; `fixed` coordinates do not move."""
    y = points.metric / scales.metric
    lower, upper = bounds_of(law)
    return Problem(
        law=law,
        columns=law.prepared(scales.apply(law.filled(points.columns, len(points)))),
        target=np.log(y) if residual == "log" else y,
        weights=points.weights,
        residual=residual,
        loss=loss if residual == "log" else loss.scaled(scales.metric),
        lower=lower,
        upper=upper,
        free=np.array([q.name not in (fixed or {}) for q in law.parameters]),
    )


def bounds_of(law: Law) -> tuple[Array, Array]:
    """Lower and upper bounds (p,) in coordinates: the logarithm for parameters marked `log`."""
    with np.errstate(divide="ignore"):
        lower = np.array([np.log(q.lower) if q.log else q.lower for q in law.parameters])
        upper = np.array([np.log(q.upper) if q.log else q.upper for q in law.parameters])
    return lower, upper


def parameters_of(law: Law, coordinates: Array) -> dict[str, Array]:
    """Parameters by name, each (S, 1), from coordinates (S, p)."""
    return {
        q.name: (np.exp(coordinates[:, k : k + 1]) if q.log else coordinates[:, k : k + 1])
        for k, q in enumerate(law.parameters)
    }


def coordinates_of(law: Law, p: Mapping[str, Array]) -> Array:
    """Coordinates (S, p) from parameters by name, each (S, 1); (p,) from single numbers."""
    values = [np.log(np.maximum(p[q.name], 1e-300)) if q.log else p[q.name] for q in law.parameters]
    return np.concatenate([np.atleast_1d(value) for value in values], axis=-1)


@dataclass(frozen=True)
class Batch:
    """Arrays with one entry a start each, along their first axis; some may be None."""

    def each(self, change: Callable[[Array, str], Array]) -> Self:
        """The same with every array changed, given the array and its name."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(array, name) for name, array in arrays.items() if array is not None})

    def select(self, chosen: NDArray[np.int64]) -> Self:
        """The entries of some of the starts."""
        return self.each(lambda array, _: array[chosen])


@dataclass(frozen=True)
class Evaluation(Batch):
    """The objective (S,), its gradient (S, p), the scale of each gradient component, two curvature matrices.

    residual (S, n), slopes (S, p, n) and ratio (S, n: weight * psi / r) where they were asked for.
    """

    objective: Array
    gradient: Array
    gradient_scale: Array
    newton: Array
    reweighted: Array
    residual: Array | None = None
    slopes: Array | None = None
    ratio: Array | None = None

    def plus(self, other: Evaluation) -> Evaluation:
        """The evaluation of both blocks of rows together."""
        return self.each(lambda value, name: value + getattr(other, name))

    def improved(self, other: Evaluation, good: NDArray[np.bool_]) -> Evaluation:
        """`other` for the starts where it is good, this one elsewhere."""
        if good.all():
            return other

        def choose(old: Array, name: str) -> Array:
            return np.where(good.reshape((-1,) + (1,) * (old.ndim - 1)), getattr(other, name), old)

        return self.each(choose)


def residuals(problem: Problem, coordinates: Array) -> tuple[Array, Array]:
    """Residuals (S, n) and their slopes (S, p, n) in coordinates."""
    law = problem.law
    p = parameters_of(law, coordinates)
    value, slopes = law.evaluate(p, problem.columns)
    shape = (coordinates.shape[0], problem.target.shape[-1])
    jacobian = np.empty((shape[0], len(slopes), shape[1]))
    inverse: Array | float = 1.0
    if problem.residual == "log":
        value = np.maximum(value, 1e-300)
        inverse, value = 1.0 / value, np.log(value)
    for k, (q, slope) in enumerate(zip(law.parameters, slopes, strict=True)):
        along = np.multiply(slope, inverse, out=jacobian[:, k, :])
        if q.log:
            along *= p[q.name]
    return np.broadcast_to(value - problem.target, shape), jacobian


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def evaluate(problem: Problem, coordinates: Array, *, keep: bool = False) -> Evaluation:
    """Objective, gradient and curvature at coordinates (S, p), in bounded memory whatever the number of rows.

    keep: hold on to residuals and slopes, where they fit into one block.
    """
    starts, n = coordinates.shape[0], problem.target.shape[-1]
    rows_at_once = max(1, BLOCK // max(starts, 1))
    if n <= rows_at_once:
        return _evaluate_block(problem, coordinates, keep)
    blocks = (slice(begin, begin + rows_at_once) for begin in range(0, n, rows_at_once))
    return reduce(Evaluation.plus, (_evaluate_block(problem.rows(block), coordinates) for block in blocks))


def _evaluate_block(problem: Problem, coordinates: Array, keep: bool = False) -> Evaluation:
    r, jacobian = residuals(problem, coordinates)
    rho, psi, second, ratio = problem.loss.terms(r)
    weights = problem.weights
    objective = np.einsum("sn,n->s" if weights.ndim == 1 else "sn,sn->s", rho, weights)
    weighted = psi * weights
    gradient = np.matmul(jacobian, weighted[:, :, None])[:, :, 0]
    scale = np.matmul(np.abs(jacobian), np.abs(weighted)[:, :, None])[:, :, 0]
    q = jacobian.shape[1]
    by_ratio = ratio * weights
    across = jacobian.transpose(0, 2, 1)
    if problem.loss.kind == "squares":  # both weights are 1
        newton = reweighted = np.matmul(jacobian * by_ratio[:, None, :], across)
    else:
        stacked = np.empty((jacobian.shape[0], 2 * q, jacobian.shape[2]))
        np.multiply(jacobian, (second * weights)[:, None, :], out=stacked[:, :q])
        np.multiply(jacobian, by_ratio[:, None, :], out=stacked[:, q:])
        both = np.matmul(stacked, across)
        newton, reweighted = both[:, :q], both[:, q:]
    kept = (r, jacobian, by_ratio) if keep else ()
    return Evaluation(objective, gradient, scale, newton, reweighted, *kept)
