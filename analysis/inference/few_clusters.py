"""How much further than a robust spread says an interval must reach where few clusters decide a coordinate.

A cluster-robust variance is a sum of squares of few residuals that the fit has made smaller. Under a working
covariance of the errors its mean and its degrees of freedom follow (Bell & McCaffrey 2002, Survey Methodology 28,
169-181; Imbens & Kolesar 2016, Rev. Econ. Stat. 98, 701-712): each coordinate has its own, since one contrast of two
groups of clusters rests on those alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from analysis.fitting.laws.law import Array
from analysis.fitting.result import FitResult

from .sandwich import moving_slopes, points_of, problem_of

LEVERAGE = 0.9  # the largest that the wild bootstrap gives back


def few_cluster_factors(result: FitResult, kinds: NDArray[np.int64], interval: float = 0.95) -> Array:
    """Factors (p,) by which draws of the wild bootstrap over clusters are to lie further from the fit; 1 where held.

    kinds: number (n,) of the kind of each row, such as its metric. Working covariance of the weighted errors: 1 a row,
    and a shift common to a cluster's rows of one kind, as large as the residuals of that kind have it.
    """
    problem, theta, unit = problem_of(result), result.coordinates, points_of(result).units
    r, slopes, moving = moving_slopes(problem, theta)
    root = np.sqrt(problem.weights)
    scaled = slopes * root
    influence = np.linalg.pinv(scaled @ scaled.T) @ scaled
    leverage = np.clip(np.sum(influence * scaled, axis=0), 0.0, LEVERAGE)
    # How an error of each row (columns) moves the residuals (rows) that the wild bootstrap flips.
    maker = (np.eye(len(r)) - scaled.T @ influence) / (1.0 - leverage)[:, None]
    covariance = np.eye(len(r))
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        alike = unit[rows][:, None] == unit[rows]
        covariance[np.ix_(rows, rows)] += _shift_share((r * root)[rows], unit[rows]) * alike
    units = np.arange(int(unit.max()) + 1)
    factors = np.ones(len(theta))
    normal = stdtrit(np.inf, (1 + interval) / 2)
    for coordinate, weights in zip(moving, influence, strict=True):
        parts = (weights * (unit == units[:, None])) @ maker
        spread = parts @ covariance @ parts.T
        mean = float(np.trace(spread))
        true = float(weights @ covariance @ weights)
        if mean <= 0 or true <= 0:
            continue
        freedom = mean**2 / float(np.sum(spread**2))
        factors[coordinate] = np.sqrt(true / mean) * stdtrit(max(freedom, 1.0), (1 + interval) / 2) / normal
    return factors


def _shift_share(residuals: Array, unit: NDArray[np.int64]) -> float:
    """Variance of a shift common to a unit over that of a row within it, by the analysis of variance; at least 0."""
    _, number, counts = np.unique(unit, return_inverse=True, return_counts=True)
    means = np.bincount(number, weights=residuals) / counts
    spare = len(residuals) - len(counts)
    within = float(np.sum((residuals - means[number]) ** 2)) / spare if spare > 0 else 0.0
    if within <= 0 or len(counts) < 2:
        return 0.0
    between = float(np.sum(counts * means**2)) / len(counts)
    return max(between / within - 1.0, 0.0) / float(np.mean(counts))
