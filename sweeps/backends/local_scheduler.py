"""The local scheduler: runs each in a process of its own, at most `jobs` at a time, as soon as its tokenizer is done.

What has most work behind it starts first. The failure of one run never stops the others; whether it is tried again, and
with what, is decided by its cause as on a cluster (`policy`). Workers that an earlier, killed submitter left are
counted against the cap and waited for; runs that a living submitter works on are waited for too. TERM, INT and HUP stop
the workers, which save checkpoints; a second signal kills them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from results import Store, StoreError
from sweeps.planning.order import priorities
from sweeps.planning.planned_run import PlannedRun
from sweeps.record import failure_causes
from sweeps.record.attempts import Attempt, attempted, attempts_at, living, newest_attempt
from sweeps.record.code_snapshot import load_snapshot
from sweeps.record.dependencies import blocked_by, blocking
from sweeps.record.endings import IN_PLACE, last_line, record_death, settle
from sweeps.record.ledger import Submission
from sweeps.record.outcome import Outcome
from sweeps.record.process_identity import ProcessId
from sweeps.study.resources import Resources
from sweeps.worker.process import INTERRUPTS, caught, start_worker

from .policy import Failures, grown, stuck
from .standing import Observe, Observed, SubmissionSummary

POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""Time between looks at runs of other submitters."""


class LocalScheduler:
    """Executes runs of a plan on this machine."""

    def __init__(
        self, runs: Sequence[PlannedRun], root: Path, submission: Submission, *, observe: Observe, again: bool
    ) -> None:
        """`again`: try again here what failed and may be; otherwise that is for the next submission. What was killed is
        begun again either way."""
        self.again = again
        self.root, self.submission, self.jobs = root, submission, submission.jobs
        self.store = Store(root)
        self.runs = {run.run_id: run for run in runs}
        order = priorities(runs, self.jobs)
        self.waiting = sorted(self.runs, key=lambda run_id: -order[run_id])
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.workers: dict[str, ProcessId] = {}
        """Who they are: attempts of earlier processes may have had the same pid."""
        self.elsewhere: dict[str, Attempt] = {}
        self.results: dict[str, str] = {}
        code = load_snapshot(root, submission.snapshot).trainer if submission.snapshot else None
        self.failures = Failures(root, self.runs, submission.retries, code)
        self.summary = SubmissionSummary()
        self.observed = Observed(self.runs, observe)
        self._signals: list[int] = []
        self._storage: str | None = None
        self._looked = self._shown = 0.0

    def run(self) -> SubmissionSummary:
        """Execute everything that can be executed. Raises StoreError if the root can no longer be written."""
        for run_id, stored in self.store.results(self.runs).items():
            self.results[run_id] = stored.status
            self.observed.clock.measured(run_id, stored.wall_seconds, here=False)
        self.summary.before = len(self.results)
        self.waiting = [run_id for run_id in self.waiting if run_id not in self.results]
        self._take_living(living(self.root, set(self.waiting)))
        self._settle_dead(self.waiting)
        for run_id in list(self.waiting):
            if (outcome := self.failures.left_alone(run_id)) is not None:
                self.waiting.remove(run_id)
                self._settle(run_id, outcome)
        try:
            with caught(INTERRUPTS, self._on_signal):
                self._schedule()
        finally:
            # None is left but after an error of our own.
            for process in self.processes.values():
                process.terminate()
        self._show(last=True)
        if self._signals:
            self.summary.stopped_by = self._signals[0]
        if self._storage is not None:
            raise StoreError(self._storage)
        return self.summary

    @property
    def _stopping(self) -> bool:
        """Whether nothing more is begun."""
        return bool(self._signals) or self._storage is not None

    def _schedule(self) -> None:
        """Until nothing is under way that could be waited for."""
        while True:
            self._reap()
            self._look_elsewhere()
            self._block()
            if not self._stopping:
                self._start()
            self.summary.elapsed = self.observed.elapsed
            self._show()
            if not self.processes and (self._stopping or not (self.elsewhere or self.waiting)):
                return
            time.sleep(POLL_SECONDS)

    # --- what others did ----------------------------------------------------------------------------------------------

    def _take_living(self, attempts: Mapping[str, Attempt]) -> None:
        for run_id, attempt in attempts.items():
            self.elsewhere[run_id] = attempt
            if self._orphaned(attempt):
                label = self.runs[run_id].label
                self.observed.news.append(f"{label} still runs, left by a submitter that died: waiting for it")
        self.waiting = [run_id for run_id in self.waiting if run_id not in self.elsewhere]

    def _orphaned(self, attempt: Attempt) -> bool:
        """Whether an attempt runs on this machine for no living submitter, so that only we can count it."""
        claim = attempt.claim
        return claim is not None and claim.worker.local and claim.deserted

    def _look_elsewhere(self) -> None:
        if not self.elsewhere or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        ended = {run_id for run_id, attempt in self.elsewhere.items() if not attempt.alive}
        if not ended:
            return
        results = self.store.results(ended)
        for run_id in ended:
            del self.elsewhere[run_id]
            if run_id in results:
                self._settle(run_id, Outcome(run_id, "diverged" if results[run_id].status == "diverged" else "done"))
            else:
                self.waiting.insert(0, run_id)
        self._settle_dead(ended - results.keys())

    def _settle_dead(self, run_ids: Collection[str]) -> None:
        """Record of the workers that died without a word and without a submitter those that lacked memory.

        The others are resumed and not counted: that their submitter is gone too tells of a machine that went down.
        """
        known = attempted(self.root)
        for run_id in known.intersection(run_ids):
            newest = newest_attempt(self.root, run_id)
            if newest is None or newest.state != "missing" or (claim := newest.claim) is None or claim.job is not None:
                continue
            if not claim.deserted:
                continue
            cause, message = failure_causes.of_death(newest.heartbeat, here=claim.worker.local)
            if cause == "out_of_memory":
                record_death(self.root, self.runs[run_id].spec, newest, cause, message)
                self.failures.look(run_id)

    # --- what failed --------------------------------------------------------------------------------------------------

    def _tried_again(self, run_id: str, outcome: Outcome) -> bool:
        """Whether a run that ended so is begun again in this submission; it then waits for its turn."""
        if self._stopping:
            return False
        if outcome.result == "interrupted" and outcome.cause in IN_PLACE:
            if stuck(attempts_at(self.root, run_id), self.submission.retries):
                return False
            self.waiting.insert(0, run_id)
            return True
        if outcome.result != "failed":
            return False
        before = len(self.failures.of(run_id))
        # One that is not in the store, where it would count, must not come again and again.
        if self.failures.look(run_id) <= before or self.failures.left_alone(run_id) is not None:
            return False
        if outcome.cause == "killed":
            self.waiting.insert(0, run_id)
        elif self.again:
            # Whatever was in its way may be gone when the others have had their turn.
            self.waiting.append(run_id)
        else:
            return False
        count = len(self.failures.counted(run_id))
        self.observed.news.append(
            f"{self.runs[run_id].label} failed: {outcome.message or outcome.cause}; "
            f"it is tried again ({count} of {self.submission.retries})"
        )
        return True

    # --- own workers --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what is ready, most urgent first, up to the cap."""
        occupied = len(self.processes) + sum(map(self._orphaned, self.elsewhere.values()))
        for run_id in list(self.waiting):
            if occupied >= self.jobs:
                return
            run = self.runs[run_id]
            if run.parent in self.runs and self.results.get(run.parent) != "done":
                continue
            alive = living(self.root, {run_id})
            if alive:
                self._take_living(alive)
                occupied += self._orphaned(alive[run_id])
                continue
            self.waiting.remove(run_id)
            try:
                # Another submitter may have tried it meanwhile.
                self.failures.look(run_id)
                outcome = self.failures.left_alone(run_id)
                if outcome is None:
                    missing = blocking(self.store, run.spec)
                    if missing is None:
                        self.processes[run_id] = self._spawn(run)
                        occupied += 1
                        continue
                    outcome = Outcome(run_id, "blocked", cause="blocked", message=missing)
            except (StoreError, OSError) as error:
                outcome = Outcome(run_id, "storage", cause="storage", message=f"cannot start a worker: {error}")
            self._settle(run_id, outcome)

    def _spawn(self, run: PlannedRun) -> subprocess.Popen[str]:
        options = ["--submitter", json.dumps(ProcessId.current().as_json()), *run.resources.worker_options]
        # Of this machine no more memory can be asked for, and one process has the whole batch.
        alone = Resources(microbatch=run.resources.microbatch)
        microbatch = grown(alone, run.spec, self.failures.of(run.run_id), 1.0).microbatch
        # A session of its own keeps the terminal's Ctrl-C for the scheduler, which stops the workers in order.
        process = start_worker(self.root, self.submission, run.spec, options, microbatch=microbatch, own_session=True)
        self.workers[run.run_id] = ProcessId.of(process.pid)
        return process

    def _reap(self) -> None:
        for run_id, process in list(self.processes.items()):
            if process.poll() is None:
                continue
            del self.processes[run_id]
            assert process.stdout is not None
            with process.stdout:
                printed = process.stdout.read()
            outcome = Outcome.parse(printed) or self._post_mortem(run_id, process, printed)
            if outcome.result == "taken":
                alive = living(self.root, {run_id})
                self._take_living(alive)
                if not alive:
                    self.waiting.insert(0, run_id)
            elif not self._tried_again(run_id, outcome):
                self._settle(run_id, outcome)

    def _post_mortem(self, run_id: str, process: subprocess.Popen[str], printed: str) -> Outcome:
        """The outcome of a worker that died without telling one."""
        if run_id in self.store.finished():
            return Outcome(run_id, "done")
        attempt = self._own_attempt(run_id)
        beat = attempt.heartbeat if attempt is not None else None
        if attempt is not None and beat is not None and beat.state in ("failed", "interrupted"):
            # It had ended, and only could not say so.
            return Outcome(run_id, beat.state, attempt.number, beat.cause, beat.message)
        said = last_line(attempt.log) if attempt is not None else None
        cause, message = failure_causes.of_exit(beat, process.returncode, said or printed)
        stopped = process.returncode in (-signal.SIGTERM, -signal.SIGINT)
        if process.returncode < 0 and (self._signals or stopped):
            cause, message = "interrupted", f"killed by {signal.Signals(-process.returncode).name}"
        try:
            return settle(self.root, self.runs[run_id].spec, attempt, cause, message, submission=self.submission.id)
        except StoreError as error:
            return Outcome(run_id, "storage", attempt.number if attempt else None, "storage", str(error))

    def _settle(self, run_id: str, outcome: Outcome) -> None:
        """A run has come to its end in this submission."""
        self.summary.outcomes[run_id] = outcome
        self.results[run_id] = outcome.result
        if outcome.result in ("done", "diverged"):
            newest = newest_attempt(self.root, run_id)
            if newest is not None and (beat := newest.heartbeat):
                self.observed.clock.measured(run_id, beat.elapsed_before + beat.elapsed, here=True)
        if outcome.result == "storage":
            # Every further run would meet the same disk; what runs may still get through.
            self._storage = self._storage or outcome.message or "the data root cannot be written"
        if outcome.result != "done":
            self.observed.news.append(f"{self.runs[run_id].label} {outcome.result}: {outcome.message or outcome.cause}")

    def _block(self) -> None:
        """Set aside what waits for a tokenizer that will not come."""
        for run_id in list(self.waiting):
            parent = self.runs[run_id].parent or ""
            if parent not in self.results or (state := self.results[parent]) == "done":
                continue
            self.waiting.remove(run_id)
            self.summary.outcomes[run_id] = blocked_by(run_id, self.runs[parent].label, state)
            self.results[run_id] = "blocked"

    # --- signals and views --------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        for process in list(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if len(self._signals) == 1 else signal.SIGKILL)

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < 0.25 and not last:
            return
        self._shown = now
        ours = {run_id: self._own_attempt(run_id) for run_id in self.processes}
        results = list(self.results.values())
        self.observed.show(
            ours | self.elsewhere, self.results, self.jobs, elsewhere=self.elsewhere,
            failed=sum(result in ("failed", "storage") for result in results), blocked=results.count("blocked"),
            stopping=bool(self._signals),
        )  # fmt: skip

    def _own_attempt(self, run_id: str) -> Attempt | None:
        """The attempt of our worker, and not the last one of an earlier process; None if it has not claimed the run."""
        newest = newest_attempt(self.root, run_id)
        claim = newest.claim if newest is not None else None
        return newest if claim is not None and claim.worker == self.workers[run_id] else None
