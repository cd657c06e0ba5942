"""Rows with which the tests of the store and the recorder write, a store, and what appends sets to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from results import Protocol, Recorder, Store
from tests.results.store.filled_store import Append


@pytest.fixture
def run_row() -> dict[str, Any]:
    """A valid row of `runs` without the key columns."""
    return {
        "stage": "tokenizer", "label": "K256-T16-s0", "status": "done", "spec": "{}", "seed": 0, "tokenizer_seed": 0,
        "tokenizer": "K256-T16", "tokenizer_family": "f", "data": "fashion-mnist", "data_fingerprint": "00",
        "image_size": 32, "downsampling": 8, "quantizer": "vq", "codebook_size": 256, "tokens_per_image": 16,
        "regulariser_weight": 0.0, "width": 32, "learning_rate": 1e-3, "batch_size": 64, "train_images": 64,
        "parameters_embedding": 1, "parameters_other": 2, "parameters_frozen": 0, "flops_per_image": 1e6,
        "path_flops": 1e9, "executed_flops": 1e9, "tokenizer_flops": 1e9, "threads": 1, "wall_seconds": 2.5,
        "peak_memory_bytes": 10, "started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:03+00:00",
        "provenance": "{}",
    }  # fmt: skip


@pytest.fixture
def recorder() -> Recorder:
    """A recorder with three curve rows and one evaluation."""
    recorder = Recorder("abc", 1)
    recorder.curve(branch="trunk", step=1, images=64, tokens=1024, flops=1e8, loss=0.1 + 0.2, grad_norm=float("inf"))
    recorder.curve(branch="trunk", step=1, images=64, tokens=1024, flops=1e8, split="validation", loss=1 / 3)
    protocol = Protocol("gfid", 100, guidance=1.0, seed=0)
    recorder.evaluation(
        branch="decay@64", step=1, images=64, path_flops=1e8, metric="gfid", value=2 / 3, n=100, protocol=protocol
    )
    return recorder


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
