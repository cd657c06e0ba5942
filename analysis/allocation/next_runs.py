"""Which runs to add: those that most reduce the expected regret of a decision, or the variance of a target, per FLOP.

What is not known is given by draws: of the values between which is decided (or of the targets), and of what each run
would measure. Their joint covariance says how a measurement would move the values (a linear-Gaussian update). The
regret is that of Frazier, Powell & Dayanik 2009 (The knowledge-gradient policy for correlated normal beliefs); the
variance is the criterion of V-optimal design. Runs are chosen one after the other, each given those before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from results.errors import UsageError

Array = np.ndarray
Criterion = Literal["regret", "variance"]

SHIFTS = 512
"""Normal draws by which the expectation of the lowest is taken; the same for all options."""
SMALL = 1e-3
"""Of the regret: gains below this share tell options apart by the variance of what could be the best."""
LEAST = 0.01
"""Of that variance: what takes away less is not worth a run."""


@dataclass(frozen=True)
class Option:
    """A run that could be added: `sees` are the columns of what it measures, `needs` names what has to be there first
    (paid once, however many runs need it)."""

    name: str
    cost: float
    sees: tuple[int, ...]
    needs: str | None = None


@dataclass(frozen=True)
class Choice:
    """An option taken: what it costs with what it needs, and the criterion as it is expected after it."""

    option: int
    cost: float
    before: float
    after: float


def choose(
    options: Sequence[Option],
    values: Array,
    observed: Array,
    noise: Array,
    budget: float,
    *,
    criterion: Criterion = "regret",
    price_of_needs: Mapping[str, float] | None = None,
    most: int = 1000,
    seed: int = 0,
) -> list[Choice]:
    """The options to take for a budget, in the order of what they give per cost.

    values (S, k): draws between whose columns the lowest is to be picked (regret), or that are to be known (variance:
    their mean variance). observed (S, q): draws of what could be measured, without its noise, whose variance is `noise`
    (q,). price_of_needs: the cost of what options need. An option is taken once at most. Ends where nothing is
    affordable, or nothing would change the criterion.

    Raises UsageError for a budget or a cost that is not positive.
    """
    if not (math.isfinite(budget) and budget > 0):
        raise UsageError(f"budget = {budget} is not allowed; allowed: a positive number")
    for option in options:
        if not (math.isfinite(option.cost) and option.cost > 0):
            raise UsageError(f"cost = {option.cost} of {option.name} is not allowed; allowed: a positive number")
    k = values.shape[1]
    joint = np.column_stack([values, observed])
    mean = values.mean(axis=0)
    covariance = np.atleast_2d(np.cov(joint, rowvar=False))
    unit = np.random.default_rng((seed, 73)).standard_normal((SHIFTS // 2, k))
    unit = np.concatenate([unit, -unit])
    prices, left, taken = dict(price_of_needs or {}), budget, set[int]()
    start = covariance[:k, :k].copy()
    doubted = _doubt(mean, start, start, unit)
    choices: list[Choice] = []
    whole = _criterion(mean, start, unit, criterion)
    now = whole
    while len(choices) < most and now > 0:
        known = start - covariance[:k, :k]
        scores = []
        for i, option in enumerate(options):
            cost = option.cost + (prices.get(option.needs, 0.0) if option.needs else 0.0)
            if i in taken or cost > left:
                continue
            moved = _shift(covariance, k, option.sees, noise)
            gain = now - (whole - _gain(mean, known + moved, unit, criterion))
            scores.append((i, cost, gain, _doubt(mean, covariance[:k, :k], moved, unit)))
        if not scores:
            break
        best = max(scores, key=lambda score: score[2] / score[1])
        if best[2] < SMALL * whole:
            if criterion == "variance":
                break
            # No single run changes the decision: take what narrows the gap to the rivals of the best.
            best = max(scores, key=lambda score: score[3] / score[1])
            if best[3] < LEAST * doubted:
                break
        i, cost = best[:2]
        covariance = _updated(covariance, k, options[i].sees, noise)
        after = max(min(now, whole - _gain(mean, start - covariance[:k, :k], unit, criterion)), 0.0)
        choices.append(Choice(i, cost, now, after))
        now = after
        taken.add(i)
        left -= cost
        if options[i].needs:
            prices[options[i].needs] = 0.0  # type: ignore[index]
    return choices


def regret(values: Array) -> float:
    """The expected excess over the lowest of each draw (S, k) of the column that is the lowest on average."""
    return float((values[:, values.mean(axis=0).argmin()] - values.min(axis=1)).mean())


def _root(covariance: Array) -> Array:
    """The symmetric root: it changes as little as the matrix, so that options share their random numbers."""
    sizes, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(sizes, 0.0))) @ vectors.T


def _criterion(mean: Array, covariance: Array, unit: Array, criterion: Criterion) -> float:
    if criterion == "variance":
        return float(np.trace(covariance) / len(mean))
    return regret(mean + unit @ _root(covariance).T)


def _seen(covariance: Array, k: int, sees: Sequence[int], noise: Array) -> tuple[Array, Array]:
    """Covariance of everything with what is seen, and that of what is seen, noise included."""
    at = k + np.asarray(sees)
    return covariance[:, at], covariance[np.ix_(at, at)] + np.diag(noise[np.asarray(sees)])


def _shift(covariance: Array, k: int, sees: Sequence[int], noise: Array) -> Array:
    """The covariance (k, k) of how the values' means would move."""
    shared, of_seen = _seen(covariance, k, sees, noise)
    return shared[:k] @ np.linalg.solve(of_seen, shared[:k].T)


def _updated(covariance: Array, k: int, sees: Sequence[int], noise: Array) -> Array:
    shared, of_seen = _seen(covariance, k, sees, noise)
    return covariance - shared @ np.linalg.solve(of_seen, shared.T)


def _gain(mean: Array, moved: Array, unit: Array, criterion: Criterion) -> float:
    if criterion == "variance":
        return float(np.trace(moved) / len(mean))
    return float(mean.min() - (mean + unit @ _root(moved).T).min(axis=1).mean())


def _doubt(mean: Array, covariance: Array, moved: Array, unit: Array) -> float:
    """How much of the variance of each gap to the best would go, weighed by how likely its column is the lowest."""
    chance = np.bincount((mean + unit @ _root(covariance).T).argmin(axis=1), minlength=len(mean)) / len(unit)
    best = int(mean.argmin())
    gaps = np.diag(moved) + moved[best, best] - 2 * moved[best]
    return float(chance @ gaps)
