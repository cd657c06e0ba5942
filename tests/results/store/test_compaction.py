"""Compaction: the same rows before and after, the first still wins, writers and readers meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import Store, UsageError
from results.schema import arrow_schema
from results.store import atomic, compaction, versions
from results.store.run_set import SetName
from results.store.segments import gather
from tests.results.store.filled_store import Append, content, fill


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
        sets = real(folder)
        monkeypatch.setattr(compaction, "loose_sets", real)
        store.compact()
        return sets

    for method in ("read", "results", "failures"):
        append(f"before-{method}")
        before = content(store)
        monkeypatch.setattr(compaction, "loose_sets", loose_sets)
        if method == "read":
            assert reader.read("curves", include_failed=True).to_pylist() == before["curves"]
        else:
            assert getattr(reader, method)() == before[method]
        assert not (store.folder / f"before-{method}").exists()


def test_bad_settle(store: Store) -> None:
    with pytest.raises(UsageError, match=r"settle = -1 is not allowed; allowed: seconds from 0"):
        store.compact(settle=-1)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(
        st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.integers(0, 3)), max_size=5), max_size=4
    )
)
def test_gather_orders_rows_by_set(parts: list[list[tuple[str, int]]]) -> None:
    schema = arrow_schema("curves")
    pieces, expected, used = [], {}, set()
    for sets in parts:
        rows, counts = [], []
        for run_id, count in sets:
            if run_id in used:
                continue
            used.add(run_id)
            of_run = [
                {"run_id": run_id, "attempt": 1, "branch": "trunk", "step": step, "split": "train", "term": "x",
                 "value": float(step)}
                for step in range(count)
            ]  # fmt: skip
            rows += of_run
            expected[run_id] = [row["step"] for row in of_run]
            counts.append((SetName(run_id), count))
        pieces.append((pa.Table.from_pylist(rows, schema), counts))
    gathered = gather("curves", pieces, lambda name: True).to_pylist()
    assert [(row["run_id"], row["step"]) for row in gathered] == [
        (run_id, step) for run_id in sorted(expected) for step in expected[run_id]
    ]
