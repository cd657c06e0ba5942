"""Why an attempt ended: one word of CAUSES for the store and the policy of retries, from whatever is known of the end.

A worker that can still speak says it itself. One that was killed left its last heartbeat; whoever finds it dead tells
the cause from that, from the signal, and from what the scheduler says of the job.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, get_args

from results import DataError, UsageError
from sweeps.text import size

from .attempts import Heartbeat
from .memory import NEARLY, memory_kills
from .slurm_client import duration_seconds, end_time, job_facts

Cause = Literal[
    "preempted", "node_lost", "timeout", "out_of_memory", "error", "mistake", "diverged", "storage", "interrupted",
    "killed",
]  # fmt: skip
CAUSES: tuple[str, ...] = get_args(Cause)
"""preempted, node_lost, timeout: the cluster's doing, or its trainer's wish; resumed, not counted. interrupted: stopped
on purpose. mistake: a row that is never accepted, a command that does not exist: the same would happen again."""

WARNING_SECONDS = 300.0
"""A stop with less than this left to the job's time limit is a time-out. SLURM's warnings come 30 to 300 s before."""

_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|MemoryError|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|exceeded (job )?memory limit|"
    r"oom[_-]kill|OOM killed",
    re.IGNORECASE,
)
_STATES: dict[str, Cause] = {
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_lost",
    "BOOT_FAIL": "node_lost",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "out_of_memory",
    "CANCELLED": "interrupted",
    "REVOKED": "interrupted",
}


def of_stop(signals: Sequence[int], job: str | None) -> Cause:
    """Why a worker was told to stop by these signals; `job` is its SLURM job, None outside one.

    Without a signal it was the trainer's own wish to be resumed, which counts as a preemption. Outside of a job a stop
    was on purpose. Within one the time that is left and the controller tell a time-out from a preemption from
    `scancel`; where neither can be known it counts as a preemption, for it comes again by itself.
    """
    if job is None or signal.SIGINT in signals:
        return "interrupted" if signals else "preempted"
    facts = job_facts(job)
    left = _seconds_left(facts)
    if left is not None and left < WARNING_SECONDS and not _preempted(facts):
        return "timeout"
    if signal.SIGTERM in signals and facts.get("JobState") in ("CANCELLED", "COMPLETING") and not _preempted(facts):
        return "interrupted"
    return "preempted"


def of_error(error: BaseException) -> Cause:
    """What an exception that ended a run says."""
    if out_of_memory(error):
        return "out_of_memory"
    if isinstance(error, UsageError) and not isinstance(error, DataError):
        # A bad row or specification. Data may be missing on one node only.
        return "mistake"
    return "storage" if no_space(error) else "error"


def out_of_memory(error: BaseException) -> bool:
    """Also torch's error for accelerators, and the plain RuntimeError that it raises on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return says_out_of_memory(str(error)) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def says_out_of_memory(text: str) -> bool:
    """Whether a text complains of a lack of memory, as torch, Python, CUDA, SLURM and the kernel do."""
    return _OUT_OF_MEMORY.search(text) is not None


def no_space(error: BaseException) -> bool:
    """Also libraries that write files themselves, such as safetensors, which raises an error of its own."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(os.strerror(number) in str(error) for number in numbers)


def of_death(
    beat: Heartbeat | None, number: int = 0, state: str | None = None, *, here: bool = True
) -> tuple[Cause, str]:
    """Cause and message for an attempt whose worker died without a word.

    beat    its last heartbeat
    number  the signal that ended it, if that is known
    state   how its SLURM job ended, such as NODE_FAIL, if that is known
    here    whether it ran on this machine, whose kernel then knows whether it has killed for lack of memory
    """
    known = _STATES.get((state or "").split(" ")[0])
    if known is not None and known != "interrupted":
        return known, f"its job ended as {state}"
    if number in (0, signal.SIGKILL) and (reason := _lack_of_memory(beat, here)):
        return "out_of_memory", reason
    if known == "interrupted":
        return known, "its job was cancelled"
    if number:
        hint = " (by hand, or by the system for lack of memory)" if number == signal.SIGKILL else ""
        return "killed", f"killed by {signal.Signals(number).name}{hint}"
    return "killed", f"its job ended as {state}" if state else "its process ended without a word"


def of_exit(beat: Heartbeat | None, code: int, printed: str) -> tuple[Cause, str]:
    """Cause and message for a worker that ended with an exit code, negative for a signal, and without an outcome.

    `printed` is what came from it and from srun, which gives 128 + signal for a task that a signal ended.
    """
    if says_out_of_memory(printed):
        return "out_of_memory", "killed for lack of memory, as its output says"
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:
        return of_death(beat, number)
    last = (printed.strip().splitlines() or ["no output"])[-1]
    return "error", f"worker ended with exit code {code}: {last}"


def _lack_of_memory(beat: Heartbeat | None, here: bool) -> str | None:
    if beat is None:
        return None
    kills = memory_kills() if here else None
    if kills is not None and beat.memory_kills is not None and kills > beat.memory_kills:
        return "killed by the system for lack of memory"
    limit = beat.memory_limit_bytes
    if limit and beat.peak_memory_bytes >= NEARLY * limit:
        return f"killed when it had taken {size(beat.peak_memory_bytes)} of the {size(limit)} that it may take"
    return None


def _seconds_left(facts: dict[str, str]) -> float | None:
    """Seconds to a job's time limit. Its EndTime is of no use once it was cancelled: that is then now."""
    limit, run = (duration_seconds(facts.get(name, "")) for name in ("TimeLimit", "RunTime"))
    if limit is not None and run is not None:
        return limit - run
    end = end_time(facts)
    with suppress(KeyError, ValueError):
        return (end or float(os.environ["SLURM_JOB_END_TIME"])) - time.time()
    return None


def _preempted(facts: dict[str, str]) -> bool:
    """The controller notes when it began to preempt a job; the field is None for all others."""
    return facts.get("PreemptTime", "None") not in ("None", "Unknown", "")
