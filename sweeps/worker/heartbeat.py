"""A worker's signs of life, the heartbeat file, and the request to stop, also from a successor."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

from results import StoreError
from scaling.specification.workspace import Progress
from sweeps.record.attempts import Heartbeat, State
from sweeps.record.memory import memory_kills, memory_limit, peak_memory

from .process import caught

WRITE_SECONDS = 1.0
"""Least time between two heartbeats with news."""
QUIET_SECONDS = 10.0
"""Time between heartbeats without news."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stop:
    """Set by TERM and USR2 (a scheduler's warning) and INT: the run shall save a checkpoint and end."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        """The signals that came, in order."""
        self.overtaken = False
        """Whether a successor owns the run: what this process still does is for nothing."""

    def catching(self) -> AbstractContextManager[None]:
        """A context in which the signals of this process come here."""
        return caught(STOPPING, self.signals.append)

    def __call__(self) -> bool:
        return bool(self.signals) or self.overtaken


class Pulse(threading.Thread):
    """Writes the heartbeat of an attempt: news at most once a second, and otherwise every ten seconds."""

    def __init__(self, path: Path, elapsed_before: float, look: Callable[[], None] = lambda: None) -> None:
        """`look` is called at the beat of QUIET_SECONDS, in this thread."""
        super().__init__(name="heartbeat", daemon=True)
        self._path = path
        self._look, self._looked = look, time.monotonic()
        self._begun = time.monotonic()
        self._beat = Heartbeat(
            elapsed_before=elapsed_before, memory_limit_bytes=memory_limit(), memory_kills=memory_kills()
        )
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._complained = False

    @property
    def elapsed(self) -> float:
        """Seconds since the attempt began."""
        return time.monotonic() - self._begun

    def report(self, progress: Progress) -> None:
        """Take news from the run; cheap enough for every step."""
        with self._lock:
            if self._beat.phase == "starting":
                self._beat = replace(self._beat, done_before=progress.done, begun=self.elapsed)
            self._beat = replace(self._beat, **vars(progress))
        self._wake.set()

    def start(self) -> None:
        """Write the first heartbeat, and go on in a thread of its own."""
        self._write()
        super().start()

    def run(self) -> None:
        while not self._ended:
            self._wake.wait(QUIET_SECONDS)
            self._wake.clear()
            if not self._ended:
                self._write()
                if time.monotonic() - self._looked >= QUIET_SECONDS:
                    self._looked = time.monotonic()
                    self._look()
                time.sleep(WRITE_SECONDS)

    def end(self, state: State, cause: str | None, message: str | None) -> None:
        """Stop beating and write the last heartbeat."""
        self._ended = True
        self._wake.set()
        with self._lock:
            self._beat = replace(self._beat, state=state, cause=cause, message=message)
        if not self._write():
            with suppress(OSError):
                self._beat.overwrite(self._path)

    def _write(self) -> bool:
        """Write the heartbeat as of now; whether that was possible."""
        with self._lock:
            beat = replace(self._beat, elapsed=self.elapsed, peak_memory_bytes=peak_memory(), time=time.time())
            try:
                beat.write(self._path)
                return True
            except StoreError as error:
                # The run itself will meet the same disk and end with a cause; a missed heartbeat alone is no failure.
                if not self._complained:
                    print(f"heartbeat: {error}", file=sys.stderr, flush=True)
                self._complained = True
                return False
