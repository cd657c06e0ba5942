"""Handing a plan to SLURM: what is left and not under way, ledger first, then one sbatch for each array."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from results import Store, UsageError
from sweeps.backends.policy import Failures, grown, unwritable
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import attempts_at, living
from sweeps.record.code_snapshot import CodeSnapshot, take_snapshot
from sweeps.record.dependencies import blocking
from sweeps.record.ledger import Submission, new_submission, open_submission
from sweeps.record.slurm_client import Cluster, Queue, QueuedJob, SlurmError, SlurmMissing, complaint, slurm

from .arrays import Array, arrange
from .batch import array_executor
from .entries import ArrayEntry, add_entry, close, content, elements, entries, lost_job, open_submissions
from .job import command
from .settling import settle_unbegun, settle_vanished
from .turn import Turn
from .untaken import Untaken, note_untaken

Say = Callable[[str], None]

MANY = 50
"""From so many jobs on the controller is asked how many more it takes (MaxJobCount)."""
_NO_ROOM = re.compile(
    r"job submit limit|MaxSubmit|GrpSubmit|Invalid job array specification|MaxArraySize", re.IGNORECASE
)
"""Refusals that end when other jobs do, or when an array is smaller. Not those of a job that asks for more than its
account may ever have, such as QOSMaxWallDurationPerJobLimit."""
_FULL = re.compile(r"temporarily unable|Resource temporarily", re.IGNORECASE)
"""The controller has no room at all; sbatch has then waited for a while already."""


@dataclass
class Submitted:
    """What a submission did.

    submission  its entry in the ledger; None if nothing was submitted
    queued      jobs submitted, in `arrays` arrays
    under_way   runs that were in the queue, or run elsewhere, before
    blocked     runs that wait for a tokenizer that will not come, with the reason
    exhausted   failed runs that only `retry` tries again, with the last cause
    refused     runs that SLURM did not take, with its reason
    waiting     runs that the cluster has no room for yet, with its reason; the next submit goes on with them
    """

    before: int = 0
    submission: Submission | None = None
    queued: int = 0
    arrays: int = 0
    under_way: int = 0
    blocked: dict[str, str] = field(default_factory=dict)
    exhausted: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


def submit(
    plan: Plan,
    root: Path,
    *,
    only: set[str] | None = None,
    retry: bool = False,
    jobs: int | None = None,
    worker: Sequence[str] = (),
    queue: Queue | None = None,
    check: Callable[[Sequence[PlannedRun]], None] = lambda runs: None,
    say: Say = lambda line: None,
) -> Submitted:
    """Submit what is left of a plan and not under way already, in this or another study. Twice does nothing.

    only    ids of the runs to submit; None for all
    retry   failures count anew
    jobs    most elements of an array at a time; None for no cap
    worker  the command of a worker; () for ours
    check   called with what is to be submitted, before anything is written

    Raises SlurmMissing, SlurmError if SLURM does not answer, StoreError if the root cannot be written, and what
    `check` raises.
    """
    root, queue = root.absolute(), queue or Queue()
    if shutil.which("sbatch") is None:
        raise SlurmMissing(
            "sbatch is not installed here; --cluster slurm needs SLURM's commands (a login node of the cluster)"
        )
    queue.read(0)
    with Turn(root, say) as turn:
        return _Submitter(plan, root, queue, turn, say).submit(only, retry, jobs, tuple(worker), check)


class _Submitter:
    """One submission, while it has the turn."""

    def __init__(self, plan: Plan, root: Path, queue: Queue, turn: Turn, say: Say) -> None:
        self.plan, self.root, self.queue, self.turn, self.say = plan, root, queue, turn, say
        self.store = Store(root)
        self.report = Submitted()
        self.jobs: dict[str, str] = {}
        """SLURM's id of the element of each run that is in the queue."""

    def submit(
        self,
        only: set[str] | None,
        retry: bool,
        jobs: int | None,
        worker: tuple[str, ...],
        check: Callable[[Sequence[PlannedRun]], None],
    ) -> Submitted:
        results = self.store.results(self.plan.by_id)
        self.report.before = len(results)
        left = {run_id: run for run_id, run in self.plan.by_id.items() if run_id not in results}
        if not left:
            return self.report
        self._reconcile(left)
        limits = self.plan.study.limits
        failures = Failures(self.root, left, limits.retries)
        states = {run_id: found.status for run_id, found in results.items()}
        chosen, waits = self._choose(left, states, only, None if retry else failures)
        self.report.under_way = len(left.keys() & self.jobs.keys())
        if not chosen:
            return self.report
        check(chosen)
        cluster = Cluster.read()
        shapes = {
            run.run_id: grown(run.resources, run.spec, failures.of(run.run_id), limits.out_of_memory_growth)
            for run in chosen
        }
        arrays = arrange(chosen, shapes, waits, cluster.max_array)
        study = Path(self.plan.study.source)
        snapshot = take_snapshot(
            self.root, study if study.is_file() else None, {run.spec.trainer for run in chosen if run.spec.trainer}
        )
        submission = new_submission(
            self.plan.study.name, jobs or 0, cluster="slurm", snapshot=snapshot.name, retry=retry,
            retries=limits.retries, worker=worker,
        )  # fmt: skip
        order = {run.run_id: number for number, run in enumerate(chosen)}
        files = {f"arrays/{array.number}/array.json": content(array, order) for array in arrays}
        open_submission(self.root, submission, [run.spec for run in chosen], files)
        self.report.submission = submission
        note_untaken(self.root, order, {})
        self._hand_over(submission, snapshot, arrays, order, _room(cluster) if len(chosen) >= MANY else None)
        note_untaken(self.root, order, self._untaken())
        return self.report

    def _untaken(self) -> dict[str, Untaken]:
        """What `status` is to tell of the runs that are not in the queue now."""
        reasons = {run_id: (why, False) for run_id, why in self.report.waiting.items()}
        reasons |= {run_id: (why, True) for run_id, why in self.report.refused.items()}
        newest = {run_id: next((one.number for one in attempts_at(self.root, run_id)), 0) for run_id in reasons}
        return {run_id: Untaken(why, refused, newest[run_id]) for run_id, (why, refused) in reasons.items()}

    # --- what is under way --------------------------------------------------------------------------------------------

    def _reconcile(self, left: Mapping[str, PlannedRun]) -> None:
        """Find out which runs are in the queue, write down what dead submitters could not, settle what ended."""
        jobs = self.queue.read(0)
        known: list[ArrayEntry] = []
        for submission in list(open_submissions(self.root)):
            found = False
            for entry in entries(self.root, submission):
                if entry.abandoned:
                    continue
                if entry.job is None:
                    # Nobody else submits during this turn: without a job by now, its submitter died before sbatch.
                    job = lost_job(entry, jobs)
                    if job is None:
                        entry.abandon()
                        continue
                    entry.record_job(job)
                    self.say(f"found job {job}, which a submitter that died had submitted as {submission.id}")
                self._drop_stranded(entry, jobs)
                here = elements(entry, jobs)
                known.append(entry)
                found |= bool(here)
                self.jobs |= {run_id: job.id for run_id, job in here.items()}
            if not found:
                close(self.root, submission)
        specs = {run_id: run.spec for run_id, run in left.items() if run_id not in self.jobs}
        settle_vanished(self.root, specs, self.queue)
        settle_unbegun(self.root, specs, known, self.queue)

    def _drop_stranded(self, entry: ArrayEntry, jobs: Mapping[str, QueuedJob]) -> None:
        """Cancel elements that wait for ever; their runs are submitted again, if they have no result by now."""
        found = [job.id for index, _ in enumerate(entry.array.members) if (job := jobs.get(entry.element(index)))]
        stranded = [identity for identity in found if jobs[identity].stranded]
        if stranded:
            self.say(f"cancelling {len(stranded)} jobs that wait for ever: {jobs[stranded[0]].reason}")
            slurm(["scancel", *stranded])

    # --- what is to be submitted --------------------------------------------------------------------------------------

    def _choose(
        self,
        left: Mapping[str, PlannedRun],
        results: Mapping[str, str],
        only: set[str] | None,
        failures: Failures | None,
    ) -> tuple[list[PlannedRun], dict[str, str | None]]:
        """The runs to submit, in the order of the plan, and the tokenizer that each must wait for.

        `failures` are those that count; None if none does.
        """
        elsewhere = {
            run_id
            for run_id, attempt in living(self.root, left.keys() - self.jobs.keys()).items()
            if (claim := attempt.claim) is not None and claim.job is None
        }
        chosen: list[PlannedRun] = []
        waits: dict[str, str | None] = {}
        for run_id, run in left.items():
            if run_id in self.jobs or (only is not None and run_id not in only):
                continue
            if run_id in elsewhere:
                self.report.under_way += 1
                self.jobs.setdefault(run_id, "")
                continue
            reason = self._exhausted(run_id, failures) if failures is not None else None
            if reason is not None:
                self.report.exhausted[run_id] = reason
                continue
            parent = run.parent
            reason = self._missing_parent(run, results, waits) if parent else None
            if reason is not None:
                self.report.blocked[run_id] = reason
                continue
            chosen.append(run)
            waits[run_id] = parent if parent in left else None
        return chosen, waits

    def _exhausted(self, run_id: str, failures: Failures) -> str | None:
        cause = failures.exhausted(run_id)
        if cause is None and unwritable(self.root, run_id, failures.retries):
            return "storage"
        return cause

    def _missing_parent(
        self, run: PlannedRun, results: Mapping[str, str], waits: Mapping[str, str | None]
    ) -> str | None:
        """Why the tokenizer of a run will not be there; None if it is or will be."""
        parent = run.parent
        assert parent is not None
        if parent in waits or self.jobs.get(parent):
            return None
        if parent in results or parent not in self.plan.by_id:
            return blocking(self.store, run.spec)
        label = self.plan.by_id[parent].label
        if parent in self.jobs:
            return f"its tokenizer {label} is being trained outside of SLURM; submit again when it is done"
        if parent in self.report.exhausted:
            return f"its tokenizer {label} failed ({self.report.exhausted[parent]})"
        return f"its tokenizer {label} is not done"

    # --- sbatch -------------------------------------------------------------------------------------------------------

    def _hand_over(
        self,
        submission: Submission,
        snapshot: CodeSnapshot,
        arrays: Sequence[Array],
        order: Mapping[str, int],
        room: int | None,
    ) -> None:
        """Submit the arrays, every tokenizer before its generators; `room` is for so many jobs, None if not known."""
        left = list(arrays)
        number = len(left)
        full: str | None = None
        """Why the cluster takes nothing more."""
        while left:
            array = left.pop(0)
            entry = ArrayEntry(submission.folder(self.root) / "arrays" / str(array.number))
            parent = array.parent
            if full is not None or parent in self.report.waiting:
                self._set_aside(entry, array, full or "its tokenizer waits for room")
                continue
            if parent is not None and not self.jobs.get(parent):
                reason = self.report.refused.get(parent, "its tokenizer was not submitted")
                self._refuse(entry, array, f"its tokenizer was not taken: {reason}")
                continue
            if room is not None and room < len(array.members):
                if room <= 0:
                    full = "MaxJobCount"
                    self.say(f"the cluster takes no more jobs now ({full})")
                    self._set_aside(entry, array, full)
                else:
                    left[:0] = self._split(submission, array, number, order, room)
                    number += 1
                continue
            self.turn.check()
            try:
                job = self._sbatch(submission, snapshot, entry, array)
            except SlurmError as error:
                overloaded = _FULL.search(str(error)) is not None
                if not overloaded and _NO_ROOM.search(str(error)) is None:
                    self._refuse(entry, array, str(error))
                elif not overloaded and len(array.members) > 1:
                    # Half of it may fit; the rest waits for the next submit.
                    left[:0] = self._split(submission, array, number, order, (len(array.members) + 1) // 2)
                    number += 1
                else:
                    self.say(f"the cluster takes no more jobs now: {error}")
                    full = str(error)
                    self._set_aside(entry, array, full)
                continue
            job = entry.record_job(job)
            room = None if room is None else room - len(array.members)
            self.report.arrays += 1
            self.report.queued += len(array.members)
            self.jobs |= {run_id: f"{job}_{index}" for index, run_id in enumerate(array.members)}

    def _split(
        self, submission: Submission, array: Array, number: int, order: Mapping[str, int], size: int
    ) -> tuple[Array, Array]:
        """Enter an array as two, of which the first has `size` elements and the second the given number."""
        first, second = array.split(size, number)
        for part in (second, first):
            add_entry(submission.folder(self.root), part, order)
        return first, second

    def _set_aside(self, entry: ArrayEntry, array: Array, reason: str) -> None:
        self.report.waiting |= dict.fromkeys(array.members, reason)
        entry.abandon()

    def _refuse(self, entry: ArrayEntry, array: Array, reason: str) -> None:
        self.report.refused |= dict.fromkeys(array.members, reason)
        entry.abandon()

    def _sbatch(self, submission: Submission, snapshot: CodeSnapshot, entry: ArrayEntry, array: Array) -> str:
        """Submit an array; SLURM's id. Raises SlurmError if SLURM did not take it."""
        executor = array_executor(submission, snapshot, entry, array, self._dependency(array))
        try:
            return executor.submit_array_of(command(self.root, submission, array.number), len(array.members))
        except (RuntimeError, OSError) as error:
            # sbatch may have failed after SLURM took the job: an answer that was lost, a time-out.
            text = complaint(str(error))
            try:
                job = lost_job(entry, self.queue.read(0))
            except SlurmError as silent:
                raise SlurmError(f"sbatch: {text}") from silent
            if job is None:
                raise SlurmError(f"sbatch: {text}") from error
            return job

    def _dependency(self, array: Array) -> str | None:
        if array.parent is None or array.parent in self.store.finished():
            # It may have finished since this submission began; SLURM forgets jobs after some minutes.
            return None
        return f"afterok:{self.jobs[array.parent]}"


def _room(cluster: Cluster) -> int | None:
    """How many jobs more the controller takes: it counts all users' jobs, also those that ended a few minutes ago."""
    try:
        most = int(cluster.settings.get("MaxJobCount", ""))
        known = slurm(["squeue", "--noheader", "--array", "--all", "--states=all", "--format=%i"]).count("\n")
    except (ValueError, SlurmError):
        return None
    # It takes an array only if one more job would fit.
    return most - known - 1


def check_submission(plan: Plan, root: Path, over_limit: bool, jobs: int | None) -> None:
    """What can be wrong before anything is looked at. Raises UsageError."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs = {jobs} is not allowed; allowed: 1 or more")
    if not over_limit:
        plan.check_limits(Store(root).results(plan.by_id))


def cancel(study: str, root: Path) -> int:
    """Cancel the jobs of all submissions of a study by their ids; how many were in the queue.

    Does nothing, also without SLURM, where nothing of the study is open. Raises SlurmError, StoreError.
    """
    root = root.absolute()
    if not any(open_submissions(root, study)):
        return 0
    queue = Queue()
    with Turn(root):
        jobs = queue.read(0)
        found: list[str] = []
        for submission in list(open_submissions(root, study)):
            for entry in entries(root, submission):
                job = entry.job or lost_job(entry, jobs)
                elements_here = (f"{job}_{index}" for index in range(len(entry.array.members)))
                found += [element for element in elements_here if element in jobs]
        for begin in range(0, len(found), 500):
            slurm(["scancel", *found[begin : begin + 500]])
    return len(found)
