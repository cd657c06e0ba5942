"""Attempts at runs: one directory each, owned by exactly one process, with a claim and a heartbeat.

    <root>/attempts/<run_id>/<attempt>/  spec.json  claim  heartbeat.json  log.txt  checkpoints/  encoded/  artifacts/

A directory appears complete, so that the claim is in it from the first moment and of several processes exactly one gets
the number. A new attempt is claimed only when the newest one has no living owner, or when
its owner is an earlier start of the claimer's own SLURM job, which the scheduler gave up whatever its process still
does. No two attempts share a file, so that an owner that was wrongly held for dead can damage nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from results.store import atomic

from .process_identity import ProcessId

ROWS = "rows.jsonl"
"""What a trainer of one's own writes in its attempt's folder."""
SUPERSEDED = "superseded"
"""The file in attempts that no later one resumes from: their run is trained again from the beginning."""
STALE_SECONDS = 120.0
"""An owner on another machine counts as dead when its heartbeat is this old. Heartbeats come every 10 s or faster."""

State = Literal["running", "done", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Claim:
    """Who owns an attempt: the worker, the submission it belongs to, the process that started it, and its SLURM job.

    `job` is the job's id with its index (17_3), None outside of SLURM; `restarts` is how often it had been requeued.
    """

    worker: ProcessId
    submission: str
    submitter: ProcessId | None
    time: float
    job: str | None = None
    restarts: int = 0

    @property
    def deserted(self) -> bool:
        """Whether no process waits for its worker: none did, or it is known to be dead."""
        return self.submitter is None or self.submitter.alive() is False

    def text(self) -> str:
        """The content of the file `claim`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> Claim:
        """The inverse of `text`. Raises ValueError."""
        try:
            return _CLAIM.validate_json(text)
        except ValidationError as error:
            raise ValueError(f"not a claim: {error!r}") from error


_CLAIM = TypeAdapter(Claim)


@dataclass(frozen=True)
class Heartbeat:
    """Where an attempt stands. `elapsed` are its own seconds, `elapsed_before` those of earlier attempts.

    done_before and begun are share and seconds at the attempt's first report, for its speed. memory_limit_bytes and
    memory_kills (the kernel's count for its cgroup) tell lack of memory after a sudden end.
    """

    state: State = "running"
    phase: str = "starting"
    done: float = 0.0
    detail: str = ""
    images_per_second: float | None = None
    elapsed: float = 0.0
    elapsed_before: float = 0.0
    peak_memory_bytes: int = 0
    done_before: float = 0.0
    begun: float = 0.0
    memory_limit_bytes: int | None = None
    memory_kills: int | None = None
    time: float = field(default_factory=time.time)
    cause: str | None = None
    message: str | None = None

    def write(self, path: Path) -> None:
        """Replace the heartbeat file; not flushed to disk, since a lost one only makes an attempt look older."""
        atomic.write(path, json.dumps(asdict(self)) + "\n", durable=False)

    def overwrite(self, path: Path) -> None:
        """Write into the file that is there: on a full disk a new one has no room, but the old one's has. OSError."""
        with path.open("r+b") as file:
            file.write((json.dumps(asdict(self)) + "\n").encode())
            file.truncate()

    @classmethod
    def read(cls, path: Path) -> Heartbeat | None:
        """The heartbeat in a file; None if there is none, or one of another version."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_text()))
        return None


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, by its directory; every property reads the files as they are now."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run it is an attempt at."""
        return self.path.parent.name

    @property
    def number(self) -> int:
        """From 1."""
        return int(self.path.name)

    @property
    def claim(self) -> Claim | None:
        """Its owner; None if the file was damaged by hand."""
        with suppress(OSError, ValueError):
            return Claim.parse((self.path / "claim").read_text())
        return None

    @property
    def heartbeat(self) -> Heartbeat | None:
        """Its last sign of life."""
        return Heartbeat.read(self.path / "heartbeat.json")

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.path / "log.txt"

    @property
    def alive(self) -> bool:
        """Whether its owner still works on it.

        On this machine the process table knows. Of another machine only the age of the heartbeat is known.
        """
        claim, heartbeat = self.claim, self.heartbeat
        if claim is None or (heartbeat is not None and heartbeat.state != "running"):
            return False
        known = claim.worker.alive()
        if known is not None:
            return known
        return time.time() - (heartbeat.time if heartbeat else claim.time) < STALE_SECONDS

    @property
    def overtaken(self) -> bool:
        """Whether a newer attempt at the run has begun: this one was held for dead and must write nothing shared."""
        newest = attempts_at(self.path.parent.parent.parent, self.run_id)
        return bool(newest) and newest[0].number > self.number

    @property
    def state(self) -> State | Literal["missing"]:
        """How it ended, `running` while its owner lives, `missing` if the owner vanished without a word."""
        if self.alive:
            return "running"
        # Read after the owner was seen to be gone, so that its last word is not missed.
        heartbeat = self.heartbeat
        return heartbeat.state if heartbeat is not None and heartbeat.state != "running" else "missing"

    def end(self, state: State, **changes: Any) -> None:
        """Write the last heartbeat."""
        last = replace(self.heartbeat or Heartbeat(), state=state, time=time.time(), **changes)
        last.write(self.path / "heartbeat.json")


def attempts_folder(root: Path) -> Path:
    """Where all attempts below a root lie."""
    return root / "attempts"


def attempts_at(root: Path, run_id: str) -> list[Attempt]:
    """All attempts at a run, newest first."""
    folder = attempts_folder(root) / run_id
    numbers = sorted((int(name) for name in _names(folder) if name.isdigit()), reverse=True)
    return [Attempt(folder / str(number)) for number in numbers]


def newest_attempt(root: Path, run_id: str) -> Attempt | None:
    """The newest attempt at a run; None if there is none."""
    return next(iter(attempts_at(root, run_id)), None)


def attempted(root: Path) -> set[str]:
    """Ids of all runs that have been attempted, from one folder listing."""
    return set(_names(attempts_folder(root)))


def _names(folder: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return [path.name for path in folder.iterdir()]
    return []


def living(root: Path, run_ids: Iterable[str]) -> dict[str, Attempt]:
    """The attempts that are being worked on, by run id."""
    known = attempted(root)
    newest = {run: attempts[0] for run in run_ids if run in known and (attempts := attempts_at(root, run))}
    return {run: attempt for run, attempt in newest.items() if attempt.alive}


def claim_attempt(
    root: Path,
    run_id: str,
    spec: str,
    submission: str,
    submitter: ProcessId | None,
    *,
    job: str | None = None,
    restarts: int = 0,
    gone: Callable[[Claim], bool] = lambda claim: False,
) -> Attempt | None:
    """Begin the next attempt at a run, owned by this process. None: a living owner works on the run already.

    `gone` is asked about the claim of an owner that seems alive; True if the scheduler knows that its job is over.
    Raises StoreError if the folder cannot be written.
    """
    folder = atomic.make_folder(attempts_folder(root) / run_id)
    claim = Claim(ProcessId.current(), submission, submitter, time.time(), job, restarts)
    files = {"claim": claim.text().encode(), "spec.json": spec.encode()}
    while True:
        earlier = attempts_at(root, run_id)
        if earlier and _held(earlier[0], claim, gone):
            return None
        target = folder / str(earlier[0].number + 1 if earlier else 1)
        # If not, another process took the number in between.
        if atomic.new_folder_of(target, files):
            return Attempt(target)


def _held(newest: Attempt, mine: Claim, gone: Callable[[Claim], bool]) -> bool:
    """Whether another owner keeps the newest attempt."""
    if not newest.alive:
        return False
    claim = newest.claim
    if claim is None or claim.job is None:
        return claim is not None
    if claim.job == mine.job and claim.restarts != mine.restarts:
        # A late process of an earlier start must not take the run back from its successor.
        return claim.restarts > mine.restarts
    return not gone(claim)


def resumable(earlier: Sequence[Path]) -> Path | None:
    """The attempt to resume from: the newest with checkpoints, else with artifacts, else with rows. None without."""
    for name in ("checkpoints", "artifacts", ROWS):
        source = next((folder for folder in earlier if _holds_something(folder / name)), None)
        if source is not None:
            return source
    return None


def _holds_something(path: Path) -> bool:
    """Whether a folder or a file is there and not empty."""
    with suppress(OSError):
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    return False


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
