"""Taking finished runs of another store, or of a folder of exported tables, into a store; all of them or nothing.

A run keeps its id, so that a study that was begun elsewhere goes on here: what was measured counts as done. Weights do
not come along.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.errors import DataError
from results.schema import TABLES, missing_fact
from results.store.compaction import add
from results.store.run_set import SetName, StoredRun
from results.store.segments import IndexBlock, IndexEntry
from results.store.versions import Version

if TYPE_CHECKING:
    import pyarrow

    from results.store.store import Store


@dataclass(frozen=True)
class Taken:
    """What `import_runs` did: runs added, runs that had a result before, and rows of curves and evaluations added."""

    added: int
    present: int
    rows: int


def import_runs(store: Store, source: Store) -> Taken:
    """Add the results of `source` to `store`. A run that has one in both keeps that of `store`.

    Failed attempts stay where they are: they tell of the machines that made them. Raises DataError for tables of which
    a row belongs to no run or a run lacks a fact, StoreError for damage or a store that cannot be written.
    """
    tables = {table: source.read(table) for table in TABLES}
    theirs = _entries(tables, source)
    taken: list[Taken] = []

    def make(version: Version) -> tuple[IndexBlock, set[SetName]] | None:
        fresh = sorted(theirs.keys() - store.finished())
        entries = tuple(theirs[run_id] for run_id in fresh)
        rows = sum(entry.rows["curves"] + entry.rows["evaluations"] for entry in entries)
        taken[:] = [Taken(len(fresh), len(theirs) - len(fresh), rows)]
        if not fresh:
            return None
        return IndexBlock({(False, name): _rows_of(rows, fresh) for name, rows in tables.items()}, entries), set()

    add(store.folder, make)
    return taken[0]


def _entries(tables: Mapping[str, pyarrow.Table], source: Store) -> dict[str, IndexEntry]:
    """What the index says of each run, by id. Raises DataError."""
    counts = {
        name: Counter(zip(rows["run_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True))
        for name, rows in tables.items()
    }
    entries: dict[str, IndexEntry] = {}
    for row in tables["runs"].to_pylist():
        key = row["run_id"], row["attempt"]
        if row["run_id"] in entries:
            raise DataError(f"{source.folder} has two results of run {row['run_id']} in its table runs; allowed: one")
        if missing := missing_fact(row):
            raise DataError(f"{source.folder}: runs.{missing} of run {row['run_id']} is empty; it is required")
        rows = {name: counts[name].pop(key, 0) for name in TABLES}
        entries[row["run_id"]] = IndexEntry(StoredRun.of_row(row), rows, "")
    for name in TABLES:
        for run_id, attempt in counts[name]:
            raise DataError(
                f"{source.folder}: table {name} has {counts[name][run_id, attempt]} rows of run {run_id}, attempt "
                f"{attempt}, which table runs does not have"
            )
    return entries


def _rows_of(rows: pyarrow.Table, run_ids: Collection[str]) -> pyarrow.Table:
    """The rows of these runs, in the order of run ids; those of one run as they were."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.is_in(rows["run_id"], value_set=pa.array(run_ids, pa.string()))).sort_by("run_id")
