"""Catching signals for a while: they are left as they were found."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command: Ctrl-C, `kill` and `tokenlaw cancel`, a terminal that closes."""


@contextmanager
def caught(numbers: Iterable[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each of these signals that comes meanwhile. In the main thread only."""
    previous = {number: signal.signal(number, lambda got, frame: handler(got)) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            # None: a handler that Python did not install, and cannot put back.
            signal.signal(number, former if former is not None else signal.SIG_DFL)
