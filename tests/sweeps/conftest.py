"""A root, studies, and submitters with toy training, for the tests of the sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.backends.base import Request
from sweeps.backends.standing import Observe, SubmissionSummary
from sweeps.record.attempts import attempted, living
from sweeps.worker.process import worker_environment

from .rooted_study import TOY, RootedStudy, submit_here

SUBMITTER = str(Path(__file__).with_name("toy_submit.py"))
STUDY = """
[study]
name = "toy"
[tokenizer]
train_images = 2048
[generator]
warmup_images = 1024
train_images = [2048]
[seeds]
tokenizer = [0, 1]
[[grid]]
product = { "generator.size" = ["XS"] }
"""
"""Two tokenizers, a generator each."""


OF_PROCESSES = (
    "test_command.py",
    "test_fencing.py",
    "test_own_trainer.py",
    "test_pruning.py",
    "test_real_ranks.py",
    "test_real_runs.py",
)
"""Files whose tests start workers and trainers of their own, whatever their fixtures."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of submitters and workers are of real processes; pytest offers this hook the tests of this folder alone."""
    if "sweep" in getattr(item, "fixturenames", ()) or item.path.name in OF_PROCESSES:
        item.add_marker(pytest.mark.processes)


class Sweep(RootedStudy):
    """A study under a root, submitted to this machine."""

    def submit(self, jobs: int = 2, observe: Observe = lambda s: None, **options: Any) -> SubmissionSummary:
        """Submit in this process, with toys."""
        return submit_here(Request(self.plan, self.root, **{"jobs": jobs, "worker": TOY, **options}), observe)

    def start(self, jobs: int = 2, real: bool = False) -> subprocess.Popen[str]:
        """Submit in a process of its own."""
        command = [sys.executable, "-P", SUBMITTER, str(self.path), str(self.root), str(jobs)]
        process = subprocess.Popen(
            command + ["real"] * real,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=worker_environment(1),
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def parallel(self) -> int:
        """The most executions at a time, of those that came to their end."""
        change = {"begin": 1, "end": -1}
        ended = {(run, attempt) for _, what, run, attempt, _ in self.log() if what == "end"}
        now = most = 0
        for _, what, run, attempt, _ in sorted(self.log()):
            if (run, attempt) in ended:
                now += change[what]
                most = max(most, now)
        return most

    def workers(self) -> list[int]:
        """Pids of living workers."""
        alive = living(self.root, attempted(self.root))
        return [claim.worker.pid for attempt in alive.values() if (claim := attempt.claim)]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until something holds; fail if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """A toy study under an empty root; whatever it started is killed at the end."""
    path = tmp_path / "toy.toml"
    path.write_text(STUDY)
    root = tmp_path / "root"
    root.mkdir()
    sweep = Sweep(root, path)
    yield sweep
    clean_up(sweep)


def clean_up(sweep: Sweep) -> None:
    """Kill whatever a sweep started, this process excepted."""
    for process in sweep.processes:
        process.kill()
        process.wait()
    for attempt in living(sweep.root, attempted(sweep.root)).values():
        claim = attempt.claim
        if claim is not None and claim.worker.pid != os.getpid():
            claim.worker.signal(signal.SIGKILL)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Points to fit; what fits them is imported only where it is used."""
    from tests.sweeps.cli.laws.fit_commands import write_points

    return write_points(tmp_path / "points.csv")


@pytest.fixture
def fit_file(csv: Path, tmp_path: Path) -> Path:
    """The file of a fit to these points."""
    from tests.sweeps.cli.laws.fit_commands import write_fit

    return write_fit(csv, tmp_path / "fit.json")
