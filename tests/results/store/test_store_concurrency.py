"""Many writers, readers and a compactor at once, in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from results import Recorder, Store

WRITERS, RUNS, ROWS = 8, 50, 4


def write(root: str, row: dict[str, Any], writer: int) -> int:
    """Half of the runs are this writer's own, the others every writer tries to finish; how many it won."""
    store, won = Store(root), 0
    for number in range(RUNS):
        run_id = f"w{writer}-{number:02d}" if number % 2 else f"shared-{number:02d}"
        recorder = Recorder(run_id, writer + 1)
        for step in range(ROWS):
            recorder.curve(step=step, loss=float(writer))
        won += store.append(run_id, recorder.tables(row), status="done", attempt=writer + 1)
        if number % 10 == 0:
            failed = recorder.tables(row | {"status": "failed", "cause": "error"})
            store.append(run_id, failed, status="failed", attempt=writer + 1)
    return won


def read(root: str, finished: Any) -> int:
    """Look until the writers are done: what was there stays, each run is seen once, with all of its rows."""
    store, looks, before = Store(root), 0, set()
    while not finished.is_set():
        now = store.finished()
        assert before <= now, before - now
        before = now
        runs = store.read("runs")["run_id"].to_pylist()
        assert runs == sorted(set(runs))
        assert now <= set(runs), now - set(runs)
        counts: dict[tuple[str, int], int] = {}
        curves = store.read("curves").to_pylist()
        for row in curves:
            counts[row["run_id"], row["attempt"]] = counts.get((row["run_id"], row["attempt"]), 0) + 1
        assert set(counts.values()) <= {ROWS}
        assert len({run_id for run_id, _ in counts}) == len(counts)
        assert set(runs) <= {run_id for run_id, _ in counts}
        looks += 1
    return looks


def compact(root: str, finished: Any) -> int:
    """Compact again and again."""
    merged = 0
    while not finished.is_set():
        merged += Store(root).compact().merged
        time.sleep(0.05)
    return merged


@pytest.mark.slow
def test_writers_readers_and_two_compactors_at_once(tmp_path: Path, run_row: dict[str, Any]) -> None:
    context = multiprocessing.get_context("spawn")
    # Unlike multiprocessing's own pool this one fails at once if its processes cannot begin.
    with context.Manager() as manager, ProcessPoolExecutor(WRITERS + 4, mp_context=context) as pool:
        finished = manager.Event()
        readers = [pool.submit(read, str(tmp_path), finished) for _ in range(2)]
        compactors = [pool.submit(compact, str(tmp_path), finished) for _ in range(2)]
        writers = [pool.submit(write, str(tmp_path), run_row, number) for number in range(WRITERS)]
        try:
            won = [writer.result(timeout=900) for writer in writers]
        finally:
            finished.set()
        looks = [reader.result(timeout=300) for reader in readers]
        merged = [compactor.result(timeout=300) for compactor in compactors]
    store = Store(tmp_path)
    shared = [f"shared-{number:02d}" for number in range(0, RUNS, 2)]
    unshared = [f"w{writer}-{number:02d}" for writer in range(WRITERS) for number in range(1, RUNS, 2)]
    assert store.finished() == {*shared, *unshared}
    assert sum(won) == len(shared) + len(unshared)
    # The winner that the store holds is the one that was told so.
    attempts = store.read("runs")["attempt"].to_pylist()
    assert [attempts.count(writer + 1) for writer in range(WRITERS)] == won
    assert sum(map(len, store.failures().values())) == WRITERS * RUNS // 10
    assert store.check().damaged == ()
    before = store.read("curves", include_failed=True)
    store.compact()
    assert store.read("curves", include_failed=True).equals(before)
    assert min(looks) > 0 and sum(merged) > 0
    assert sorted(path.name for path in store.folder.iterdir()) == [".compacted"]
