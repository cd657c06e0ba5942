"""Rows and groups of pandas frames with types a checker can follow; pandas itself types cells as almost anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a dictionary by column."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False, name=None)]


def groups(table: pd.DataFrame, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """(key, rows) for every value of a column, or tuple of values of several, in sorted order, missing values kept."""
    yield from table.groupby(by, sort=True, dropna=False)


def by_seed(values: pd.Series) -> dict[int, float]:
    """Values of a series indexed by seed, missing ones left out."""
    values = values.dropna()
    return {int(s): float(v) for s, v in zip(values.index.tolist(), values.tolist(), strict=True)}


def geometric_means(table: pd.DataFrame, columns: list[str], by: str) -> pd.DataFrame:
    """Geometric mean of positive columns for every value of `by`, which becomes the index."""
    logs = pd.DataFrame({c: np.log(table[c].to_numpy(dtype=float)) for c in columns}, index=table.index)
    means = logs.groupby(table[by]).mean()
    return pd.DataFrame({c: np.exp(means[c].to_numpy()) for c in columns}, index=means.index)
