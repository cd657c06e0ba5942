"""Causes of death from exceptions, signals, heartbeats and states of jobs; limits of memory."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from sweeps.record import failure_causes, memory
from sweeps.record.attempts import Heartbeat


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "out_of_memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            "out_of_memory",
        ),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out_of_memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "storage"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "storage"),
        (RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"), "storage"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "error"),
        (ValueError("a wheel came off"), "error"),
    ],
)
def test_exceptions(error: Exception, cause: str) -> None:
    assert failure_causes.of_error(error) == cause


@pytest.mark.parametrize(
    ("state", "number", "cause"),
    [
        ("NODE_FAIL", 0, "node_lost"),
        ("PREEMPTED", 9, "preempted"),
        ("TIMEOUT", 15, "timeout"),
        ("OUT_OF_MEMORY", 9, "out_of_memory"),
        ("CANCELLED by 1000", 0, "interrupted"),
        ("FAILED", 9, "killed"),
        ("FAILED", 0, "killed"),
        (None, 11, "killed"),
        (None, 0, "killed"),
    ],
)
def test_deaths_without_a_word(state: str | None, number: int, cause: str) -> None:
    found, message = failure_causes.of_death(Heartbeat(), number, state)
    assert found == cause
    assert message and "\n" not in message
    assert found in failure_causes.CAUSES


def test_memory_at_its_limit_explains_a_kill() -> None:
    full = Heartbeat(peak_memory_bytes=950, memory_limit_bytes=1000)
    # As SLURM tells it without cgroups: the job merely failed.
    assert failure_causes.of_death(full, 0, "FAILED")[0] == "out_of_memory"
    assert failure_causes.of_death(full, signal.SIGKILL)[0] == "out_of_memory"
    assert failure_causes.of_death(full, signal.SIGSEGV)[0] == "killed"
    assert failure_causes.of_death(full, 0, "PREEMPTED")[0] == "preempted"
    assert (
        failure_causes.of_death(Heartbeat(peak_memory_bytes=500, memory_limit_bytes=1000), signal.SIGKILL)[0]
        == "killed"
    )


def test_a_kill_that_the_kernel_counted_is_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_causes, "memory_kills", lambda: 3)
    assert failure_causes.of_death(Heartbeat(memory_kills=2), signal.SIGKILL)[0] == "out_of_memory"
    assert failure_causes.of_death(Heartbeat(memory_kills=3), signal.SIGKILL)[0] == "killed"
    # What the kernel of another machine counts says nothing about ours; how much it had taken does.
    assert failure_causes.of_death(Heartbeat(memory_kills=2), signal.SIGKILL, here=False)[0] == "killed"
    full = Heartbeat(memory_kills=2, peak_memory_bytes=950, memory_limit_bytes=1000)
    assert failure_causes.of_death(full, signal.SIGKILL, here=False)[0] == "out_of_memory"


def _scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    program = folder / "scontrol"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("facts", "number", "cause"),
    [
        ("JobState=RUNNING PreemptTime=None EndTime={soon}", signal.SIGUSR2, "timeout"),
        ("JobState=RUNNING PreemptTime=None EndTime={later}", signal.SIGUSR2, "preempted"),
        ("JobState=RUNNING PreemptTime={soon} EndTime={soon}", signal.SIGTERM, "preempted"),
        ("JobState=CANCELLED PreemptTime=None EndTime={later}", signal.SIGTERM, "interrupted"),
        ("slurm_load_jobs error", signal.SIGTERM, "preempted"),
    ],
)
def test_stops_within_a_job(
    facts: str, number: int, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon, later = (datetime.fromtimestamp(time.time() + s).isoformat(timespec="seconds") for s in (60, 36_000))
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    _scontrol(tmp_path, monkeypatch, facts.format(soon=soon, later=later))
    assert failure_causes.of_stop([number], "17_3") == cause


def test_stops_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure_causes.of_stop([signal.SIGTERM], None) == "interrupted"
    assert failure_causes.of_stop([signal.SIGINT], "17_3") == "interrupted"
    # A trainer that asks to be resumed: nobody told it to stop.
    assert failure_causes.of_stop([], None) == "preempted"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 30))
    assert failure_causes.of_stop([signal.SIGUSR2], "17_3") == "timeout"


@pytest.mark.parametrize(
    ("environment", "limits"),
    [
        ({"SLURM_MEM_PER_NODE": "4000"}, [4000 * 2**20]),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "4"}, [2000 * 2**20]),
        ({"SLURM_MEM_PER_NODE": "0"}, []),
        ({"SLURM_MEM_PER_CPU": "500"}, []),
        ({"SLURM_MEM_PER_NODE": "much"}, []),
        ({}, []),
    ],
)
def test_limits_of_a_job(environment: dict[str, str], limits: list[int]) -> None:
    assert memory._slurm_limits(environment) == limits


def test_limit_of_the_address_space_counts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); "
        "from sweeps.record.memory import memory_limit, peak_memory; print(memory_limit(), peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    limit, peak = map(int, done.stdout.split())
    assert limit <= 2**33
    assert 10**6 < peak < limit


def test_peak_memory_is_not_that_of_whoever_started_the_process() -> None:
    large = (
        "import subprocess, sys; held = bytearray(b'1') * 400_000_000; "
        "small = 'from sweeps.record.memory import peak_memory; print(peak_memory())'; "
        "print(subprocess.run([sys.executable, '-c', small], capture_output=True, text=True, check=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < 200_000_000
