"""Runs of another store: taken once, as they were, from loose, compacted and exported tables; what is there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from results import DataError, Store
from results.importing.stored_runs import Taken, import_runs
from results.schema import TABLES, arrow_schema
from tests.results.store.filled_store import Append, content, fill


def as_loose(source: Store, folder: Path) -> Store:
    return source


def as_compacted(source: Store, folder: Path) -> Store:
    source.compact()
    return source


def as_exported(source: Store, folder: Path) -> Store:
    source.export(folder / "tables")
    return Store.open_folder(folder / "tables")


@pytest.mark.parametrize("form", [as_loose, as_compacted, as_exported])
def test_results_are_taken_as_they_were_and_once(
    store: Store,
    append: Append,
    tmp_path: Path,
    form: Callable[[Store, Path], Store],
) -> None:
    fill(append)
    source, here = form(store, tmp_path), Store(tmp_path / "here")
    results = {table: source.read(table).to_pylist() for table in TABLES}
    assert import_runs(here, source) == Taken(added=13, present=0, rows=len(results["curves"]))
    assert {table: here.read(table).to_pylist() for table in TABLES} == results
    assert here.results() == source.results()
    assert not here.failures(), "failed attempts tell of the machines that made them"
    before = content(here)
    assert import_runs(here, source) == Taken(added=0, present=13, rows=0)
    assert content(here) == before
    assert not here.check().damaged


def test_what_is_measured_here_stays_and_later_runs_go_on_beside_it(
    store: Store,
    append: Append,
    tmp_path: Path,
) -> None:
    fill(append)
    here = Store(tmp_path / "here")
    append("r1", rows=7, to=here)
    assert import_runs(here, store).present == 1
    assert len(here.read("curves", ["r1"])) == 7
    assert append("new", to=here)
    assert not append("r2", attempt=5, to=here), "a run that was taken is finished"
    here.compact()
    assert here.finished() == store.finished() | {"new"}


def test_tables_that_do_not_belong_together_end_with_one_line_and_nothing_is_taken(
    store: Store,
    append: Append,
    tmp_path: Path,
) -> None:
    fill(append)
    folder, here = tmp_path / "tables", Store(tmp_path / "here")

    def broken(table: str, change: Callable[[pa.Table], pa.Table], words: str) -> None:
        store.export(folder)
        rows = pq.read_table(folder / f"{table}.parquet").cast(arrow_schema(table))
        pq.write_table(change(rows), folder / f"{table}.parquet")
        with pytest.raises(DataError, match=words):
            import_runs(here, Store.open_folder(folder))
        assert not here.finished()

    broken("runs", lambda rows: rows.filter(pc.not_equal(rows["run_id"], "r5")), "table curves has 5 rows of run r5")
    broken("runs", lambda rows: pa.concat_tables([rows, rows.slice(2, 1)]), "two results of run")
