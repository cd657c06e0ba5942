"""Minimise a law's loss from many starts, and for many resamples of the rows, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from analysis.formula import Array, Columns, Law
from analysis.losses import Loss

GRADIENT_TOLERANCE = 1e-9  # where iteration stops
CONVERGED = 1e-7  # what counts as a minimum where rounding stops it earlier
OFFSET = 1e-6  # a relative offset below which the objective is within 1e-12 of its local minimum
PERFECT = 1e-25  # an objective this small a row is zero to rounding
BLOCK = 400_000  # elements of one (starts x rows) block: the Jacobian of a block stays within a few megabytes


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
        cut = replace(self, columns=self.columns.select(starts))
        if self.target.ndim == 2:
            cut = replace(cut, target=self.target[starts])
        if self.weights.ndim == 2:
            cut = replace(cut, weights=self.weights[starts])
        if self.free.ndim == 2:
            cut = replace(cut, free=self.free[starts])
        return cut

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
        return replace(self, columns=self.columns.gather(rows), target=self.target[rows], weights=weights)

    def rows(self, part: slice) -> Problem:
        """The problem of a block of rows."""
        return replace(
            self,
            columns=self.columns.rows(part),
            target=self.target[..., part],
            weights=self.weights[..., part],
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


@dataclass(frozen=True)
class Evaluation:
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

    def _each(self, change: Callable[[Array, str], Array]) -> Evaluation:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {name: change(value, name) for name, value in held.items() if value is not None}
        return Evaluation(**changed)

    def select(self, chosen: NDArray[np.int64]) -> Evaluation:
        """The evaluation of some of the starts."""
        return self._each(lambda value, _: value[chosen])

    def improved(self, other: Evaluation, good: NDArray[np.bool_]) -> Evaluation:
        """`other` for the starts where it is good, this one elsewhere."""
        if good.all():
            return other

        def choose(old: Array, name: str) -> Array:
            return np.where(good.reshape((-1,) + (1,) * (old.ndim - 1)), getattr(other, name), old)

        return self._each(choose)


def residuals(problem: Problem, coordinates: Array) -> tuple[Array, Array]:
    """Residuals (S, n) and their slopes (S, p, n) in coordinates."""
    law = problem.law
    p = parameters_of(law, coordinates)
    value, slopes = law.evaluate(p, problem.columns)
    shape = (coordinates.shape[0], problem.target.shape[-1])
    jacobian = np.empty((shape[0], len(slopes), shape[1]))
    if problem.residual == "log":
        value = np.maximum(value, 1e-300)
        inverse = 1.0 / value
        r = np.log(value) - problem.target
    else:
        inverse = None
        r = value - problem.target
    for k, (q, slope) in enumerate(zip(law.parameters, slopes, strict=True)):
        out = jacobian[:, k, :]
        if inverse is not None:
            np.multiply(slope, inverse, out=out)
        else:
            out[...] = slope
        if q.log:
            out *= p[q.name]
    return np.broadcast_to(r, shape), jacobian


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def evaluate(problem: Problem, coordinates: Array, *, keep: bool = False) -> Evaluation:
    """Objective, gradient and curvature at coordinates (S, p), in bounded memory whatever the number of rows.

    keep: hold on to residuals and slopes, where they fit into one block.
    """
    starts, n = coordinates.shape[0], problem.target.shape[-1]
    rows_at_once = max(1, BLOCK // max(starts, 1))
    if n <= rows_at_once:
        return _evaluate_block(problem, coordinates, keep)
    total: Evaluation | None = None
    for begin in range(0, n, rows_at_once):
        part = _evaluate_block(problem.rows(slice(begin, begin + rows_at_once)), coordinates)
        if total is None:
            total = part
        else:
            total = Evaluation(
                total.objective + part.objective,
                total.gradient + part.gradient,
                total.gradient_scale + part.gradient_scale,
                total.newton + part.newton,
                total.reweighted + part.reweighted,
            )
    assert total is not None
    return total


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
    if not keep:
        return Evaluation(objective, gradient, scale, newton, reweighted)
    return Evaluation(objective, gradient, scale, newton, reweighted, r, jacobian, by_ratio)


@dataclass(frozen=True)
class Minimum:
    """Where each start ended: coordinates (S, p), objective (S,), scaled gradient norm (S,), converged (S,)."""

    coordinates: Array
    objective: Array
    gradient_norm: Array
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]
    iterations: int

    def select(self, chosen: NDArray[np.int64]) -> Minimum:
        """Where some of the starts ended."""
        held = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "iterations"}
        return Minimum(**held, iterations=self.iterations)

    def replaced(self, where: NDArray[np.int64], by: Minimum) -> Minimum:
        """The same with the starts `where` ended as in `by`."""
        held = {f.name: getattr(self, f.name).copy() for f in fields(self) if f.name != "iterations"}
        for name, value in held.items():
            value[where] = getattr(by, name)
        return Minimum(**held, iterations=self.iterations + by.iterations)


def gradient_norm(at: Evaluation, held: NDArray[np.bool_]) -> Array:
    """The largest gradient component relative to what it would be without cancellation: 0 at a minimum, at most 1.

    Where a coordinate moves only rows whose residuals are next to nothing (OFFSET of the others), there is nothing to
    gain from it, though nothing cancels.
    """
    diagonal = np.arange(at.gradient.shape[1])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        most = np.sqrt(np.maximum(at.reweighted[:, diagonal, diagonal] * at.objective[:, None], 0.0))
        scale = np.fmax(at.gradient_scale, OFFSET * most)
        share = np.where(scale > 0, np.abs(at.gradient) / scale, 0.0)
    return np.max(np.where(held, 0.0, share), axis=1, initial=0.0)


@np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore")
def minimise(
    problem: Problem,
    start: Array,
    *,
    max_iterations: int = 300,
    tolerance: float = GRADIENT_TOLERANCE,
    damping: float = 1e-2,
    bend: bool = False,
) -> Minimum:
    """Levenberg-Marquardt on all starts at once.

    start: (S, p) coordinates. The step solves (N + damping * W) step = -gradient, where N has the loss's second
    derivative as weights (Newton) and W has psi/r (iteratively reweighted least squares): far away and between the
    kinks of a nearly absolute loss W leads, close to the minimum N converges in a few steps.
    bend: follow the curvature of narrow valleys (geodesic acceleration), for one more prediction an iteration.
    Starts that are done are taken out of the batch.
    """
    lower, upper = problem.lower, problem.upper
    theta = np.clip(start, lower, upper)
    count = len(theta)
    final = evaluate(problem, theta, keep=bend)
    objective = final.objective.copy()
    norm, offset = np.full(count, np.inf), np.full(count, np.inf)
    done = np.zeros(count, dtype=bool)
    lam = np.full(count, damping)
    stalled = np.zeros(count, dtype=np.int64)
    index = np.arange(count)
    perfect = np.broadcast_to(PERFECT * np.sum(problem.weights, axis=-1), (count,))
    current, at, part = theta.copy(), final, problem
    iteration = 0
    while True:
        held = held_coordinates(current, at, part)
        # residuals that are rounding have a gradient that is rounding: a perfect fit, whatever its direction
        here = np.where(at.objective <= perfect[index], 0.0, gradient_norm(at, held))
        norm[index] = here
        theta[index], objective[index] = current, at.objective
        finished = (here <= tolerance) | (stalled[index] >= 12)
        done[index] = finished
        keep = ~finished
        last = iteration >= max_iterations or not keep.any()
        unsure = np.flatnonzero((finished | last) & (here > max(tolerance, CONVERGED)))
        if unsure.size:
            offset[index[unsure]] = _relative_offset(at.select(unsure), held[unsure])
        if last:
            break
        if keep.sum() <= 0.8 * len(index):  # shrink the batch only when it pays
            chosen = np.flatnonzero(keep)
            index, current, held = index[chosen], current[chosen], held[chosen]
            at = at.select(chosen)
            part = part.select(chosen)
        system = _system(at, lam[index], held)
        step = system.solve(at.gradient)
        if bend and at.slopes is not None:
            step = _bent(part, current, at, system, step)
        trial = np.minimum(np.maximum(current + step, lower), upper)
        step = trial - current
        curved = np.einsum("sp,spq,sq->s", step, at.newton + 1e-3 * at.reweighted, step)
        expected = -np.einsum("sp,sp->s", np.where(held, 0.0, at.gradient), step) - 0.5 * curved
        there = evaluate(part, trial, keep=bend)
        change = there.objective - at.objective
        good = (change <= 1e-15 * np.abs(at.objective)) & np.isfinite(there.gradient).all(axis=1)
        small = np.abs(change) <= 1e-14 * np.abs(at.objective)
        stalled[index] = np.where(good & ~small, 0, stalled[index] + (small | (lam[index] > 1e12)))
        gain = np.where(expected > 0, -change / expected, 0.0)
        if bend:  # a bent step gains something else than the quadratic model expects: any gain will do
            factor = np.where(good, np.where(gain > 0.3, 0.2, 1.0), 4.0)
        else:
            factor = np.where(gain > 0.7, 0.1, np.where(gain > 0.3, 1.0, np.where(gain > 0.05, 3.0, 8.0)))
        factor = np.where(good & (expected <= 1e-13 * at.objective), 0.1, factor)
        lam[index] = np.minimum(np.maximum(lam[index] * factor, 1e-12), 1e16)
        current = np.where(good[:, None], trial, current)
        at = at.improved(there, good)
        iteration += 1
    at_bound = ((theta <= lower) | (theta >= upper)) & problem.free
    # where rounding keeps the gradient from vanishing, no step that the curvature allows would gain anything
    converged = (norm <= max(tolerance, CONVERGED)) | (offset <= OFFSET)
    return Minimum(theta, objective, norm, converged, at_bound, iteration)


def held_coordinates(coordinates: Array, at: Evaluation, problem: Problem) -> NDArray[np.bool_]:
    """Coordinates that cannot move: fixed ones, and those at a bound that the gradient pushes against."""
    blocked = (coordinates <= problem.lower) & (at.gradient >= 0)
    blocked |= (coordinates >= problem.upper) & (at.gradient <= 0)
    return blocked | ~problem.free


@dataclass(frozen=True)
class _System:
    """Damped normal equations: `matrix` (S, p, p) for coordinates times `scale` (S, p); `held` ones do not move."""

    matrix: Array
    scale: Array
    held: NDArray[np.bool_]
    bad: NDArray[np.bool_]

    def solve(self, gradient: Array) -> Array:
        """The step (S, p) down a gradient (S, p); 0 where the system is not finite."""
        right = np.where(self.held | self.bad[:, None], 0.0, gradient / self.scale)
        right = np.where(np.isfinite(right).all(axis=1, keepdims=True), right, 0.0)
        step = np.linalg.solve(self.matrix, -right[:, :, None])[:, :, 0] / self.scale
        return np.where(np.isfinite(step), step, 0.0)


def _system(at: Evaluation, damping: Array, held: NDArray[np.bool_]) -> _System:
    diagonal = np.arange(at.gradient.shape[1])
    matrix = at.newton + damping[:, None, None] * at.reweighted
    curvature = at.reweighted[:, diagonal, diagonal]
    # a coordinate that moves no prediction stays where it is, rather than be thrown about by rounding
    held = held | (curvature <= 1e-24 * np.max(curvature, axis=1, keepdims=True))
    scale = np.sqrt(np.maximum(curvature, 1e-300))
    scale = np.where(np.isfinite(scale), scale, 1.0)
    matrix = matrix / (scale[:, :, None] * scale[:, None, :])
    matrix[held] = 0.0
    matrix.transpose(0, 2, 1)[held] = 0.0
    matrix[:, diagonal, diagonal] += 1e-13 + 0.1 * damping[:, None] + held
    bad = ~np.isfinite(matrix).all(axis=(1, 2))
    matrix[bad] = np.eye(len(diagonal))
    return _System(matrix, scale, held, bad)


def _bent(problem: Problem, coordinates: Array, at: Evaluation, system: _System, step: Array) -> Array:
    """The step plus half its geodesic acceleration: Transtrum & Sethna 2012 (arXiv 1201.5885), section 3.

    The second derivative of the residuals along the step is a finite difference (their equation 13, h = 0.1). Where
    the correction is more than 0.75 / 2 of the step, the step stays straight.
    """
    assert at.residual is not None and at.slopes is not None and at.ratio is not None
    h = 0.1
    near = np.clip(coordinates + h * step, problem.lower, problem.upper)
    with np.errstate(all="ignore"):
        value = problem.law.predict(parameters_of(problem.law, near), problem.columns)
        if problem.residual == "log":
            value = np.log(np.maximum(value, 1e-300))
        along = np.matmul(step[:, None, :], at.slopes)[:, 0, :]
        second = (2.0 / h) * ((value - problem.target - at.residual) / h - along)
        pull = np.matmul(at.slopes, (at.ratio * second)[:, :, None])[:, :, 0]
        turn = system.solve(pull)
        size = np.sum((turn * system.scale) ** 2, axis=1)
        small = 4.0 * size <= 0.75**2 * np.sum((step * system.scale) ** 2, axis=1)
    return np.where(small[:, None], step + 0.5 * turn, step)


def _relative_offset(at: Evaluation, held: NDArray[np.bool_]) -> Array:
    """sqrt(2 * what an undamped Newton step would gain / objective), (S,): 0 at a minimum, whatever the scales.

    For least squares sqrt(2) times the cosine of residuals and tangent plane: Bates & Watts 1981, Technometrics 23.
    """
    system = _system(at, np.zeros(len(held)), held)
    gain = -np.einsum("sp,sp->s", np.where(system.held, 0.0, at.gradient), system.solve(at.gradient))
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.sqrt(np.maximum(gain, 0.0) / np.maximum(at.objective, 1e-300))
    return np.where(system.bad | ~np.isfinite(out), np.inf, out)
