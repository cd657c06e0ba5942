"""Files of points: read CSV or Parquet, filter, and give a table's columns their roles in a law."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from results.errors import DataError, UsageError

from .law import Law
from .points import Points, drop_worst, make_points

if TYPE_CHECKING:
    import pandas as pd

MOST_TO_COMPARE = 200_000  # rows that are searched for copies of each other
FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1


@dataclass(frozen=True)
class Roles:
    """Which column of a table plays which role; None where it is not named.

    `others` maps further column names of a law (unique_tokens, params_vocabulary, ...) to the table's.
    """

    metric: str | None = None
    params: str | None = None
    tokens: str | None = None
    flops: str | None = None
    x: str | None = None
    floor: str | None = None
    weights: str | None = None
    cluster: str | None = None
    group: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


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


def points_from_table(table: pd.DataFrame, law: Law, roles: Roles, *, residual: str = "log", drop: int = 0) -> Points:
    """Validated points for a law. The index of `table` gives the row numbers in messages (0-based data rows).

    Of params, tokens and flops two are enough: C = 6 N D gives the third, and a note says so. A law of one variable
    takes x, or flops, tokens or params where that alone is named. An unnamed role takes the column of that name.

    Raises DataError naming row and column, UsageError where a role is missing.
    """
    data: dict[str, object] = {}
    names: dict[str, str] = {}
    notes: list[str] = []
    present = f"the data have: {', '.join(map(str, table.columns))}"

    def take(role: str, column: str) -> None:
        if column not in table.columns:
            raise DataError(f"column {column!r} is missing; {present}")
        if table[column].ndim != 1:
            raise DataError(f"column {column!r} occurs more than once")
        data[role] = table[column].to_numpy()
        names[role] = column

    metric = roles.metric or next((c for c in ("metric", "loss") if c in table.columns), None)
    if metric is None:
        raise UsageError(f"metric is not named; {present}")
    take("metric", metric)
    named = {role: getattr(roles, role) for role in ("params", "tokens", "flops", "x", "floor")} | {**roles.others}
    for role in law.columns:
        if role in law.constant_columns:
            data[role] = np.full(len(table), law.constant_columns[role])
            continue
        column = named.get(role)
        if column is None and role == "x":
            given = [r for r in ("flops", "tokens", "params") if named[r]]
            column = named[given[0]] if given else None
            if len(given) > 1:
                notes.append(f"x = {column} ({given[0]}, the first named of {', '.join(given)})")
        if column is None and role in ("params", "tokens") and roles.flops:
            continue  # derived below
        if column is None and role in table.columns:
            column = role
        if column is None:
            raise UsageError(f"law {law.name} needs the column {role!r}: name it; {present}")
        take(role, column)
    missing = [role for role in ("params", "tokens") if role in law.columns and role not in data]
    if len(missing) == 2:
        raise UsageError(f"law {law.name} needs params or tokens beside flops={roles.flops!r}")
    rows = table.index.to_numpy().astype(np.int64)
    if roles.flops and "flops" not in data and (missing or set(law.columns) != {"x"}):
        take("flops", roles.flops)
    for derived in missing:
        other = "params" if derived == "tokens" else "tokens"
        checked = make_points(data, roles=[other, "flops"], names=names, rows=rows, positive_metric=False)
        data[derived] = checked.columns["flops"] / (FLOPS_PER_PARAM_TOKEN * checked.columns[other])
        names[derived] = f"{roles.flops} / (6 {names[other]})"
        letter = {"params": "N", "tokens": "D"}
        notes.append(f"{letter[derived]} = C / (6 {letter[other]}): {derived} from {roles.flops} and {names[other]}")
    for key, column in (("weights", roles.weights), ("clusters", roles.cluster), ("groups", roles.group)):
        if column is not None:
            take(key, column)
    points = make_points(
        data,
        roles=[*law.columns, *(["flops"] if "flops" in data else [])],
        signed_roles=law.metric_columns,
        positive_metric=residual == "log",
        names=names,
        rows=rows,
        notes=tuple(notes),
    )
    return drop_worst(_note_repeats(points, law), drop)


def _note_repeats(points: Points, law: Law) -> Points:
    """The points with a note where rows repeat earlier ones exactly: a file joined twice, or a run logged twice."""
    if len(points) > MOST_TO_COMPARE:
        return points
    import pandas as pd

    labels = {} if points.groups is None else {"group": points.groups}
    seen = {**{name: points.columns[name] for name in law.columns}, **labels, "the metric": points.metric}
    again = np.flatnonzero(pd.DataFrame(seen).duplicated().to_numpy())
    if not len(again):
        return points
    note = (
        f"{len(again)} of {len(points)} rows repeat an earlier one exactly (first: row {int(points.rows[again[0]])}); "
        "if they are copies, intervals are too narrow"
    )
    return replace(points, notes=(*points.notes, note))
