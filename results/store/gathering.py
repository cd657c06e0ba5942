"""Rows of many sets put together as one table in the order of the sets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from results.schema import arrow_schema

from .run_set import SetName

if TYPE_CHECKING:
    import pyarrow

_SLICES = 1000
"""So many parts of other tables make up one without being copied; with more, what reads it becomes slow."""

Piece = tuple["pyarrow.Table", Sequence[tuple[SetName, int]]]
"""Rows of one table, and whose they are: sets in the order of the rows, each with its number of rows."""


def gather(table: str, pieces: Sequence[Piece], wanted: Collection[SetName] | None = None) -> pyarrow.Table:
    """Rows of several pieces of one of TABLES as one table in the order of sets; only of the `wanted` sets if given."""
    import numpy as np
    import pyarrow as pa

    ranges: list[tuple[tuple[str, int], int, int]] = []
    begin = 0
    for _, counts in pieces:
        for name, count in counts:
            if wanted is None or name in wanted:
                ranges.append((name.order, begin, count))
            begin += count
    whole = pa.concat_tables([arrow_schema(table).empty_table(), *(part for part, _ in pieces)])
    ranges.sort()
    joined: list[list[int]] = []
    for _, start, count in ranges:
        if joined and start == joined[-1][1]:
            joined[-1][1] += count
        else:
            joined.append([start, start + count])
    if joined == [[0, len(whole)]]:
        return whole
    if len(joined) <= _SLICES:
        return pa.concat_tables([whole.slice(0, 0), *(whole.slice(start, end - start) for start, end in joined)])
    return whole.combine_chunks().take(np.concatenate([np.arange(start, end) for start, end in joined]))
