"""What a fit returns: parameters with intervals, an honest status, predictions, JSON both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from results.errors import DataError

from .costs import PowerCost
from .known_laws import law_named
from .law import Array, Law
from .losses import Loss
from .minimiser import Minimum
from .points import Flag, Points
from .problem import parameters_of
from .scales import Scales


class Status(StrEnum):
    """How a fit ended; `STATUS_WORDS` says what each means."""

    CONVERGED = "converged"
    BOUNDARY = "boundary"
    NOT_IDENTIFIABLE = "not_identifiable"
    MAX_ITERATIONS = "max_iterations"


STATUS_WORDS = {
    Status.CONVERGED: "the gradient vanishes at the best of the starts: a minimum, to rounding",
    Status.BOUNDARY: "the minimum lies on the edge of what the law allows; intervals there are one-sided",
    Status.NOT_IDENTIFIABLE: "the data do not determine every parameter: those without a number could be anything",
    Status.MAX_ITERATIONS: "no start reached a vanishing gradient: do not use these numbers",
}


@dataclass(frozen=True)
class ParameterEstimate:
    """One number with its standard error and interval; None where it is not known (not identified, open end)."""

    value: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The four numbers as a plain object."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """A fitted law. `parameters` and `derived` hold natural units; `coordinates` (p,) what the minimiser saw.

    `objective` is the sum over rows in natural units, `gradient_norm` the largest gradient component relative to the
    sum of its terms' sizes (for lad: the violation of the subgradient certificate), 0 at an exact minimum.
    """

    law: Law
    status: Status
    parameters: dict[str, ParameterEstimate]
    derived: dict[str, ParameterEstimate]
    objective: float
    gradient_norm: float
    starts: int
    starts_agreeing: int
    rows: int
    flagged: tuple[Flag, ...]
    seconds: float
    residual: str
    loss: Loss
    coordinates: Array
    scales: Scales
    not_identified: tuple[str, ...] = ()
    at_bound: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interval_method: str | None = None
    interval: float | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of the fitted columns, natural units
    cost: PowerCost | None = None  # FLOPs as a power law of N and D, where the rows had a column of them
    draws: Array | None = field(default=None, repr=False, compare=False)  # (R, p) resampled coordinates
    noise: Array | None = field(default=None, repr=False, compare=False)  # quantiles of a new observation's residual
    points: Points | None = field(default=None, repr=False, compare=False)
    minimum: Minimum | None = field(default=None, repr=False, compare=False)
    free: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)

    @property
    def objective_mean(self) -> float:
        """The objective divided by the total weight (the number of rows where all weights are 1)."""
        total = float(self.points.weights.sum()) if self.points is not None else float(self.rows)
        return self.objective / total

    @property
    def values(self) -> dict[str, float]:
        """Parameter values in natural units; NaN where not identified."""
        return {name: np.nan if e.value is None else e.value for name, e in self.parameters.items()}

    def predict(self, columns: Mapping[str, ArrayLike]) -> Array:
        """The predicted metric (n,) at new columns, given by the law's column names.

        Raises DataError for a missing or non-positive column. Where a parameter is not identified the prediction is
        trustworthy at the values seen only.
        """
        return predict_with(self.law, self.scales, self.coordinates[None, :], columns)[0]

    def to_json(self, keep_draws: int = 0) -> dict[str, Any]:
        """The result as plain objects; `from_json` reads it back. keep_draws: how many resampled fits to include.

        With them goes `noise`, the quantiles of the residuals, so that a file gives every interval of a prediction.
        """
        out = {
            "law": self.law.name,
            "law_options": dict(self.law.options()),
            "formula": self.law.formula,
            "status": self.status.value,
            "status_words": STATUS_WORDS[self.status],
            "objective": self.objective,
            "objective_mean": self.objective_mean,
            "gradient_norm": self.gradient_norm,
            "starts": self.starts,
            "starts_agreeing": self.starts_agreeing,
            "rows": self.rows,
            "flagged": len(self.flagged),
            "flagged_rows": [{"row": f.row, "reason": f.reason, "used": f.used} for f in self.flagged],
            "parameters": {name: e.to_json() for name, e in self.parameters.items()},
            "derived": {name: e.to_json() for name, e in self.derived.items()},
            "not_identified": list(self.not_identified),
            "at_bound": list(self.at_bound),
            "residual": self.residual,
            "loss": {"kind": self.loss.kind, "delta": self.loss.delta, "quantile": self.loss.quantile},
            "interval": self.interval,
            "interval_method": self.interval_method,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "coordinates": [float(v) for v in self.coordinates],
            "scales": {"columns": dict(self.scales.columns), "metric": self.scales.metric},
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "cost": None if self.cost is None else asdict(self.cost),
            "seconds": self.seconds,
        }
        if keep_draws and self.draws is not None:
            chosen = np.linspace(0, len(self.draws) - 1, min(keep_draws, len(self.draws))).astype(np.int64)
            out["noise"] = None if self.noise is None else [float(v) for v in self.noise]
            out["draws"] = [[float(v) for v in row] for row in self.draws[chosen]]
        return out

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FitResult:
        """A result from `to_json`'s object. Raises DataError naming the key that is missing or wrong."""
        try:
            law, loss = law_named(data["law"], **data.get("law_options", {})), data["loss"]
            return FitResult(
                **{name: read(data[name]) for name, read in _READERS.items()},
                law=law,
                loss=Loss(loss["kind"], loss["delta"], loss["quantile"]),
                flagged=tuple(Flag(f["row"], f["reason"], f["used"]) for f in data["flagged_rows"]),
                scales=Scales(data["scales"]["columns"], float(data["scales"]["metric"])),
                residual=data["residual"],
                interval_method=data["interval_method"],
                interval=data["interval"],
                cost=PowerCost(**data["cost"]) if data.get("cost") else None,
                draws=_floats(data["draws"]) if "draws" in data else None,
                noise=_floats(data["noise"]) if data.get("noise") else None,
            )
        except KeyError as missing:
            raise DataError(f"fit file: key {missing} is missing") from None
        except (TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"fit file: {problem}") from None


def _floats(values: Any) -> Array:
    return np.array(values, dtype=float)


def _estimates(data: Mapping[str, Any]) -> dict[str, ParameterEstimate]:
    return {name: ParameterEstimate(**estimate) for name, estimate in data.items()}


_READERS: dict[str, Callable[[Any], Any]] = {
    "status": Status, "parameters": _estimates, "derived": _estimates, "objective": float, "gradient_norm": float,
    "starts": int, "starts_agreeing": int, "rows": int, "seconds": float, "coordinates": _floats,
    "not_identified": tuple, "at_bound": tuple, "warnings": tuple, "notes": tuple,
    "ranges": lambda data: {name: (float(ends[0]), float(ends[1])) for name, ends in data.items()},
}  # fmt: skip


def predict_with(law: Law, scales: Scales, coordinates: Array, columns: Mapping[str, ArrayLike]) -> Array:
    """Predictions (S, n) for coordinates (S, p) at columns in natural units; raises DataError for a bad column."""
    given = {name: np.atleast_1d(np.asarray(columns[name], dtype=float)) for name in law.columns if name in columns}
    n = max((len(column) for column in given.values()), default=1)
    given = law.filled(given, n)
    for name in law.columns:
        if name not in given:
            raise DataError(f"law {law.name}: column {name!r} is missing; needed: {', '.join(law.columns)}")
        given[name] = column = np.broadcast_to(given[name], (n,))
        bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
        if name not in law.metric_columns and bad.size:
            raise DataError(f"row {bad[0]}, column {name!r}: {column[bad[0]]:g} is not a positive number")
    p = parameters_of(law, np.atleast_2d(coordinates))
    return law.predict(p, scales.apply(given)) * scales.metric * np.ones((1, n))
