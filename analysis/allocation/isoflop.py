"""The IsoFLOP parabola (approach 2), a baseline: a quadratic in log size per budget, then a power law of the minima."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.fitting.costs import PowerCost
from analysis.fitting.laws.law import Array
from analysis.fitting.reading.points import make_points
from analysis.fitting.request import FitRequest
from results.errors import FitError, UsageError

BIAS = (
    "parabola estimates are biased even without noise when the grid is off-centre or alpha != beta "
    "(6 % to 54 % in D*, arXiv 2603.22339): compare with a fitted law"
)


@dataclass(frozen=True)
class BudgetMinimum:
    """The parabola's minimum at one budget. `bracketed`: points with higher loss lie on both sides of it."""

    flops: float
    size: float
    loss: float
    rows: int
    curvature: float
    bracketed: bool


@dataclass(frozen=True)
class IsoflopResult:
    """size* = coefficient * C^exponent through the bracketed minima, and every minimum, bracketed or not.

    notes: how the rows were read, such as what was left out.
    """

    exponent: float
    coefficient: float
    minima: tuple[BudgetMinimum, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def size(self, flops: ArrayLike) -> Array:
        """The optimal size (tokens or params, as fitted) at budgets in FLOPs."""
        return np.asarray(self.coefficient * np.asarray(flops, dtype=float) ** self.exponent)


def parabola(flops: float, size: Array, loss: Array) -> BudgetMinimum:
    """Least squares of loss = quadratic in log size; raises FitError with fewer than 3 different sizes."""
    if len(np.unique(size)) < 3:
        raise FitError(f"budget {flops:g}: {len(np.unique(size))} different sizes; a parabola needs 3")
    log = np.log(size)
    centre = log.mean()
    a, b, c = np.polyfit(log - centre, loss, 2)
    if a > 0:
        vertex = centre - b / (2 * a)
        best, lowest, inside = np.exp(vertex), c - b**2 / (4 * a), bool(log.min() < vertex < log.max())
    else:
        best, lowest, inside = size[np.argmin(loss)], loss.min(), False
    return BudgetMinimum(float(flops), float(best), float(lowest), len(size), float(2 * a), inside)


def isoflop(flops: ArrayLike, size: ArrayLike, loss: ArrayLike, *, tolerance: float = 0.01) -> IsoflopResult:
    """Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556), section 3.2.

    flops, size, loss: (n,). Rows whose FLOPs agree within `tolerance` (relative) are one budget. Only bracketed
    minima enter the power law; the others are reported. Budgets with fewer than 3 sizes are left out, and named.

    Raises DataError for unusable columns, FitError with fewer than 2 bracketed minima.
    """
    data = {"flops": flops, "size": size, "metric": loss}
    points = make_points(data, roles=("flops", "size"), names={"metric": "loss"}, positive_metric=False)
    c, s, y = points.columns["flops"], points.columns["size"], points.metric
    order = np.argsort(c, kind="stable")
    edges = np.flatnonzero(np.diff(np.log(c[order])) > tolerance) + 1
    minima, warnings = [], [BIAS]
    for rows in np.split(order, edges):
        budget = float(np.exp(np.mean(np.log(c[rows]))))
        if len(np.unique(s[rows])) < 3:
            warnings.append(f"budget {budget:.3g}: fewer than 3 sizes, left out")
            continue
        minimum = parabola(budget, s[rows], y[rows])
        minima.append(minimum)
        if not minimum.bracketed:
            warnings.append(f"budget {budget:.3g}: the minimum is not bracketed by the sizes trained, left out")
    used = [m for m in minima if m.bracketed]
    if len(used) < 2:
        raise FitError(f"isoflop: {len(used)} of {len(minima)} budgets have a bracketed minimum; a power law needs 2")
    log_c, log_s = np.log([m.flops for m in used]), np.log([m.size for m in used])
    exponent, at_mean = np.polyfit(log_c - log_c.mean(), log_s, 1)
    return IsoflopResult(
        float(exponent), float(np.exp(at_mean - exponent * log_c.mean())), tuple(minima), tuple(warnings)
    )


def isoflop_of(request: FitRequest, tolerance: float = 0.01) -> tuple[IsoflopResult, IsoflopResult]:
    """N* and D* of the rows asked for, whose law has params and tokens; C is its own column, or 6ND.

    Raises what `isoflop` raises, UsageError for a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise UsageError(f"tolerance={tolerance:g} is not a positive number")
    points = request.points(request.one_law.law)
    params, tokens = points.columns["params"], points.columns["tokens"]
    budgets = points.columns.get("flops", PowerCost().flops(params, tokens))
    by_params, by_tokens = (
        replace(isoflop(budgets, size, points.metric, tolerance=tolerance), notes=points.notes)
        for size in (params, tokens)
    )
    return by_params, by_tokens
