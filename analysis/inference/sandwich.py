"""Asymptotic covariance of a fit: expected curvature and sandwich, robust to unequal variances and to clusters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.fitting.laws.law import Array
from analysis.fitting.problem import Problem, make_problem, residuals
from analysis.fitting.reading.points import Points
from analysis.fitting.result import FitResult
from results.errors import UsageError

KERNEL_ROWS = 30  # rows a parameter from which rows are resampled and unequal variances can be seen
KERNEL = 0.6  # its half width in robust deviations at 240 rows: wider ones flatten the peak of long-tailed residuals


def points_of(result: FitResult) -> Points:
    """The fitted points; raises UsageError for a result read from JSON, which has none."""
    if result.points is None:
        raise UsageError("this fit carries no points (it was read from a file): fit the data again")
    return result.points


def problem_of(result: FitResult) -> Problem:
    """The minimisation problem behind a result; raises UsageError for one read from JSON, which has no points."""
    problem = make_problem(result.law, points_of(result), result.scales, result.residual, result.loss)
    return problem if result.free is None else replace(problem, free=result.free)


def moving_slopes(problem: Problem, theta: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Residuals (n,), their slopes (m, n) in the m coordinates that move, and which these are (m,)."""
    r, jacobian = residuals(problem, theta[None, :])
    moving = np.flatnonzero(problem.inside(theta))
    return r[0], jacobian[0][moving], moving


def spread_of(problem: Problem, theta: Array) -> tuple[float, float]:
    """(mean psi^2, mean psi') of an M-estimator's residuals, psi' smoothed over half a robust deviation.

    Their ratio turns a difference of objectives into chi-squared units (Schrader & Hettmansperger 1980), and with the
    slopes gives the asymptotic covariance (Huber 1981, section 6.3). Rows are counted less the parameters fitted.
    """
    r, _, moving = moving_slopes(problem, theta)
    w, p = problem.weights, len(moving)
    count = float(np.sum(w > 0))
    spare = max(count - p, 1.0)
    mean = w / np.mean(w[w > 0])
    if problem.loss.kind == "squares":
        return float(np.sum(mean * r**2) / spare), 1.0
    _, psi, second, _ = problem.loss.terms(r)
    square = float(np.sum(mean * psi**2) / spare)
    robust = 1.4826 * float(np.median(np.abs(r[w > 0])))
    delta = problem.loss.delta if problem.loss.kind != "lad" else 0.0
    width = max(delta, 0.5 * robust, 1e-300)
    inside = (np.abs(r) < width) & (w > 0)
    if width <= delta:
        return square, max(float(np.mean(second[w > 0])), 1.0 / count)
    # a nearly absolute loss passes through about p rows: they say nothing about the density at zero
    density = max(float(np.sum(mean[inside])) - p, 1.0) / spare / width
    slope = density * (delta if delta > 0 else 1.0)
    if problem.loss.kind == "envelope":
        slope *= 0.5
    return square, slope


def curvature(problem: Problem, theta: Array) -> Array:
    """The expected second derivative (m, m) of the objective in the m coordinates that move.

    With KERNEL_ROWS rows a parameter or more, each row counts by whether its residual is small (Powell 1991), which
    holds for unequal variances too; with fewer, all rows share one density of residuals at zero.
    """
    r, slopes, moving = moving_slopes(problem, theta)
    w = problem.weights
    used = w > 0
    count = float(np.sum(used))
    if problem.loss.kind == "squares":
        return (slopes * w) @ slopes.T
    delta = problem.loss.delta if problem.loss.kind != "lad" else 0.0
    width = KERNEL * 1.4826 * float(np.median(np.abs(r[used]))) * (count / 240) ** -0.2
    if problem.loss.kind == "envelope" or width <= delta or count < KERNEL_ROWS * len(moving):
        return (slopes * w) @ slopes.T * spread_of(problem, theta)[1]
    near = w * (np.abs(r) < width) * (delta if delta > 0 else 1.0) / width
    return (slopes * near) @ slopes.T * (count / max(count - len(moving), 1.0))


def sandwich(result: FitResult) -> Array:
    """Asymptotic covariance (p, p) of the coordinates, robust to unequal variances and to clusters; zero where held."""
    problem, theta, unit = problem_of(result), result.coordinates, points_of(result).units
    r, slopes, moving = moving_slopes(problem, theta)
    bread = np.linalg.pinv(curvature(problem, theta))
    score = np.zeros((len(moving), int(unit.max()) + 1))
    for k, row in enumerate(slopes * (problem.weights * problem.loss.terms(r)[1])):
        score[k] = np.bincount(unit, weights=row)
    units = score.shape[1]
    meat = score @ score.T * units / max(units - 1, 1) * len(r) / max(len(r) - len(moving), 1)
    out = np.zeros((len(theta), len(theta)))
    out[np.ix_(moving, moving)] = bread @ meat @ bread
    return out
