"""Damage in large files and their versions, and a full disk: every set that is whole is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from results import Store, StoreError
from results.schema import TABLES
from results.store import atomic, segments, versions
from tests.results.store.filled_store import Append, content, fill


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
