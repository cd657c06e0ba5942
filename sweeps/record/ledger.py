"""The ledger: what was submitted, when and by which process, written before anything starts.

<root>/submissions/<id>/  submission.json  runs.jsonl  process.json  specs/<run_id>.json  supervisor.log  arrays/
<root>/submissions/.untaken.json    which runs SLURM did not take, and why; written during a submitter's turn alone

`process.json` and the supervisor's log belong to local submissions, `arrays/` to those to SLURM.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results import SpecError, StoreError
from results.store import atomic
from scaling.specification.spec import canonical_json
from sweeps.study.external_run import AnyRun, parse_any_run

from .process_identity import ProcessId

_UNTAKEN = ".untaken.json"


@dataclass(frozen=True)
class Submission:
    """One `submit`.

    id         names it, and its jobs in SLURM
    jobs       cap on parallel runs; 0 for none
    created    ISO 8601, UTC
    cluster    local, debug or slurm
    snapshot   name of the frozen code that its workers run from; "" for the code as it is
    retry      whether it was `retry`, from which failures are counted anew
    retries    how often a run that is killed in its job is begun again there
    worker     the command of a worker, without its options; () for ours
    trackers   what trackers are told, as JSON of the section; "" for none
    """

    id: str
    study: str
    jobs: int
    created: str
    cluster: str = "local"
    snapshot: str = ""
    retry: bool = False
    retries: int = 0
    worker: tuple[str, ...] = ()
    trackers: str = ""

    def folder(self, root: Path) -> Path:
        """Where its files lie."""
        return submissions_folder(root) / self.id

    def runs(self, root: Path) -> list[AnyRun]:
        """The runs that were submitted, in the order of the plan. Raises StoreError if the ledger is damaged."""
        path = self.folder(root) / "runs.jsonl"
        try:
            return [parse_any_run(line) for line in path.read_text().splitlines()]
        except (OSError, SpecError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error

    def process(self, root: Path) -> ProcessId | None:
        """The process that schedules it, also after its end; None if it never began."""
        with suppress(OSError, ValueError):
            return ProcessId.from_json(json.loads((self.folder(root) / "process.json").read_text()))
        return None

    def adopt(self, root: Path) -> None:
        """Enter this process as the one that schedules it. Raises StoreError."""
        atomic.write(self.folder(root) / "process.json", json.dumps(ProcessId.current().as_json()) + "\n")

    def write_spec(self, root: Path, run: AnyRun) -> Path:
        """The file that a worker gets: the specification of one run. Raises StoreError."""
        path = atomic.make_folder(self.folder(root) / "specs") / f"{run.run_id}.json"
        if not path.exists():
            atomic.write(path, canonical_json(run) + "\n")
        return path


def submissions_folder(root: Path) -> Path:
    """Where all submissions below a root lie."""
    return root / "submissions"


def new_submission(study: str, jobs: int, **options: Any) -> Submission:
    """A submission of now, not entered yet. `options` are further fields of Submission."""
    now = datetime.now(UTC)
    name = f"{study}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    return Submission(name, study, jobs, now.isoformat(timespec="milliseconds"), **options)


def open_submission(
    root: Path, submission: Submission, runs: Sequence[AnyRun], files: Mapping[str, bytes] | None = None
) -> Submission:
    """Enter a new submission. The folder appears complete or not at all. Raises StoreError.

    `files` are further files by their names below the folder.
    """
    contents = {
        "runs.jsonl": "".join(f"{canonical_json(run)}\n" for run in runs).encode(),
        "submission.json": (json.dumps(asdict(submission), indent=1) + "\n").encode(),
    }
    folder = atomic.make_folder(submissions_folder(root))
    atomic.new_folder_of(folder / submission.id, contents | dict(files or {}))
    return submission


def load_submission(root: Path, name: str) -> Submission:
    """The submission of that id. Raises StoreError."""
    path = submissions_folder(root) / name / "submission.json"
    try:
        values = json.loads(path.read_text())
        return Submission(**values | {"worker": tuple(values.get("worker", ()))})
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} is missing or damaged: {error!r}") from error


def submissions(root: Path) -> list[Submission]:
    """All submissions below a root, oldest first."""
    folder = submissions_folder(root)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    entered = [load_submission(root, name) for name in names if not name.startswith(".")]
    return sorted(entered, key=lambda submission: submission.created)


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
    """The runs that SLURM did not take at their last submission, by id, as `status` tells of them.

    A later submission of a run supersedes its note, and so does an attempt at it. Nothing but what people read depends
    on these. None where there is no file, or one of another version.
    """
    with suppress(OSError, ValueError, TypeError, AttributeError):
        notes = json.loads((submissions_folder(root) / _UNTAKEN).read_text())
        return {run_id: Untaken(**note) for run_id, note in notes.items()}
    return {}


def note_untaken(root: Path, submitted: Collection[str], notes: Mapping[str, Untaken]) -> None:
    """Supersede what is noted of the runs of a submission. Raises StoreError if that cannot be written."""
    before = untaken(root)
    after = {run_id: note for run_id, note in before.items() if run_id not in submitted} | dict(notes)
    if after != before:
        text = json.dumps({run_id: asdict(note) for run_id, note in after.items()}, indent=1) + "\n"
        atomic.write(atomic.make_folder(submissions_folder(root)) / _UNTAKEN, text)


def check_writable(root: Path) -> None:
    """Raise StoreError if nothing can be written below the root."""
    atomic.make_folder(root)
    probe = root / f".writable-{os.getpid()}"
    with atomic.storage(root):
        try:
            atomic.write_synced(probe, b"can be written\n")
        finally:
            probe.unlink(missing_ok=True)
