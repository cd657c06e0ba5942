"""Profile-likelihood intervals of a law's parameters, open where the data do not close them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.fitting.laws.law import Array
from analysis.fitting.minimiser import system_of
from analysis.fitting.polishing import refit
from analysis.fitting.problem import Problem, Scales, coordinates_of, evaluate, make_problem
from analysis.fitting.result import FitResult, ParameterEstimate

from .sandwich import curvature, points_of, problem_of, sandwich, spread_of

FARTHEST = 25.0  # in logarithms, or in units of the estimate: an interval that reaches this far is open
ROUNDS = 24
MOST_ROWS = 100_000


def profile(result: FitResult, interval: float = 0.95) -> dict[str, ParameterEstimate]:
    """The profile-likelihood interval of every identified parameter, in natural units, by name.

    Each parameter is held at a value, the others are refitted, and the value is moved until the objective has risen
    by threshold * c / 2 with the F(1, n - p) quantile as threshold and c the ratio of the sandwich's variance to the
    inverse curvature: the likelihood-ratio test of an M-estimator (E[psi^2] / E[psi'], Schrader & Hettmansperger 1980),
    for unequal variances and clusters too (Rotnitzky & Jewell 1990). All parameters and both ends move at once.
    An end is None where the profile never rises to the threshold.
    """
    from scipy.special import fdtri

    problem, start = natural_problem(result)
    free = problem.free
    spare = max(len(np.unique(points_of(result).units)) - int(free.sum()), 1)
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
    intervals = {name: ParameterEstimate(result.parameters[name].value) for name in names}
    for (k, side), end in zip(sides, ends, strict=True):
        q, known = result.law.parameters[k], intervals[names[k]]
        if end is not None and known.value is not None:
            value = float(np.exp(end) if q.log else end)
            intervals[q.name] = replace(known, low=value) if side < 0 else replace(known, high=value)
    return intervals


def natural_problem(result: FitResult) -> tuple[Problem, Array]:
    """The problem in natural units, so that holding a coordinate holds the natural parameter, and where the fit is."""
    law = result.law
    ones = Scales(dict.fromkeys(law.columns, 1.0), 1.0)
    problem = make_problem(law, points_of(result), ones, result.residual, result.loss)
    problem = replace(problem, free=problem_of(result).free)
    start = coordinates_of(law, result.scales.natural_at(law, result.coordinates))
    # bounds of parameters with a unit are meant for scaled columns: move them along
    lower, upper = problem.lower.copy(), problem.upper.copy()
    for k, q in enumerate(law.parameters):
        if q.unit:
            lower[k], upper[k] = (-np.inf, np.inf) if q.log else (min(lower[k], 0.0), np.inf)
    return replace(problem, lower=lower, upper=upper), start


def _natural_variances(result: FitResult, start: Array) -> tuple[Array, Array]:
    """Variances (p,) of the natural coordinates: the sandwich's, and the inverse curvature's alone."""
    problem, law, theta = problem_of(result), result.law, result.coordinates
    moving = np.flatnonzero(problem.inside(theta))
    whole = np.zeros((len(theta), len(theta)))
    whole[np.ix_(moving, moving)] = np.linalg.pinv(curvature(problem, theta))
    step = 1e-5
    natural = result.scales.natural_at(law, theta + step * np.eye(len(theta)))
    moved = coordinates_of(law, {name: values[:, None] for name, values in natural.items()})
    change = ((moved - start) / step).T
    return np.diag(change @ sandwich(result) @ change.T), np.diag(change @ whole @ change.T)


def _tangent(problem: Problem, coordinates: Array, index: NDArray[np.int64]) -> Array:
    """How the coordinates (S, p) follow when number `index` (S,) of each start moves by one, to first order.

    Moved alone, an exponent in natural units changes predictions by so many orders that nothing leads back.
    """
    each = np.arange(len(index))
    at = evaluate(problem, coordinates)
    flat = replace(at, newton=at.reweighted)
    system = system_of(flat, np.full(len(index), 1e-9), ~problem.inside(coordinates))
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
    reached = np.full(count, np.nan)  # the distance of the end, once done; not a number where it is open
    for _ in range(ROUNDS):
        distance = np.minimum(distance, limit)
        active = np.flatnonzero(~done)
        if not len(active):
            break
        moving, which = held.select(active), index[active]
        value = start[which] + sign[active] * distance[active]
        alone = np.arange(len(start)) == which[:, None]
        starts = []
        for known, way in ((inside[active], _tangent(moving, inside[active], which)), (last[active], alone)):
            trial = known + (value - known[np.arange(len(which)), which])[:, None] * way
            starts.append(np.clip(trial, moving.lower, moving.upper))
        refitted = refit(moving, starts, 1e-6)
        last[active] = refitted.coordinates
        height = (refitted.objective - base) / rise[active]
        root = np.sqrt(np.maximum(height, 0.0)) - 1.0
        better = root < 0
        inside[active[better]] = refitted.coordinates[better]
        for position, k in enumerate(active.tolist()):
            if abs(root[position]) < 1e-3:
                reached[k], done[k] = distance[k], True
            elif root[position] < 0:
                inner[k], inner_root[k] = distance[k], root[position]
                done[k] = distance[k] >= limit[k] * (1 - 1e-12)
                bound, q = (problem.lower if sign[k] < 0 else problem.upper)[index[k]], problem.law.parameters[index[k]]
                # a floor's lower end may be its bound (zero); an exponent or amplitude at its bound is an open end
                if done[k] and np.isfinite(bound) and limit[k] < FARTHEST * scale[k] and q.linear and not q.log:
                    reached[k] = limit[k]
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
                    reached[k], done[k] = inner[k], True
    ends = start[index] + sign * np.where(done, reached, distance)
    return [None if np.isnan(end) else float(end) for end in ends]


def with_profile(result: FitResult, interval: float = 0.95) -> FitResult:
    """The result with profile-likelihood intervals for its parameters; standard errors stay as they were."""
    if result.rows > MOST_ROWS:
        note = f"{result.rows} rows are too many to profile: the intervals are those of {result.interval_method}"
        return replace(result, warnings=(*result.warnings, note))
    intervals = profile(result, interval)
    parameters = {k: replace(old, low=intervals[k].low, high=intervals[k].high) for k, old in result.parameters.items()}
    opened = [name for name, e in intervals.items() if e.value is not None and (e.low is None or e.high is None)]
    opened = [name for name in opened if name not in result.at_bound]
    warnings = result.warnings
    if opened:
        warnings = (*warnings, f"the profile of {', '.join(opened)} stays low on one side: an open interval end")
    return replace(
        result, parameters=parameters, interval=interval, interval_method="profile likelihood", warnings=warnings
    )
