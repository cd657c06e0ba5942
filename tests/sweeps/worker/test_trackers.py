"""Trackers, read back: each row once, also after resumes; the specification; pictures; errors before all else."""

from __future__ import annotations

import importlib.util
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from results import Protocol, Recorder, RunError, Store, UsageError
from scaling.specification.spec import AutoencoderSpec, EvaluationSpec, OptimiserSpec, TokenizerRun, canonical_json
from scaling.specification.workspace import Progress, Workspace
from sweeps.backends.base import Request
from sweeps.backends.submission import check
from sweeps.planning.plan import make_plan
from sweeps.record.attempts import attempts_at
from sweeps.study.sections import Trackers
from sweeps.study.study import parse_study
from sweeps.worker.trackers.tracking import FOLDER
from sweeps.worker.worker import Options, work

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")

BOTH = Options(trackers=Trackers(tensorboard=True, wandb="offline"))
RUN = TokenizerRun()
STEPS = 6


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine can be reached."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    # Its service leaves its address there.
    monkeypatch.setenv("WANDB_SERVICE", "")
    monkeypatch.delenv("WANDB_SERVICE")
    yield
    wandb.teardown()


def training(stop_at: int | None, save_at: int | None = None) -> Callable[..., None]:
    """Rows of six steps, a checkpoint of them after `save_at` steps, an end after `stop_at`; then an evaluation."""

    def execute(
        spec: object, workspace: Workspace, recorder: Recorder, report: Callable[[Progress], None], stop: object
    ) -> None:
        saved = [folder / "rows.jsonl" for folder in (workspace.attempt, *workspace.earlier)]
        if source := next((path for path in saved if path.exists()), None):
            recorder.restore(source)
        for step in range(len(recorder.rows["curves"]) // 2 + 1, STEPS + 1):
            recorder.curve(step=step, images=64 * step, loss=1 / step, commitment=0.5 / step)
            report(Progress("train", step / STEPS))
            if step == save_at:
                recorder.save(workspace.attempt / "rows.jsonl")
            if step == stop_at:
                raise RunError("stopped", "interrupted")
        # By position there are hundreds at once: no curves for people to watch.
        recorder.curve(step=STEPS, split="validation", nats_at_0=2.0, nats_at_1=1.5)
        recorder.evaluation(step=STEPS, metric="psnr", value=21.5, n=10, protocol=Protocol("psnr", 10))
        assert workspace.sheets is not None
        workspace.sheets.mkdir()
        Image.fromarray(np.full((4, 6, 3), 128, np.uint8)).save(workspace.sheets / f"trunk-{STEPS}.png")
        workspace.artifacts.mkdir()

    return execute


def of_tensorboard(root: Path, branch: str = "trunk", run: TokenizerRun = RUN) -> Any:
    """TensorBoard's own reader, all of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = root / FOLDER / "tensorboard" / f"{run.label}-{run.run_id}" / branch
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return reader.Reload()


def _records(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, which W&B writes after 7 bytes of its own: blocks of 32 KiB, in them
    parts of records with a checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last)."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def of_wandb(root: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows of all offline folders, in order, and the config."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, config = [], {}
    for path in sorted((root / FOLDER / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in _records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
            elif record.WhichOneof("record_type") == "run":
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert record.run.run_id == RUN.run_id
    return rows, config


def test_each_row_comes_once_through_stops_and_replays(tmp_path: Path) -> None:
    first = work(tmp_path, RUN, BOTH, execute=training(stop_at=4, save_at=2))
    assert first.result == "interrupted"
    second = work(tmp_path, RUN, BOTH, execute=training(stop_at=3))
    assert second.result == "interrupted"
    assert work(tmp_path, RUN, BOTH, execute=training(None)).result == "done"
    log = "".join(attempt.log.read_text() for attempt in attempts_at(tmp_path, RUN.run_id) if attempt.log.exists())
    assert "tracker" not in log

    stored = Store(tmp_path).read("curves").to_pylist()
    expected = {(row["term"], row["step"]): row["value"] for row in stored if row["split"] == "train"}
    assert len(expected) == 2 * STEPS
    board = of_tensorboard(tmp_path)
    assert set(board.Tags()["scalars"]) == {"loss", "commitment", "evaluation/psnr"}
    told = [(term, e.step, e.value) for term in ("loss", "commitment") for e in board.Scalars(term)]
    assert Counter((term, step) for term, step, _ in told) == Counter(expected.keys())
    assert all(value == pytest.approx(expected[term, step], rel=1e-6) for term, step, value in told)
    assert [(e.step, e.value) for e in board.Scalars("evaluation/psnr")] == [(STEPS, 21.5)]
    (picture,) = board.Images("pictures")
    assert (picture.step, picture.width, picture.height) == (STEPS, 6, 4)
    text = board.Tensors("specification")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.strip("`").removeprefix("json")) == json.loads(canonical_json(RUN))

    rows, config = of_wandb(tmp_path)
    curve = [row for row in rows if "trunk/loss" in row]
    assert [row["step"] for row in curve] == list(range(1, STEPS + 1))
    assert [row["trunk/commitment"] for row in curve] == [expected["commitment", step] for step in range(1, STEPS + 1)]
    assert [row["trunk/evaluation/psnr"] for row in rows if "trunk/evaluation/psnr" in row] == [21.5]
    assert sum("trunk/pictures._type" in row or "trunk/pictures" in row for row in rows) == 1
    assert config["quantizer"] == json.loads(canonical_json(RUN))["quantizer"]
    # A run that is done is left alone: nothing is told again.
    assert work(tmp_path, RUN, BOTH, execute=training(None)).message == "was done before"
    assert of_tensorboard(tmp_path).Scalars("loss") == board.Scalars("loss")


def test_a_tracker_named_later_is_told_what_was_measured_before(tmp_path: Path) -> None:
    assert work(tmp_path, RUN, execute=training(stop_at=3, save_at=3)).result == "interrupted"
    assert not (tmp_path / FOLDER).exists()
    only = replace(BOTH, trackers=Trackers(tensorboard=True))
    assert work(tmp_path, RUN, only, execute=training(None)).result == "done"
    assert [e.step for e in of_tensorboard(tmp_path).Scalars("loss")] == list(range(1, STEPS + 1))


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "tensorboard").write_text("in the way")
    assert work(tmp_path, RUN, BOTH, execute=training(None)).result == "done"
    rows, _ = of_wandb(tmp_path)
    assert len([row for row in rows if "trunk/loss" in row]) == STEPS


STUDY = """
[study]
name = "tracked"
[tokenizer]
train_images = 2048
"""


def test_a_study_names_them_without_a_change_of_its_runs_and_lacks_are_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parse_study(STUDY, "x.toml")
    study = parse_study(f'{STUDY}[trackers]\ntensorboard = true\nwandb = "offline"\nproject = "tokens"\n', "x.toml")
    assert [run.run_id for run in study.runs()] == [run.run_id for run in plain.runs()]
    assert study.trackers.names == ("tensorboard", "wandb")
    assert parse_study(STUDY, "x.toml", ["trackers.tensorboard=true"]).trackers.names == ("tensorboard",)
    check(Request(make_plan(study), tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: (
        None if name == "wandb" else find(name)
    ))  # fmt: skip
    with pytest.raises(UsageError, match=r"trackers.wandb = 'offline' needs the package wandb.*pip install"):
        check(Request(make_plan(study), tmp_path))
    monkeypatch.undo()
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    online = parse_study(STUDY, "x.toml", ["trackers.wandb=online"])
    with pytest.raises(UsageError, match=r"trackers.wandb = 'online' has no account.*wandb login"):
        check(Request(make_plan(online), tmp_path))


@pytest.mark.slow
def test_a_real_tokenizer_is_told_as_it_is_stored(tmp_path: Path) -> None:
    run = TokenizerRun(
        autoencoder=AutoencoderSpec(width=8, residual_blocks=(0, 0, 1)), train_images=3072,
        optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=512), evaluation=EvaluationSpec(samples=256),
    )  # fmt: skip
    tensorboard = Options(trackers=Trackers(tensorboard=True))
    assert work(tmp_path, run, tensorboard).result == "done"
    board = of_tensorboard(tmp_path, run=run)
    for row in Store(tmp_path).read("curves").to_pylist():
        values = {e.step: e.value for e in board.Scalars(row["term"])}
        assert values[row["step"]] == pytest.approx(row["value"], rel=1e-6)
    assert {"evaluation/psnr", "evaluation/rfid fid-classifier"} & set(board.Tags()["scalars"])
    assert [e.step for e in board.Images("pictures")] == [48]
