"""Profile-likelihood intervals of a law's parameters, open where the data do not close them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.fitting.fit import make_problem
from analysis.fitting.law import Array
from analysis.fitting.polishing import refit
from analysis.fitting.problem import Problem, evaluate
from analysis.fitting.result import FitResult, ParameterEstimate
from analysis.fitting.scales import Scales
from analysis.fitting.steps import system_of

from .sandwich import curvature, moving_of, natural_values, problem_of, sandwich, spread_of

FARTHEST = 25.0  # in logarithms, or in units of the estimate: an interval that reaches this far is open
ROUNDS = 24
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Profiles:
    """Intervals by parameter; `low` or `high` None where the profile never rises to the threshold (an open end)."""

    intervals: dict[str, ParameterEstimate]
    threshold: float
    rounds: int


def profile(result: FitResult, interval: float = 0.95) -> Profiles:
    """The profile-likelihood interval of every identified parameter, in natural units.

    Each parameter is held at a value, the others are refitted, and the value is moved until the objective has risen
    by threshold * c / 2 with the F(1, n - p) quantile as threshold and c the ratio of the sandwich's variance to the
    inverse curvature: the likelihood-ratio test of an M-estimator (E[psi^2] / E[psi'], Schrader & Hettmansperger 1980),
    for unequal variances and clusters too (Rotnitzky & Jewell 1990). All parameters and both ends move at once.
    """
    from scipy.special import fdtri

    problem, start = natural_problem(result)
    free = problem.free if problem.free.ndim == 1 else problem.free[0]
    clusters = None if result.points is None else result.points.clusters
    units = result.rows if clusters is None else len(np.unique(clusters))
    spare = max(units - int(free.sum()), 1)
    threshold = float(fdtri(1, spare, interval))
    variance, by_curvature = _natural_variances(result, start)
    calibration = np.where(by_curvature > 0, variance / np.maximum(by_curvature, 1e-300), 1.0)
    square, slope = spread_of(problem_of(result), result.coordinates)
    calibration = np.where((by_curvature > 0) & (variance > 0), calibration, square / slope)
    names = result.law.names
    chosen = [k for k, name in enumerate(names) if free[k] and name not in result.not_identified]
    base = float(evaluate(problem, start[None, :]).objective[0])
    sides = [(k, side) for k in chosen for side in (-1.0, 1.0)]
    rise = np.array([threshold * calibration[k] / 2.0 for k, _ in sides])
    se = np.sqrt(np.maximum(variance, 0.0))
    fallback = 0.05 * np.maximum(np.abs(start), 0.1)
    steps = np.where(np.isfinite(se) & (se > 1e-12), np.minimum(se, 5.0), fallback)
    ends = _ends(problem, start, base, rise, sides, steps)
    intervals: dict[str, ParameterEstimate] = {}
    for name in names:
        intervals[name] = ParameterEstimate(result.parameters[name].value)
    for (k, side), end in zip(sides, ends, strict=True):
        name, q = names[k], result.law.parameters[k]
        where = None if end is None else float(np.exp(end) if q.log else end)
        old = intervals[name]
        if old.value is None:
            continue
        intervals[name] = replace(old, low=where) if side < 0 else replace(old, high=where)
    return Profiles(intervals, threshold, ROUNDS)


def natural_problem(result: FitResult) -> tuple[Problem, Array]:
    """The problem in natural units, so that holding a coordinate holds the natural parameter, and where the fit is."""
    points = result.points
    assert points is not None
    law = result.law
    ones = Scales(dict.fromkeys(law.columns, 1.0), 1.0)
    problem = make_problem(law, points, ones, result.residual, result.loss)
    if result.free is not None:
        problem = replace(problem, free=result.free)
    values = natural_values(result)
    start = np.array([np.log(values[q.name]) if q.log else values[q.name] for q in law.parameters], dtype=float)
    # bounds of parameters with a unit are meant for scaled columns: move them along
    lower, upper = problem.lower.copy(), problem.upper.copy()
    for k, q in enumerate(law.parameters):
        if q.unit:
            lower[k], upper[k] = (-np.inf, np.inf) if q.log else (min(lower[k], 0.0), np.inf)
    return replace(problem, lower=lower, upper=upper), start


def _natural_variances(result: FitResult, start: Array) -> tuple[Array, Array]:
    """Variances (p,) of the natural coordinates: the sandwich's, and the inverse curvature's alone."""
    problem, law, theta = problem_of(result), result.law, result.coordinates
    bread = np.linalg.pinv(curvature(problem, theta))
    moving = moving_of(problem, theta)
    whole = np.zeros((len(theta), len(theta)))
    whole[np.ix_(moving, moving)] = bread
    columns = []
    for k in range(len(theta)):
        step = 1e-5
        moved = theta.copy()
        moved[k] += step
        p = {q.name: (np.exp(moved[i]) if q.log else moved[i]) for i, q in enumerate(law.parameters)}
        natural = result.scales.natural(law, {name: np.asarray(v) for name, v in p.items()})
        there = np.array([np.log(natural[q.name]) if q.log else natural[q.name] for q in law.parameters], dtype=float)
        columns.append((there - start) / step)
    change = np.array(columns).T
    covariance = sandwich(result, bread)
    return np.diag(change @ covariance @ change.T), np.diag(change @ whole @ change.T)


def _tangent(problem: Problem, coordinates: Array, index: NDArray[np.int64]) -> Array:
    """How the coordinates (S, p) follow when number `index` (S,) of each start moves by one, to first order.

    Moved alone, an exponent in natural units changes predictions by so many orders that nothing leads back.
    """
    each = np.arange(len(index))
    at = evaluate(problem, coordinates)
    flat = replace(at, newton=at.reweighted)
    held = ~problem.free | (coordinates <= problem.lower) | (coordinates >= problem.upper)
    system = system_of(flat, np.full(len(index), 1e-9), held)
    tangent = system.solve(at.reweighted[each, :, index])
    tangent[each, index] = 1.0
    return tangent


def _ends(
    problem: Problem, start: Array, base: float, rise: Array, sides: list[tuple[int, float]], steps: Array
) -> list[float | None]:
    """Where each profile crosses `rise`: steps outwards, then regula falsi on the square root of the rise."""
    count = len(sides)
    index = np.array([k for k, _ in sides])
    sign = np.array([side for _, side in sides])
    free = np.repeat(np.atleast_2d(problem.free), count, axis=0)
    free[np.arange(count), index] = False
    held = replace(problem, free=free)
    scale = np.maximum(np.abs(start[index]), 1.0)
    inner, inner_root = np.zeros(count), np.full(count, -1.0)  # distance, sqrt(rise/threshold) - 1
    outer, outer_root = np.full(count, np.nan), np.full(count, np.nan)
    inside = np.repeat(start[None, :], count, axis=0)  # where the others are at the inner distance
    last = inside.copy()  # and where the last refit left them
    distance = 1.96 * steps[index]
    limit = np.where(sign < 0, start[index] - problem.lower[index], problem.upper[index] - start[index])
    limit = np.minimum(limit, FARTHEST * scale)
    done = np.zeros(count, dtype=bool)
    open_end = np.zeros(count, dtype=bool)
    at_edge = np.zeros(count, dtype=bool)
    for _ in range(ROUNDS):
        distance = np.minimum(distance, limit)
        active = np.flatnonzero(~done)
        if not len(active):
            break
        part, which = held.select(active), index[active]
        value = start[which] + sign[active] * distance[active]
        alone = np.arange(len(start)) == which[:, None]
        starts = []
        for known, way in ((inside[active], _tangent(part, inside[active], which)), (last[active], alone)):
            trial = known + (value - known[np.arange(len(which)), which])[:, None] * way
            starts.append(np.clip(trial, part.lower, part.upper))
        refitted = refit(part, starts, 1e-6)
        last[active] = refitted.coordinates
        height = (refitted.objective - base) / rise[active]
        root = np.sqrt(np.maximum(height, 0.0)) - 1.0
        better = root < 0
        inside[active[better]] = refitted.coordinates[better]
        for position, k in enumerate(active.tolist()):
            if abs(root[position]) < 1e-3:
                inner[k], done[k] = distance[k], True
            elif root[position] < 0:
                inner[k], inner_root[k] = distance[k], root[position]
                if distance[k] >= limit[k] * (1 - 1e-12):
                    done[k] = True
                    bound = problem.lower[index[k]] if sign[k] < 0 else problem.upper[index[k]]
                    at_edge[k] = np.isfinite(bound) and limit[k] < FARTHEST * scale[k]
                    open_end[k] = True
            else:
                outer[k], outer_root[k] = distance[k], root[position]
            if done[k]:
                continue
            if np.isnan(outer[k]):
                guess = distance[k] / max(1.0 + root[position], 0.25)
                distance[k] = float(np.clip(guess * 1.02, 1.3 * distance[k], 4.0 * distance[k]))
            else:
                gap = outer[k] - inner[k]
                share = -inner_root[k] / (outer_root[k] - inner_root[k])
                distance[k] = inner[k] + float(np.clip(share, 0.05, 0.95)) * gap
                if gap < 1e-6 * max(outer[k], 1e-12):
                    done[k] = True
    out: list[float | None] = []
    for k in range(count):
        if open_end[k]:
            q = problem.law.parameters[index[k]]
            # a floor's lower end may be its bound (zero); an exponent or amplitude at its bound is an open end
            floor = at_edge[k] and q.linear and not q.log
            out.append(float(start[index[k]] + sign[k] * limit[k]) if floor else None)
        else:
            out.append(float(start[index[k]] + sign[k] * (inner[k] if done[k] else distance[k])))
    return out


def with_profile(result: FitResult, interval: float = 0.95) -> FitResult:
    """The result with profile-likelihood intervals for its parameters; standard errors stay as they were."""
    if result.rows > MOST_ROWS:
        note = f"{result.rows} rows are too many to profile: the intervals are those of {result.interval_method}"
        return replace(result, warnings=(*result.warnings, note))
    profiled = profile(result, interval)
    parameters = {
        name: replace(old, low=profiled.intervals[name].low, high=profiled.intervals[name].high)
        for name, old in result.parameters.items()
    }
    opened = [
        name
        for name, e in profiled.intervals.items()
        if e.value is not None and name not in result.at_bound and (e.low is None or e.high is None)
    ]
    warnings = result.warnings
    if opened:
        warnings = (*warnings, f"the profile of {', '.join(opened)} stays low on one side: an open interval end")
    return replace(
        result, parameters=parameters, interval=interval, interval_method="profile likelihood", warnings=warnings
    )
