"""Ends a trainer's processes when the worker that started them dies without a word. Standard library only.

    python guard.py GROUP

Reads standard input, of which the worker holds the other end: the kernel closes it when the worker dies, however it
dies. Then the process group GROUP is killed. A worker that ends in order says `done` first. Signals that ask a job to
stop are for the worker: SLURM sends them to every process.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Wait for the end of the worker."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    group = int(sys.argv[1])
    if sys.stdin.buffer.read() != b"done":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
