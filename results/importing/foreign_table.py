"""Reading a CSV or Parquet file of somebody else's measurements: columns mapped to ours, every value checked.

Wide form: a row a run (or a run and budget) with a column a metric. Long form: columns `metric` and `value`.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.errors import DataError, UsageError
from results.protocol import TUNED
from results.schema import COLUMNS, METRICS, OWN_METRIC, SPLITS, STAGES, metric_name

RUN = "run"
"""Column that names a run, so that several rows are of one run, and its id does not depend on its other columns."""
_OURS = ("run_id", "attempt", "status", "cause", "message", "spec", "provenance", "source", "started_at", "finished_at")
FACTS = {column.name: column.type for column in COLUMNS["runs"] if column.name not in _OURS}
"""Columns of `runs` that a file may have."""
POSITION = {
    column.name: column.type
    for column in COLUMNS["evaluations"]
    if column.name in ("branch", "step", "images", "path_flops", "standard_error", "n", "guidance", "split", "flag")
}
"""Columns of `evaluations` that a file may have beside metric and value."""
PROTOCOL = ("reference", "reference_hash", "crop", "extractor", "extractor_hash", "microbatch")
_NAMES: dict[str, tuple[str, str]] = {
    RUN: ("facts", "string"),
    **{name: ("facts", kind) for name, kind in FACTS.items()},
    **{name: ("position", kind) for name, kind in POSITION.items()},
    **{name: ("protocol", "int64" if name == "microbatch" else "string") for name in PROTOCOL},
    "metric": ("long", "string"),
    "value": ("long", "float64"),
    **dict.fromkeys(METRICS, ("values", "float64")),
}
"""All that a column can be here: the field of Row that its values go to, and their type."""
UNGUIDED = "none"
GUIDANCE_WORDS = (UNGUIDED, TUNED)
"""What a column of guidance may say beside a scale: none, or that it was tuned for each row."""
_ROUNDED_FROM = 1000.0
"""Counts that were read off a figure are no whole numbers; from here on they are rounded, smaller ones are refused."""


@dataclass
class Row:
    """A row of the file: its number from 1, the facts of its run, where it was measured, and what (by metric).

    `long` is the metric and value of the long form; `others` are columns without a meaning here.
    """

    number: int
    facts: dict[str, Any] = field(default_factory=dict)
    position: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    long: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignTable:
    """A file's rows; `others` are columns that mean nothing here, `rounded` counts values that were not whole."""

    rows: tuple[Row, ...]
    others: tuple[str, ...]
    rounded: Mapping[str, int]


def read_foreign(path: Path, content: bytes, columns: Mapping[str, str], *, keep: bool = False) -> ForeignTable:
    """The rows of a file with this content; `columns` maps its column names to ours, `keep` takes others along.

    Names of metrics are found whatever their capitals (gFID). Raises DataError that names row and column for a value
    that cannot be, UsageError for a mapping that cannot, and without `keep` for a column without a meaning here.
    """
    names, records = _records(path, content)
    targets = _targets(path, names, columns)
    others = [name for name, target in targets.items() if target is None]
    if others and not keep:
        near = {name: known for name in others if (known := suggestion(name))}
        hint = "".join(f" Is {name} {known}? --map {name}={known}." for name, known in near.items())
        raise UsageError(
            f"{path.name} has columns without a meaning here: {', '.join(others)}; --map COLUMN=NAME says what one is "
            f"({', '.join(_NAMES)}), --keep-others stores them with the runs as they are.{hint}"
        )
    rounded: Counter[str] = Counter()
    rows = []
    for number, record in enumerate(records, 1):
        row = Row(number)
        for name, value in record.items():
            plain = value.strip() if isinstance(value, str) else value
            if plain is None or plain == "" or (isinstance(plain, float) and math.isnan(plain)):
                continue
            target = targets[name]
            if target is None:
                row.others[name] = plain if isinstance(plain, str | int | float | bool) else str(plain)
                continue
            if target == "guidance" and str(plain).lower() in GUIDANCE_WORDS:
                _guided(row, str(plain).lower())
                continue
            field_name, kind = _NAMES.get(target, ("values", "float64"))
            try:
                typed, exact = _typed(target, kind, plain)
            except ValueError as error:
                raise DataError(f"{path.name} row {number}, column {name}: {error}") from None
            getattr(row, field_name)[target] = typed
            if not exact:
                rounded[name] += 1
        _finish(path, row, "metric" in targets.values())
        rows.append(row)
    if not any(row.values for row in rows):
        raise DataError(f"{path.name} has no measured value in any row")
    return ForeignTable(tuple(rows), tuple(others), rounded)


def _guided(row: Row, word: str) -> None:
    """Guidance in a word: without any its scale is 1; tuned for each row no scale is known."""
    if word == UNGUIDED:
        row.position["guidance"] = 1.0
    else:
        row.protocol["guidance_schedule"] = TUNED


def suggestion(name: str) -> str | None:
    """The name of ours that a column's name resembles; None if there is none."""
    plain = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
    return next(iter(difflib.get_close_matches(plain, _NAMES, n=1, cutoff=0.75) if len(plain) > 2 else ()), None)


def _records(path: Path, content: bytes) -> tuple[list[str], Iterable[dict[str, Any]]]:
    """Column names and rows of a CSV, TSV or Parquet file."""
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(pa.BufferReader(content))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path.name} is no Parquet file: {str(error).splitlines()[0]}") from error
        names, records = [str(name) for name in table.column_names], table.to_pylist()
    elif suffix in (".csv", ".tsv"):
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path.name} is not UTF-8 text: byte {error.start} is {content[error.start]:#x}"
            ) from error
        try:
            reader = csv.reader(text.splitlines(keepends=True), delimiter="\t" if suffix == ".tsv" else ",")
            lines = [line for line in reader if line]
        except csv.Error as error:
            raise DataError(f"{path.name} is no CSV file: {error}") from error
        names = [name.strip() for name in lines[0]] if lines else []
        records = []
        for number, line in enumerate(lines[1:], 1):
            if len(line) != len(names):
                raise DataError(f"{path.name} row {number} has {len(line)} values, the header {len(names)}")
            records.append(dict(zip(names, line, strict=True)))
    else:
        raise UsageError(f"file = {path.name!r} is not allowed; allowed: .csv, .tsv, .parquet")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has the column {twice[0]!r} more than once")
    if not records:
        raise DataError(f"{path.name} has no rows")
    return names, records


def _targets(path: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str | None]:
    """What each column of the file is to us; None for one without a meaning here."""
    for name, target in columns.items():
        if name not in names:
            raise UsageError(
                f"--map {name}={target}: {path.name} has no column {name!r}; its columns: {', '.join(names)}"
            )
        if not _known(target):
            near = suggestion(target)
            hint = f" (did you mean {near}?)" if near else ""
            raise UsageError(
                f"--map {name}={target}: {target} is no name here{hint}; allowed: {', '.join(_NAMES)}, "
                "or a metric of your own such as own_clip_score"
            )
    targets: dict[str, str | None] = {name: columns.get(name) or _meaning(name) for name in names}
    given = [target for target in targets.values() if target is not None]
    twice = sorted({target for target in given if given.count(target) > 1})
    if twice:
        both = [name for name, target in targets.items() if target == twice[0]]
        raise UsageError(f"columns {' and '.join(both)} are both {twice[0]}; allowed: one")
    metrics = [target for target in given if target in METRICS or OWN_METRIC.fullmatch(target)]
    long = {"metric", "value"} & set(given)
    if len(long) == 1:
        raise DataError(f"{path.name} has {long.pop()} without the other; the long form needs metric and value")
    if long and metrics:
        raise DataError(f"{path.name} has metric and value, and also {metrics[0]}; allowed: one of the two forms")
    if not long and not metrics:
        raise DataError(
            f"{path.name} has no measurement: it needs a column of a metric ({', '.join(METRICS)} or own_...), or both "
            f"metric and value; its columns are {', '.join(names)}; --map COLUMN=NAME says what one is"
        )
    return targets


def _meaning(name: str) -> str | None:
    if _known(name):
        return name
    return name.lower() if name.lower() in METRICS else None


def _known(name: str) -> bool:
    return name in _NAMES or OWN_METRIC.fullmatch(name) is not None


def _finish(path: Path, row: Row, long: bool) -> None:
    """Check what concerns several columns of a row."""
    if long:
        metric, value = row.long.get("metric"), row.long.get("value")
        if metric is None or value is None:
            raise DataError(f"{path.name} row {row.number} lacks metric or value")
        try:
            row.values[metric_name(metric)] = value
        except UsageError as error:
            raise DataError(f"{path.name} row {row.number}: {error}") from error
    checks = {"stage": (row.facts, STAGES), "split": (row.position, SPLITS)}
    for name, (values, allowed) in checks.items():
        if values.get(name, allowed[0]) not in allowed:
            raise DataError(f"{path.name} row {row.number}: {name} = {values[name]!r}; allowed: {', '.join(allowed)}")


def _typed(target: str, kind: str, value: Any) -> tuple[Any, bool]:
    """A value as its column has it, and whether it was so exactly. Raises ValueError that says why it cannot be."""
    if kind == "string":
        return str(value), True
    try:
        number = float("x") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    if kind == "float64":
        return number, True
    exact = number.is_integer()
    if not exact and number < _ROUNDED_FROM:
        raise ValueError(f"{value!r} is no whole number; {target} is one")
    if number < 0:
        raise ValueError(f"{value!r} is negative; {target} cannot be")
    return round(number), exact
