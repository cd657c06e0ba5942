"""How the process of a worker is started: its command, its environment, and how many there is room for."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

from sweeps.record.code_snapshot import HOME

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "sweeps.worker.worker")
"""-P keeps the current folder off the module path: a folder named `results` there must not shadow the package."""


def worker_environment(threads: int, code: Path = HOME) -> dict[str, str]:
    """The environment of a worker: as many threads as its specification says, and the copy of the code to run from."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    environment["VECLIB_MAXIMUM_THREADS"] = str(threads)
    if str(code) not in (*site.getsitepackages(), site.getusersitepackages()):
        # A snapshot, or a checkout that may not be installed.
        inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(HOME)]
        environment["PYTHONPATH"] = os.pathsep.join([str(code), *inherited])
    return environment


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
