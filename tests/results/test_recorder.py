"""The recorder: exact round trips through checkpoints, refusal of bad rows, tables of the schema."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import Protocol, Recorder, StoreError, UsageError
from results.errors import OtherRunError
from results.schema import arrow_schema


@given(values=st.lists(st.floats(), min_size=1, max_size=30))
def test_any_float_survives_a_checkpoint(values: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    recorder = Recorder("abc", 1)
    for step, value in enumerate(values):
        recorder.curve(branch="trunk", step=step, images=step, tokens=step, flops=1.0, loss=value)
    recorder.save(path)
    later = Recorder("abc", 2)
    later.restore(path)
    restored = [row["value"] for row in later.rows["curves"]]
    assert [np.float64(v).tobytes() for v in restored if not math.isnan(v)] == [
        np.float64(v).tobytes() for v in values if not math.isnan(v)
    ]
    assert [math.isnan(v) for v in restored] == [math.isnan(v) for v in values]


def test_restore_replaces_rows_and_keys(recorder: Recorder, tmp_path: Path) -> None:
    recorder.save(tmp_path / "rows.jsonl")
    before = recorder.rows
    recorder.curve(branch="trunk", step=2, images=128, tokens=2048, flops=2e8, loss=1.0)
    recorder.restore(tmp_path / "rows.jsonl")
    assert recorder.rows == before
    recorder.curve(branch="trunk", step=2, images=128, tokens=2048, flops=2e8, loss=1.0)
    with pytest.raises(UsageError, match="already has a row in curves"):
        recorder.curve(branch="trunk", step=1, images=64, tokens=1024, flops=1e8, loss=1.0)


def test_tables_follow_the_schema(recorder: Recorder, run_row: dict[str, Any]) -> None:
    tables = recorder.tables(run_row)
    assert {name: table.schema for name, table in tables.items()} == {name: arrow_schema(name) for name in tables}
    assert [len(tables[name]) for name in ("runs", "curves", "evaluations")] == [1, 3, 1]
    assert tables["curves"]["value"].to_pylist() == [0.1 + 0.2, math.inf, 1 / 3]
    assert tables["evaluations"]["guidance"].to_pylist() == [1.0]
    for table in tables.values():
        assert set(table["run_id"].to_pylist()) == {"abc"}
        assert set(table["attempt"].to_pylist()) == {1}


def test_rows_of_an_earlier_attempt_are_stamped_with_the_one_that_finishes(
    recorder: Recorder, run_row: dict[str, Any], tmp_path: Path
) -> None:
    recorder.save(tmp_path / "rows.jsonl")
    later = Recorder("abc", 7)
    later.restore(tmp_path / "rows.jsonl")
    assert set(later.tables(run_row)["curves"]["attempt"].to_pylist()) == {7}


def test_numpy_values_are_taken(run_row: dict[str, Any]) -> None:
    recorder = Recorder("abc", 1)
    recorder.curve(
        branch="trunk", step=np.int64(3), images=np.int32(4), tokens=5, flops=np.float64(6), loss=np.float32(0.1)
    )
    assert recorder.tables(run_row)["curves"]["value"].to_pylist() == [float(np.float32(0.1))]


def test_second_evaluation_of_a_key_is_refused(recorder: Recorder) -> None:
    with pytest.raises(UsageError, match="already has a row in evaluations"):
        recorder.evaluation(
            branch="decay@64", step=1, images=64, path_flops=1e8, metric="gfid", value=0.0, n=100,
            protocol=Protocol("gfid", 100, guidance=1.0, seed=0),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": float("nan")}, "gfid = nan"),
        ({"value": "much"}, "gfid = 'much'"),
        ({"metric": "fid"}, "metric = 'fid'"),
        ({"metric": "rfid"}, "protocol.metric = 'gfid'"),
        ({"n": 99}, "protocol.n = 100"),
        ({"guidance": 2.0}, "protocol.guidance = 1.0"),
        ({"branch": "decay"}, "branch = 'decay'"),
        ({"split": "test"}, "split = 'test'"),
        ({"step": -1}, "step = -1"),
        ({"images": 1.5}, "images = 1.5"),
        ({"path_flops": float("inf")}, "path_flops = inf"),
        ({"standard_error": float("nan")}, "standard_error = nan"),
    ],
)
def test_bad_evaluation_is_named(recorder: Recorder, changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "branch": "trunk", "step": 9, "images": 9, "path_flops": 1.0, "metric": "gfid", "value": 1.0, "n": 100,
        "protocol": Protocol("gfid", 100, guidance=1.0),
    }  # fmt: skip
    before = recorder.rows
    with pytest.raises(UsageError, match=message):
        recorder.evaluation(**(values | changes))
    assert recorder.rows == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "finished"}, "status = 'finished'"),
        ({"seed": None}, "runs.seed is missing"),
        ({"colour": 1}, "no column 'colour'"),
        ({"seed": "zero"}, "wrong type"),
    ],
)
def test_bad_run_row_is_named(
    recorder: Recorder, run_row: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recorder.tables(run_row | changes)


@pytest.mark.parametrize("keep", [0, 1, 40, -10])
def test_truncated_checkpoint_is_refused(recorder: Recorder, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "rows.jsonl"
    recorder.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"rows\.jsonl"):
        Recorder("abc", 2).restore(path)


def test_checkpoint_of_another_run_is_refused(recorder: Recorder, tmp_path: Path) -> None:
    recorder.save(tmp_path / "rows.jsonl")
    with pytest.raises(OtherRunError, match="belongs to run abc, not to xyz"):
        Recorder("xyz", 1).restore(tmp_path / "rows.jsonl")
