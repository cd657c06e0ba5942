"""Rows and groups of pandas frames with types a checker can follow, and values as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd


class Record:
    """A dataclass with a JSON form."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields by name; arrays are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: plain(value) for name, value in values.items() if not isinstance(value, np.ndarray)}


def plain(value: Any) -> Any:
    """JSON-ready: records and named tuples as objects, tuples as lists, NumPy scalars as numbers, NaN and infinities as
    null."""
    if isinstance(value, Record):
        return value.to_dict()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def said(value: Any) -> str:
    """A value of a setting for people; nothing for one that is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a dictionary by column."""
    columns = (table.iloc[:, i] for i in range(table.shape[1]))
    # A column of strings is slow to walk through unless they are objects.
    values = [(column.astype(object) if column.dtype == "str" else column).tolist() for column in columns]
    names = table.columns.tolist()
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def groups(table: pd.DataFrame, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """(key, rows) for every value of a column, or tuple of values of several, in sorted order, missing values kept."""
    yield from table.groupby(by, sort=True, dropna=False)


def by_seed(values: pd.Series) -> dict[int, float]:
    """Values of a series indexed by seed, missing ones left out."""
    values = values.dropna()
    return {int(s): float(v) for s, v in zip(values.index.tolist(), values.tolist(), strict=True)}


def geometric_means(table: pd.DataFrame, columns: list[str], by: str) -> pd.DataFrame:
    """Geometric mean of positive columns for every value of `by`, which becomes the index."""
    return table[columns].astype(float).apply(np.log).groupby(table[by]).mean().apply(np.exp)
