"""Memory of this process: its peak, the limit that it was given, and whether the system has killed for lack of it.

psutil tells neither the peak of an address space nor limits and kills of a cgroup, so these are read here.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

NEARLY = 0.9
"""A process that had reached this share of its limit and was then killed is taken to have died of it."""


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, since it executes its program.

    Linux counts into ru_maxrss what the process that started it held (getrusage(2) does not say so), a submitter
    with a large table, say; the mark of its own address space begins anew with the program.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_limit() -> int | None:
    """The least of the limits that hold for this process, in bytes: its SLURM job's on this node, its cgroup's, its
    address space's. None: nothing but the machine limits it."""
    limits = [*_slurm_limits(os.environ), *_cgroup_limits()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits, default=None)


def memory_kills() -> int | None:
    """How often the kernel killed a process of this cgroup for lack of memory; None where it does not count them."""
    for folder in _cgroups():
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, ValueError, LookupError):
                lines = dict(line.split() for line in (folder / name).read_text().splitlines())
                return int(lines["oom_kill"])
    return None


def _slurm_limits(environment: os._Environ[str] | dict[str, str]) -> list[int]:
    """SLURM gives megabytes, for the node or for each CPU; 0 means all that the node has."""
    limits = []
    with suppress(KeyError, ValueError):
        limits.append(int(environment["SLURM_MEM_PER_NODE"]))
    with suppress(KeyError, ValueError):
        limits.append(int(environment["SLURM_MEM_PER_CPU"]) * int(environment["SLURM_CPUS_ON_NODE"]))
    return [megabytes * 2**20 for megabytes in limits if megabytes > 0]


def _cgroup_limits() -> list[int]:
    """Limits of this cgroup and of all above it, which hold as well."""
    limits = []
    for folder in _cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    # Version 1 writes "no limit" as the largest multiple of a page.
    return [limit for limit in limits if limit < 2**60]


def _cgroups() -> list[Path]:
    """The memory cgroup of this process and its ancestors, innermost first, in either version of the interface."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory") or "memory" in controllers.split(","):
                base = Path("/sys/fs/cgroup") if not controllers else Path("/sys/fs/cgroup/memory")
                innermost = base / name.lstrip("/")
                return [innermost, *(parent for parent in innermost.parents if parent.is_relative_to(base))]
    return []
