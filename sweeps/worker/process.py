"""The processes of workers and submitters: how a worker is started, how many there is room for, caught signals."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sweeps.record.code_snapshot import HOME, load_snapshot
from sweeps.record.ledger import Submission
from sweeps.study.external_run import AnyRun

T = TypeVar("T")
WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "sweeps.worker.worker")
"""-P keeps the current folder off the module path: a folder named `results` there must not shadow the package."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command: Ctrl-C, `kill` and `tokenlaw cancel`, a terminal that closes."""


def start_worker(
    root: Path, submission: Submission, run: AnyRun, options: Sequence[str], *, microbatch: int | None,
    recompute: bool = False, step: Sequence[str] = (), own_session: bool = False,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start the worker of a run of a submission, with further options, under the command `step`. StoreError, OSError.

    What it prints comes through the pipe: all up to its claim of the run, and at the end its Outcome as one line; the
    rest goes to the attempt's log.
    """
    snapshot = load_snapshot(root, submission.snapshot)
    options = ["--root", str(root), "--submission", submission.id, *options]
    if microbatch is not None:
        options += ["--microbatch", str(microbatch)]
    if recompute:
        options.append("--recompute-activations")
    if submission.trackers:
        options += ["--trackers", submission.trackers]
    return subprocess.Popen(
        [*step, *(submission.worker or WORKER), *options, str(submission.write_spec(root, run))],
        env=worker_environment(run.threads, snapshot.path),
        cwd=snapshot.trainer,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=own_session,
    )


def worker_environment(threads: int, code: Path = HOME) -> dict[str, str]:
    """The environment of a worker: as many threads as its specification says, and the copy of the code to run from."""
    names = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
    environment = {**os.environ, **{f"{name}_THREADS": str(threads) for name in names}}
    if str(code) not in (*site.getsitepackages(), site.getusersitepackages()):
        # A snapshot, or a checkout that may not be installed.
        environment["PYTHONPATH"] = python_path(code)
    return environment


def python_path(code: Path) -> str:
    """PYTHONPATH with this copy of the code before everything else, in place of the one that runs here."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(code), *(folder for folder in folders if folder and Path(folder) != HOME)])


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def awaited(look: Callable[[], T], seconds: float) -> T:
    """What `look` gives, ten times a second, once that is something, or when these seconds are over."""
    deadline = time.monotonic() + seconds
    while not (value := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


@contextmanager
def caught(numbers: Iterable[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each of these signals that comes meanwhile, and leave them as they were found.

    In the main thread only.
    """
    previous = {number: signal.signal(number, lambda got, frame: handler(got)) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            # None: a handler that Python did not install, and cannot put back.
            signal.signal(number, former if former is not None else signal.SIG_DFL)
