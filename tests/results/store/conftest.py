"""A store, and what appends sets to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from results import Recorder, Store
from tests.results.store.filled_store import Append


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def append(store: Store, run_row: dict[str, Any]) -> Append:
    """Appends a set whose rows depend on its arguments."""

    def append(
        run_id: str, attempt: int = 1, status: str = "done", rows: int = 3, to: Store = store, **changes: Any
    ) -> bool:
        recorder = Recorder(run_id, attempt)
        for step in range(rows):
            recorder.curve(step=step, images=step, loss=float(f"{attempt}.{step}"))
        cause = {"cause": "error"} if status == "failed" else {}
        tables = recorder.tables(run_row | {"status": status, "label": f"label-{run_id}"} | cause | changes)
        return to.append(run_id, tables, status=status, attempt=attempt)

    return append
