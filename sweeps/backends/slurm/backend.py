"""Runs as jobs of a SLURM cluster: what is left and not under way, ledger first, then one sbatch for each array."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from results import Store
from sweeps.backends.base import Request, Submitted
from sweeps.backends.policy import grown, progressed
from sweeps.backends.standing import Observe, SubmissionSummary
from sweeps.backends.submission import Remaining, check, enter, remaining
from sweeps.planning.plan import Plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.record import failure_causes, slurm_client
from sweeps.record.attempts import Attempt, Claim, attempts_at, living, newest_attempt
from sweeps.record.code_snapshot import load_snapshot
from sweeps.record.endings import last_line, record_death, record_unbegun, settle
from sweeps.record.ledger import Submission, Untaken, note_untaken
from sweeps.record.outcome import EXIT_CODES, Outcome
from sweeps.record.slurm_client import Cluster, Ending, Queue, QueuedJob, SlurmError, SlurmMissing, slurm
from sweeps.study.external_run import AnyRun

from .arrays import arrange
from .entries import ArrayEntry, close, content, elements, entries, lost_job, open_submissions
from .pack_job import command
from .script import write_script
from .turn import Turn
from .waiting import Waiter

MANY = 50
"""From so many jobs on the controller is asked how many more it takes (MaxJobCount)."""
REFUSED = "refused by SLURM: "
OWN_ENDINGS = (EXIT_CODES["interrupted"], EXIT_CODES["taken"], EXIT_CODES["blocked"])
"""Exit codes with which a job says that its run did not fail."""
_NO_ROOM = re.compile(
    r"job submit limit|MaxSubmit|GrpSubmit|Invalid job array specification|MaxArraySize", re.IGNORECASE
)
"""Refusals that end when other jobs do, or when an array is smaller. Not those of a job that asks for more than its
account may ever have, such as QOSMaxWallDurationPerJobLimit."""
_FULL = re.compile(r"temporarily unable|Resource temporarily", re.IGNORECASE)
"""The controller has no room at all; sbatch has then waited for a while already."""


class SlurmBackend:
    """Jobs of the cluster whose login node this is."""

    name = "slurm"

    def submit(self, request: Request) -> Submitted:
        """Submit what is left and not under way already, in this or another study.

        Raises SlurmMissing, SlurmError if SLURM does not answer, and what every submission raises.
        """
        request = replace(request, root=request.root.absolute())
        check(request)
        if shutil.which("sbatch") is None:
            raise SlurmMissing(
                "sbatch is not installed here; --cluster slurm needs SLURM's commands (a login node of the cluster)"
            )
        queue = Queue()
        queue.read(0)
        with Turn(request.root, request.say) as turn:
            return _Submitter(request, queue, turn).submit()

    def watch(self, request: Request, submitted: Submitted, observe: Observe) -> SubmissionSummary:
        """Stay until nothing is under way, submitting again what the policy allows. Leaving early stops nothing."""
        again = replace(request, retry=False, over_limit=True)
        return Waiter(request, lambda: self.submit(again), observe).wait(submitted)

    def cancel(self, plan: Plan, root: Path) -> str:
        """Cancel the jobs of all submissions of a study by their ids.

        Does nothing, also without SLURM, where nothing of the study is open. Raises SlurmError, StoreError.
        """
        root, study = root.absolute(), plan.study.name
        if not any(open_submissions(root, study)):
            return ""
        with Turn(root):
            jobs = Queue().read(0)
            left: list[str] = []
            for submission in list(open_submissions(root, study)):
                for entry in entries(root, submission):
                    left += [job.id for job in entry.in_queue(jobs).values()]
            slurm_client.cancel(left)
        return f"cancelled {len(left)} jobs of SLURM, which save and stop" if left else ""


class _Submitter:
    """One submission, while it has the turn."""

    def __init__(self, request: Request, queue: Queue, turn: Turn) -> None:
        self.request, self.plan, self.root = request, request.plan, request.root
        self.queue, self.turn = queue, turn
        self.report = Submitted()
        self.jobs: dict[str, str] = {}
        """SLURM's id of the job of each run that is in the queue."""

    def submit(self) -> Submitted:
        """Reconcile the ledger with the queue, and submit what is left."""
        finished = Store(self.root).finished()
        unfinished = {run_id: run for run_id, run in self.plan.by_id.items() if run_id not in finished}
        self.report.before = len(self.plan.runs) - len(unfinished)
        if not unfinished:
            return self.report
        self._reconcile(unfinished)
        elsewhere = {
            run_id
            for run_id, attempt in living(self.root, unfinished.keys() - self.jobs.keys()).items()
            if (claim := attempt.claim) is not None and claim.job is None
        }
        left = remaining(self.request, self.jobs.keys() | elsewhere, elsewhere, unattended=True)
        self.report.aside = left.aside
        self.report.under_way = len(unfinished.keys() & (self.jobs.keys() | elsewhere))
        if left.ready:
            self._submit(left)
        return self.report

    def _submit(self, left: Remaining) -> None:
        """Enter what is ready into the ledger, and hand it to SLURM."""
        chosen = [self.plan.by_id[run_id] for run_id in left.ready]
        cluster = Cluster.read()
        growth = self.plan.study.limits.out_of_memory_growth
        shapes = {run.run_id: grown(run.resources, run.spec, left.failures.of(run.run_id), growth) for run in chosen}
        arrays = arrange(chosen, shapes, left.ready, cluster.max_array, self.jobs)
        files = {f"arrays/{array.number}/array.json": content(array) for array in arrays}
        submission = self.report.submission = enter(self.request, SlurmBackend.name, chosen, chosen, files)
        note_untaken(self.root, left.ready, {})
        room = _room(cluster) if sum(array.jobs for array in arrays) >= MANY else None
        self._hand_over(submission, room)
        note_untaken(self.root, left.ready, self._untaken())

    def _untaken(self) -> dict[str, Untaken]:
        """What `status` is to tell of the runs that are not in the queue now."""
        reasons = {run_id: (why, False) for run_id, why in self.report.waiting.items()}
        refused = [outcome for outcome in self.report.aside.values() if outcome.cause == "refused"]
        reasons |= {outcome.run_id: ((outcome.message or "").removeprefix(REFUSED), True) for outcome in refused}
        newest = {run_id: next((a.number for a in attempts_at(self.root, run_id)), 0) for run_id in reasons}
        return {run_id: Untaken(why, refused, newest[run_id]) for run_id, (why, refused) in reasons.items()}

    # --- what is under way --------------------------------------------------------------------------------------------

    def _reconcile(self, left: Mapping[str, PlannedRun]) -> None:
        """Find out which runs are in the queue, write down what dead submitters could not, settle what ended."""
        jobs = self.queue.read(0)
        known: list[ArrayEntry] = []
        for submission in list(open_submissions(self.root)):
            in_queue = False
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
                    self.request.say(f"found job {job}, which a submitter that died had submitted as {submission.id}")
                self._drop_stranded(entry, jobs)
                queued = elements(entry, jobs)
                known.append(entry)
                in_queue |= bool(queued)
                self.jobs |= {run_id: job.id for run_id, job in queued.items()}
            if not in_queue:
                close(self.root, submission)
        specs = {run_id: run.spec for run_id, run in left.items() if run_id not in self.jobs}
        _settle_vanished(self.root, specs, self.queue)
        _settle_unbegun(self.root, specs, known, self.queue)

    def _drop_stranded(self, entry: ArrayEntry, jobs: Mapping[str, QueuedJob]) -> None:
        """Cancel elements that wait for ever; their runs are submitted again, if they have no result by now."""
        stranded = [job for job in entry.in_queue(jobs).values() if job.stranded]
        if stranded:
            self.request.say(f"cancelling {len(stranded)} jobs that wait for ever: {stranded[0].reason}")
            slurm_client.cancel([job.id for job in stranded])

    # --- sbatch -------------------------------------------------------------------------------------------------------

    def _hand_over(self, submission: Submission, room: int | None) -> None:
        """Submit the arrays, every tokenizer before its generators; `room` is for so many jobs, None if not known."""
        left = entries(self.root, submission)
        number = len(left)
        full: str | None = None
        """Why the cluster takes nothing more."""
        while left:
            entry = left.pop(0)
            array, parent = entry.array, entry.array.parent
            if full is not None or parent in self.report.waiting:
                self._set_aside(entry, full or "its tokenizer waits for room")
                continue
            if parent is not None and not self.jobs.get(parent):
                refused = self.report.aside.get(parent)
                reason = (refused.message if refused is not None else None) or "its tokenizer was not submitted"
                self._refuse(entry, f"its tokenizer was not taken: {reason.removeprefix(REFUSED)}")
                continue
            if room is not None and room < array.jobs:
                fitting, reason, told = room, "MaxJobCount", " (MaxJobCount)"
            else:
                self.turn.check()
                try:
                    job = entry.record_job(self._sbatch(submission, entry))
                except SlurmError as error:
                    reason, told = str(error), f": {error}"
                    if _FULL.search(reason) is not None:
                        fitting = 0
                    elif _NO_ROOM.search(reason) is not None:
                        # Half of it may fit; the rest waits for the next submit.
                        fitting = (array.jobs + 1) // 2 if array.jobs > 1 else 0
                    else:
                        self._refuse(entry, reason)
                        continue
                else:
                    room = None if room is None else room - array.jobs
                    self.report.arrays += 1
                    self.report.jobs += array.jobs
                    self.report.queued += len(array.members)
                    self.jobs |= {run_id: f"{job}_{index}" for index, pack in enumerate(array.packs) for run_id in pack}
                    continue
            if fitting > 0:
                left[:0] = entry.split(fitting, number)
                number += 1
            else:
                self.request.say(f"the cluster takes no more jobs now{told}")
                full = reason
                self._set_aside(entry, full)

    def _set_aside(self, entry: ArrayEntry, reason: str) -> None:
        self.report.waiting |= dict.fromkeys(entry.array.members, reason)
        entry.abandon()

    def _refuse(self, entry: ArrayEntry, reason: str) -> None:
        message = f"{REFUSED}{reason}"
        self.report.aside |= {
            run_id: Outcome(run_id, "failed", cause="refused", message=message) for run_id in entry.array.members
        }
        entry.abandon()

    def _sbatch(self, submission: Submission, entry: ArrayEntry) -> str:
        """Submit an array; SLURM's id. Raises SlurmError if SLURM did not take it."""
        line = command(self.root, submission, entry.array.number)
        snapshot = load_snapshot(self.root, submission.snapshot)
        script = write_script(submission, snapshot, entry, line, self._dependency(entry.array.parent))
        try:
            return slurm_client.sbatch(script)
        except SlurmError as error:
            # sbatch may have failed after SLURM took the job: an answer that was lost, a time-out.
            try:
                job = lost_job(entry, self.queue.read(0))
            except SlurmError as silent:
                raise error from silent
            if job is None:
                raise
            return job

    def _dependency(self, parent: str | None) -> str | None:
        if parent is None or parent in Store(self.root).finished():
            # It may have finished since this submission began; SLURM forgets jobs after some minutes.
            return None
        return f"afterok:{self.jobs[parent]}"


def _room(cluster: Cluster) -> int | None:
    """How many jobs more the controller takes: it counts all users' jobs, also those that ended a few minutes ago."""
    try:
        most = int(cluster.settings.get("MaxJobCount", ""))
        known = slurm(["squeue", "--noheader", "--array", "--all", "--states=all", "--format=%i"]).count("\n")
    except (ValueError, SlurmError):
        return None
    # It takes an array only if one more job would fit.
    return most - known - 1


def _settle_vanished(root: Path, runs: Mapping[str, AnyRun], queue: Queue) -> None:
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


def _settle_unbegun(root: Path, runs: Mapping[str, AnyRun], arrays: Iterable[ArrayEntry], queue: Queue) -> None:
    """Record the failure of jobs that ended before any worker of theirs began, such as on a node without our Python.

    `runs` are without a result and not in the queue. Raises StoreError, SlurmError.
    """
    jobs = queue.read()
    gone: dict[str, tuple[ArrayEntry, int, list[str]]] = {}
    for entry in arrays:
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
