"""Which laws to trust for an extrapolation: candidates weighted by how well each extrapolates within the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.fitting.fit import as_points, fit_groups
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Array, Law
from analysis.fitting.reading.points import Points
from analysis.fitting.result import FitResult
from analysis.inference.validation import compute_of, rmsle
from results.errors import DataError, FitError, TokenlawError

CANDIDATES = ("m2", "shifted-power", "m4", "bnsl-1")
SHARE = 0.8  # of the rows, smallest compute first, on which candidates are fitted to be judged on the rest
LEAST_ROWS = 6


@dataclass(frozen=True)
class Selection:
    """Candidates fitted to all rows, the error of each on the hidden part, and weights that sum to 1.

    `best` names the candidate with the lowest hidden error; `predict` mixes all of them.
    """

    results: dict[str, FitResult]
    hidden_rmsle: dict[str, float]
    weights: dict[str, float]
    failed: dict[str, str]

    @property
    def best(self) -> str:
        """The candidate with the lowest error on the hidden part."""
        return min(self.hidden_rmsle, key=lambda name: self.hidden_rmsle[name])

    def predict(self, columns: Mapping[str, ArrayLike]) -> Array:
        """The weighted geometric mean of the candidates' predictions (m,)."""
        logs = [w * np.log(np.maximum(self.results[n].predict(columns), 1e-300)) for n, w in self.weights.items()]
        return np.asarray(np.exp(np.sum(logs, axis=0)))


def select(
    data: Points | Mapping[str, Any],
    laws: Sequence[Law | str] = CANDIDATES,
    *,
    share: float = SHARE,
    loss: str = "squares",
    starts: int = 4,
    max_iterations: int = 120,
) -> Selection:
    """Weigh laws by their extrapolation inside the data.

    Each candidate is fitted to the `share` of rows with the least compute and predicts the others; its weight is
    1 / RMSLE there. All are then fitted to every row, and predictions are the weighted geometric mean. The rule
    (candidates, share, power of the weight) was chosen on one half of the 92 learning curves of Alabdulmohsin et al.
    2022 by its error on their far ends, and is judged on the other half: see docs/validation.md.

    Raises DataError with fewer than LEAST_ROWS + 1 rows, FitError where no candidate can be fitted.
    """
    named = {one if isinstance(one, str) else one.name: law_named(one) if isinstance(one, str) else one for one in laws}
    first = next(iter(named.values()))
    points = as_points(first, data, "log")
    if len(points) <= LEAST_ROWS:
        raise DataError(f"selection: {len(points)} rows are not more than {LEAST_ROWS}")
    order = np.argsort(compute_of(points), kind="stable")
    count = min(max(LEAST_ROWS, round(share * len(points))), len(points) - 1)
    seen, hidden = points.select(order[:count]), points.select(order[count:])
    results: dict[str, FitResult] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    options: dict[str, Any] = {"loss": loss, "starts": starts, "max_iterations": max_iterations}
    for name, law in named.items():
        try:
            fitted = fit_groups(law, {"part": seen, "all": points}, **options)
        except TokenlawError as problem:
            failed[name] = str(problem)
            continue
        error, results[name] = rmsle(fitted["part"].predict(hidden.columns), hidden.metric), fitted["all"]
        if error is None or not np.isfinite(error):
            failed[name] = "its prediction of the hidden rows is not a positive number"
            del results[name]
        else:
            errors[name] = error
    if not results:
        raise FitError(f"selection: no candidate can be fitted: {'; '.join(f'{k}: {v}' for k, v in failed.items())}")
    inverse = {name: 1.0 / max(error, 1e-6) for name, error in errors.items()}
    total = sum(inverse.values())
    return Selection(results, errors, {name: v / total for name, v in inverse.items()}, failed)
