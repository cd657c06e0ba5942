"""The ledger's entries on arrays: which run is which element, which job SLURM made of it, what is in the queue.

<root>/submissions/<id>/arrays/<number>/  array.json  job  abandoned  <index>.log  and the batch script
<root>/submissions/<id>/closed            none of its jobs is in the queue any more

`array.json` is written before sbatch, `job` (SLURM's id) after it; whichever of submitter, later submitter and the
job itself comes first writes it. `abandoned` says that a later submitter found no job for it, so that a job that
appears nevertheless ends at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from results import SpecError, StoreError
from results.store import atomic
from sweeps.record.ledger import Submission, submissions
from sweeps.record.slurm_client import ClusterView, Queue, QueuedJob, SlurmError
from sweeps.study.external_run import AnyRun, parse_any_run

from .arrays import Array


@dataclass(frozen=True)
class ArrayEntry:
    """An array as the ledger has it, by its folder."""

    folder: Path

    @cached_property
    def array(self) -> Array:
        """What was to be submitted. Raises StoreError if the ledger is damaged."""
        path = self.folder / "array.json"
        try:
            return Array.from_json(json.loads(path.read_text()))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StoreError(f"{path} is missing or damaged: {error!r}") from error

    @property
    def job(self) -> str | None:
        """SLURM's id of the array; None if it never got one, or nobody wrote it down."""
        try:
            return (self.folder / "job").read_text().strip() or None
        except OSError:
            return None

    @property
    def abandoned(self) -> bool:
        """Whether it counts as never submitted."""
        return (self.folder / "abandoned").exists()

    def record_job(self, job: str) -> str:
        """Write SLURM's id down, unless somebody has; the id that counts. Raises StoreError."""
        with atomic.storage(self.folder), suppress(FileExistsError):
            atomic.write_synced(self.folder / "job", f"{job}\n".encode())
        return self.job or job

    def abandon(self) -> None:
        """Count it as never submitted. Raises StoreError."""
        atomic.write(self.folder / "abandoned", "")

    def element(self, index: int) -> str:
        """SLURM's id of an element."""
        return f"{self.job}_{index}"

    def log(self, index: int) -> Path:
        """What an element's job printed, around its workers."""
        return self.folder / f"{index}.log"

    def in_queue(self, jobs: Mapping[str, QueuedJob]) -> dict[int, QueuedJob]:
        """Its elements in the queue, by index, also where nobody wrote the id down."""
        array_job = self.job or lost_job(self, jobs)
        return {n: job for n in range(self.array.jobs) if (job := jobs.get(f"{array_job}_{n}")) is not None}

    def split(self, jobs: int, number: int) -> list[ArrayEntry]:
        """Enter its first `jobs` elements in its place, and the rest under the given number. Raises StoreError."""
        first, rest = self.array.split(jobs, number)
        folder = atomic.make_folder(self.folder.with_name(str(number)))
        atomic.write(folder / "array.json", content(rest))
        atomic.write(self.folder / "array.json", content(first))
        return [ArrayEntry(self.folder), ArrayEntry(folder)]

    def runs(self, index: int) -> list[AnyRun]:
        """The specifications of an element's runs. Raises StoreError."""
        path, pack = self.folder.parent.parent / "runs.jsonl", self.array.resources.pack
        wanted = self.array.lines[index * pack : (index + 1) * pack]
        try:
            with path.open() as lines:
                specs = {number: parse_any_run(line) for number, line in enumerate(lines) if number in wanted}
            return [specs[number] for number in wanted]
        except (OSError, ValueError, LookupError, SpecError) as error:
            raise StoreError(f"{path} or {self.folder} is damaged: {error!r}") from error


def content(array: Array) -> bytes:
    """What `array.json` holds."""
    return (json.dumps(array.as_json()) + "\n").encode()


def entries(root: Path, submission: Submission) -> list[ArrayEntry]:
    """The arrays of a submission, in order."""
    folder = submission.folder(root) / "arrays"
    try:
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    except FileNotFoundError:
        return []
    return [ArrayEntry(folder / str(number)) for number in numbers]


def open_submissions(root: Path, study: str | None = None) -> Iterator[Submission]:
    """Submissions to SLURM that may have jobs in the queue; those of one study, or all."""
    for submission in submissions(root):
        if submission.cluster != "slurm" or study not in (None, submission.study):
            continue
        if not (submission.folder(root) / "closed").exists():
            yield submission


def close(root: Path, submission: Submission) -> None:
    """Note that none of its jobs is in the queue any more. Raises StoreError."""
    atomic.write(submission.folder(root) / "closed", "")


def queued(root: Path, queue: Queue) -> dict[str, QueuedJob]:
    """The runs that are in the queue, waiting or running, with their jobs, by run id. Changes nothing.

    Raises SlurmError if the queue cannot be read.
    """
    jobs = queue.read()
    in_queue: dict[str, QueuedJob] = {}
    for submission in open_submissions(root):
        for entry in entries(root, submission):
            in_queue |= elements(entry, jobs)
    return in_queue


def cluster_view(root: Path) -> ClusterView:
    """What SLURM knows of the runs below a root; nothing is asked where nothing was submitted to it."""
    try:
        if not any(open_submissions(root)):
            return ClusterView()
        return ClusterView(queued(root, Queue()), known=True)
    except SlurmError as error:
        return ClusterView(complaint=str(error))


def elements(entry: ArrayEntry, jobs: Mapping[str, QueuedJob]) -> dict[str, QueuedJob]:
    """The runs of an array that are in the queue, with their jobs. A job that waits for ever is not."""
    in_queue, packs = entry.in_queue(jobs), entry.array.packs
    return {run_id: job for index, job in in_queue.items() if not job.stranded for run_id in packs[index]}


def lost_job(entry: ArrayEntry, jobs: Mapping[str, QueuedJob]) -> str | None:
    """The job of an array whose submitter died before it wrote the id down, told by name and script."""
    submission = entry.folder.parent.parent.name
    for job in jobs.values():
        if job.name == submission and Path(job.script).parent == entry.folder:
            return job.id.partition("_")[0]
    return None
