"""Settling what left the queue of SLURM without a result: from what is recorded follows what becomes of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeps.backends.policy import progressed
from sweeps.record import failure_causes
from sweeps.record.attempts import Attempt, Claim, attempts_at, newest_attempt
from sweeps.record.endings import last_line, record_death, record_unbegun, settle
from sweeps.record.outcome import EXIT_CODES
from sweeps.record.slurm_client import Ending, Queue
from sweeps.study.external_run import AnyRun

from .entries import ArrayEntry

OWN_ENDINGS = (EXIT_CODES["interrupted"], EXIT_CODES["taken"], EXIT_CODES["blocked"])
"""Exit codes with which a job says that its run did not fail."""


def settle_vanished(root: Path, runs: Mapping[str, AnyRun], queue: Queue) -> None:
    """Record how those attempts ended whose job left the queue without a word. Raises StoreError, SlurmError.

    `runs` are without a result and not in the queue.
    """
    jobs = queue.read()
    dead: dict[str, tuple[Attempt, Claim, str]] = {}
    for run_id in runs:
        newest = newest_attempt(root, run_id)
        if newest is None or (claim := newest.claim) is None or claim.job is None or claim.job in jobs:
            continue
        beat = newest.heartbeat
        if beat is None or beat.state == "running":
            dead[run_id] = (newest, claim, claim.job)
    endings = queue.endings(job for _, _, job in dead.values())
    for run_id, (attempt, claim, job) in dead.items():
        ending = endings.get(job, Ending("", 0, 0))
        cause, message = failure_causes.of_death(
            attempt.heartbeat, ending.signal, ending.state or None, here=claim.worker.local
        )
        if cause == "timeout" and progressed(attempts_at(root, run_id)) > 0:
            record_death(root, runs[run_id], attempt, cause, f"{message}, without progress")
        else:
            settle(root, runs[run_id], attempt, cause, message, submission=claim.submission, job=job)


def settle_unbegun(root: Path, runs: Mapping[str, AnyRun], entries: Iterable[ArrayEntry], queue: Queue) -> None:
    """Record the failure of jobs that ended before any worker of theirs began, such as on a node without our Python.

    `runs` are without a result and not in the queue. Raises StoreError, SlurmError.
    """
    jobs = queue.read()
    gone: dict[str, tuple[ArrayEntry, int, list[str]]] = {}
    for entry in entries:
        if entry.job is None or entry.abandoned:
            continue
        for index, pack in enumerate(entry.array.packs):
            element, left = entry.element(index), [run_id for run_id in pack if run_id in runs]
            if not left or element in jobs:
                continue
            # Of a pack that began what was not reached is simply left.
            claims = (attempt.claim for run_id in pack for attempt in attempts_at(root, run_id))
            if all(claim is None or claim.job != element for claim in claims):
                gone[element] = (entry, index, left)
    for element, ending in queue.endings(gone).items():
        entry, index, left = gone[element]
        if ending.state not in ("FAILED", "OUT_OF_MEMORY", "TIMEOUT") or ending.exit_code in OWN_ENDINGS:
            continue
        submission = entry.folder.parent.parent.name
        cause = "out_of_memory" if ending.state == "OUT_OF_MEMORY" else "error"
        message = f"its job ended before it began: {last_line(entry.log(index)) or 'it printed nothing'}"
        for run_id in left:
            record_unbegun(root, runs[run_id], submission, cause, message, job=element)
