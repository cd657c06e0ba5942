"""What a job of SLURM executes: it starts the workers of its runs, and does what the cause of their ends asks for.

    python -P -m sweeps.backends.slurm.pack_job ROOT SUBMISSION ARRAY        in an element of that array

The job gets paths alone. It finds its runs in the ledger by its index: one, or a pack of them, which it executes one
after the other, or so many side by side as their resources say. For each it starts one worker a task with srun, and
waits. SLURM sends its warnings (USR2 before the time limit and before a preemption) to the workers, which save and
stop; then nothing more is begun, the job requeues itself, keeps its place in the array and so its dependents, and goes
on with what is left. A worker that is killed is begun again here. It prints to the job's log; the workers write the
logs of their attempts.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from results import Store, TokenlawError
from sweeps.backends.policy import progressed, stuck
from sweeps.record import artifacts, failure_causes
from sweeps.record.attempts import STALE_SECONDS, Attempt, attempts_at, newest_attempt
from sweeps.record.endings import record_death, settle
from sweeps.record.ledger import Submission, load_submission
from sweeps.record.outcome import EXIT_CODES, Outcome
from sweeps.record.slurm_client import SlurmError, end_time, job_facts, requeue
from sweeps.study.external_run import AnyRun
from sweeps.worker.log import say
from sweeps.worker.process import awaited, start_worker

from .entries import ArrayEntry
from .script import grace_seconds, megabytes

DIVERGED = 79
"""Exit code of a job whose tokenizer diverged: what waits for it must not start."""
TAKEN_SECONDS = STALE_SECONDS + 30.0
"""How long a job waits for another process at its run, which may be dead without anybody knowing."""
UNBEGUN_SECONDS = (2.0, 5.0, 15.0)
"""Pauses before workers that could not be started are started again, such as while the controller restarts."""
LAST_SECONDS = 45.0
"""So long before the time limit, or a quarter of it, a job ends workers that did not react to the warning, to be able
to requeue itself. SLURM gives them half a minute (KillWait) between TERM and KILL."""


class PackJob:
    """One element of an array, from its start to its end or its requeueing."""

    def __init__(self, root: Path, submission: Submission, entry: ArrayEntry, index: int, job_id: str) -> None:
        self.root, self.submission, self.id = root, submission, job_id
        self.store = Store(root)
        self.specs = entry.runs(index)
        self.resources = entry.array.resources
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.where = f"job {job_id}, start {self.restarts + 1}, on {os.environ.get('SLURMD_NODENAME', '')}"
        self.terminated = False
        self.paused = False
        """Whether no further run is begun: the job is being stopped, or its time is nearly up."""

    def perform(self) -> int:
        """Bring the runs to their end; the exit code of the job. Raises TokenlawError."""
        signal.signal(signal.SIGTERM, self._on_term)
        if len(self.specs) > 1:
            say(f"{len(self.specs)} runs, {self.resources.pack_parallel} at a time, {self.where}")
        with ThreadPoolExecutor(self.resources.pack_parallel) as pool:
            waiting = [pool.submit(self._bring_to_end, spec) for spec in self.specs]
            # With a time-out, so that signals are handled meanwhile.
            while not all(future.done() for future in waiting):
                time.sleep(0.1)
            return self._end([future.result() for future in waiting])

    def ours(self) -> bool:
        """Whether the job still runs here, as far as the controller says."""
        facts = job_facts(self.id)
        return int(facts.get("Restarts", self.restarts)) == self.restarts

    def time_limit(self) -> float:
        """When the time limit ends this job, in seconds since 1970; infinite if there is none."""
        return end_time(job_facts(self.id, timeout=3.0)) or math.inf

    def _bring_to_end(self, spec: AnyRun) -> Outcome:
        """Execute one run of the pack, unless it has ended before, or nothing more is to be begun."""
        if len(self.specs) > 1:
            if (ended := self._ended_before(spec)) is not None:
                return ended
            # The warning comes once: what begins after it would not be told to save.
            grace = grace_seconds(math.ceil(self.resources.hours * 60))
            self.paused |= time.time() > self.time_limit() - grace
        if self.terminated or self.paused:
            message = "not begun before the job was stopped"
            return Outcome(spec.run_id, "interrupted", cause="preempted", message=message)
        say(f"{spec.stage} {spec.label} ({spec.run_id}), {self.where}")
        outcome = PackedRun(self, spec).perform()
        self.paused |= outcome.result == "interrupted"
        return outcome

    def _ended_before(self, spec: AnyRun) -> Outcome | None:
        """How a run of the pack ended in an earlier start of this job; None if it is to be executed.

        One that failed there is the policy's, which counts, and not begun again by chance.
        """
        run_id = spec.run_id
        if run_id in self.store.finished() and artifacts.folder(self.root, run_id).is_dir():
            return Outcome(run_id, "done")
        newest = newest_attempt(self.root, run_id)
        claim, beat = (newest.claim, newest.heartbeat) if newest is not None else (None, None)
        if newest is None or claim is None or beat is None or claim.job != self.id or beat.state != "failed":
            return None
        return Outcome(run_id, "failed", newest.number, beat.cause, beat.message)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, outcomes: Sequence[Outcome]) -> int:
        """Requeue the job, or end it with the exit code that its dependents need."""
        interrupted = [outcome for outcome in outcomes if outcome.result == "interrupted"]
        cause = self._again(interrupted) if interrupted else None
        left = [outcome for outcome in interrupted if cause != "timeout" or not self._recorded_as_stuck(outcome)]
        if left:
            if cause is not None:
                self._requeue()
            return EXIT_CODES["interrupted"]
        outcomes = [o if o.result != "interrupted" else Outcome(o.run_id, "failed") for o in outcomes]
        codes = [self._exit_code(outcome) for outcome in outcomes]
        # What waits for a pack begins if any of it is done; what waits for the others sees that, and is blocked.
        return 0 if 0 in codes else codes[0]

    def _exit_code(self, outcome: Outcome) -> int:
        stored = self.store.results([outcome.run_id]).get(outcome.run_id) if outcome.result == "done" else None
        if outcome.result == "diverged" or (stored is not None and stored.status == "diverged"):
            return DIVERGED
        return EXIT_CODES[outcome.result]

    def _again(self, interrupted: Sequence[Outcome]) -> str | None:
        """Why the job is to be requeued; None if it is not, because somebody cancelled it or SLURM requeues it."""
        facts = job_facts(self.id, timeout=3.0)
        state = facts.get("JobState")
        if self.terminated:
            say(f"SLURM has ended this job: {state or 'it does not say why'}")
        if int(facts.get("Restarts", self.restarts)) != self.restarts:
            return None
        if state == "TIMEOUT":
            return "timeout"
        causes = [outcome.cause for outcome in interrupted]
        if self.terminated or state not in ("RUNNING", None) or "interrupted" in causes:
            return None
        return "timeout" if "timeout" in causes else causes[0]

    def _recorded_as_stuck(self, outcome: Outcome) -> bool:
        """Whether one more start of a run would get no further; then that is recorded as a failure."""
        attempts = attempts_at(self.root, outcome.run_id)
        if outcome.attempt is None or not attempts or not stuck(attempts, self.submission.retries):
            return False
        message = (
            f"no progress in {progressed(attempts)} starts of {self.resources.hours:g} h each; it needs more hours, or "
            "checkpoints more often"
        )
        spec = next(spec for spec in self.specs if spec.run_id == outcome.run_id)
        record_death(self.root, spec, attempts[0], "timeout", message)
        say(f"failed: {message}")
        return True

    def _requeue(self) -> None:
        """Put this job back into the queue, if SLURM does so; it ends here."""
        try:
            requeue(self.id)
        except SlurmError as error:
            say(f"cannot requeue: {error}; the next `tokenlaw submit` goes on with what is left")
            return
        say("requeued")
        # SLURM ends this process; if it ended earlier it might be taken for completed.
        awaited(lambda: self.terminated, 30)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True


class PackedRun:
    """One run of a job."""

    def __init__(self, job: PackJob, spec: AnyRun) -> None:
        self.job, self.spec = job, spec
        self.time_is_up = False

    def perform(self) -> Outcome:
        """Start its workers, again if they were killed or could not begin, until it has ended for this job."""
        patience = time.monotonic() + TAKEN_SECONDS
        killed = unbegun = 0
        while True:
            outcome = self._attempt(last=unbegun >= len(UNBEGUN_SECONDS))
            say(f"{outcome.result}: {outcome.message or outcome.cause or ''}".rstrip(": "))
            if outcome.result == "taken" and time.monotonic() < patience:
                time.sleep(2)
            elif outcome.result == "failed" and outcome.attempt is None and unbegun < len(UNBEGUN_SECONDS):
                time.sleep(UNBEGUN_SECONDS[unbegun])
                unbegun += 1
            elif outcome.cause == "killed" and killed < self.job.submission.retries:
                killed += 1
            else:
                return outcome
            # A node that was held for lost may come back with this process: by then the job runs elsewhere.
            if self.job.terminated or not self.job.ours():
                return outcome

    def _attempt(self, *, last: bool) -> Outcome:
        """Start the workers and wait for them; `last`: that they could not begin is recorded."""
        job = self.job
        process = start_worker(
            job.root, job.submission, self.spec, ["--job", job.id],
            microbatch=job.resources.microbatch, recompute=job.resources.recompute_activations, step=self._step(),
        )  # fmt: skip
        printed = self._listen(process)
        return Outcome.parse(printed) or self._post_mortem(process.returncode, printed, last)

    def _step(self) -> list[str]:
        """srun's part of the command line: one task a rank; of runs side by side each takes its own share alone."""
        resources = self.job.resources
        step = [
            "srun", "--unbuffered", "--kill-on-bad-exit=1", f"--nodes={resources.nodes}",
            f"--ntasks={resources.tasks}", f"--cpus-per-task={resources.cpus_per_task}",
        ]  # fmt: skip
        if resources.pack_parallel > 1:
            step.append("--exact")
            if resources.gpus_per_node:
                step.append(f"--gpus-per-node={resources.gpus_per_node}")
            # Without a share of its own a step takes all memory of the job, and the others wait.
            step.append(f"--mem={megabytes(resources.memory_gb)}" if resources.memory_gb is not None else "--overlap")
        return step

    def _listen(self, process: subprocess.Popen[str]) -> str:
        """What the workers print, until they have ended, or until the job's time is up.

        After a cancellation or a preemption they may take what time SLURM gives them.
        """
        end, last = self.job.time_limit(), min(LAST_SECONDS, self.job.resources.hours * 900)
        while True:
            try:
                printed, _ = process.communicate(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                if time.time() < end - last or self.time_is_up:
                    continue
                # It may have been extended since.
                end = self.job.time_limit()
                if time.time() > end - last:
                    self.time_is_up = True
                    # srun passes this on to the workers, and kills them some time later.
                    process.terminate()
        for line in printed.splitlines():
            if not line.startswith('{"outcome"'):
                print(line, flush=True)
        return printed

    def _post_mortem(self, code: int, printed: str, last: bool) -> Outcome:
        """The outcome of workers that ended without telling one."""
        job, run_id = self.job, self.spec.run_id
        if run_id in job.store.finished():
            return Outcome(run_id, "done")
        attempt = self._own_attempt()
        cause, message = failure_causes.of_exit(attempt.heartbeat if attempt else None, code, printed)
        if self.time_is_up:
            cause, message = "timeout", "the workers did not stop when they were warned of the time limit"
        elif job.terminated:
            # The attempt is left as it is: what ended the job tells the next submission what became of it.
            return Outcome(run_id, "interrupted", cause="interrupted", message="ended by SLURM")
        elif not job.ours():
            number = attempt.number if attempt else None
            return Outcome(run_id, "taken", number, message="this job runs elsewhere by now")
        elif attempt is None and not last:
            return Outcome(run_id, "failed", cause=cause, message=f"{message}, before it began")
        return settle(job.root, self.spec, attempt, cause, message, submission=job.submission.id, job=job.id)

    def _own_attempt(self) -> Attempt | None:
        """The newest attempt, if a worker of this job made it and it did not end in order."""
        newest = newest_attempt(self.job.root, self.spec.run_id)
        if newest is None or (claim := newest.claim) is None or claim.job != self.job.id:
            return None
        beat = newest.heartbeat
        return newest if beat is None or beat.state == "running" else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The job's process; its exit code is 0 if what waits for it may start."""
    try:
        folder, name, number = arguments or sys.argv[1:]
        array_job, index = os.environ["SLURM_ARRAY_JOB_ID"], int(os.environ["SLURM_ARRAY_TASK_ID"])
        root, submission = Path(folder), load_submission(Path(folder), name)
        entry = ArrayEntry(submission.folder(root) / "arrays" / number)
        if entry.record_job(array_job) != array_job or entry.abandoned:
            say("this array was submitted again by another job, for its submitter died; nothing to do")
            return EXIT_CODES["taken"]
        return PackJob(root, submission, entry, index, f"{array_job}_{index}").perform()
    except TokenlawError as error:
        say(f"error: {error}")
        return error.exit_code
    except (LookupError, ValueError) as error:
        print(f"error: this is no element of an array of SLURM: {error!r}", file=sys.stderr)
        return 2


def command(root: Path, submission: Submission, number: int) -> list[str]:
    """The command line of a job."""
    return [sys.executable, "-P", "-m", "sweeps.backends.slurm.pack_job", str(root), submission.id, str(number)]


if __name__ == "__main__":
    sys.exit(main())
