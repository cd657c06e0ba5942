"""Real training, tiny: the same tables whatever is killed, and however many runs go at a time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.conftest import Sweep, clean_up
from tests.sweeps.rooted_study import tiny_study

pytestmark = pytest.mark.slow


def _sweep(folder: Path) -> Sweep:
    path = folder / "tiny.toml"
    path.write_text(tiny_study(4096, (2048, 4096), "[seeds]\ntokenizer = [0, 1]\n"))
    root = folder / "root"
    root.mkdir()
    return Sweep(root, path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """The study after one submit with one job."""
    sweep = _sweep(tmp_path_factory.mktemp("undisturbed"))
    process = sweep.start(jobs=1, real=True)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    yield sweep
    clean_up(sweep)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Sweep]:
    """The same study under a root of its own."""
    sweep = _sweep(tmp_path)
    yield sweep
    clean_up(sweep)


def test_jobs_do_not_change_a_measurement(undisturbed: Sweep, other: Sweep) -> None:
    process = other.start(jobs=2, real=True)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    other.assert_equals(undisturbed)


def _cut_the_newest_checkpoint(sweep: Sweep) -> int:
    """Damage the last checkpoint that was written; how many that are."""
    states = sorted(sweep.root.glob("attempts/*/*/checkpoints/*/state.safetensors"), key=lambda p: p.stat().st_mtime)
    for state in states[-1:]:
        state.write_bytes(state.read_bytes()[:-100])
    return len(states[-1:])


def test_whatever_is_killed_the_tables_are_the_same(undisturbed: Sweep, other: Sweep) -> None:
    # What is cached can be computed again, at the cost of time that this test does not need to take.
    shutil.copytree(undisturbed.root / "cache", other.root / "cache")
    chance, damaged = random.Random(7), 0
    for round in range(8):
        left = set(other.workers())
        process = other.start(jobs=2, real=True)
        other.wait_for(
            lambda old=left, running=process: bool(set(other.workers()) - old) or running.poll() is not None, 600
        )
        time.sleep(chance.uniform(1.0, 8.0))
        victims = other.workers()
        if round % 4 == 0:
            for pid in victims[:1]:
                os.kill(pid, signal.SIGKILL)
            process.send_signal(signal.SIGTERM)
        elif round % 4 == 1:
            process.kill()
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        elif round % 4 == 2:
            process.kill()
            for pid in victims[:1]:
                os.kill(pid, signal.SIGTERM)
        elif process.poll() is None:
            # Ctrl-C: a terminal sends it to all processes of its group.
            os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
        if round % 4 == 3:
            assert process.returncode in (0, 130), output
            # Those that an earlier, killed submitter left go on.
            assert set(other.workers()) <= left
        assert other.store.check().damaged == ()
        if not damaged and not other.workers():
            damaged = _cut_the_newest_checkpoint(other)
    for _ in range(3):
        process = other.start(jobs=2, real=True)
        output, _ = process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0, output
    assert damaged
    assert any("is passed over" in log.read_text() for log in other.root.glob("attempts/*/*/log.txt"))
    assert max(row["attempt"] for row in other.store.read("runs").to_pylist()) > 1
    assert {failure.cause for failures in other.store.failures().values() for failure in failures} <= {"killed"}
    other.assert_equals(undisturbed)
