"""Points to fit: tables from files, and their columns, metric, weights, groups and clusters, with typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from results.errors import DataError, UsageError

from .law import Array

if TYPE_CHECKING:
    import pandas as pd

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


def numbers(values: Any, name: str, rows: NDArray[np.int64]) -> Array:
    """A fresh float64 array of the column, or a DataError naming the first row that is not a finite number."""
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise DataError(f"column {name!r}: shape {raw.shape} is not a column of numbers")
    if raw.dtype.kind in "biuf":
        column = raw.astype(np.float64)
    else:
        column = np.empty(len(raw))
        for i, item in enumerate(raw):
            try:
                column[i] = np.nan if item is None else float(item)
            except (TypeError, ValueError):
                raise DataError(f"row {rows[i]}, column {name!r}: {item!r} is not a number") from None
    require(np.isfinite(column), raw, rows, name, "a finite number")
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
) -> Points:
    """Points from columns in memory, "weights", "clusters" and "groups" where there are such; copied to float64.

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
    y = numbers(data["metric"], called["metric"], at)
    if positive_metric:
        require(y > 0, y, at, called["metric"], POSITIVE_METRIC)
    columns: dict[str, Array] = {}
    for role in roles:
        column = columns[role] = numbers(data[role], called[role], at)
        if role not in signed_roles:
            require(column > 0, column, at, called[role], "a positive number")
    w: Array = np.ones(n)
    if "weights" in data:
        w = numbers(data["weights"], called["weights"], at)
        require(w >= 0, w, at, called["weights"], "a weight of 0 or more")
        if not np.any(w > 0):
            raise DataError(f"column {called['weights']!r}: every weight is 0")
    labels: dict[str, Any] = {key: np.asarray(data[key]) for key in ("clusters", "groups") if key in data}
    for key, label in labels.items():
        empty = np.flatnonzero([value is None or value != value for value in label.tolist()])
        if empty.size:
            raise DataError(f"row {int(at[empty[0]])}, column {called[key]!r}: empty, but it names a cluster or group")
    return Points(columns, y, w, at, names={role: called[role] for role in (*roles, "metric")}, notes=notes, **labels)


def require(good: NDArray[np.bool_], column: Array, rows: NDArray[np.int64], name: str, allowed: str) -> None:
    """Raise DataError for the first row that is not `good`, by its number in `rows`, unless all of them are."""
    bad = np.flatnonzero(~good)
    if bad.size:
        more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
        shown = f"{column[bad[0]]:g}" if column.dtype.kind == "f" else str(column[bad[0]])
        raise DataError(f"row {int(rows[bad[0]])}, column {name!r}: {shown} is not {allowed}{more}")


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


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a data frame.

    Raises DataError where the file is missing, empty, or cannot be parsed.
    """
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError
    from pyarrow import ArrowException

    path = Path(path)
    if not path.is_file():
        raise DataError(f"file {str(path)!r} does not exist")
    if path.stat().st_size == 0:
        raise DataError(f"file {str(path)!r} is empty")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", low_memory=False)
    except EmptyDataError:
        raise DataError(f"file {str(path)!r} is empty") from None
    except (ParserError, UnicodeDecodeError, ArrowException, OSError, ValueError) as problem:
        lines = str(problem).strip().splitlines()
        reason = lines[0] if lines else type(problem).__name__
        raise DataError(f"file {str(path)!r} cannot be read as {path.suffix or 'CSV'}: {reason}") from None
    if len(table) == 0:
        raise DataError(f"file {str(path)!r} has a header but no rows")
    return table.reset_index(drop=True)


def filter_rows(table: pd.DataFrame, expression: str) -> pd.DataFrame:
    """The rows where an expression over the columns holds, such as "outlier == False and budget > 1e19".

    A column whose name is not an identifier stands in backquotes: "`Model Size` > 1e9". Calls and attributes are not
    allowed.

    Raises UsageError where the expression is wrong, DataError where nothing is left.
    """
    import pandas as pd

    bare = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", " ", expression)  # what remains beside texts and quoted column names
    if re.search(r"@|__|(?<![0-9])\.\s*[A-Za-z_]|\b(?!and\b|or\b|not\b|in\b)[A-Za-z_]\w*\s*\(", bare):
        raise UsageError(f"where={expression!r}: only columns, numbers, text and comparisons are allowed")
    try:
        chosen = table.eval(expression, engine="python")
    except Exception as problem:  # noqa: BLE001 - pandas raises a dozen types for a wrong expression; all mean the same
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
        raise UsageError(f"where={expression!r} is not a condition on the columns: {reason}") from None
    if not isinstance(chosen, pd.Series) or chosen.dtype.kind != "b" or len(chosen) != len(table):
        raise UsageError(
            f"where={expression!r} is not a condition: not true or false in each row; compare a column, as 'N > 1e9'"
        )
    kept = table[chosen.fillna(False).to_numpy(dtype=bool)]
    if len(kept) == 0:
        raise DataError(f"where={expression!r} leaves no rows of {len(table)}")
    return kept
