"""The rows of `runs` that attempts leave: what is in them, and those of attempts that cannot write their own."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results import Recorder, Store
from results.provenance import provenance_json
from scaling.specification.spec import canonical_json
from sweeps.study.external_run import AnyRun, facts_of

from .attempts import Attempt, Heartbeat, claim_attempt


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
