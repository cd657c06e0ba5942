"""Tables as JSON: a list of records, a record a line, or columns; fields keep their names, so nothing can shift."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_json(text: str, file: str) -> pd.DataFrame:
    """The table in a text: a list of objects, an object a line, or an object of columns, of lists or by row labels.

    A field that an object does not have is empty; objects within objects become fields `outer.inner`. Raises
    DataError, with the row where there is one, for what is no such table, and for a name that occurs twice.
    """
    import pandas as pd

    try:
        document = json.loads(text, object_pairs_hook=_without_doubles)
    except _Twice as twice:
        raise DataError(f"file {file}: {twice} occurs twice in an object of its JSON") from None
    except (ValueError, RecursionError) as problem:
        document = _lines(text, file, problem)
    rows = _rows_in(document)
    if rows is not None:
        return pd.DataFrame([_record(row, number, file) for number, row in enumerate(rows)])
    if not isinstance(document, dict):
        raise DataError(f"file {file} holds {_called(document)}, not a list of objects or an object of columns")
    columns = _columns(document, file)
    longest = max((len(column) for column in columns.values()), default=0)
    for name, column in columns.items():
        if len(column) < longest:
            raise DataError(f"file {file}, row {len(column)}: column {name!r} has {len(column)} rows of {longest}")
    return pd.DataFrame(columns)


class _Twice(Exception):
    """A name that occurs twice in one object."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise _Twice(repr(name))
        fields[name] = value
    return fields


def _lines(text: str, file: str, whole: Exception) -> list[Any]:
    """JSON lines; `whole` is why the text is not one document."""
    lines = [line for line in text.split("\n") if line.strip()]
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line, object_pairs_hook=_without_doubles))
        except _Twice as twice:
            raise DataError(f"file {file}, row {number}: {twice} occurs twice") from None
        except (ValueError, RecursionError) as problem:
            if not rows:  # then it is no file of lines either
                raise DataError(f"file {file} cannot be read as JSON: {whole}") from None
            raise DataError(f"file {file}, row {number}: this line is not JSON: {problem}") from None
    return rows


def _rows_in(document: Any) -> Sequence[Any] | None:
    """The records of a document, also where it wraps them, or is one; None where it has columns."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return None
    if {"columns", "data"} <= set(document) <= {"columns", "index", "data"} and _is_grid(document):
        return [dict(zip(document["columns"], row, strict=True)) for row in document["data"]]
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
        return lists[0]
    if document and not any(isinstance(value, list | dict) for value in document.values()):
        return [document]
    if document and all(isinstance(value, dict) for value in document.values()):
        inner = {name for value in document.values() for name in value}
        if all(name.isdigit() for name in document) and not all(name.isdigit() for name in inner):
            return list(document.values())  # pandas' orient="index"
    return None


def _is_grid(document: Mapping[str, Any]) -> bool:
    names, rows = document["columns"], document["data"]
    return (
        isinstance(names, list)
        and len(set(map(str, names))) == len(names)
        and isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    )


def _record(row: Any, number: int, file: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"file {file}, row {number}: {_called(row)}, not an object with names and values")
    flat: dict[str, Any] = {}
    for name, value in _flattened(row, ""):
        if name in flat:
            raise DataError(f"file {file}, row {number}: {name!r} occurs twice")
        flat[name] = value
    return flat


def _flattened(row: Mapping[str, Any], before: str) -> list[tuple[str, Any]]:
    fields = []
    for name, value in row.items():
        fields += _flattened(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)]
    return fields


def _columns(document: Mapping[str, Any], file: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    labels: dict[str, None] = {}  # of all rows, in order
    for column in document.values():
        labels |= dict.fromkeys(column if isinstance(column, dict) else ())
    for name, column in document.items():
        if isinstance(column, dict):
            missing = next((label for label in labels if label not in column), None)
            if missing is not None:
                raise DataError(f"file {file}, row {missing}: column {name!r} has no value there")
            columns[name] = [column[label] for label in labels]
        elif isinstance(column, list):
            columns[name] = column
        else:
            raise DataError(f"file {file}: {name!r} is {_called(column)}, not a column")
    return columns


def _called(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return {list: "a list", dict: "an object", type(None): "null"}.get(type(value), repr(value)[:40])
