"""Points to fit: explaining columns, the metric, weights, groups and clusters, validated with typed errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from results.errors import DataError, UsageError

from .law import Array


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

    def select(self, part: ArrayLike) -> Points:
        """Some of the points, by mask or index."""
        chosen = np.asarray(part)
        return Points(
            {name: column[chosen] for name, column in self.columns.items()},
            self.metric[chosen],
            self.weights[chosen],
            self.rows[chosen],
            None if self.clusters is None else self.clusters[chosen],
            None if self.groups is None else self.groups[chosen],
            self.names,
            self.flags,
            self.notes,
        )


def numbers(values: Any, name: str, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Array:
    """A fresh float64 array of the column, or a DataError naming the first row that is not a finite number."""
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise DataError(f"column {name!r}: shape {raw.shape} is not a column of numbers")
    where = (lambda i: int(rows[i])) if rows is not None else int
    if raw.dtype.kind in "biuf":
        column = raw.astype(np.float64)
    else:
        column = np.empty(len(raw))
        for i, item in enumerate(raw):
            try:
                column[i] = np.nan if item is None else float(item)
            except (TypeError, ValueError):
                raise DataError(f"row {where(i)}, column {name!r}: {item!r} is not a number") from None
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
        raise DataError(f"row {where(bad[0])}, column {name!r}: {raw[bad[0]]!s} is not a finite number{more}")
    return column


def make_points(
    data: Mapping[str, Any],
    *,
    roles: Sequence[str],
    metric: str = "metric",
    weights: str | None = None,
    clusters: str | None = None,
    groups: str | None = None,
    signed_roles: Sequence[str] = (),
    positive_metric: bool = True,
    names: Mapping[str, str] | None = None,
    rows: NDArray[np.int64] | None = None,
    notes: tuple[str, ...] = (),
) -> Points:
    """Points from columns in memory; read-only and float32 arrays are copied to float64.

    Raises DataError naming row (0-based) and column for: a missing column, unequal lengths, no rows, text, NaN, inf,
    a value <= 0 where a logarithm is taken, a negative weight.
    """
    called = {role: (names or {}).get(role, role) for role in (*roles, metric)}
    for key in (*roles, metric, *(k for k in (weights, clusters, groups) if k)):
        if key not in data:
            name = called.get(key, key)
            raise DataError(f"column {name!r} is missing; the data have: {', '.join(map(str, data))}")
    y = numbers(data[metric], called[metric], rows)
    n = len(y)
    if n == 0:
        raise DataError(f"column {called[metric]!r}: the data have no rows")
    at = np.arange(n) if rows is None else np.asarray(rows, dtype=np.int64)
    if positive_metric:
        _require(y > 0, y, at, called[metric], "a positive number (residuals are logarithmic; try residual raw)")
    columns: dict[str, Array] = {}
    for role in roles:
        column = numbers(data[role], called[role], at)
        if len(column) != n:
            raise DataError(f"column {called[role]!r}: {len(column)} rows, but {called[metric]!r} has {n}")
        if role not in signed_roles:
            _require(column > 0, column, at, called[role], "a positive number")
        columns[role] = column
    w: Array = np.ones(n)
    if weights is not None:
        title = (names or {}).get(weights, weights)
        w = numbers(data[weights], title, at)
        _require(w >= 0, w, at, title, "a weight of 0 or more")
        if not np.any(w > 0):
            raise DataError(f"column {title!r}: every weight is 0")
    labels = []
    for labelled_by in (clusters, groups):
        label = None if labelled_by is None else np.asarray(data[labelled_by])
        if label is not None and (empty := np.flatnonzero([v is None or v != v for v in label.tolist()])).size:
            name = (names or {}).get(str(labelled_by), str(labelled_by))
            raise DataError(f"row {int(at[empty[0]])}, column {name!r}: empty, but it names a cluster or group")
        labels.append(label)
    return Points(columns, y, w, at, labels[0], labels[1], called, (), notes)


def _require(good: NDArray[np.bool_], column: Array, rows: NDArray[np.int64], name: str, allowed: str) -> None:
    bad = np.flatnonzero(~good)
    if bad.size:
        more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
        raise DataError(f"row {int(rows[bad[0]])}, column {name!r}: {column[bad[0]]:g} is not {allowed}{more}")


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
    kept = points.select(keep)
    return Points(**{**kept.__dict__, "flags": points.flags + dropped})
