"""What is minimised: a law, rows and a loss, evaluated for many parameter vectors at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .law import Array, Columns, Law
from .losses import Loss

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
        block = _evaluate_block(problem.rows(slice(begin, begin + rows_at_once)), coordinates)
        if total is None:
            total = block
        else:
            total = Evaluation(
                total.objective + block.objective,
                total.gradient + block.gradient,
                total.gradient_scale + block.gradient_scale,
                total.newton + block.newton,
                total.reweighted + block.reweighted,
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
