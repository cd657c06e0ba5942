"""Results that are set aside: the run has none then, what was measured is kept, from folders and large files alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import Recorder, Store
from results.store.parquet import read_parquet


@pytest.fixture
def store(tmp_path: Path, run_row: dict[str, Any]) -> Store:
    store = Store(tmp_path)
    for run_id in ("a", "b", "c"):
        append(store, run_row, run_id, 1, 0.5)
    return store


def append(store: Store, row: dict[str, Any], run_id: str, attempt: int, loss: float, status: str = "done") -> bool:
    recorder = Recorder(run_id, attempt)
    recorder.curve(step=1, loss=loss)
    return store.append(run_id, recorder.tables(row | {"status": status}), status=status, attempt=attempt)


@pytest.mark.parametrize("prepare", [lambda store: None, lambda store: store.compact()], ids=["loose", "compacted"])
def test_a_run_that_is_set_aside_can_be_stored_again(
    store: Store, run_row: dict[str, Any], prepare: Callable[[Store], object]
) -> None:
    append(store, run_row, "b", 2, 9.0, "failed")
    prepare(store)
    moved = store.supersede({"b", "unknown"}, "t.py changed")
    assert set(moved) == {"b"} and store.finished() == {"a", "c"}
    assert (moved["b"] / "reason.txt").read_text() == "t.py changed\n"
    # The failure is no result, and stays.
    assert [failure.attempt for failure in store.failures()["b"]] == [2]
    kept = read_parquet((moved["b"] / "curves.parquet").read_bytes(), "curves", moved["b"])
    assert kept["value"].to_pylist() == [0.5]
    assert append(store, run_row, "b", 3, 0.25)
    assert store.read("curves")["value"].to_pylist() == [0.5, 0.25, 0.5]
    report = store.check()
    assert (report.damaged, report.sets) == ((), 4)
    store.compact()
    assert store.read("runs")["attempt"].to_pylist() == [1, 3, 1] and moved["b"].is_dir()


def test_all_of_a_large_file(store: Store) -> None:
    store.compact()
    assert set(store.supersede({"a", "b", "c"}, "all")) == {"a", "b", "c"}
    assert store.finished() == set() and len(store.read("runs")) == 0
