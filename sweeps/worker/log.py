"""What workers and jobs print to their logs: a line with its time, progress now and then, an error as one line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from results import TokenlawError
from scaling.specification.workspace import Progress

LOG_SECONDS = 30.0
"""Time between two lines of progress in an attempt's log."""


class SaidProgress:
    """Takes the reports of a run, and puts a line into the log for each phase and every LOG_SECONDS."""

    def __init__(self, report: Callable[[Progress], None] = lambda progress: None) -> None:
        self._report, self._phase, self._last = report, "", float("-inf")

    def __call__(self, progress: Progress) -> None:
        self._report(progress)
        now = time.monotonic()
        if progress.phase == self._phase and now - self._last < LOG_SECONDS:
            return
        self._phase, self._last = progress.phase, now
        speed = f", {progress.images_per_second:,.0f} images/s" if progress.images_per_second else ""
        say(f"{progress.phase} {100 * progress.done:.0f} % {progress.detail}".rstrip() + speed)


def say(text: str) -> None:
    """A line for the log; a log that cannot be written (full disk) does not end a run."""
    with suppress(OSError):
        print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}", flush=True)


def one_line(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, TokenlawError) else f"{type(error).__name__}: {text}"


def redirect(log: Path) -> None:
    """Send standard output and error of this process, and of libraries in it, to a file."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
