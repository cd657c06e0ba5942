"""Minimise a law's loss from many starts, and for many resamples of the rows, at once: damped steps, Newton steps."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .laws.law import Array
from .problem import Batch, Evaluation, Problem, evaluate, parameters_of

GRADIENT_TOLERANCE = 1e-9  # where iteration stops
CONVERGED = 1e-7  # what counts as a minimum where rounding stops it earlier
SNUG = 1e-8  # this close to a bound, relatively above 1, is at it
PERFECT = 1e-25  # an objective this small a row is zero to rounding
OFFSET = 1e-6  # a relative offset below which the objective is within 1e-12 of its local minimum
STEP = 1e-5  # of central differences of the gradient; coordinates are logarithms and exponents, of the order of 1
LARGEST = 1e100  # of a scaled second derivative that a Newton step is taken by


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


def held_coordinates(coordinates: Array, at: Evaluation, problem: Problem) -> NDArray[np.bool_]:
    """Coordinates that cannot move: fixed ones, and those at a bound that the gradient pushes against."""
    blocked = (coordinates <= problem.lower) & (at.gradient >= 0)
    blocked |= (coordinates >= problem.upper) & (at.gradient <= 0)
    return blocked | ~problem.free


@dataclass(frozen=True)
class System:
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


def system_of(at: Evaluation, damping: Array, held: NDArray[np.bool_]) -> System:
    """The system (newton + damping * reweighted) step = -gradient of each start; damping (S,), held (S, p)."""
    diagonal = np.arange(at.gradient.shape[1])
    matrix = at.newton + damping[:, None, None] * at.reweighted
    curvature = at.reweighted[:, diagonal, diagonal]
    # a coordinate that moves no prediction stays where it is, rather than be thrown about by rounding
    held = held | (curvature <= 1e-24 * np.max(curvature, axis=1, keepdims=True))
    scale = np.sqrt(np.maximum(curvature, 1e-300))
    scale = np.where(np.isfinite(scale), scale, 1.0)
    matrix = _scaled(matrix, scale, held)
    matrix[:, diagonal, diagonal] += 1e-13 + 0.1 * damping[:, None] + held
    bad = ~np.all(np.isfinite(matrix), axis=(1, 2))
    matrix[bad] = np.eye(len(diagonal))
    return System(matrix, scale, held, bad)


def _scaled(matrix: Array, scale: Array, held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Curvatures (S, p, p) in coordinates times `scale` (S, p), without rows and columns of those `held`."""
    scaled = matrix / (scale[:, :, None] * scale[:, None, :])
    scaled[held] = 0.0
    scaled.transpose(0, 2, 1)[held] = 0.0
    return scaled


def along_bounds(
    problem: Problem,
    current: Array,
    at: Evaluation,
    held: NDArray[np.bool_],
    damping: Array,
    clipped: Array,
    *,
    bend: bool,
) -> Array:
    """Where starts (S, p) whose step crosses a bound go instead: what crossed stops there, the rest follows suit.

    clipped: where the step would lead, inside the bounds. A step that is merely clipped no longer points down, and a
    coordinate would only creep up to its bound.
    """
    stopped = (clipped <= problem.lower) | (clipped >= problem.upper)
    move = np.where(stopped, clipped - current, 0.0)
    inside = system_of(at, damping, held | stopped)
    curvature = at.newton + damping[:, None, None] * at.reweighted
    step = np.where(stopped, move, inside.solve(at.gradient + np.einsum("spq,sq->sp", curvature, move)))
    if bend and at.slopes is not None:
        step = bent(problem, current, at, inside, step)
    return np.minimum(np.maximum(current + step, problem.lower), problem.upper)


def bent(problem: Problem, coordinates: Array, at: Evaluation, system: System, step: Array) -> Array:
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


def relative_offset(at: Evaluation, held: NDArray[np.bool_]) -> Array:
    """sqrt(2 * what an undamped Newton step would gain / objective), (S,): 0 at a minimum, whatever the scales.

    For least squares sqrt(2) times the cosine of residuals and tangent plane: Bates & Watts 1981, Technometrics 23.
    """
    system = system_of(at, np.zeros(len(held)), held)
    gain = -np.einsum("sp,sp->s", np.where(system.held, 0.0, at.gradient), system.solve(at.gradient))
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.sqrt(np.maximum(gain, 0.0) / np.maximum(at.objective, 1e-300))
    return np.where(system.bad | ~np.isfinite(out), np.inf, out)


@dataclass(frozen=True)
class Minimum(Batch):
    """Where each start ended: coordinates (S, p), objective (S,), scaled gradient norm (S,), converged (S,).

    stands_for (S,): of how many starts, where some were left on the way to the same minimum.
    """

    coordinates: Array
    objective: Array
    gradient_norm: Array
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]
    stands_for: NDArray[np.int64]

    def joined(self, other: Minimum) -> Minimum:
        """Where these starts ended, and others."""
        return Minimum(
            **{f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )

    def replaced(self, where: NDArray[np.int64], by: Minimum) -> Minimum:
        """The same with the starts `where` ended as in `by`."""
        ends = {f.name: getattr(self, f.name).copy() for f in fields(self) if f.name != "stands_for"}
        for name, end in ends.items():
            end[where] = getattr(by, name)
        return replace(self, **ends)


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
    lam = np.full(count, damping)
    stalled = np.zeros(count, dtype=np.int64)
    index = np.arange(count)
    perfect = np.broadcast_to(PERFECT * np.sum(problem.weights, axis=-1), (count,))
    current, at, moving = theta.copy(), final, problem
    for iteration in range(max(max_iterations, 0) + 1):
        held = held_coordinates(current, at, moving)
        # residuals that are rounding have a gradient that is rounding: a perfect fit, whatever its direction
        slope = np.where(at.objective <= perfect[index], 0.0, gradient_norm(at, held))
        norm[index] = slope
        theta[index], objective[index] = current, at.objective
        finished = (slope <= tolerance) | (stalled[index] >= 12)
        keep = ~finished
        last = iteration >= max_iterations or not keep.any()
        unsure = np.flatnonzero((finished | last) & (slope > max(tolerance, CONVERGED)))
        if unsure.size:
            offset[index[unsure]] = relative_offset(at.select(unsure), held[unsure])
        if last:
            break
        if keep.sum() <= 0.8 * len(index):  # shrink the batch only when it pays
            chosen = np.flatnonzero(keep)
            index, current, held = index[chosen], current[chosen], held[chosen]
            at = at.select(chosen)
            moving = moving.select(chosen)
        system = system_of(at, lam[index], held)
        step = system.solve(at.gradient)
        if bend and at.slopes is not None:
            step = bent(moving, current, at, system, step)
        trial = np.minimum(np.maximum(current + step, lower), upper)
        crossing = np.flatnonzero((trial != current + step).any(axis=1))
        if crossing.size:
            cut = at.select(crossing), system.held[crossing], lam[index[crossing]], trial[crossing]
            trial[crossing] = along_bounds(moving.select(crossing), current[crossing], *cut, bend=bend)
        step = trial - current
        curved = np.einsum("sp,spq,sq->s", step, at.newton + 1e-3 * at.reweighted, step)
        expected = -np.einsum("sp,sp->s", np.where(held, 0.0, at.gradient), step) - 0.5 * curved
        tried = evaluate(moving, trial, keep=bend)
        change = tried.objective - at.objective
        good = (change <= 1e-15 * np.abs(at.objective)) & np.isfinite(tried.gradient).all(axis=1)
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
        at = at.improved(tried, good)
    at_bound = ((theta <= lower) | (theta >= upper)) & problem.free
    # where rounding keeps the gradient from vanishing, no step that the curvature allows would gain anything
    converged = (norm <= max(tolerance, CONVERGED)) | (offset <= OFFSET)
    return _snug(problem, Minimum(theta, objective, norm, converged, at_bound, np.ones(count, dtype=np.int64)))


def _snug(problem: Problem, minimum: Minimum) -> Minimum:
    """The same with coordinates next to a bound at it, where that costs nothing: rounding stops steps short of it."""
    theta = minimum.coordinates
    below, above = (
        (np.abs(theta - b) <= SNUG * np.maximum(1.0, np.abs(b))) & (theta != b) & np.isfinite(b) & problem.free
        for b in (problem.lower, problem.upper)
    )
    rows = np.flatnonzero((below | above).any(axis=1))
    if not rows.size:
        return minimum
    moved = np.where(below, problem.lower, np.where(above, problem.upper, theta))
    snug = minimise(problem.select(rows), moved[rows], max_iterations=0)
    equal = np.flatnonzero(snug.objective <= minimum.objective[rows] * (1 + 1e-12))
    return minimum.replaced(rows[equal], snug.select(equal))


def hessian(problem: Problem, coordinates: Array) -> Array:
    """Second derivatives (S, p, p) of the objective: central differences of the exact gradient, inside the bounds."""
    count, size = coordinates.shape
    each = np.arange(size)
    step = STEP * np.maximum(1.0, np.abs(coordinates))
    above = np.repeat(coordinates[:, None, :], size, axis=1)
    below = above.copy()
    above[:, each, each] = np.minimum(coordinates + step, problem.upper)
    below[:, each, each] = np.maximum(coordinates - step, problem.lower)
    apart = (above - below)[:, each, each]
    spread = problem.select(np.tile(np.repeat(np.arange(count), size), 2))
    ends = np.concatenate([above.reshape(-1, size), below.reshape(-1, size)])
    there, back = evaluate(spread, ends).gradient.reshape(2, count, size, size)
    # Far out the gradients may be as large as numbers go; whoever asks judges what comes of it.
    with np.errstate(over="ignore", invalid="ignore"):
        slope = (there - back) / np.where(apart > 0, apart, 1.0)[:, :, None]
        return 0.5 * (slope + slope.transpose(0, 2, 1))


def newton(problem: Problem, start: Array, iterations: int, tolerance: float = GRADIENT_TOLERANCE) -> Array:
    """Coordinates (S, p) after at most `iterations` damped Newton steps from every start (S, p), none of them uphill.

    Levenberg-Marquardt knows the curvature of the loss but not that of the law; where a valley bends more than its
    floor slopes it takes hundreds of steps for what these do in five. Negative eigenvalues of the Hessian, scaled by
    the reweighted curvatures, count by their size, so that a saddle is left.
    """
    theta = np.clip(start, problem.lower, problem.upper)
    each = np.arange(theta.shape[1])
    index, moving, current = np.arange(len(theta)), problem, theta.copy()
    at, damping = evaluate(problem, theta), np.full(len(theta), 1e-3)
    for _ in range(iterations):
        held = held_coordinates(current, at, moving)
        going = np.flatnonzero(gradient_norm(at, held) > tolerance)
        if len(going) < len(index):
            index, current, held, damping = index[going], current[going], held[going], damping[going]
            at, moving = at.select(going), moving.select(going)
        if not len(index):
            break
        curvature = np.maximum(at.reweighted[:, each, each], 1e-300)
        scale = np.sqrt(np.maximum(curvature, 1e-20 * curvature.max(axis=1, keepdims=True)))
        matrix = _scaled(hessian(moving, current), scale, held)
        matrix[:, each, each] += held
        # Not NaN, and not so large that the eigenvalues overflow.
        usable = np.all(np.abs(matrix) < LARGEST, axis=(1, 2)) & np.isfinite(at.gradient).all(axis=1)
        matrix[~usable] = np.eye(len(each))
        values, vectors = np.linalg.eigh(matrix)
        pull = np.where(held | ~usable[:, None], 0.0, at.gradient / scale)
        along = np.einsum("spk,sp->sk", vectors, pull) / (np.maximum(np.abs(values), 1e-14) + damping[:, None])
        step = -np.einsum("spk,sk->sp", vectors, along) / scale
        trial = np.clip(current + step, problem.lower, problem.upper)
        tried = evaluate(moving, trial)
        with np.errstate(invalid="ignore"):
            good = tried.objective <= at.objective * (1 + 1e-15)
        good &= np.isfinite(tried.gradient).all(axis=1)
        # valleys are flatter than their walls are steep by up to 1e10: a few good steps must do for that
        damping = np.clip(np.where(good, 0.001, 10.0) * damping, 1e-16, 1e16)
        current = np.where(good[:, None], trial, current)
        theta[index] = current
        at = at.improved(tried, good)
    return theta
