"""Which runs SLURM did not take at their last submission, and why: what `status` tells of them.

    <root>/submissions/.untaken.json    by run id; written during a submitter's turn alone

A later submission of a run supersedes its note, and so does an attempt at it. Nothing but what people read depends on
this file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from results.store import atomic

from .ledger import submissions_folder

_FILE = ".untaken.json"


@dataclass(frozen=True)
class Untaken:
    """Why a run did not get into the queue.

    reason   in SLURM's words
    refused  whether SLURM would refuse it again; else there was no room for it then
    attempt  the number of the newest attempt at it then, 0 for none
    time     ISO 8601, UTC
    """

    reason: str
    refused: bool
    attempt: int
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="minutes"))

    @property
    def cause(self) -> str:
        """One word for it."""
        return "refused" if self.refused else "no_room"

    def __str__(self) -> str:
        if self.refused:
            return f"refused by SLURM on {self.time}: {self.reason}"
        return f"the cluster had no room for it on {self.time}: {self.reason}; submit goes on with it"


def untaken(root: Path) -> dict[str, Untaken]:
    """The notes, by run id. Nothing where there is no file, or one of another version."""
    try:
        return {run_id: Untaken(**note) for run_id, note in json.loads(_path(root).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_untaken(root: Path, submitted: Collection[str], notes: Mapping[str, Untaken]) -> None:
    """Supersede what is noted of the runs of a submission. Raises StoreError if that cannot be written."""
    before = untaken(root)
    after = {run_id: note for run_id, note in before.items() if run_id not in submitted} | dict(notes)
    if after != before:
        atomic.make_folder(submissions_folder(root))
        atomic.write(_path(root), json.dumps({run_id: asdict(note) for run_id, note in after.items()}, indent=1) + "\n")


def _path(root: Path) -> Path:
    # Beside the submissions' folders, whose names begin with no dot.
    return submissions_folder(root) / _FILE
