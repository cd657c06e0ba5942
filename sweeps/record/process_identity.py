"""Which process did something, and whether it still lives: a pid alone is reused, also after a reboot.

Not by psutil: its `create_time` follows steps of the system's clock (so its own documentation), after which a living
worker would count as dead and its run be given to another; and importing it takes 46 ms in each start of a command.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from results.provenance import output


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from every other on any machine: host and its boot, pid namespace, pid, time of start."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """A process of this machine; `started` is empty if it has ended."""
        return cls(platform.node(), _boot(), _namespace(), pid, _started(pid) or "")

    @classmethod
    def from_json(cls, values: Any) -> ProcessId:
        """The inverse of `as_json`. Raises ValueError for anything else."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{values!r} names no process") from error

    def as_json(self) -> dict[str, Any]:
        """A form for JSON."""
        return asdict(self)

    @property
    def local(self) -> bool:
        """Whether its pid means something here: same machine, same boot, same pid namespace."""
        return (self.host, self.boot, self.namespace) == (platform.node(), _boot(), _namespace())

    def alive(self) -> bool | None:
        """Whether it still runs; a zombie does not. None if that cannot be known from here (another machine)."""
        if self.local:
            return bool(self.started) and _started(self.pid) == self.started
        if self.host == platform.node() and self.boot != _boot():
            return False
        return None

    def signal(self, number: int) -> bool:
        """Send it a signal, if it lives on this machine; whether that was done."""
        with suppress(ProcessLookupError, PermissionError):
            if self.alive():
                os.kill(self.pid, number)
                return True
        return False


@cache
def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else _printed(["sysctl", "-n", "kern.boottime"])


@cache
def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> str | None:
    """Text that is fixed for the life of a process; None if there is none of that pid, or only a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            # The name in brackets may hold spaces and brackets; the state and the start time follow the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    state, _, started = _printed(["ps", "-o", "state=,lstart=", "-p", str(pid)]).partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _printed(command: list[str]) -> str:
    return (output(command, Path("/")) or b"").decode().strip()
