"""Everything of a study in one tidy table: a row a measurement, with all facts of its run beside it."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .settings import setting_columns

if TYPE_CHECKING:
    import pyarrow

    from results.store.store import Store

_NOT_JOINED = ("attempt", "run_id", "spec", "provenance", "path_flops", "message")
"""Columns of `runs` that evaluations have themselves, or that are no values."""


def joined(store: Store, run_ids: Collection[str] | None = None) -> pyarrow.Table:
    """The evaluations of all runs with a result, or of `run_ids`, with the columns of `runs`.

    Fields of the specifications in which tokenizers or generators differ come as columns such as
    `tokenizer.losses.perceptual_weight`, unless a column tells them already; the free values of a run of no stage as
    `run.NAME`, columns that an imported file had beside ours as `other.NAME`. A column whose values are of several
    types is text. Raises StoreError for damage.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    evaluations, runs = store.read("evaluations", run_ids), store.read("runs", run_ids)
    places = pc.index_in(evaluations["run_id"], runs["run_id"].combine_chunks())
    if places.null_count:
        raise UsageError("some evaluations have no row in runs; `tokenlaw store check` tells more")
    columns = {name: runs[name] for name in runs.column_names if name not in _NOT_JOINED}
    known = {name: column.to_pylist() for name, column in columns.items()}
    for name, values in setting_columns(runs["spec"].to_pylist(), known).items():
        columns[name] = pa.chunked_array([_column(values)])
    for name, column in columns.items():
        evaluations = evaluations.append_column(name, column.take(places))
    return evaluations


def _column(values: list[Any]) -> pyarrow.Array:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values]
    return pa.array(texts, pa.string())
