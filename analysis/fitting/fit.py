"""Fit a law to points: the best of its minima, an honest status, and which parameters the data leave open."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from results.errors import DataError, FitError, TokenlawError, UsageError

from .costs import PowerCost, fit_cost
from .laws.known_laws import law_named
from .laws.law import Array, Law
from .minimiser import Minimum, minimise
from .own_law import check_units, of_law
from .problem import Loss, Problem, Scales, coordinates_of, make_problem, residuals, weighted_median
from .reading.points import POSITIVE_METRIC, Flag, Points, make_points, require
from .result import FitResult, ParameterEstimate, Status
from .search import AGREEMENT, MANY_ROWS, MAX_ROWS, search_enough, starts_of
from .suitability import refuse_rising, suited

SINGULAR = 1e-8  # a direction of the normalised slopes below this is not identified
DEAD = 1e-7  # root mean square of a parameter's (scaled) slopes below which it moves no prediction
PART = 1e-3  # a parameter at an edge is known to be there unless it has this part in a direction that changes nothing
TIE = 1e-6
"""Objectives this close, relatively, are equal: single precision of a metric with 1 % noise moves them more."""
EXACT, EXACT_LAD = 1e-25, 1e-12
"""Objectives a row that are rounding: of squares of residuals, of their sizes."""
PROFILE = np.geomspace(1e-2, 1.0, 40)
MOVED = 0.01  # a parameter that changes by less, relatively above 1, is not what the ridge is about
Name = TypeVar("Name", str, None)


def as_points(law: Law | str, data: Points | Mapping[str, Any], residual: str) -> Points:
    """Validated points for a law from a mapping {column: values, ..., "metric": values[, "weights", "clusters"]}."""
    if isinstance(data, Points):
        return data
    law = law_named(law)
    return make_points(
        law.filled(data, np.size(data.get("metric", ()))),
        roles=law.columns,
        signed_roles=(*law.metric_columns, *law.signed_columns),
        positive_metric=residual == "log",
    )


def check_points(law: Law, points: Points, residual: str) -> None:
    """Raise DataError where no fit makes sense: logarithms of what is not positive, one row, or all rows equal."""
    if residual == "log":
        name = points.names.get("metric", "metric")
        require(points.metric > 0, points.metric, points.rows, name, POSITIVE_METRIC)
    missing = [name for name in law.columns if name not in points.columns and name not in law.constant_columns]
    if missing:
        raise DataError(f"law {law.name}: column {missing[0]!r} is missing; needed: {', '.join(law.columns)}")
    used = points.weights > 0
    if used.sum() < 2:
        row = int(points.rows[used][0]) if used.any() else 0
        raise DataError(f"row {row} is the only row (with weight); a law needs at least 2, and more to identify it")
    explaining = {name: points.columns[name] for name in law.columns if name not in law.metric_columns}
    constant = {name: column[used][0] for name, column in explaining.items() if np.ptp(column[used]) == 0}
    if len(constant) < len(explaining):
        constant = {}
    if np.ptp(points.metric[used]) == 0:
        constant.setdefault("metric", points.metric[used][0])
    for name, value in constant.items():
        raise DataError(
            f"column {points.names.get(name, name)!r}: {value:g} in every one of {int(used.sum())} rows; "
            "a law needs at least 2 different values"
        )


def fit(
    law: Law | str,
    points: Points | Mapping[str, Any],
    *,
    residual: str = "log",
    loss: Loss | str = "huber",
    delta: float = 1e-3,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    starts: int = 8,
    max_iterations: int = 400,
) -> FitResult:
    """Fit `law` to points and say how it went.

    law: a Law or its name. points: Points, or {"params": ..., "tokens": ..., "metric": ...[, "weights"]} by the law's
    column names. residual: "log" (log prediction - log metric) or "raw". loss: see `Loss`; delta is in the unit of
    the residual. fixed: parameters held at a value; start: values to start one search from; both in natural units.
    starts: polished starts of the projection grid; a law with `screening` tries that many and polishes the best
    `starts` that differ.

    Raises DataError for unusable points, UsageError for unusable options, FitError where no start gives a number.
    The result's `status` is "converged" only where the scaled gradient vanishes.
    """
    return fit_groups(
        law, {None: points}, residual=residual, loss=loss, delta=delta, fixed=fixed, start=start, starts=starts,
        max_iterations=max_iterations,
    )[None]  # fmt: skip


def fit_groups(
    law: Law | str,
    groups: Mapping[Name, Points | Mapping[str, Any]],
    *,
    residual: str = "log",
    loss: Loss | str = "huber",
    delta: float = 1e-3,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    starts: int = 8,
    max_iterations: int = 400,
) -> dict[Name, FitResult]:
    """Fit `law` to each group of points, side by side: many small groups take a fraction of the time of as many `fit`.

    Options and results are those of `fit`, up to rounding; `seconds` of a result is its share of the time. Raises what
    `fit` raises, naming the group, before any group is fitted where its points are unusable.
    """
    began = time.perf_counter()
    law = law_named(law)
    if residual not in ("log", "raw"):
        raise UsageError(f"residual={residual!r} is not log or raw")
    if starts < 1:
        raise UsageError(f"starts={starts} is not at least 1")
    for option, names in (("fixed", fixed or {}), ("start", start or {})):
        unknown = set(names) - set(law.names)
        if unknown:
            raise UsageError(
                f"{option}: law {law.label} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(law.names)}"
            )
    # the unit of an amplitude moves with an exponent: it can be held where its columns keep their units
    unscaled = {
        key for q in law.parameters if q.name in (fixed or {}) for key, power in q.unit.items() if callable(power)
    }
    loss = Loss(loss, delta) if isinstance(loss, str) else loss
    prepared = []
    asked = law
    forms: dict[object, Law] = {}  # the law for these columns and signs: groups of one form share one object
    for name, data in groups.items():
        with of_group(name):
            law = asked.for_columns(list(data.columns if isinstance(data, Points) else data))
            points = as_points(law, data, residual)
            check_points(law, points, residual)
            law = suited(law, points, residual)
            law = forms.setdefault((law.signed_floor, law.columns), law)
            scales = Scales.of(law, points, unscaled)
            problem = make_problem(law, points, scales, residual, loss, fixed)
            at = _scaled_fixed(law, scales, fixed or {})
            with of_law(law):
                begun = starts_of(problem, points.metric / scales.metric, at, max(starts, law.screening))
                residuals(problem, begun[:1])
            if not len(begun):
                raise FitError(f"law {law.label}: no start gives a finite prediction")
            if start:
                begun = np.concatenate([_started(law, scales, begun[0], start), begun])
            prepared.append((points, scales, problem, begun))
    problems = [problem for _, _, problem, _ in prepared]
    minima = search_enough(problems, [begun for *_, begun in prepared], starts, max_iterations * law.patience)
    results = []
    for name, (points, scales, problem, _), ended in zip(groups, prepared, minima, strict=True):
        with of_group(name), of_law(problem.law):
            results.append(_result(points, scales, problem, ended, loss))
    share = (time.perf_counter() - began) / max(len(results), 1)
    return {name: replace(result, seconds=share) for name, result in zip(groups, results, strict=True)}


@contextmanager
def of_group(name: str | None) -> Iterator[None]:
    """Let errors say which group they are about, where it has a name."""
    try:
        yield
    except TokenlawError as problem:
        if name is None:
            raise
        raise type(problem)(f"group {name!r}: {problem}") from None


def _started(law: Law, scales: Scales, best: Array, start: Mapping[str, float]) -> Array:
    """Coordinates (1, p) of the values to start from; those not given are the best start's. Raises UsageError."""
    natural = scales.natural_at(law, best) | {name: np.array([float(value)]) for name, value in start.items()}
    coordinates = coordinates_of(law, scales.scaled(law, natural))
    if not np.isfinite(coordinates).all():
        raise UsageError(f"start: {dict(start)} is not within the bounds of law {law.label}")
    return np.atleast_2d(coordinates)


def _scaled_fixed(law: Law, scales: Scales, fixed: Mapping[str, float]) -> dict[str, float]:
    held = {}
    for q in law.parameters:
        if q.name not in fixed:
            continue
        powers = {key: power for key, power in q.unit.items() if not callable(power)}  # the others have no scale
        held[q.name] = float(fixed[q.name] / np.prod([scales.unit(key) ** power for key, power in powers.items()]))
    return held


def _result(points: Points, scales: Scales, problem: Problem, ended: Minimum, loss: Loss) -> FitResult:
    law, starts = problem.law, int(ended.stands_for.sum())
    objective = np.where(np.isfinite(ended.objective), ended.objective, np.inf)
    if not np.isfinite(objective).any():
        raise FitError(f"law {law.name}: no start gives a finite objective on these {len(points)} rows")
    # among starts equal to rounding, the one with the smallest gradient
    equal = objective <= objective.min() * (1 + 1e-12) + 1e-300
    best = int(np.argmin(np.where(equal, ended.gradient_norm, np.inf)))
    perfect = (EXACT_LAD if loss.kind == "lad" else EXACT) * len(points)
    agreeing = int(np.sum(ended.stands_for[objective <= objective[best] * (1 + AGREEMENT) + perfect]))
    theta = ended.coordinates[best]
    refuse_rising(law, points, scales, theta)
    check_units(law, points, scales, theta)
    null = not_identified(law, problem, theta, scales)
    theta, on_ridge = plainest(problem, theta, float(objective[best]), null)
    lost = [name for name in law.names if name in null or name in on_ridge]
    interior = [q.name for k, q in enumerate(law.parameters) if ended.at_bound[best, k] and q.name not in on_ridge]
    exact = objective[best] <= perfect  # residuals are rounding: the gradient norm has no meaning
    ended_well = bool(ended.converged[best] or exact)
    if not ended_well:
        status = Status.MAX_ITERATIONS
    elif lost:
        status = Status.NOT_IDENTIFIABLE
    elif interior:
        status = Status.BOUNDARY
    else:
        status = Status.CONVERGED
    warnings = []
    if agreeing < starts / 2 and not (lost and ended_well):
        warnings.append(f"only {agreeing} of {starts} starts reach the best objective: the surface has other minima")
    if problem.residual == "raw" and law.floor_signs and not law.signed_floor and law.floor_parameter in interior:
        warnings.append(f"{law.floor_parameter} ends at 0, the least this law allows; --floor SIGNED allows less")
    if law.floor_parameter in interior and law.floor_signs and not law.signed_floor:
        warnings.append(f"{law.floor_parameter} lies at its bound of 0: --floor SIGNED lets it be negative")
    free = int(problem.free.sum())
    if len(points) <= free:
        warnings.append(f"{len(points)} rows for {free} free parameters: the fit passes through them")
    natural = scales.natural_at(law, theta)
    derived = {name: float(value[0]) for name, value in law.derived(natural).items()}
    derived_lost = _derived_lost(law, derived, natural, lost)
    unit = 1.0 if problem.residual == "log" else scales.metric ** (1 if loss.kind == "lad" else 2)
    return FitResult(
        law=law,
        status=status,
        parameters={name: ParameterEstimate(None if name in lost else float(v[0])) for name, v in natural.items()},
        derived={name: ParameterEstimate(None if name in derived_lost else v) for name, v in derived.items()},
        objective=float(objective[best] * unit),
        gradient_norm=0.0 if exact else float(ended.gradient_norm[best]),
        starts=starts,
        starts_agreeing=agreeing,
        rows=len(points),
        flagged=points.flags + outliers(problem, theta, points),
        seconds=0.0,
        residual=problem.residual,
        loss=loss,
        coordinates=theta,
        scales=scales,
        not_identified=tuple(lost),
        at_bound=tuple(interior),
        warnings=tuple(warnings),
        notes=points.notes,
        cost=_cost(points),
        ranges={name: (float(column.min()), float(column.max())) for name, column in points.columns.items()},
        points=points,
        minimum=ended,
        free=problem.free,
    )


def _cost(points: Points) -> PowerCost | None:
    """FLOPs as a power law of N and D, where the points have these columns and they vary independently."""
    columns = points.columns
    total = columns.get("params", columns.get("N"))
    if "params_non_vocabulary" in columns:
        total = columns["params_non_vocabulary"] + columns.get("params_vocabulary", 0.0)
    tokens = columns.get("tokens", columns.get("D"))
    if total is None or tokens is None or "flops" not in columns or len(points) < 3:
        return None
    try:
        return fit_cost(total, tokens, columns["flops"])
    except DataError:
        return None


def _derived_lost(law: Law, derived: Mapping[str, float], natural: Mapping[str, Array], lost: list[str]) -> set[str]:
    """Derived quantities that change when a parameter that is not identified does."""
    # each by a share of its own: a ratio of two that are lost is lost too
    share = {name: 1.01 + 0.01 * number for number, name in enumerate(lost)}
    moved = law.derived({name: value * share.get(name, 1.0) for name, value in natural.items()})
    return {
        name
        for name, value in derived.items()
        if lost and (not np.isfinite(value) or abs(float(moved[name][0]) - value) > 1e-9 * abs(value))
    }


def outliers(problem: Problem, theta: Array, points: Points, times: float = 6.0) -> tuple[Flag, ...]:
    """Rows farther from the law than `times` robust standard deviations: flagged, and used all the same."""
    if len(points) > MANY_ROWS:
        return ()
    r, _ = residuals(problem, theta[None, :])
    spread = 1.4826 * weighted_median(np.abs(r[0]), points.weights)
    if spread <= 1e-12:
        return ()
    far = np.flatnonzero(np.abs(r[0]) > times * spread)
    return tuple(
        Flag(int(points.rows[i]), f"residual {r[0][i]:+.3g} is {abs(r[0][i]) / spread:.1f} robust deviations out", True)
        for i in far
    )


def not_identified(law: Law, problem: Problem, theta: Array, scales: Scales) -> set[str]:
    """Names of the parameters that the data leave open to first order: those that move along a null direction of the
    slopes without changing any prediction."""
    n = problem.target.shape[-1]
    sample = problem if n <= MANY_ROWS else problem.rows(slice(0, n, n // MAX_ROWS))
    _, jacobian = residuals(sample, theta[None, :])
    slopes = jacobian[0] * np.sqrt(sample.weights > 0)
    moving = np.flatnonzero(problem.free)
    edge = ((theta <= problem.lower) | (theta >= problem.upper))[moving]
    if not len(moving):
        return set()
    chosen = slopes[moving].T
    size = np.sqrt(np.mean(chosen**2, axis=0))
    dead = size < DEAD
    normal = chosen / np.where(dead, 1.0, size) / np.sqrt(len(chosen))
    normal[:, dead] = 0.0
    _, singular, right = np.linalg.svd(np.linalg.qr(normal, mode="r"), full_matrices=True)
    padded = np.zeros(len(moving))
    padded[: len(singular)] = singular
    null = right[padded < SINGULAR]
    lost: set[str] = set()
    values = scales.natural_at(law, theta)
    directions = np.where(edge & (np.abs(null) < PART), 0.0, null)
    for direction in directions[np.any(directions, axis=1)]:
        step = np.zeros_like(theta)
        step[moving] = direction / np.where(dead, 1.0, size)
        step *= 1e-4 / np.max(np.abs(step))
        moved = scales.natural_at(law, theta + step)
        lost |= {
            name for name, [value] in values.items() if abs(moved[name][0] - value) > 1e-9 * max(abs(value), 1e-300)
        }
    return lost


def plainest(problem: Problem, coordinates: Array, objective: float, lost: set[str]) -> tuple[Array, list[str]]:
    """Coordinates (p,) that fit as well as the given ones and are less extreme, and the parameters that are open.

    A parameter with a `plain` value that is `lost` (not identified) or at a bound may lie on a ridge, along which the
    objective changes by nothing that the data could tell: a break between the last two points bends the curve after
    it to any slope. Its profile says so; of the values that fit as well, the one nearest to the plain value is taken,
    because predictions beyond the data follow from it.
    """
    open_names: list[str] = []
    for k, q in enumerate(problem.law.parameters):
        at_bound = coordinates[k] <= problem.lower[k] or coordinates[k] >= problem.upper[k]
        if q.plain is None or not problem.free[k] or not (at_bound or q.name in lost):
            continue
        start = np.repeat(coordinates[None, :], len(PROFILE), axis=0)
        start[:, k] = q.plain + PROFILE * (coordinates[k] - q.plain)
        free = problem.free.copy()
        free[k] = False
        profile = minimise(replace(problem, free=free), start, max_iterations=40, bend=True)
        equal = np.flatnonzero(profile.objective <= objective * (1 + TIE))
        if not equal.size or equal[0] == len(PROFILE) - 1:
            continue
        plain = profile.coordinates[equal[0]]
        change = np.abs(plain - coordinates) > MOVED * np.maximum(1.0, np.abs(coordinates))
        open_names += [r.name for r, changed in zip(problem.law.parameters, change, strict=True) if changed]
        coordinates = plain
    return coordinates, open_names
