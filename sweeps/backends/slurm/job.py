"""What a job of SLURM executes: it starts the workers of one run, and does what the cause of their end asks for.

    python -P -m sweeps.backends.slurm.job --root ROOT --submission ID --array NUMBER      in an element of the array

The job gets paths alone. It finds its run in the ledger by its index, starts one worker a task with srun, and waits.
SLURM sends its warnings (USR2 before the time limit and before a preemption) to the workers, which save and stop; then
the job requeues itself, keeps its place in the array and so its dependents, and resumes. A worker that is killed is
begun again here. It prints to the job's log; the workers write the logs of their attempts.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

from results import Store, TokenlawError
from sweeps.backends.policy import progressed
from sweeps.record import failure_causes
from sweeps.record.attempts import STALE_SECONDS, Attempt, attempts_at
from sweeps.record.code_snapshot import load_snapshot
from sweeps.record.ledger import Submission, load_submission
from sweeps.record.outcome import EXIT_CODES, Outcome
from sweeps.record.run_rows import record_death
from sweeps.record.slurm_client import SlurmError, slurm
from sweeps.study.external_run import AnyRun
from sweeps.worker.log import say
from sweeps.worker.process import WORKER, worker_environment

from .entries import ArrayEntry

DIVERGED = 79
"""Exit code of a job whose tokenizer diverged: what waits for it must not start."""
TAKEN_SECONDS = STALE_SECONDS + 30.0
"""How long a job waits for another process at its run, which may be dead without anybody knowing."""
UNBEGUN_SECONDS = (2.0, 5.0, 15.0)
"""Pauses before workers that could not be started are started again, such as while the controller restarts."""
LAST_SECONDS = 45.0
"""So long before the time limit, or a quarter of it, a job ends workers that did not react to the warning, to be able
to requeue itself. SLURM gives them half a minute (KillWait) between TERM and KILL."""
_NO_MEMORY = re.compile(r"exceeded memory limit|exceeded job memory limit|oom[_-]kill|OOM Killed|Out Of Memory", re.I)
"""What SLURM prints to the job's log when it, or the kernel, killed a step for lack of memory."""


class Job:
    """One element of an array, from its start to its end or its requeueing."""

    def __init__(self, root: Path, submission: Submission, entry: ArrayEntry, index: int, job_id: str) -> None:
        self.root, self.submission, self.entry, self.index, self.id = root, submission, entry, index, job_id
        self.store = Store(root)
        self.run: AnyRun = entry.run(index)
        self.resources = entry.array.resources
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.terminated = False
        self.time_is_up = False

    def perform(self) -> int:
        """Bring the run to its end; the exit code of the job. Raises TokenlawError."""
        signal.signal(signal.SIGTERM, self._on_term)
        say(
            f"{self.run.stage} {self.run.label} ({self.run.run_id}), job {self.id}, start {self.restarts + 1}, "
            f"on {os.environ.get('SLURMD_NODENAME', '')}"
        )
        patience = time.monotonic() + TAKEN_SECONDS
        killed = unbegun = 0
        while True:
            outcome = self._attempt()
            say(f"{outcome.result}: {outcome.message or outcome.cause or ''}".rstrip(": "))
            if outcome.result == "taken" and time.monotonic() < patience:
                time.sleep(2)
            elif outcome.result == "failed" and outcome.attempt is None and unbegun < len(UNBEGUN_SECONDS):
                time.sleep(UNBEGUN_SECONDS[unbegun])
                unbegun += 1
            elif outcome.cause == "killed" and killed < self.submission.retries:
                killed += 1
            else:
                return self._end(outcome)
            # A node that was held for lost may come back with this process: by then the job runs elsewhere.
            if self.terminated or not self._ours():
                return self._end(outcome)

    # --- one attempt --------------------------------------------------------------------------------------------------

    def _attempt(self) -> Outcome:
        """Start the workers and wait for them."""
        spec = self.submission.write_spec(self.root, self.run)
        options = ["--root", str(self.root), "--submission", self.submission.id, "--job", self.id]
        if self.resources.microbatch is not None:
            options += ["--microbatch", str(self.resources.microbatch)]
        step = [
            "srun", "--unbuffered", "--kill-on-bad-exit=1", f"--nodes={self.resources.nodes}",
            f"--ntasks={self.resources.tasks}", f"--cpus-per-task={self.resources.cpus_per_task}",
        ]  # fmt: skip
        snapshot = load_snapshot(self.root, self.submission.snapshot)
        begun = self._log_size()
        # The rank that leads prints one line at the end; everything before is passed on to the job's log.
        process = subprocess.Popen(
            [*step, *(self.submission.worker or WORKER), *options, str(spec)],
            env=worker_environment(self.run.threads),
            cwd=snapshot.trainer,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        printed = self._listen(process)
        return Outcome.parse(printed) or self._post_mortem(process.returncode, begun)

    def _listen(self, process: subprocess.Popen[str]) -> str:
        """What the workers print, until they have ended, or until the job's time is up.

        After a cancellation or a preemption they may take what time SLURM gives them.
        """
        end, last = self._end_time(), min(LAST_SECONDS, self.resources.hours * 900)
        while True:
            try:
                printed, _ = process.communicate(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                if time.time() < end - last or self.time_is_up:
                    continue
                # It may have been extended since.
                end = self._end_time()
                if time.time() > end - last:
                    self.time_is_up = True
                    # srun passes this on to the workers, and kills them some time later.
                    process.terminate()
        for line in printed.splitlines():
            if not line.startswith('{"outcome"'):
                print(line, flush=True)
        return printed

    def _post_mortem(self, code: int, begun: int) -> Outcome:
        """The outcome of workers that ended without telling one; the job's log had `begun` bytes when they began."""
        run_id = self.run.run_id
        if run_id in self.store.finished():
            return Outcome(run_id, "done")
        attempt = self._own_attempt()
        if self.time_is_up:
            message = "the workers did not stop when they were warned of the time limit"
            if attempt is not None:
                attempt.end("interrupted", cause="timeout", message=message)
            return Outcome(run_id, "interrupted", attempt.number if attempt else None, "timeout", message)
        if self.terminated:
            return Outcome(run_id, "interrupted", cause="interrupted", message="ended by SLURM")
        # srun gives 128 + signal for a task that a signal ended.
        number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
        cause, message = failure_causes.of_death(attempt.heartbeat if attempt else None, number)
        if self._lacked_memory(begun):
            cause, message = "out_of_memory", "killed for lack of memory, as SLURM says"
        elif not number:
            cause, message = "error", f"worker ended with exit code {code}"
        if attempt is None:
            return Outcome(run_id, "failed", cause="error", message=f"{message}, before it began")
        if not self._ours():
            return Outcome(run_id, "taken", attempt.number, message="this job runs elsewhere by now")
        record_death(self.root, self.run, attempt, cause, message)
        return Outcome(run_id, "failed", attempt.number, cause, message)

    def _log_size(self) -> int:
        try:
            return self.entry.log(self.index).stat().st_size
        except OSError:
            return 0

    def _lacked_memory(self, begun: int) -> bool:
        """Whether SLURM complained of memory in the job's log since then."""
        try:
            with self.entry.log(self.index).open("rb") as log:
                log.seek(begun)
                return _NO_MEMORY.search(log.read().decode(errors="replace")) is not None
        except OSError:
            return False

    def _own_attempt(self) -> Attempt | None:
        """The newest attempt, if a worker of this job made it and it did not end in order."""
        newest = next(iter(attempts_at(self.root, self.run.run_id)), None)
        if newest is None or (claim := newest.claim) is None or claim.job != self.id:
            return None
        beat = newest.heartbeat
        return newest if beat is None or beat.state == "running" else None

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome) -> int:
        """Requeue the job, or end it with the exit code that its dependents need."""
        if outcome.result == "interrupted" and (cause := self._again(outcome)) is not None:
            if cause == "timeout" and self._stuck():
                return EXIT_CODES["failed"]
            if self._requeue():
                return EXIT_CODES["interrupted"]
        if outcome.result == "diverged":
            return DIVERGED
        if outcome.result == "done" and self.store.results([self.run.run_id])[self.run.run_id].status == "diverged":
            return DIVERGED
        return EXIT_CODES[outcome.result]

    def _again(self, outcome: Outcome) -> str | None:
        """Why the job is to be requeued; None if it is not, because somebody cancelled it or SLURM requeues it."""
        facts = self._facts()
        state = facts.get("JobState")
        if self.terminated:
            say(f"SLURM has ended this job: {state or 'it does not say why'}")
        if int(facts.get("Restarts", self.restarts)) != self.restarts:
            return None
        if state == "TIMEOUT":
            return "timeout"
        if self.terminated or state not in ("RUNNING", None) or outcome.cause == "interrupted":
            return None
        return outcome.cause

    def _stuck(self) -> bool:
        """Whether one more start would get no further; then that is recorded as a failure."""
        attempts = attempts_at(self.root, self.run.run_id)
        starts = progressed(attempts)
        if not attempts or starts <= self.submission.retries:
            return False
        message = (
            f"no progress in {starts} starts of {self.resources.hours:g} h each; it needs more hours, or checkpoints "
            "more often"
        )
        record_death(self.root, self.run, attempts[0], "timeout", message)
        say(f"failed: {message}")
        return True

    def _requeue(self) -> bool:
        """Put this job back into the queue; it ends here. Whether SLURM did so."""
        try:
            slurm(["scontrol", "requeue", self.id], timeout=30.0)
        except SlurmError as error:
            say(f"cannot requeue: {error}; the next `tokenlaw submit` goes on with this run")
            return False
        say("requeued")
        # SLURM ends this process; if it ended earlier it might be taken for completed.
        deadline = time.monotonic() + 30
        while not self.terminated and time.monotonic() < deadline:
            time.sleep(0.1)
        return True

    def _facts(self) -> dict[str, str]:
        """What the controller says of this job; nothing if it does not answer."""
        try:
            text = slurm(["scontrol", "--oneliner", "show", "job", self.id], timeout=3.0)
        except SlurmError:
            return {}
        return dict(part.partition("=")[::2] for part in text.split() if "=" in part)

    def _end_time(self) -> float:
        """When the time limit ends this job, in seconds since 1970; infinite if there is none."""
        try:
            return datetime.fromisoformat(self._facts()["EndTime"]).timestamp()
        except (LookupError, ValueError):
            return math.inf

    def _ours(self) -> bool:
        """Whether the job still runs here, as far as the controller says."""
        facts = self._facts()
        return int(facts.get("Restarts", self.restarts)) == self.restarts

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True


def main(arguments: Sequence[str] | None = None) -> int:
    """The job's process; its exit code is 0 if what waits for the run may start."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeps.backends.slurm.job", description="execute one element of an array"
    )
    parser.add_argument("--root", type=Path, required=True, help="the data root")
    parser.add_argument("--submission", required=True, help="id of the submission")
    parser.add_argument("--array", type=int, required=True, help="number of the array in the submission")
    given = parser.parse_args(arguments)
    try:
        array_job, index = os.environ["SLURM_ARRAY_JOB_ID"], int(os.environ["SLURM_ARRAY_TASK_ID"])
        submission = load_submission(given.root, given.submission)
        entry = ArrayEntry(submission.folder(given.root) / "arrays" / str(given.array))
        if entry.record_job(array_job) != array_job or entry.abandoned:
            say("this array was submitted again by another job, for its submitter died; nothing to do")
            return EXIT_CODES["taken"]
        return Job(given.root, submission, entry, index, f"{array_job}_{index}").perform()
    except TokenlawError as error:
        say(f"error: {error}")
        return error.exit_code
    except (LookupError, ValueError) as error:
        print(f"error: this is no element of an array of SLURM: {error!r}", file=sys.stderr)
        return 2


def command(root: Path, submission: Submission, number: int) -> list[str]:
    """The command line of a job."""
    options = ["--root", str(root), "--submission", submission.id, "--array", str(number)]
    return [sys.executable, "-P", "-m", "sweeps.backends.slurm.job", *options]


if __name__ == "__main__":
    sys.exit(main())
