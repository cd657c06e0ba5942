"""Everything of a study in one tidy table: a row a measurement, with all facts of its run beside it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    import pyarrow

    from results.store.store import Store

_NOT_JOINED = ("attempt", "run_id", "spec", "provenance", "path_flops", "message")
"""Columns of `runs` that evaluations have themselves, or that are no values."""


def joined(store: Store, run_ids: Collection[str] | None = None) -> pyarrow.Table:
    """The evaluations of all runs with a result, or of `run_ids`, with the columns of `runs`.

    The free values of a run of no stage come as columns `run.NAME`, columns that an imported file had beside ours as
    `other.NAME`; a column whose values are of several types is text. Raises StoreError for damage.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    evaluations, runs = store.read("evaluations", run_ids), store.read("runs", run_ids)
    places = pc.index_in(evaluations["run_id"], runs["run_id"].combine_chunks())
    if places.null_count:
        raise UsageError("some evaluations have no row in runs; `tokenlaw store check` tells more")
    for name in runs.column_names:
        if name not in _NOT_JOINED:
            evaluations = evaluations.append_column(name, runs[name].take(places))
    rows = [dict(_values(json.loads(text))) for text in runs["spec"].to_pylist()]
    for name in sorted({name for row in rows for name in row}):
        column = _column([row.get(name) for row in rows])
        evaluations = evaluations.append_column(name, pa.chunked_array([column]).take(places))
    return evaluations


def _values(spec: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(spec, Mapping):
        if isinstance(spec.get("values"), Mapping):
            yield from _leaves(spec["values"], "run.")
        imported = spec.get("imported")
        if isinstance(imported, Mapping):
            yield from _leaves(imported.get("others") or {}, "other.")


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _column(values: list[Any]) -> pyarrow.Array:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values]
    return pa.array(texts, pa.string())
