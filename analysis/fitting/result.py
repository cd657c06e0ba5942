"""What a fit returns: parameters with intervals, an honest status, predictions, JSON both ways, files of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from results.errors import DataError, UsageError

from .costs import PowerCost
from .laws.known_laws import LAWS, SIGNED_FLOOR, STORED, known_name, law_named
from .laws.law import Array, Law
from .minimiser import Minimum
from .problem import Loss, Scales, parameters_of
from .reading.points import Flag, Points


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
    Status.MAX_ITERATIONS: "no start reached a vanishing gradient: do not use these numbers",  # even if some are open
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
            "law_options": {**self.law.options(), **({SIGNED_FLOOR: True} if self.law.signed_floor else {})},
            "formula": self.law.formula,
            **self._plain("status"),
            "status_words": STATUS_WORDS[self.status],
            **self._plain("objective", "objective_mean", "gradient_norm", "starts", "starts_agreeing", "rows"),
            "flagged": len(self.flagged),
            "flagged_rows": _plain(self.flagged),
            **self._plain("parameters", "derived", "not_identified", "at_bound", "residual", "loss", "interval"),
            **self._plain("interval_method", "warnings", "notes", "coordinates", "scales", "ranges", "cost", "seconds"),
        }
        if keep_draws and self.draws is not None:
            chosen = np.linspace(0, len(self.draws) - 1, min(keep_draws, len(self.draws))).astype(np.int64)
            out |= {**self._plain("noise"), "draws": _plain(self.draws[chosen])}
        return out

    def _plain(self, *names: str) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in names}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FitResult:
        """A result from `to_json`'s object. Raises DataError naming the key that is missing or wrong."""
        try:
            law, loss = law_named(data["law"], **data.get("law_options", {})), data["loss"]
            return FitResult(
                **{name: read(data[name]) for name, read in _READERS.items()},
                **{name: data[name] for name in ("residual", "interval_method", "interval")},
                law=law,
                loss=Loss(loss["kind"], loss["delta"], loss["quantile"]),
                flagged=tuple(Flag(f["row"], f["reason"], f["used"]) for f in data["flagged_rows"]),
                scales=Scales(data["scales"]["columns"], float(data["scales"]["metric"])),
                cost=PowerCost(**data["cost"]) if data.get("cost") else None,
                draws=_floats(data["draws"]) if "draws" in data else None,
                noise=_floats(data["noise"]) if data.get("noise") else None,
            )
        except KeyError as missing:
            raise DataError(f"fit file: key {missing} is missing") from None
        except (TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"fit file: {problem}") from None


def _plain(value: Any) -> Any:
    """Numbers, texts, lists and dictionaries in the place of arrays, tuples and dataclasses."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def _floats(values: Any) -> Array:
    return np.array(values, dtype=float)


def _estimates(data: Mapping[str, Any]) -> dict[str, ParameterEstimate]:
    return {name: ParameterEstimate(**estimate) for name, estimate in data.items()}


_READERS: dict[str, Callable[[Any], Any]] = {
    "status": Status, "parameters": _estimates, "derived": _estimates, "objective": float, "gradient_norm": float,
    "starts": int, "starts_agreeing": int, "rows": int, "seconds": float, "coordinates": _floats,
    "not_identified": tuple, "at_bound": tuple, "warnings": tuple, "notes": tuple,
    "ranges": lambda data: {name: (float(low), float(high)) for name, (low, high) in data.items()},
}  # fmt: skip


def predict_with(law: Law, scales: Scales, coordinates: Array, columns: Mapping[str, ArrayLike]) -> Array:
    """Predictions (S, n) for coordinates (S, p) at columns (n,) or (S, n), natural units; DataError for a bad one."""
    columns = law.coded(columns)
    given = {name: np.atleast_1d(np.asarray(columns[name], dtype=float)) for name in law.columns if name in columns}
    shape = np.broadcast_shapes((1,), *(column.shape for column in given.values()))
    given = law.filled(given, shape[-1])
    for name in law.columns:
        if name not in given:
            raise DataError(f"law {law.name}: column {name!r} is missing; needed: {', '.join(law.columns)}")
        given[name] = column = np.broadcast_to(given[name], shape)
        signed = name in law.metric_columns or name in law.signed_columns
        bad = np.flatnonzero(~(np.isfinite(column) & (signed | (column > 0))))
        if bad.size:
            allowed = "a finite number" if signed else "a positive number"
            raise DataError(f"row {bad[0]}, column {name!r}: {column.flat[bad[0]]:g} is not {allowed}")
    p = parameters_of(law, np.atleast_2d(coordinates))
    return law.predict(p, scales.apply(given)) * scales.metric * np.ones((1, shape[-1]))


def read_fit(path: str | Path, group: str | None = None, law: str | None = None) -> FitResult:
    """The fit in a file, or that of one group of it; `law` is FILE.py:CLASS of a law of the user's own.

    Raises DataError for a damaged file, UsageError for a group or law that is not there.
    """
    file = repr(str(path))
    if not Path(path).is_file():
        raise DataError(f"file {file} does not exist")
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"file {file} is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise DataError(f"file {file} is not a fit: its JSON is not an object")
    groups = document.get("groups")
    if groups is not None:
        if group is None:
            raise UsageError(f"{file} holds a fit a group: choose one with --group, of {', '.join(groups)}")
        document = groups[label_of(group, groups)]
    elif group is not None:
        raise UsageError(f"--group {group!r}: the file {file} holds one fit without groups")
    name = document.get("law")
    if law is not None and name != known_name(law):
        raise UsageError(f"--law {law!r}: the file {file} holds a fit of law {name}")
    if isinstance(name, str) and name not in {**LAWS, **STORED}:
        raise UsageError(f"{file} holds a fit of law {name!r}, which is not tokenlaw's: add --law FILE.py:CLASS")
    return FitResult.from_json(document)


def label_of(group: str, labels: Iterable[str]) -> str:
    """The label that a name of a group means: that text, or the one that is the same number (1e18 and 1e+18).

    Raises UsageError where there is none.
    """
    labels = list(labels)
    if group in labels:
        return group
    same = [label for label in labels if _number(label) == _number(group)]
    if len(same) != 1:
        raise UsageError(f"--group {group!r} is not one of the file's: {', '.join(labels)}")
    return same[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
