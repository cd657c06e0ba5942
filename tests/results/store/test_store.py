"""The store: exclusive atomic sets, checksums, quarantine, export, errors of the file system."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from results import Recorder, Store, StoreError, UsageError
from results.schema import LATER_COLUMNS, SCHEMA_VERSION, TABLES, arrow_schema
from results.store import atomic
from results.store.parquet import parquet_bytes, read_parquet
from tests.results.store.filled_store import Append


def test_empty_store_reads_as_empty_and_is_not_created(store: Store) -> None:
    assert store.finished() == set()
    assert store.results() == {}
    assert store.failures() == {}
    assert len(store.read("runs")) == 0
    assert store.check().sets == 0
    assert not store.folder.exists()


def test_what_is_appended_is_read(store: Store, append: Append) -> None:
    assert append("b") and append("a")
    assert store.finished() == {"a", "b"}
    assert store.read("runs")["run_id"].to_pylist() == ["a", "b"]
    assert store.read("curves", {"b"})["run_id"].to_pylist() == ["b"] * 3
    assert store.results()["a"].label == "label-a"
    assert store.results(["b"]).keys() == {"b"}
    assert sorted(p.name for p in (store.folder / "a").iterdir()) == [
        "curves.parquet", "evaluations.parquet", "manifest.json", "runs.parquet",
    ]  # fmt: skip
    assert not [p for p in store.folder.iterdir() if p.name.startswith(".")]


def test_second_finisher_loses(store: Store, append: Append) -> None:
    assert append("a", attempt=2)
    before = (store.folder / "a" / "manifest.json").read_bytes()
    assert not append("a", attempt=1)
    assert (store.folder / "a" / "manifest.json").read_bytes() == before
    assert store.read("runs")["attempt"].to_pylist() == [2]
    assert [p.name for p in store.folder.iterdir()] == ["a"]


def test_of_many_concurrent_finishers_one_wins(store: Store, append: Append) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda attempt: append("a", attempt=attempt), range(1, 25)))
    assert won.count(True) == 1
    assert store.read("runs")["attempt"].to_pylist() == [won.index(True) + 1]
    assert store.check().damaged == ()


def test_failures_stay_apart_from_results(store: Store, append: Append) -> None:
    assert append("a", attempt=1, status="failed", cause="error", message="boom")
    assert append("a", attempt=10, status="failed", cause="out_of_memory", message="more")
    assert append("a", attempt=2, status="failed", cause="error", message="again")
    assert store.finished() == set()
    assert [(f.attempt, f.cause) for f in store.failures()["a"]] == [(1, "error"), (2, "error"), (10, "out_of_memory")]
    assert append("a", attempt=11)
    assert append("d", status="diverged", cause="diverged", message="loss is nan")
    assert store.finished() == {"a", "d"}
    assert store.results()["d"].status == "diverged"
    assert len(store.read("runs")) == 2
    assert len(store.read("runs", include_failed=True)) == 5


@pytest.mark.parametrize("file", ["runs.parquet", "curves.parquet", "evaluations.parquet", "manifest.json"])
@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
def test_damage_is_named_then_quarantined(store: Store, append: Append, file: str, how: str) -> None:
    append("a")
    append("b")
    path = store.folder / "a" / file
    content = path.read_bytes()
    if how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flip":
        path.write_bytes(content[:10] + bytes([content[10] ^ 0xFF]) + content[11:])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=rf"a/{file}.* damaged"):
        store.read(file.removesuffix(".parquet") if file != "manifest.json" else "runs")
    report = store.check()
    assert [(d.name, d.file) for d in report.damaged] == [("a", file)]
    assert file in (report.damaged[0].moved_to / "reason.txt").read_text()
    assert store.finished() == {"b"}
    assert store.read("runs")["run_id"].to_pylist() == ["b"]
    assert append("a", attempt=2)


def test_newer_schema_is_refused_and_never_moved(store: Store, append: Append) -> None:
    append("a")
    path = store.folder / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"schema_version": SCHEMA_VERSION + 1}))
    for action in (store.results, store.check, lambda: store.read("runs")):
        with pytest.raises(StoreError, match="newer"):
            action()
    assert path.exists()


def test_check_removes_only_old_leftovers(store: Store, append: Append) -> None:
    append("a")
    fresh, old = store.folder / ".writing-x-1", store.folder / ".writing-y-1"
    fresh.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    assert store.check().removed == (".writing-y-1",)
    assert fresh.exists() and not old.exists()
    assert store.finished() == {"a"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_id": "../x"}, "run_id = '../x'"),
        ({"run_id": "other"}, "not of run other"),
        ({"attempt": 2}, "attempt 2"),
        ({"status": "failed"}, "status = 'failed'"),
    ],
)
def test_set_that_contradicts_its_arguments_is_refused(
    store: Store, recorder: Recorder, run_row: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    values: dict[str, Any] = {"run_id": "abc", "status": "done", "attempt": 1} | arguments
    with pytest.raises(UsageError, match=message):
        store.append(values.pop("run_id"), recorder.tables(run_row), **values)
    assert store.finished() == set()


def test_incomplete_tables_are_refused(store: Store, recorder: Recorder, run_row: dict[str, Any]) -> None:
    tables = recorder.tables(run_row)
    with pytest.raises(UsageError, match="exactly runs, curves, evaluations"):
        store.append("abc", {"runs": tables["runs"]}, status="done", attempt=1)
    with pytest.raises(UsageError, match="columns of schema"):
        store.append("abc", tables | {"curves": tables["curves"].drop_columns(["term"])}, status="done", attempt=1)


def test_full_disk_leaves_nothing_behind(store: Store, append: Append, monkeypatch: pytest.MonkeyPatch) -> None:
    append("a")
    real, calls = atomic.write_synced, []

    def full(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(atomic, "write_synced", full)
    with pytest.raises(StoreError, match=r"the disk is full; free some space"):
        append("b")
    assert [p.name for p in store.folder.iterdir()] == ["a"]
    assert len(store.read("curves")) == 3


def test_unwritable_root(tmp_path: Path, run_row: dict[str, Any], recorder: Recorder) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*a part of the path is a file"):
        Store(tmp_path / "file").append("abc", recorder.tables(run_row), status="done", attempt=1)


def test_export_and_open_folder(store: Store, append: Append, tmp_path: Path) -> None:
    append("a")
    append("b", status="diverged", cause="diverged")
    append("c", status="failed", cause="error")
    out = tmp_path / "published"
    assert [p.name for p in store.export(out)] == [f"{table}.parquet" for table in TABLES]
    folder = Store.open_folder(out)
    assert folder.finished() == {"a", "b"}
    assert folder.failures() == {}
    for table in TABLES:
        assert folder.read(table).equals(store.read(table))
    assert folder.read("curves", ["b"])["run_id"].to_pylist() == ["b"] * 3
    with pytest.raises(StoreError, match="read-only"):
        append_to = {name: store.read(name, ["a"]) for name in TABLES}
        folder.append("a", append_to, status="done", attempt=1)
    for change in (folder.compact, lambda: folder.supersede({"a"}, "no")):
        with pytest.raises(StoreError, match="read-only"):
            change()


def test_published_failures_are_left_out_unless_asked_for(store: Store, append: Append, tmp_path: Path) -> None:
    append("a", attempt=1, status="failed", cause="error")
    append("a", attempt=2)
    for table in TABLES:
        atomic.write(tmp_path / f"{table}.parquet", parquet_bytes(store.read(table, include_failed=True)))
    folder = Store.open_folder(tmp_path)
    assert folder.read("curves")["attempt"].to_pylist() == [2] * 3
    assert folder.read("curves", include_failed=True)["attempt"].to_pylist() == [2] * 3 + [1] * 3
    assert [f.attempt for f in folder.failures()["a"]] == [1]


def test_export_csv(store: Store, append: Append, tmp_path: Path) -> None:
    append("a")
    store.export(tmp_path / "out", format="csv")
    assert pyarrow.csv.read_csv(tmp_path / "out" / "curves.csv")["value"].to_pylist() == [1.0, 1.1, 1.2]


def test_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"runs\.parquet, curves\.parquet, evaluations\.parquet is missing"):
        Store.open_folder(tmp_path)


def test_unknown_table(store: Store) -> None:
    with pytest.raises(UsageError, match="table = 'run' is unknown; allowed: runs, curves, evaluations"):
        store.read("run")


def test_results_and_finished_need_no_parquet(store: Store, append: Append) -> None:
    append("a")
    code = (
        "import sys; from results import Store; s = Store(sys.argv[1]);"
        "print(s.finished(), s.results()['a'].status, s.failures());"
        "print([m for m in ('pyarrow', 'pandas', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["{'a'} done {}", "[]"]


@pytest.mark.parametrize("version", [1, 2])
def test_tables_of_earlier_schemas_are_read(version: int, store: Store, append: Append, tmp_path: Path) -> None:
    """A folder published by an earlier version, and sets of it beside those of this one, in a compaction as well."""
    append("a")
    append("b")
    for path in sorted((store.folder / "a").glob("*.parquet")):
        _write_as_version(path, version)
    manifest = json.loads((store.folder / "a" / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        data = (store.folder / "a" / name).read_bytes()
        file |= {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    (store.folder / "a" / "manifest.json").write_text(json.dumps(manifest | {"schema_version": version}))
    expected = {table: store.read(table).to_pylist() for table in TABLES}
    assert [row["run_id"] for row in expected["runs"]] == ["a", "b"]
    assert expected["runs"][0]["source"] is None
    assert store.check().damaged == ()
    store.compact()
    assert {table: store.read(table).to_pylist() for table in TABLES} == expected
    for path in store.export(tmp_path / "old", ["a"]):
        _write_as_version(path, version)
    old = Store.open_folder(tmp_path / "old")
    assert old.read("runs").to_pylist() == expected["runs"][:1]
    assert old.read("curves").schema.equals(arrow_schema("curves"))


def _write_as_version(path: Path, version: int) -> None:
    """As that version wrote it: without the columns that came later, and fewer columns may be null."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    later = [name for name, since in LATER_COLUMNS.items() if since > version and name in table.column_names]
    table = table.drop_columns(later)
    fields = [field.with_nullable(table[field.name].null_count > 0) for field in table.schema]
    old = pa.schema(fields, metadata={b"tokenlaw_schema": str(version).encode()})
    path.unlink()
    pq.write_table(pa.Table.from_arrays(table.columns, schema=old), path)


def test_a_table_without_a_required_value_is_damaged(store: Store, append: Append) -> None:
    import pyarrow.parquet as pq

    append("a")
    path = store.folder / "a" / "curves.parquet"
    table = pq.read_table(path)
    fields = [field.with_nullable(True) for field in table.schema]
    nulls = [pa.nulls(len(table), f.type) if f.name == "term" else table[f.name] for f in table.schema]
    pq.write_table(pa.Table.from_arrays(nulls, schema=pa.schema(fields, metadata=table.schema.metadata)), path)
    with pytest.raises(StoreError, match=r"its checksum differs|bytes instead of"):
        store.read("curves")
    with pytest.raises(StoreError, match="column term has empty values, but is required in table curves"):
        read_parquet(path.read_bytes(), "curves", path)
