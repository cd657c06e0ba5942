"""Compaction: the same rows before and after, the first still wins, kills at every step, damage in large files."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import Recorder, Store, StoreError, UsageError
from results.schema import TABLES, arrow_schema
from results.store import atomic, compaction, segments, versions
from results.store.run_set import SetName
from results.store.segments import gather

Append = Callable[..., bool]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def append(store: Store, run_row: dict[str, Any]) -> Append:
    """Appends a set whose rows depend on its arguments."""

    def append(run_id: str, attempt: int = 1, status: str = "done", rows: int = 3, to: Store = store) -> bool:
        recorder = Recorder(run_id, attempt)
        for step in range(rows):
            recorder.curve(step=step, images=step, loss=float(f"{attempt}.{step}"))
        cause = {"cause": "error"} if status == "failed" else {}
        tables = recorder.tables(run_row | {"status": status, "label": f"label-{run_id}"} | cause)
        return to.append(run_id, tables, status=status, attempt=attempt)

    return append


def content(store: Store) -> dict[str, Any]:
    """All that a store says."""
    tables: dict[str, Any] = {table: store.read(table, include_failed=True).to_pylist() for table in TABLES}
    return tables | {"finished": store.finished(), "results": store.results(), "failures": store.failures()}


def fill(append: Append) -> None:
    for number in range(12):
        append(f"r{number}", rows=number)
    append("r3", attempt=4, status="failed")
    append("r3", attempt=11, status="failed")
    append("r7x", attempt=1, status="failed")
    append("r8d", attempt=2, status="diverged")


def test_a_compacted_store_says_the_same(store: Store, append: Append) -> None:
    fill(append)
    before = content(store)
    done = store.compact()
    assert (done.merged, done.removed, done.segments, done.sets, done.damaged) == (16, 16, 1, 16, ())
    assert [path.name for path in store.folder.iterdir()] == [".compacted"]
    for again in (store, Store(store.root)):
        assert content(again) == before
    assert store.check().damaged == ()
    assert store.read("curves", ["r5", "r2"])["run_id"].to_pylist() == ["r2"] * 2 + ["r5"] * 5
    assert store.results(["r5"]).keys() == {"r5"} and store.failures(["r3"]).keys() == {"r3"}
    assert store.compact().merged == 0
    assert content(store) == before


def test_loose_and_compacted_sets_are_read_in_one_order(store: Store, append: Append) -> None:
    for run_id in "bdf":
        append(run_id)
    store.compact()
    for run_id in "ace":
        append(run_id)
    append("d", attempt=9, status="failed")
    assert store.read("runs")["run_id"].to_pylist() == list("abcdef")
    mixed = content(store)
    assert [(r["run_id"], r["attempt"]) for r in mixed["runs"]][3:5] == [("d", 1), ("d", 9)]
    done = store.compact()
    assert (done.merged, done.segments, done.sets) == (4, 1, 7)
    assert content(store) == mixed


def test_the_first_to_finish_still_wins(store: Store, append: Append) -> None:
    assert append("a", attempt=2)
    assert append("a", attempt=1, status="failed")
    store.compact()
    before = content(store)
    assert not append("a", attempt=3)
    assert not append("a", attempt=1, status="failed")
    assert append("a", attempt=3, status="failed")
    assert [path.name for path in sorted(store.folder.iterdir())] == [".compacted", "a.failed-3"]
    assert content(store)["results"] == before["results"]


def test_a_finisher_that_looked_before_the_compaction_loses(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compaction comes between its look and its rename: the place is free, and yet the run is finished."""
    append("a", attempt=1)
    real = atomic.rename_exclusively
    late = Store(store.root)

    def rename(source: Path, target: Path) -> bool:
        if target.name == "a":
            monkeypatch.setattr(atomic, "rename_exclusively", real)
            store.compact()
            assert not target.exists()
        return real(source, target)

    monkeypatch.setattr(atomic, "rename_exclusively", rename)
    assert not append("a", attempt=2, to=late)
    assert [path.name for path in store.folder.iterdir()] == [".compacted"]
    assert store.read("runs")["attempt"].to_pylist() == [1]


def test_a_winner_that_is_compacted_before_it_looks_again_has_won(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.rename_exclusively

    def rename(source: Path, target: Path) -> bool:
        won = real(source, target)
        if target.name == "a":
            monkeypatch.setattr(atomic, "rename_exclusively", real)
            store.compact()
        return won

    monkeypatch.setattr(atomic, "rename_exclusively", rename)
    assert append("a", attempt=1, to=Store(store.root))
    assert store.read("runs")["attempt"].to_pylist() == [1]


def test_a_loser_that_died_before_its_second_look_is_not_seen(store: Store, append: Append) -> None:
    append("a", attempt=1)
    append("b", attempt=1)
    copy = store.root / "copy"
    shutil.copytree(store.folder / "a", copy)
    store.compact()
    copy.rename(store.folder / "a")
    before = content(Store(store.root))
    assert [row["run_id"] for row in before["runs"]] == ["a", "b"]
    assert store.check().sets == 2
    assert store.compact().removed == 1
    assert not (store.folder / "a").exists()
    assert content(store) == before


def test_what_arrives_during_a_compaction_is_kept(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(append)
    real = versions.publish

    def publish(*arguments: Any) -> Any:
        append("new")
        append("r3", attempt=5, status="failed")
        return real(*arguments)

    monkeypatch.setattr(compaction, "publish", publish)
    store.compact()
    assert "new" in store.finished() and len(store.finished()) == 14
    assert [failure.attempt for failure in store.failures()["r3"]] == [4, 5, 11]


def test_of_two_compactions_at_once_one_begins_again(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(append)
    before = content(store)
    real = versions.publish
    other = []

    def publish(*arguments: Any) -> Any:
        monkeypatch.setattr(compaction, "publish", real)
        append("late")
        other.append(Store(store.root).compact())
        return real(*arguments)

    monkeypatch.setattr(compaction, "publish", publish)
    done = store.compact()
    assert other[0].merged == 17 and done.merged == 0
    append_free = {**content(store)}
    assert append_free["finished"] == before["finished"] | {"late"}
    assert len(list((store.folder / versions.FOLDER).iterdir())) == 2


def test_a_version_whose_number_was_used_before_is_not_published(store: Store, append: Append) -> None:
    """Two compactions have come and gone since a third began: its number is free again, but it is too late."""
    append("a")
    base = versions.current(store.folder)
    store.compact()
    append("b")
    store.compact()
    assert versions.numbers(store.folder) == [2]
    with pytest.raises(versions.Overtaken):
        versions.publish(store.folder, base, [])
    assert versions.numbers(store.folder) == [2]
    assert store.finished() == {"a", "b"}


def test_large_segments_are_left_alone(store: Store, append: Append, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LARGE_BYTES", 1)
    for run_id in "abc":
        append(run_id)
        before = content(store)
        store.compact()
        assert content(store) == before
    assert len(store.view().version.segments) == 3
    assert store.read("runs")["run_id"].to_pylist() == list("abc")
    monkeypatch.undo()
    assert store.compact().segments == 1
    assert content(store) == before


def test_readers_look_again_when_files_are_replaced(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(append)
    before = content(store)
    reader = Store(store.root)
    real = compaction.loose_sets

    def loose_sets(folder: Path) -> Any:
        found = real(folder)
        monkeypatch.setattr(compaction, "loose_sets", real)
        store.compact()
        return found

    for method in ("read", "results", "failures"):
        append(f"before-{method}")
        before = content(store)
        monkeypatch.setattr(compaction, "loose_sets", loose_sets)
        if method == "read":
            assert reader.read("curves", include_failed=True).to_pylist() == before["curves"]
        else:
            assert getattr(reader, method)() == before[method]
        assert not (store.folder / f"before-{method}").exists()


@pytest.mark.parametrize("file", ["runs.parquet", "curves.parquet", "evaluations.parquet", "failed-runs.parquet"])
@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
def test_damage_costs_only_the_runs_of_damaged_row_groups(
    store: Store, append: Append, monkeypatch: pytest.MonkeyPatch, file: str, how: str
) -> None:
    monkeypatch.setattr(segments, "ROW_GROUP", {"runs": 2, "curves": 8, "evaluations": 8})
    fill(append)
    before = content(store)
    store.compact()
    (segment,) = store.view().version.segments
    path = segment.path / file
    data = path.read_bytes()
    if how == "truncate":
        path.write_bytes(data[: len(data) // 3])
    elif how == "flip":
        path.write_bytes(data[:10] + bytes([data[10] ^ 0xFF]) + data[11:])
    else:
        path.unlink()
    fresh = Store(store.root)
    table = file.removesuffix(".parquet").removeprefix("failed-")
    with pytest.raises(StoreError, match=rf"{segment.name}/{file} is damaged: .*store check"):
        fresh.read(table, include_failed=True)
    report = fresh.check()
    (damage,) = report.damaged
    assert (damage.name, damage.file) == (segment.name, file)
    assert file in (damage.moved_to / "reason.txt").read_text()
    lost = set(damage.lost)
    after = content(fresh)
    assert fresh.check().damaged == ()
    if file == "evaluations.parquet":
        assert lost == set()
    elif how == "remove":
        assert lost >= ({"r3", "r7x"} if file.startswith("failed") else before["finished"] - {"r0"})
    elif not file.startswith("failed"):
        assert 0 < len(lost) < 12
    for run_id in before["finished"] - lost:
        for name in TABLES:
            assert [r for r in after[name] if r["run_id"] == run_id and r["attempt"] < 4] == [
                r for r in before[name] if r["run_id"] == run_id and r["attempt"] < 4
            ]
    if not file.startswith("failed"):
        assert after["finished"] == before["finished"] - lost
        assert all(append(run_id, attempt=20) for run_id in lost)
        fresh.compact()
        assert fresh.finished() == before["finished"]


@pytest.mark.parametrize("file", ["index.json", "footers.json"])
def test_without_index_or_footers_nothing_is_lost(store: Store, append: Append, file: str) -> None:
    fill(append)
    before = content(store)
    store.compact()
    (segment,) = store.view().version.segments
    (segment.path / file).write_text("{")
    (damage,) = Store(store.root).check().damaged
    assert (damage.file, damage.lost) == (file, ())
    assert content(Store(store.root)) == before


def test_a_damaged_version_is_made_anew(store: Store, append: Append) -> None:
    fill(append)
    store.compact()
    append("later")
    before = content(store)
    (path,) = (store.folder / versions.FOLDER).glob("version-*/manifest.json")
    path.write_text("{")
    fresh = Store(store.root)
    for look in (fresh.finished, fresh.results, lambda: fresh.read("runs"), fresh.compact):
        with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
            look()
    assert not append_is_refused(append, fresh)
    assert [damage.file for damage in fresh.check().damaged] == ["manifest.json"]
    assert content(fresh) == before


def append_is_refused(append: Append, store: Store) -> bool:
    """Nothing may be written while it is not known what is finished."""
    with pytest.raises(StoreError):
        append("r1", attempt=9, to=store)
    return (store.folder / "r1").exists()


def test_a_newer_segment_is_refused_and_never_moved(store: Store, append: Append) -> None:
    append("a")
    store.compact()
    (path,) = (store.folder / versions.FOLDER).glob("version-*/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    for action in (Store(store.root).finished, Store(store.root).check, store.__class__(store.root).compact):
        with pytest.raises(StoreError, match="newer"):
            action()
    assert path.exists()


def test_damaged_loose_sets_are_left_for_check(store: Store, append: Append) -> None:
    append("a")
    append("b")
    (store.folder / "a" / "curves.parquet").write_bytes(b"PAR1")
    done = store.compact()
    assert (done.merged, done.damaged) == (1, ("a",))
    assert (store.folder / "a").is_dir()
    assert [damage.name for damage in store.check().damaged] == ["a"]


def test_bad_settle(store: Store) -> None:
    with pytest.raises(UsageError, match=r"settle = -1 is not allowed; allowed: seconds from 0"):
        store.compact(settle=-1)


def test_full_disk_leaves_the_store_as_it_was(store: Store, append: Append, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(append)
    before = content(store)
    real = atomic.write_synced
    for failing in range(1, 12):
        calls: list[Path] = []

        def full(path: Path, data: bytes, calls: list[Path] = calls, failing: int = failing) -> None:
            calls.append(path)
            if len(calls) == failing:
                raise OSError(28, os.strerror(28))
            real(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "write_synced", full)
            try:
                store.compact()
            except StoreError as error:
                assert "the disk is full" in str(error)
            else:
                break
        assert content(Store(store.root)) == before
        assert not list((store.folder / versions.FOLDER).glob("segment-*"))
    assert len(calls) == 9
    assert content(Store(store.root)) == before


def killed_at(step: int, work: Callable[[], Any]) -> int:
    """Work in a child process that is killed before its `step`-th call that changes the disk; how it ended."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in ("open", "fsync", "rename", "mkdir", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_at_every_step_nothing_is_lost_or_doubled(store: Store, append: Append) -> None:
    """kill -9 before each system call that changes the disk; then readers, a late finisher, and a second compaction."""
    append("a")
    append("b", attempt=2)
    append("b", attempt=1, status="failed")
    store.compact()
    append("c")
    append("d", attempt=1, status="failed")
    before = content(store)
    pristine = store.root / "pristine"
    shutil.copytree(store.folder, pristine)
    for step in range(1, 400):
        shutil.rmtree(store.folder)
        shutil.copytree(pristine, store.folder)
        ended = killed_at(step, Store(store.root).compact)
        fresh = Store(store.root)
        assert content(fresh) == before, step
        assert not append("c", attempt=9, to=fresh) and not append("a", attempt=9, to=fresh)
        assert fresh.check().damaged == ()
        fresh.compact()
        assert content(Store(store.root)) == before, step
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert ended == 0 and step > 40


def test_a_writer_killed_at_every_step_has_stored_all_or_nothing(store: Store, append: Append) -> None:
    append("a")
    store.compact()
    for step in range(1, 100):
        run_id = f"r{step:02d}"
        ended = killed_at(step, lambda run_id=run_id: append(run_id, to=Store(store.root)))  # type: ignore[misc]
        there = run_id in Store(store.root).finished()
        assert len(store.read("curves", [run_id])) == 3 * there
        assert store.check().damaged == ()
        assert append(run_id, attempt=2) is not there
        if ended == 0:
            break
    assert there and 10 < step < 99
    assert store.compact().merged == step
    assert len(store.finished()) == step + 1


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(
        st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.integers(0, 3)), max_size=5), max_size=4
    )
)
def test_gather_orders_rows_by_set(parts: list[list[tuple[str, int]]]) -> None:
    schema = arrow_schema("curves")
    pieces, expected, used = [], {}, set()
    for part in parts:
        rows, counts = [], []
        for run_id, count in part:
            if run_id in used:
                continue
            used.add(run_id)
            made = [
                {"run_id": run_id, "attempt": 1, "branch": "trunk", "step": step, "split": "train", "term": "x",
                 "value": float(step)}
                for step in range(count)
            ]  # fmt: skip
            rows += made
            expected[run_id] = [row["step"] for row in made]
            counts.append((SetName(run_id), count))
        pieces.append((pa.Table.from_pylist(rows, schema), counts))
    found = gather("curves", pieces, lambda name: True).to_pylist()
    assert [(row["run_id"], row["step"]) for row in found] == [
        (run_id, step) for run_id in sorted(expected) for step in expected[run_id]
    ]
