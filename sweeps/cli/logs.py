"""The log of a run: its newest attempt's, followed through a requeue to the next one's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from sweeps.backends.slurm.entries import cluster_view
from sweeps.backends.status import find_run
from sweeps.record.attempts import Attempt, attempts_at

POLL_SECONDS = 0.5
QUEUE_SECONDS = 15.0
"""Time between looks at the queue for a run that was stopped and may begin again."""


def show(root: Path, run: str, out: TextIO, *, follow: bool, say: Callable[[str], None]) -> None:
    """Copy a run's log to `out`; with `follow` until the run ends, which a requeue is not.

    `say` gets the name of each file before its content. Raises UsageError if `run` names no run that was begun.
    """
    attempt: Attempt | None = find_run(root, run)[0]
    while attempt is not None:
        say(f"{attempt.log}:")
        others = sorted(path.name for path in attempt.path.glob("log-*.txt"))
        if others:
            say(f"(rank 0; beside it: {', '.join(others)})")
        _copy(attempt, out, follow)
        attempt = _next(root, attempt) if follow else None


def _copy(attempt: Attempt, out: TextIO, follow: bool) -> None:
    while follow and attempt.alive and not attempt.log.exists():
        time.sleep(POLL_SECONDS)
    if not attempt.log.exists():
        return
    with attempt.log.open(errors="replace") as file:
        while True:
            # Looked at before reading: what it printed last is read in any case.
            alive = attempt.alive and not attempt.overtaken
            for chunk in iter(lambda: file.read(65536), ""):
                out.write(chunk)
            out.flush()
            if not follow or not alive:
                return
            time.sleep(POLL_SECONDS)


def _next(root: Path, ended: Attempt) -> Attempt | None:
    """The attempt after one that was stopped, waiting for it as long as the run is in the queue."""
    while True:
        newest = attempts_at(root, ended.run_id)[0]
        if newest.number > ended.number:
            return newest
        if ended.state not in ("interrupted", "missing") or ended.run_id not in cluster_view(root).jobs:
            return None
        time.sleep(QUEUE_SECONDS)
