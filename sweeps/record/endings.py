"""What attempts leave at their end: their row of `runs`, also where the worker could not write one itself."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results import Recorder, Store
from results.provenance import provenance_json
from scaling.specification.spec import canonical_json
from sweeps.study.external_run import AnyRun, facts_of

from .attempts import Attempt, Heartbeat, claim_attempt
from .outcome import Outcome

IN_PLACE = ("preempted", "node_lost", "timeout")
"""Causes of an interruption after which a run is resumed where it was, uncounted."""
INTERRUPTIONS = (*IN_PLACE, "interrupted")
"""Causes of an end that is no failure: the run is resumed where it was."""
TAIL_BYTES = 4096
_ENDING = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\+00:00 (failed|diverged|interrupted|storage|taken)(: |$)")
"""The worker's last line, see sweeps.worker.worker."""


def run_row(
    spec: AnyRun,
    *,
    status: str,
    cause: str | None,
    message: str | None,
    started_at: datetime,
    wall_seconds: float,
    peak_memory_bytes: int,
) -> dict[str, Any]:
    """The row of `runs`: what follows from the specification, how it went, where it came from."""
    return facts_of(spec) | {
        "status": status,
        "cause": cause,
        "message": message,
        "wall_seconds": wall_seconds,
        "peak_memory_bytes": peak_memory_bytes,
        "started_at": started_at.isoformat(timespec="milliseconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "provenance": provenance_json(),
    }


def record_death(root: Path, spec: AnyRun, attempt: Attempt, cause: str, message: str) -> None:
    """Store the failure of an attempt whose worker died without a word, as seen by its submitter. Raises StoreError."""
    beat = attempt.heartbeat or Heartbeat()
    claim = attempt.claim
    row = run_row(
        spec,
        status="failed",
        cause=cause,
        message=message,
        started_at=datetime.fromtimestamp(claim.time if claim else beat.time, UTC),
        wall_seconds=beat.elapsed_before + beat.elapsed,
        peak_memory_bytes=beat.peak_memory_bytes,
    )
    tables = Recorder(spec.run_id, attempt.number).tables(row)
    Store(root).append(spec.run_id, tables, status="failed", attempt=attempt.number)
    attempt.end("failed", cause=cause, message=message)


def record_unbegun(
    root: Path, spec: AnyRun, submission: str, cause: str, message: str, *, job: str | None = None
) -> Attempt | None:
    """Store the failure of a worker that ended before it had claimed its run, as an attempt of its own.

    None, and nothing is stored, if the run has a living owner or a result by now. Raises StoreError.
    """
    attempt = claim_attempt(root, spec.run_id, canonical_json(spec), submission, None, job=job)
    if attempt is None:
        return None
    if spec.run_id in Store(root).finished():
        shutil.rmtree(attempt.path)
        return None
    record_death(root, spec, attempt, cause, message)
    return attempt


def settle(
    root: Path,
    spec: AnyRun,
    attempt: Attempt | None,
    cause: str,
    message: str,
    *,
    submission: str,
    job: str | None = None,
) -> Outcome:
    """Write down how a worker ended that could not say so itself; `attempt` is None if it had not claimed its run.

    An interruption is noted and resumed; all else is a failure in the store. Raises StoreError.
    """
    if cause in INTERRUPTIONS:
        if attempt is not None:
            attempt.end("interrupted", cause=cause, message=message)
        return Outcome(spec.run_id, "interrupted", attempt.number if attempt else None, cause, message)
    if attempt is not None:
        record_death(root, spec, attempt, cause, message)
    else:
        message += ", before it began"
        attempt = record_unbegun(root, spec, submission, cause, message, job=job)
    if attempt is None:
        return Outcome(spec.run_id, "taken", message="another process works on this run")
    return Outcome(spec.run_id, "failed", attempt.number, cause, message)


def last_line(log: Path) -> str | None:
    """The last line of a log that says something; None if there is none.

    The worker's own word on the end of an attempt is left out: what it says is the message, and it hides what the run
    itself printed last.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _ENDING.match(line)]
    return lines[-1] if lines else None
