"""Points to fit: columns, metric, weights, groups and clusters, checked, with typed errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from results.errors import DataError, UsageError

from ..laws.law import Array
from .quantities import quantity

POSITIVE_METRIC = "a positive number (residuals are logarithmic; try residual raw)"


@dataclass(frozen=True)
class Flag:
    """A row that deserves a look: its number in the source (0-based), why, and whether the fit used it."""

    row: int
    reason: str
    used: bool


@dataclass(frozen=True)
class Points:
    """n validated points.

    `columns`: role (params, tokens, x, floor, ...) -> (n,) float64, finite, positive. `metric`: (n,) finite.
    `weights`: (n,) finite, not negative. `clusters`: (n,) labels of whole runs, or None. `rows`: (n,) row numbers in
    the source. `names`: role -> the source's column name. `notes`: what was derived, for people.
    """

    columns: Mapping[str, Array]
    metric: Array
    weights: Array
    rows: NDArray[np.int64]
    clusters: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.metric.shape[0])

    @property
    def units(self) -> NDArray[np.int64]:
        """The number, from 0, of the cluster that each row belongs to (n,); of the row where no clusters are named."""
        return np.arange(len(self)) if self.clusters is None else np.unique(self.clusters, return_inverse=True)[1]

    def select(self, chosen: ArrayLike) -> Points:
        """Some of the points, by mask or index."""
        chosen = np.asarray(chosen)
        cut = {name: getattr(self, name) for name in ("metric", "weights", "rows", "clusters", "groups")}
        cut = {name: values[chosen] for name, values in cut.items() if values is not None}
        return replace(self, columns={name: column[chosen] for name, column in self.columns.items()}, **cut)


def as_numbers(values: Any, name: str, rows: NDArray[np.int64]) -> Array:
    """A fresh float64 array of the column, NaN where it is empty, or a DataError naming the first row of text."""
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise DataError(f"column {name!r}: shape {raw.shape} is not a column of numbers")
    if raw.dtype.kind in "biuf":
        return raw.astype(np.float64)
    column = np.empty(len(raw))
    for i, item in enumerate(raw):
        try:
            column[i] = np.nan if item is None or (isinstance(item, str) and not item.strip()) else float(item)
        except (TypeError, ValueError):
            value = quantity(item) if isinstance(item, str) else None
            hint = "" if value is None else f" (--units reads it as {value:.10g})"
            raise DataError(f"row {rows[i]}, column {name!r}: {item!r} is not a number{hint}") from None
    return column


def numbers(values: Any, name: str, rows: NDArray[np.int64], hint: str = "") -> Array:
    """`as_numbers`, or a DataError naming the first row that is not finite; `hint` is what to do about a hole."""
    raw = np.asarray(values)
    column = as_numbers(raw, name, rows)
    require(np.isfinite(column), raw, rows, name, "a finite number", hint)
    return column


def make_points(
    data: Mapping[str, Any],
    *,
    roles: Sequence[str],
    signed_roles: Sequence[str] = (),
    positive_metric: bool = True,
    names: Mapping[str, str] | None = None,
    rows: NDArray[np.int64] | None = None,
    notes: tuple[str, ...] = (),
    hint: str = "",
) -> Points:
    """Points from columns in memory, "weights", "clusters" and "groups" where there are such; copied to float64.

    hint: what a message about an empty value, or a 0 where none may be, says can be done about it.

    Raises DataError naming row (0-based) and column for: a missing column, unequal lengths, no rows, text, NaN, inf,
    a value <= 0 where a logarithm is taken, a negative weight, a cluster or group without a name.
    """
    called = {role: (names or {}).get(role, role) for role in (*roles, "metric", "weights", "clusters", "groups")}
    for key in (*roles, "metric"):
        if key not in data:
            raise DataError(f"column {called[key]!r} is missing; the data have: {', '.join(map(str, data))}")
    n = np.size(data["metric"])
    if n == 0:
        raise DataError(f"column {called['metric']!r}: the data have no rows")
    at = np.arange(n) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(at) != n:
        raise DataError(f"column {called['metric']!r}: {n} rows, but {len(at)} row numbers")
    for key, name in called.items():
        if key in data and np.ndim(data[key]) == 1 and len(data[key]) != n:
            raise DataError(f"column {name!r}: {len(data[key])} rows, but {called['metric']!r} has {n}")
    y = numbers(data["metric"], called["metric"], at, hint)
    if positive_metric:
        require(y > 0, y, at, called["metric"], POSITIVE_METRIC)
    columns: dict[str, Array] = {}
    for role in roles:
        column = columns[role] = numbers(data[role], called[role], at, hint)
        if role not in signed_roles:
            require(column > 0, column, at, called[role], "a positive number", hint)
    w: Array = np.ones(n)
    if "weights" in data:
        w = numbers(data["weights"], called["weights"], at, hint)
        require(w >= 0, w, at, called["weights"], "a weight of 0 or more")
        if not np.any(w > 0):
            raise DataError(f"column {called['weights']!r}: every weight is 0")
    labels: dict[str, Any] = {key: np.asarray(data[key]) for key in ("clusters", "groups") if key in data}
    for key, label in labels.items():
        empty = np.flatnonzero([value is None or value != value for value in label.tolist()])
        if empty.size:
            place = f"row {int(at[empty[0]])}, column {called[key]!r}"
            raise DataError(f"{place}: empty, but it names a cluster or group{hint}")
    return Points(columns, y, w, at, names={role: called[role] for role in (*roles, "metric")}, notes=notes, **labels)


def require(
    good: NDArray[np.bool_], column: Array, rows: NDArray[np.int64], name: str, allowed: str, hint: str = ""
) -> None:
    """Raise DataError for the first row that is not `good`, by its number in `rows`, unless all of them are.

    hint: what to do about it, said where the value is none or 0.
    """
    bad = np.flatnonzero(~good)
    if not bad.size:
        return
    value = column[bad[0]]
    more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
    shown = f"{value:g}" if column.dtype.kind == "f" else str(value)
    said = "" if column.dtype.kind == "f" and np.isfinite(value) and value != 0 else hint
    raise DataError(f"row {int(rows[bad[0]])}, column {name!r}: {shown} is not {allowed}{more}{said}")


def drop_worst(points: Points, count: int) -> Points:
    """Without the `count` rows with the largest metric, which are flagged with that reason.

    Ties at the cut are dropped too (keep metric < the count-th largest), as in the Chinchilla replication.
    Raises UsageError where nothing would be left.
    """
    if count < 0:
        raise UsageError(f"drop-worst={count} is negative")
    if count == 0:
        return points
    if count >= len(points):
        raise UsageError(f"drop-worst={count} leaves nothing of {len(points)} rows")
    cut = np.sort(points.metric)[-count]
    keep = points.metric < cut
    if not keep.any():
        raise UsageError(f"drop-worst={count} leaves nothing: all rows have the metric {cut:g}")
    dropped = tuple(Flag(int(row), f"among the {count} largest values, dropped", False) for row in points.rows[~keep])
    return replace(points.select(keep), flags=points.flags + dropped)
