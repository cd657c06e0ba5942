"""Real training by two worker processes, as a job with two tasks has them: stopped through one, then finished."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from results import Store
from scaling.specification.spec import (
    AutoencoderSpec,
    EvaluationSpec,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    canonical_json,
)
from sweeps.record.attempts import attempts_at
from sweeps.record.outcome import EXIT_CODES, Outcome
from sweeps.worker.process import WORKER, worker_environment

pytestmark = pytest.mark.slow

SPEC = TokenizerRun(
    autoencoder=AutoencoderSpec(width=8, channel_multipliers=(1, 1, 1), residual_blocks=(0, 0, 0)),
    quantizer=VectorQuantizerSpec(codebook_size=64),
    optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=512),
    train_images=6144,
    evaluation=EvaluationSpec(samples=128),
)


def _start(root: Path, spec: Path, size: int, *options: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [*WORKER, "--root", str(root), *options, str(spec)],
            env=worker_environment(1) | (ranks | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def _end(processes: list[subprocess.Popen[str]]) -> tuple[list[int], Outcome | None]:
    try:
        printed = [process.communicate(timeout=1200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for text in printed[1:]:
        assert Outcome.parse(text) is None, text
    return [process.returncode for process in processes], Outcome.parse(printed[0])


def _values(root: Path, table: str, columns: tuple[str, ...]) -> dict[tuple[object, ...], float]:
    rows = Store(root).read(table).to_pylist()
    return {tuple(row[column] for column in columns): row["value"] for row in rows}


def test_two_processes_stop_together_go_on_and_measure_what_one_does(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(canonical_json(SPEC))
    alone, two = tmp_path / "alone", tmp_path / "two"
    codes, outcome = _end(_start(alone, spec, 1))
    assert codes == [0] and outcome is not None and outcome.result == "done"

    # The request to stop reaches one process, and not the one that writes.
    processes = _start(two, spec, 2, "--microbatch", "20")
    deadline = time.monotonic() + 900
    while not any((a.heartbeat and a.heartbeat.done > 0.1) for a in attempts_at(two, SPEC.run_id)):
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, outcome = _end(processes)
    assert outcome is not None and outcome.result == "interrupted", outcome
    assert codes == [EXIT_CODES["interrupted"], 0]
    attempt = attempts_at(two, SPEC.run_id)[0]
    assert (attempt.path / "log-1.txt").exists()
    assert list((attempt.path / "checkpoints").iterdir())
    assert Store(two).finished() == set()

    codes, outcome = _end(_start(two, spec, 2))
    assert outcome is not None and (codes, outcome.result, outcome.attempt) == ([0, 0], "done", 2)
    assert "resume" in attempts_at(two, SPEC.run_id)[0].log.read_text()
    assert sorted(path.name for path in (two / "artifacts" / SPEC.run_id).iterdir()) == sorted(
        path.name for path in (alone / "artifacts" / SPEC.run_id).iterdir()
    )
    expected, of_two = (_values(root, "curves", ("step", "term")) for root in (alone, two))
    assert of_two.keys() == expected.keys()
    first = min(step for step, _ in expected)
    for key, value in expected.items():
        assert of_two[key] == pytest.approx(value, rel=1e-4 if key[0] == first else 0.05, abs=1e-4), key
    expected, of_two = (_values(root, "evaluations", ("metric", "guidance", "protocol")) for root in (alone, two))
    assert of_two.keys() == expected.keys()
    for key, value in expected.items():
        assert of_two[key] == pytest.approx(value, rel=0.1), (key, json.dumps({str(k): v for k, v in of_two.items()}))


def test_a_process_that_dies_takes_the_others_with_it_and_is_named(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(canonical_json(SPEC))
    processes = _start(tmp_path / "root", spec, 2)
    deadline = time.monotonic() + 900
    while not any((a.heartbeat and a.heartbeat.done > 0.1) for a in attempts_at(tmp_path / "root", SPEC.run_id)):
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.05)
    processes[1].kill()
    codes, outcome = _end(processes)
    assert codes[0] == EXIT_CODES["failed"]
    assert outcome is not None and (outcome.result, outcome.cause) == ("failed", "killed"), outcome
    assert "another process of the training ended without a word" in str(outcome.message)
