"""One submitter at a time: from looking at what is left to handing it to SLURM, nobody else submits below this root.

    <root>/submissions/.turn-000017     the 17th submitter: its process, and whether its turn is over

Numbers only grow. Whoever creates the next number has the turn, if the one before is over or its process is dead; a
process on another machine counts as dead when it has not touched its file for STALE_SECONDS. A submitter that was held
for dead by mistake notices before its next step. Should two ever submit the same run all the same, the workers' claims
keep it from being executed twice.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from results import StoreError
from results.store import atomic
from sweeps.record.ledger import submissions_folder
from sweeps.record.process_identity import ProcessId
from sweeps.worker.process import awaited

STALE_SECONDS = 120.0
PATIENCE_SECONDS = 900.0
"""How long a submitter waits for its turn; a turn takes seconds, or a minute or two while SLURM does not answer."""
_NAME = re.compile(r"\.turn-([0-9]{6,})")


class Turn:
    """A submitter's turn, while its `with` block runs. Raises StoreError if it does not come."""

    def __init__(self, root: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._folder = submissions_folder(root)
        self._say = say
        self._number = 0

    def __enter__(self) -> Self:
        atomic.make_folder(self._folder)
        if not self._take():
            self._say("waiting for another submitter to finish")
            if not awaited(self._take, PATIENCE_SECONDS):
                raise StoreError(
                    f"{self._path(self._newest())} belongs to a submitter that does not end; if that process is dead, "
                    "remove the file and submit again"
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._newest() == self._number:
            with suppress(StoreError):
                atomic.write(self._path(self._number), _content(over=True), durable=False)

    def check(self) -> None:
        """Say that this process still lives. Raises StoreError if another submitter has taken over."""
        if self._newest() != self._number:
            raise StoreError("another submitter has taken over, for this one was held for dead; submit again")
        with suppress(OSError):
            os.utime(self._path(self._number))

    def _take(self) -> bool:
        newest = self._newest()
        if newest and not self._ended(self._path(newest)):
            return False
        number = newest + 1
        with atomic.storage(self._folder):
            try:
                atomic.write_synced(self._path(number), _content(over=False).encode())
            except FileExistsError:
                return False
        # Numbers that were cleaned up can be created anew by whoever looked long ago: only the newest one counts.
        if self._newest() != number:
            return False
        self._number = number
        for earlier in self._numbers():
            if earlier < number:
                self._path(earlier).unlink(missing_ok=True)
        return True

    def _numbers(self) -> list[int]:
        names = (_NAME.fullmatch(entry.name) for entry in os.scandir(self._folder))
        return [int(match[1]) for match in names if match]

    def _newest(self) -> int:
        return max(self._numbers(), default=0)

    def _path(self, number: int) -> Path:
        return self._folder / f".turn-{number:06d}"

    def _ended(self, path: Path) -> bool:
        """Whether a turn is over, or its process dead."""
        try:
            age = time.time() - path.stat().st_mtime
            values = json.loads(path.read_text())
            over, process = values["over"], ProcessId.from_json(values["process"])
        except FileNotFoundError:
            return True
        except (OSError, ValueError, LookupError, TypeError):
            # Created, and not yet written.
            return age > STALE_SECONDS
        alive = process.alive()
        return over or alive is False or (alive is None and age > STALE_SECONDS)


def _content(*, over: bool) -> str:
    return json.dumps({"process": ProcessId.current().as_json(), "over": over}) + "\n"
