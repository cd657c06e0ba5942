"""Of processes that need the same file of a cache, one makes it while the others wait."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

WAIT = 0.2
"""Seconds between two looks at a lock."""


@contextlib.contextmanager
def one_at_a_time(path: Path, step: Callable[[], None]) -> Iterator[None]:
    """To be held while the file `path` is looked for and made: whoever comes later finds it there.

    The lock is the system's, on a file beside it, and is freed when its process ends, however that ends. Where a file
    system has none, or the folder cannot be written, nobody waits and the same is made more than once. `step` is called
    while waiting, and may raise to stop.
    """
    if path.exists():
        yield
        return
    with contextlib.ExitStack() as opened:
        file: IO[str] | None = None
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(path.with_name(f".{path.name}.lock").open("a"))
        while file is not None and not _free(file):
            step()
            time.sleep(WAIT)
        yield


def _free(file: IO[str]) -> bool:
    """Whether the lock is held by this process now, or there are none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
