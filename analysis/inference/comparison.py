"""Which law, and whether groups differ: likelihoods in one residual space, information criteria, shared exponents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.fitting.fit import as_points, fit, fit_groups
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Array, Columns, Law, Parameter, Values
from analysis.fitting.minimiser import minimise
from analysis.fitting.polishing import polish
from analysis.fitting.problem import Loss, Problem, Scales, coordinates_of, make_problem, parameters_of, residuals
from analysis.fitting.reading.points import Points
from analysis.fitting.request import FitRequest
from analysis.fitting.result import FitResult
from results.errors import DataError, FitError, UsageError

from .bootstrap import left_out, random_signs
from .sandwich import moving_slopes, points_of, problem_of, spread_of
from .validation import compute_of, holdout

NOISES = {"laplace": "lad", "gaussian": "squares"}


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of residuals under a noise model with a free scale.

    parameters: those of the law that were fitted, and the scale. aicc and bic use n = clusters where named, and are
    None where n <= k + 1 (aicc is undefined there).
    """

    law: str
    log_likelihood: float
    parameters: int
    units: int
    aic: float
    aicc: float | None
    bic: float
    scale: float


def _aicc(of: Likelihood) -> float:
    return np.inf if of.aicc is None else of.aicc


def _loss_of(noise: str) -> str:
    """The loss whose minimum is the maximum of the likelihood; raises UsageError for an unknown noise model."""
    if noise not in NOISES:
        raise UsageError(f"noise={noise!r} is not one of {', '.join(NOISES)}")
    return NOISES[noise]


def log_likelihood(r: Array, weights: Array, noise: str) -> tuple[float, float]:
    """(log-likelihood, scale) of residuals (n,) at the scale that maximises it; noise "laplace" or "gaussian"."""
    _loss_of(noise)
    n = float(weights.sum())
    if noise == "laplace":
        scale = max(float(np.sum(weights * np.abs(r)) / n), 1e-300)
        return -n * (np.log(2 * scale) + 1.0), scale
    scale = max(float(np.sqrt(np.sum(weights * r**2) / n)), 1e-300)
    return -n * (0.5 * np.log(2 * np.pi) + np.log(scale) + 0.5), scale


def likelihood(result: FitResult, noise: str = "laplace") -> Likelihood:
    """The likelihood of a fit's residuals; comparable between fits of the same points in the same residual space.

    It is the maximum for the noise's own loss (laplace: lad, gaussian: squares), and lower for a fit with another.
    """
    problem = problem_of(result)
    r, _, _ = moving_slopes(problem, result.coordinates)
    value, scale = log_likelihood(r, problem.weights, noise)
    units = len(np.unique(points_of(result).units))
    k = int(np.sum(problem.free)) + 1
    aicc = None if units <= k + 1 else 2 * k - 2 * value + 2 * k * (k + 1) / (units - k - 1)
    name = result.law.label
    return Likelihood(name, value, k, units, 2 * k - 2 * value, aicc, k * np.log(units) - 2 * value, scale)


def compare_laws(
    laws: Sequence[Law | str],
    data: Points | Mapping[str, Any],
    *,
    noise: str = "laplace",
    residual: str = "log",
    fixed: Mapping[str, float] | None = None,
) -> list[tuple[FitResult, Likelihood]]:
    """Fit every law to the same points by maximum likelihood, all in one residual space; best AICc first.

    fixed: parameters held at a value in every law that has them.
    Laws whose AICc is undefined come last: prefer the held-out error (`validation`) where that happens, and anyway.
    """
    loss, out = _loss_of(noise), []
    for law in map(law_named, laws):
        held = {name: value for name, value in (fixed or {}).items() if name in law.names}
        result = fit(law, data, residual=residual, loss=loss, fixed=held)
        out.append((result, likelihood(result, noise)))
    return sorted(out, key=lambda pair: _aicc(pair[1]))


@dataclass(frozen=True)
class Ranked:
    """A law by the name it was asked for: its fit, its likelihood, and the error on rows with the most compute."""

    name: str
    result: FitResult
    likelihood: Likelihood
    holdout_rmsle: float | None


def rank_laws(request: FitRequest, noise: str = "laplace") -> tuple[list[Ranked], str]:
    """The laws asked for, best AICc first, and why there is no held-out error ("" where there is).

    The held-out rows are the fifth with the most compute, predicted from the rest.
    """
    ranked = []
    missing = ""
    for name, law, fixed in request.laws:
        points = request.points(law)
        [(result, likelihood)] = compare_laws([law], points, noise=noise, residual=request.residual, fixed=fixed)
        error = None
        try:
            size = compute_of(points)
        except UsageError as problem:  # the likelihoods need no compute
            missing = str(problem)
        else:
            largest = size > sorted(size)[int(0.8 * len(size))]
            if largest.any() and not largest.all():
                options: dict[str, Any] = {"residual": request.residual, "loss": NOISES[noise], "fixed": fixed}
                error = holdout(law, points, largest, **options).rmsle
        ranked.append(Ranked(name, result, likelihood, error))
    return sorted(ranked, key=lambda row: _aicc(row.likelihood)), missing


class GroupedLaw(Law):
    """One law for several groups: the `shared` parameters common to all, the others each group's own.

    Parameters are named alpha (shared) or A[group]. The column "group" holds the group's number, 1 to G.
    """

    name = "grouped"

    def __init__(self, base: Law, groups: Sequence[str], shared: Sequence[str]) -> None:
        unknown = set(shared) - set(base.names)
        if unknown:
            raise UsageError(f"shared: law {base.name} has no parameter {sorted(unknown)[0]!r}")
        self.base, self.groups, self.shared = base, tuple(groups), tuple(shared)
        self.formula = f"{base.formula}, {', '.join(shared) or 'nothing'} shared"
        self.source = base.source
        self.columns = (*base.columns, "group")
        self.metric_columns = base.metric_columns
        self.constant_columns = base.constant_columns
        # whose each parameter is: the base law's name, and the group's number, None where it is common to all
        self.owners: dict[str, tuple[str, int | None]] = {}
        parameters: list[Parameter] = []
        for q in base.parameters:
            numbered = {f"{q.name}[{group}]": number for number, group in enumerate(self.groups)}
            for name, number in ({q.name: None} if q.name in shared else numbered).items():
                self.owners[name] = q.name, number
                parameters.append(replace(q, name=name, unit={}, linear=False, grid=(1.0,)))
        self.parameters = tuple(parameters)

    def _expanded(self, p: Values, x: Columns) -> tuple[dict[str, Array], NDArray[np.int64]]:
        index = x.value("group").astype(np.int64) - 1

        def of_rows(name: str) -> Array:
            if name in self.shared:
                return p[name]
            return np.concatenate([p[f"{name}[{group}]"] for group in self.groups], axis=1)[:, index]

        return {name: of_rows(name) for name in self.base.names}, index

    def predict(self, p: Values, x: Columns) -> Array:
        return self.base.predict(self._expanded(p, x)[0], x)

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        expanded, index = self._expanded(p, x)
        value, slopes = self.base.evaluate(expanded, x)
        by_base = dict(zip(self.base.names, slopes, strict=True))
        owners = self.owners.values()
        return value, [by_base[name] if group is None else by_base[name] * (index == group) for name, group in owners]


@dataclass(frozen=True)
class GroupTest:
    """Whether groups need parameters of their own: `statistic` against chi-squared with `freedom` degrees.

    p_value: from the statistic's F distribution, corrected for the noise; bootstrap_p_value: the share of data sets
    drawn from the shared law (residuals with random signs) with a larger statistic. `separate` by group, `shared` the
    values of the common parameters where they are common.
    """

    shared_names: tuple[str, ...]
    statistic: float
    freedom: int
    p_value: float
    bootstrap_p_value: float
    separate: dict[str, FitResult]
    shared: dict[str, float]
    warnings: tuple[str, ...]


def compare_groups(
    law: Law | str,
    data: Points | Mapping[str, Any],
    *,
    shared: Sequence[str] | None = None,
    replicates: int = 400,
    seed: int = 0,
    residual: str = "log",
    loss: Loss | str = "huber",
    delta: float = 1e-3,
) -> GroupTest:
    """Test whether the groups (points.groups) have the same `shared` parameters (default: all exponents).

    Every group is fitted alone and all together with common exponents; the rise of the objective, in units of the
    noise (E[psi^2] / E[psi']), is the likelihood-ratio statistic. Clusters move whole in the bootstrap.

    Raises UsageError without groups, DataError with fewer than 2, FitError where a group does not identify them.
    """
    from scipy.special import fdtrc

    law = law_named(law)
    loss = Loss(loss, delta) if isinstance(loss, str) else loss
    points = as_points(law, data, residual)
    if points.groups is None:
        raise UsageError("compare groups: no group column is named")
    names = [str(g) for g in dict.fromkeys(points.groups.tolist())]
    if len(names) < 2:
        raise DataError(f"compare groups: there is one group only, {names[0]!r}")
    labels = np.array([str(g) for g in points.groups.tolist()])
    common = tuple(shared) if shared is not None else tuple(q.name for q in law.parameters if not q.unit)
    by_name = {name: points.select(labels == name) for name in names}
    separate = fit_groups(law, by_name, residual=residual, loss=loss)
    for name, result in separate.items():
        lost = set(result.not_identified) & set(common)
        if lost:
            raise FitError(f"group {name!r} does not identify {', '.join(sorted(lost))}: nothing to compare")
    grouped, split = GroupedLaw(law, names, common), GroupedLaw(law, names, ())
    index = np.array([names.index(label) + 1 for label in labels], dtype=float)
    together = replace(points, columns={**points.columns, "group": index})
    scaled_fit = fit(law, points, residual=residual, loss=loss)  # one set of units for all groups
    free, tied = (_grouped_problem(scaled_fit, grouping, together) for grouping in (split, grouped))
    apart, joint = (polish(q, _start(q, scaled_fit, separate)[None, :], 400) for q in (free, tied))
    theta_free, theta_tied = apart.coordinates[0], joint.coordinates[0]
    square, slope = spread_of(free, theta_free)
    rise = float(joint.objective[0] - apart.objective[0])
    freedom = len(common) * (len(names) - 1)
    statistic = max(2.0 * rise * slope / square, 0.0)
    units = len(np.unique(points.units))
    spare = max(units - len(split.parameters), 1)
    # the null distribution: the shared law, with its residuals' signs (whole clusters') at random
    rng = np.random.default_rng(seed)
    r, jacobian = residuals(tied, theta_tied[None, :])
    push = left_out(tied, theta_tied, r[0], jacobian[0])
    target = tied.target + r[0] + push * random_signs(points.units, replicates, rng)
    # coordinates of the split law that equal those of the law with shared parameters
    at = dict(zip(grouped.names, theta_tied, strict=True))
    from_tied = np.array([at.get(name, at.get(root)) for name, (root, _) in split.owners.items()], dtype=float)
    rises = []
    for begin in range(0, replicates, 200):
        targets = target[begin : begin + 200]
        low, again, high = (
            minimise(replace(q, target=targets), np.repeat(theta[None, :], len(targets), 0), tolerance=1e-6).objective
            for q, theta in ((free, theta_free), (free, from_tied), (tied, theta_tied))
        )
        rises.append(high - np.minimum(low, again))
    null = np.concatenate(rises)
    warnings = []
    if points.clusters is None:
        warnings.append("rows count as independent: name the runs' column as clusters if several rows share a run")
    if units < 6 * len(names):
        warnings.append(f"{units} units in {len(names)} groups: the test has little power and rough p-values")
    tied_values = {k: float(v[0, 0]) for k, v in parameters_of(grouped, theta_tied[None, :]).items() if k in common}
    return GroupTest(
        common,
        statistic,
        freedom,
        float(fdtrc(freedom, spare, statistic / freedom)),
        float((1 + np.sum(null >= rise)) / (1 + replicates)),
        separate,
        tied_values,
        tuple(warnings),
    )


def _grouped_problem(scaled_fit: FitResult, law: GroupedLaw, points: Points) -> Problem:
    """The minimisation problem of a grouped law in the units of `scaled_fit`."""
    scales = Scales({**scaled_fit.scales.columns, "group": 1.0}, scaled_fit.scales.metric)
    return make_problem(law, points, scales, scaled_fit.residual, scaled_fit.loss)


def _start(problem: Problem, scaled_fit: FitResult, separate: Mapping[str, FitResult]) -> Array:
    """Where a grouped law starts (p,): at the groups' own fits, their mean where a parameter is shared."""
    law, scales = problem.law, scaled_fit.scales
    assert isinstance(law, GroupedLaw)
    natural = [separate[group].scales.natural_at(law.base, separate[group].coordinates) for group in law.groups]
    scaled = [scales.scaled(law.base, values) for values in natural]
    p = {}
    for name, (root, group) in law.owners.items():
        values = [float(v[root][0]) for v in scaled]
        p[name] = np.asarray(np.mean(values) if group is None else values[group])
    return np.clip(coordinates_of(law, p), problem.lower, problem.upper)
