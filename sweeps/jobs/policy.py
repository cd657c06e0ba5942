"""What becomes of a run that ended without a result, by cause.

preempted, node_lost, timeout    requeued in place by SLURM or by the job itself, resumed, not counted
out_of_memory                    submitted again with more memory, or a smaller microbatch at the same global batch
error, killed, storage           submitted again; with out_of_memory up to `limits.retries` times, then only by `retry`
timeout without progress         recorded as a failure: more attempts of the same length would get no further
diverged                         a result; never again
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from results import Store
from results.store import Summary
from scaling.spec import canonical_json

from .. import causes
from ..attempts import Attempt, attempts_at, claim_attempt
from ..external import AnyRun
from ..ledger import submissions
from ..outcome import EXIT_CODES
from ..resources import Resources
from ..run_rows import record_death
from ..slurm.entries import Entry
from ..slurm.queue import Ending, Queue

AT_ONCE = ("timeout",)
"""Causes after which only `retry` tries again: the same would happen."""
OWN_ENDINGS = (EXIT_CODES["interrupted"], EXIT_CODES["taken"], EXIT_CODES["blocked"])
"""Exit codes with which a job says that its run did not fail."""


def retried_since(root: Path) -> dict[str, str]:
    """For each run that was tried again by `retry` when that was last done, from which its failures count."""
    found: dict[str, str] = {}
    for submission in submissions(root):
        if submission.retry:
            found |= {run.run_id: submission.created for run in submission.runs(root)}
    return found


def counted(failures: Iterable[Summary], since: str | None) -> list[Summary]:
    """The failures that count against the retries of a run."""
    return [failure for failure in failures if since is None or failure.finished_at > since]


def exhausted(failures: Sequence[Summary], root: Path, run_id: str, retries: int) -> str | None:
    """The cause for which a run with these counted failures is left alone until somebody says `retry`; else None."""
    last = next((f.cause for f in failures if f.cause in AT_ONCE), None)
    if last is not None:
        return last
    if len(failures) > retries:
        return failures[-1].cause or "failed"
    # A worker that cannot write the store leaves no failure in it, only its last heartbeat.
    beats = [attempt.heartbeat for attempt in attempts_at(root, run_id)[: retries + 1]]
    full = [beat for beat in beats if beat is not None and beat.cause == "storage"]
    return "storage" if len(full) > retries else None


def grown(resources: Resources, run: AnyRun, failures: Iterable[Summary], growth: float) -> Resources:
    """What a run gets after its failures: for each time that it ran out of memory more of it, or a smaller microbatch.

    Memory of GPUs cannot be asked for, and neither can that of a job that leaves its memory to the partition.
    """
    for failure in failures:
        if failure.cause != "out_of_memory":
            continue
        on_gpu = resources.gpus_per_node > 0 and "OutOfMemoryError" in (failure.message or "")
        if resources.memory_gb is not None and not on_gpu:
            resources = resources.with_memory(growth)
            continue
        batch = getattr(run, "batch_size", None)
        most = resources.microbatch or (math.ceil(batch / resources.tasks) if batch else None)
        if most is not None:
            resources = resources.model_copy(update={"microbatch": max(most // 2, 1)})
    return resources


def progressed(attempts: Sequence[Attempt]) -> int:
    """How many of the newest attempts, in a row, got no further than those before them; `attempts` newest first."""
    reached = [beat.done if (beat := attempt.heartbeat) else 0.0 for attempt in attempts]
    stuck = 0
    for number, done in enumerate(reached):
        if done > max(reached[number + 1 :], default=0.0):
            break
        stuck += 1
    return stuck


def settle_vanished(root: Path, runs: Mapping[str, AnyRun], queue: Queue) -> None:
    """Record how those attempts ended whose job left the queue without a word. Raises StoreError, SlurmError.

    `runs` are without a result and not in the queue.
    """
    jobs = queue.read()
    dead: dict[str, tuple[Attempt, str]] = {}
    for run_id in runs:
        newest = next(iter(attempts_at(root, run_id)), None)
        if newest is None or (claim := newest.claim) is None or claim.job is None or claim.job in jobs:
            continue
        beat = newest.heartbeat
        if beat is None or beat.state == "running":
            dead[run_id] = (newest, claim.job)
    endings = queue.endings(job for _, job in dead.values())
    for run_id, (attempt, job) in dead.items():
        ending = endings.get(job, Ending("", 0, 0))
        cause, message = causes.of_death(attempt.heartbeat, ending.signal, ending.state or None)
        stuck = cause == "timeout" and progressed(attempts_at(root, run_id)) > 0
        if cause in ("out_of_memory", "killed", "error") or stuck:
            record_death(root, runs[run_id], attempt, cause, f"{message}, without progress" if stuck else message)
        else:
            attempt.end("interrupted", cause=cause, message=message)


def settle_unbegun(root: Path, runs: Mapping[str, AnyRun], entries: Iterable[Entry], queue: Queue) -> None:
    """Record the failure of jobs that ended before their worker began, such as on a node without our Python.

    `runs` are without a result and not in the queue. Raises StoreError, SlurmError.
    """
    jobs = queue.read()
    gone: dict[str, tuple[str, Entry, int]] = {}
    for entry in entries:
        if entry.job is None or entry.abandoned:
            continue
        for index, run_id in enumerate(entry.array.members):
            element = entry.element(index)
            if run_id in runs and element not in jobs:
                known = {claim.job for attempt in attempts_at(root, run_id) if (claim := attempt.claim)}
                if element not in known:
                    gone[element] = (run_id, entry, index)
    for element, ending in queue.endings(gone).items():
        run_id, entry, index = gone[element]
        if ending.state not in ("FAILED", "OUT_OF_MEMORY", "TIMEOUT") or ending.exit_code in OWN_ENDINGS:
            continue
        run, submission = runs[run_id], entry.folder.parent.parent.name
        attempt = claim_attempt(root, run_id, canonical_json(run), submission, None, job=element)
        if attempt is not None and run_id not in Store(root).finished():
            cause = "out_of_memory" if ending.state == "OUT_OF_MEMORY" else "error"
            record_death(root, run, attempt, cause, f"its job ended before it began: {last_line(entry.log(index))}")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it left no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
