"""The other processes of a training of several: rank 0 claims the run and tells them; they tell it how they died.

Through files, since this comes before torch, and must work where a rank cannot reach another any more:

    <root>/attempts/<run_id>/.start-<key>.json         what rank 0 came to: the attempt's number, or why there is none
    <root>/attempts/<run_id>/<attempt>/log-<rank>.txt  what a follower printed
    <root>/attempts/<run_id>/<attempt>/end-<rank>.json how it ended, where that was badly
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from results import StoreError
from results.store import atomic
from scaling.ranks import Place
from sweeps.record.attempts import Attempt, attempts_folder

from .process import awaited

START_SECONDS = 900.0
"""How long followers wait for rank 0: it may start much later, on a node that first has to boot."""


def _start(root: Path, run_id: str, place: Place) -> Path:
    return attempts_folder(root) / run_id / f".start-{re.sub('[^A-Za-z0-9_-]', '-', place.key)}.json"


def announce(root: Path, run_id: str, place: Place, values: dict[str, Any]) -> None:
    """Rank 0 tells the others what it came to. Raises StoreError."""
    if place.size > 1:
        path = _start(root, run_id, place)
        atomic.make_folder(path.parent)
        atomic.write(path, json.dumps(values) + "\n")


def await_leader(root: Path, run_id: str, place: Place) -> dict[str, Any]:
    """What rank 0 announced. Raises StoreError if it does not come."""
    path = _start(root, run_id, place)

    def announced() -> dict[str, Any] | None:
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            # Listing the folder makes a network file system look anew.
            list(path.parent.glob(".start-*"))
            return None
        return values if isinstance(values, dict) else None

    if (values := awaited(announced, START_SECONDS)) is None:
        raise StoreError(f"rank {place.rank} waited {START_SECONDS:.0f} s in vain for rank 0 to write {path}")
    return values


def withdraw(root: Path, run_id: str, place: Place) -> None:
    """Remove the announcement at the end."""
    if place.size > 1:
        _start(root, run_id, place).unlink(missing_ok=True)


def log_of(attempt: Attempt, rank: int) -> Path:
    """The log of one process of an attempt."""
    return attempt.log if rank == 0 else attempt.path / f"log-{rank}.txt"


def tell_end(attempt: Attempt, rank: int, cause: str, message: str) -> None:
    """A follower tells how it ended, before rank 0 sees no more than a broken connection. Raises StoreError."""
    values = {"cause": cause, "message": message, "time": time.time()}
    atomic.write(attempt.path / f"end-{rank}.json", json.dumps(values) + "\n")


def await_end(attempt: Attempt) -> None:
    """Wait until rank 0 has ended the attempt: srun may kill all processes of a step when one ends badly."""
    awaited(lambda: (beat := attempt.heartbeat) is not None and beat.state != "running", 60.0)


def first_end(attempt: Attempt) -> tuple[str, str] | None:
    """Cause and message of the follower that ended badly first, waiting a moment for it to say so."""

    def told() -> list[tuple[float, str, str]]:
        ends = []
        for path in attempt.path.glob("end-*.json"):
            with suppress(OSError, ValueError, LookupError, TypeError):
                values = json.loads(path.read_text())
                message = f"rank {path.stem[4:]}: {values['message']}"
                ends.append((float(values["time"]), str(values["cause"]), message))
        return ends

    ends = awaited(told, 2.0)
    return min(ends)[1:] if ends else None
