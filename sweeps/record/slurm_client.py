"""What SLURM knows about jobs and about itself: squeue for those in the queue, scontrol and sacct for those that left.

The store is the truth about runs; this is the second source. Every call has a time-out, and nothing here needs
accounting (sacct): where it exists it only remembers longer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path

from results.errors import TokenlawError

TIMEOUT = 60.0
"""Seconds after which a client of SLURM is given up; a controller that restarts answers within seconds."""
CACHE_SECONDS = 1.0
SBATCH_SECONDS = 30.0
"""After which sbatch is given up; it waits by itself for a controller that restarts or has no room for jobs."""
_COLUMNS = (
    ("JobArrayID", 32), ("JobID", 16), ("State", 20), ("RestartCnt", 10), ("Name", 120), ("Reason", 80),
    ("NodeList", 60), ("StartTime", 24), ("TimeLeft", 24), ("Command", 400),
)  # fmt: skip
"""Fields of `squeue --Format` with their widths; the array of a job is told by the path of its script."""

_BARRED = re.compile(
    r"Per(Job|Node)|QOSMin|NotAllowed|NotSatisfied|^Invalid|^BadConstraints|^Partition(Time|Node)Limit|^JobHeld",
    re.I,
)
"""Reasons for waiting that end only when a person changes the job, the account or the partition. Limits over all jobs
of a user or a group (QOSMaxCpuPerUserLimit, AssocGrpCpuLimit) end with other jobs."""

GONE_STATES = frozenset({
    "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY",
    "REVOKED",
})  # fmt: skip
"""States of a job that will not run again, as squeue may show them for a moment."""


class SlurmError(TokenlawError):
    """A command of SLURM failed, or did not answer."""


class SlurmMissing(SlurmError):
    """SLURM's commands are not installed here."""

    exit_code = 2


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue; an element of an array counts as one, with an id such as 17_3.

    state        PENDING, RUNNING, COMPLETING, REQUEUED, ...
    reason       why it waits, such as Priority, Dependency, DependencyNeverSatisfied; None when it runs
    restarts     how often it was requeued
    started      start, ISO 8601 local time of the cluster; None while it waits without an expected start
    time_left    seconds to its time limit; None for unlimited
    script       path of its batch script
    """

    id: str
    raw_id: str
    state: str
    reason: str | None
    name: str
    node: str | None
    restarts: int
    started: str | None
    time_left: float | None
    script: str

    @property
    def waiting(self) -> bool:
        """Whether it has not begun, or waits to begin again."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")

    @property
    def stranded(self) -> bool:
        """Whether it waits for ever: for a job that failed, or held by SLURM because it could not be launched.

        A controller that crashed may think so of a job that has long run. A job that somebody holds is not stranded.
        """
        held = (self.reason or "").lower().replace(" ", "_").startswith("launch_failed")
        return self.waiting and (held or self.reason == "DependencyNeverSatisfied")

    @property
    def barred(self) -> bool:
        """Whether it waits for a person: it is held, or asks for more than a job of its account may have."""
        return self.waiting and _BARRED.search(self.reason or "") is not None


@dataclass(frozen=True)
class Ending:
    """How a job left the queue: its last state, exit code and the signal that ended it (0: none)."""

    state: str
    exit_code: int
    signal: int


@dataclass
class Queue:
    """The queue of this user, read at most once a second."""

    _jobs: dict[str, QueuedJob] = field(default_factory=dict)
    _read: float = float("-inf")

    def read(self, max_age: float = CACHE_SECONDS) -> dict[str, QueuedJob]:
        """The jobs of this user in the queue by id, one squeue call; not older than `max_age` seconds.

        Jobs that squeue still shows although they ended are left out. Raises SlurmMissing, SlurmError.
        """
        if time.monotonic() - self._read < max_age:
            return self._jobs
        layout = ",".join(f"{name}:{width}" for name, width in _COLUMNS)
        text = slurm(["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--Format={layout}"])
        jobs = (_parse_line(line) for line in text.splitlines() if line.strip())
        self._jobs = {job.id: job for job in jobs if job.state not in GONE_STATES}
        self._read = time.monotonic()
        return self._jobs

    def named(self, name: str, max_age: float = CACHE_SECONDS) -> list[QueuedJob]:
        """The jobs of that name, which is the id of a submission."""
        return [job for job in self.read(max_age).values() if job.name == name]

    def endings(self, ids: Iterable[str]) -> dict[str, Ending]:
        """How jobs ended, of those that SLURM still remembers (some minutes; for long with accounting)."""
        wanted = set(ids)
        if not wanted:
            return {}
        endings = _remembered(wanted)
        missing = wanted - endings.keys()
        if missing and shutil.which("sacct"):
            endings |= _accounted(missing)
        return endings


@dataclass(frozen=True)
class ClusterView:
    """The runs in the queue with their jobs, by run id; `complaint` where the queue could not be read."""

    jobs: Mapping[str, QueuedJob] = field(default_factory=dict)
    known: bool = False
    complaint: str | None = None


@dataclass(frozen=True)
class Cluster:
    """What a submission has to know of the cluster. `max_array` elements fit in one array."""

    name: str
    version: str
    max_array: int
    settings: dict[str, str]

    @classmethod
    def read(cls) -> Cluster:
        """Ask `scontrol show config`. Raises SlurmMissing, SlurmError."""
        lines = slurm(["scontrol", "show", "config"]).splitlines()
        settings = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        # The largest index is one below MaxArraySize, and indices begin at 0.
        return cls(
            settings.get("ClusterName", ""),
            settings.get("SLURM_VERSION", ""),
            max(int(settings.get("MaxArraySize", "1001")), 1),
            settings,
        )


def slurm(command: Sequence[str], timeout: float = TIMEOUT) -> str:
    """Standard output of one of SLURM's commands. Raises SlurmMissing, and SlurmError with what it complained of."""
    try:
        done = subprocess.run(
            list(command), env=environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise SlurmMissing(
            f"{command[0]} is not installed here; --cluster slurm needs SLURM's commands (a login node of the cluster)"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} did not answer: {error}") from error
    if "Could not establish a configuration source" in done.stderr:
        raise SlurmMissing(f"{command[0]} finds no cluster: SLURM is installed here, and not set up (SLURM_CONF)")
    if done.returncode:
        raise SlurmError(f"{command[0]}: {complaint(done.stderr or done.stdout)}")
    return done.stdout


def pairs(line: str) -> dict[str, str]:
    """The fields of a line of `scontrol --oneliner`."""
    return dict(field.partition("=")[::2] for field in line.split() if "=" in field)


def job_facts(job: str, timeout: float = 5.0) -> dict[str, str]:
    """What the controller says of a job; nothing if it does not answer soon: a checkpoint must not wait for it."""
    try:
        return pairs(slurm(["scontrol", "--oneliner", "show", "job", job], timeout=timeout))
    except SlurmError:
        return {}


def end_time(facts: Mapping[str, str]) -> float | None:
    """When the time limit ends a job, in seconds since 1970; None if it has no end, or the controller does not say."""
    try:
        return datetime.fromisoformat(facts["EndTime"]).timestamp()
    except (LookupError, ValueError):
        return None


def requeue(job: str) -> None:
    """Put a running job back into the queue. Raises SlurmError."""
    slurm(["scontrol", "requeue", job], timeout=30.0)


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs by their ids. Raises SlurmError."""
    for begin in range(0, len(jobs), 500):
        slurm(["scancel", *jobs[begin : begin + 500]])


def sbatch(script: Path) -> str:
    """Submit a batch script; SLURM's id of the job. Raises SlurmError if SLURM did not say that it took it."""
    printed = slurm(["sbatch", str(script)], timeout=SBATCH_SECONDS)
    match = re.search(r"job ([0-9]+)", printed)
    if match is None:
        raise SlurmError(f"sbatch: it printed {printed.strip()!r}, and no job id")
    return match[1]


def complaint(text: str) -> str:
    """The first thing that a command of SLURM complained of, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^\w+: (error|fatal): ", "", lines[0]) if lines else "it failed without a word"


def environment() -> dict[str, str]:
    """The environment for SLURM's commands: that of this process, without what a surrounding job put there.

    A submission from inside a job would otherwise inherit that job's resources. Settings for clients stay.
    """
    keep = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_TIME_FORMAT", "SLURM_CLUSTERS")
    inherited = {k: v for k, v in os.environ.items() if k in keep or not k.startswith(("SLURM_", "SRUN_", "SUBMITIT_"))}
    # Times are compared as text and parsed: the same form everywhere.
    return inherited | {"SLURM_TIME_FORMAT": "standard"}


def _parse_line(line: str) -> QueuedJob:
    ends = accumulate(width for _, width in _COLUMNS)
    values = [line[end - width : end].strip() for end, (_, width) in zip(ends, _COLUMNS, strict=True)]
    identity, raw, state, restarts, name, reason, node, started, left, script = values
    return QueuedJob(
        identity, raw, state, reason if reason not in ("", "None") else None, name, node or None,
        int(restarts) if restarts.isdigit() else 0, started if started not in ("", "N/A") else None,
        duration_seconds(left), script,
    )  # fmt: skip


def duration_seconds(text: str) -> float | None:
    """Seconds in SLURM's form, such as 1-02:03:04 or 10:00."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(digits or 0) for digits in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _remembered(wanted: set[str]) -> dict[str, Ending]:
    """Endings that the controller still has in memory (MinJobAge)."""
    try:
        text = slurm(["scontrol", "--oneliner", "show", "job"])
    except SlurmMissing:
        raise
    except SlurmError:
        return {}
    ended = []
    for facts in map(pairs, text.splitlines()):
        identity = facts.get("JobId", "")
        if "ArrayJobId" in facts and facts.get("ArrayTaskId", "").isdigit():
            identity = f"{facts['ArrayJobId']}_{facts['ArrayTaskId']}"
        ended.append((identity, facts.get("JobState", ""), facts.get("ExitCode", "0:0")))
    return _endings(ended, wanted)


def _accounted(wanted: set[str]) -> dict[str, Ending]:
    """Endings from the accounting database; nothing where there is none."""
    ended: list[tuple[str, str, str]] = []
    arrays = sorted({identity.partition("_")[0] for identity in wanted}, key=int)
    command = ["sacct", "--noheader", "--parsable2", "--format=JobID,State,ExitCode", "--jobs"]
    with suppress(SlurmError):
        for begin in range(0, len(arrays), 200):
            text = slurm([*command, ",".join(arrays[begin : begin + 200])])
            for identity, state, code, *_ in (line.split("|") for line in text.splitlines()):
                # CANCELLED by 1000
                ended.append((identity, state.partition(" ")[0], code))
    return _endings(ended, wanted)


def _endings(ended: Iterable[tuple[str, str, str]], wanted: set[str]) -> dict[str, Ending]:
    """Of identity, state and `exit code:signal` of jobs the wanted ones that are gone."""
    endings = {}
    for identity, state, code in ended:
        if identity in wanted and state in GONE_STATES:
            number, _, signal = code.partition(":")
            endings[identity] = Ending(
                state, int(number) if number.isdigit() else 0, int(signal) if signal.isdigit() else 0
            )
    return endings
