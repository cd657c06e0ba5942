"""The local scheduler: runs each in a process of its own, at most `jobs` at a time, as soon as its tokenizer is done.

What has most work behind it starts first. The failure of one run never stops the others. Workers that an earlier,
killed submitter left behind are counted against the cap and waited for; runs that a living submitter works on are
waited for too. TERM, INT and HUP stop the workers, which save checkpoints; a second signal kills them.
"""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from results import Store, StoreError

from .attempts import Attempt, Heartbeat, attempts_at, living
from .estimate import Clock
from .ledger import Submission
from .outcome import Outcome
from .parents import blocking
from .plan import PlannedRun, priorities
from .process import ProcessId
from .run_rows import record_death
from .signals import INTERRUPTS, caught
from .snapshot import HOME, load_snapshot

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "sweeps.worker")
"""-P keeps the current folder off the module path: a folder named `results` there must not shadow the package."""

POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""Time between looks at runs of other submitters."""


@dataclass(frozen=True)
class Working:
    """A run that is being worked on: by a worker of this scheduler, or elsewhere."""

    run: PlannedRun
    heartbeat: Heartbeat
    elsewhere: bool
    seconds_left: float


@dataclass(frozen=True)
class Snapshot:
    """Where a submission stands, for whoever shows it. Seconds are estimates, corrected by what was measured."""

    total: int
    done: int
    failed: int
    blocked: int
    working: tuple[Working, ...]
    seconds_done: float
    seconds_total: float
    eta: float
    elapsed: float
    stopping: bool
    news: tuple[str, ...]
    """Lines on runs that failed, diverged or were left by a dead submitter since the last snapshot."""


@dataclass
class Summary:
    """How a submission ended: outcomes of the runs that it dealt with, by run id."""

    before: int = 0
    """Runs that had a result before."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stopped_by: int | None = None
    """The signal that stopped it; None if it came to its end."""
    elapsed: float = 0.0

    def count(self, result: str) -> int:
        """Number of runs that ended so."""
        return sum(outcome.result == result for outcome in self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """0 if nothing is left that could run; 1 after failures; 128 + signal when stopped."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        bad = any(o.result in ("failed", "interrupted", "storage") for o in self.outcomes.values())
        # What waits for a tokenizer that diverged can never run: that is a result of the study, not a failure.
        return int(bad or any(o.result == "blocked" and o.cause != "diverged" for o in self.outcomes.values()))


Observe = Callable[[Snapshot], None]


class LocalScheduler:
    """Executes runs of a plan on this machine."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        root: Path,
        submission: Submission,
        *,
        observe: Observe = lambda snapshot: None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self.root, self.submission, self.jobs, self.worker = root, submission, submission.jobs, tuple(worker)
        self.store = Store(root)
        self.observe = observe
        self.runs = {run.run_id: run for run in runs}
        order = priorities(runs, self.jobs)
        self.waiting = sorted(self.runs, key=lambda run_id: -order[run_id])
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.elsewhere: dict[str, Attempt] = {}
        self.results: dict[str, str] = {}
        self.summary = Summary()
        self.clock = Clock(self.runs)
        self.me = ProcessId.current()
        self.snapshot = load_snapshot(root, submission.snapshot) if submission.snapshot else None
        self._signals: list[int] = []
        self._storage: str | None = None
        self._news: list[str] = []
        self._looked = 0.0
        self._observed = 0.0

    def run(self) -> Summary:
        """Execute everything that can be executed. Raises StoreError if the root can no longer be written."""
        begun = time.monotonic()
        self._take_results()
        self.summary.before = len(self.results)
        self._take_living(living(self.root, set(self.waiting)))
        try:
            with caught(INTERRUPTS, self._on_signal):
                self._schedule(begun)
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

    def _schedule(self, begun: float) -> None:
        """Until nothing is under way that could be waited for."""
        while True:
            self._reap()
            self._look_elsewhere()
            self._block()
            if not self._signals and self._storage is None:
                self._start()
            self.summary.elapsed = time.monotonic() - begun
            self._show()
            stopping = self._signals or self._storage is not None
            if not self.processes and (stopping or not (self.elsewhere or self.waiting)):
                return
            time.sleep(POLL_SECONDS)

    # --- what others did ----------------------------------------------------------------------------------------------

    def _take_results(self) -> None:
        """Take over what the store has results of."""
        for run_id, found in self.store.results(self.runs.keys() - self.results.keys()).items():
            self.results[run_id] = found.status
            self.clock.measured(run_id, found.wall_seconds, here=False)
        self.waiting = [run_id for run_id in self.waiting if run_id not in self.results]

    def _take_living(self, found: Mapping[str, Attempt]) -> None:
        for run_id, attempt in found.items():
            self.elsewhere[run_id] = attempt
            if self._orphaned(attempt):
                self._news.append(
                    f"{self.runs[run_id].label} still runs, left by a submitter that died: waiting for it"
                )
        self.waiting = [run_id for run_id in self.waiting if run_id not in self.elsewhere]

    def _orphaned(self, attempt: Attempt) -> bool:
        """Whether an attempt runs on this machine for no living submitter, so that only we can count it."""
        claim = attempt.claim
        if claim is None or not claim.worker.local:
            return False
        return claim.submitter is None or claim.submitter.alive() is False

    def _look_elsewhere(self) -> None:
        if not self.elsewhere or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        ended = {run_id for run_id, attempt in self.elsewhere.items() if not attempt.alive}
        if not ended:
            return
        finished = self.store.finished()
        for run_id in ended:
            del self.elsewhere[run_id]
            if run_id in finished:
                status = self.store.results([run_id])[run_id].status
                self._settle(run_id, Outcome(run_id, "diverged" if status == "diverged" else "done"))
            else:
                self.waiting.insert(0, run_id)

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
                missing = blocking(self.store, run.spec)
                if missing is None:
                    self.processes[run_id] = self._spawn(run)
                    occupied += 1
                    continue
                outcome = Outcome(run_id, "blocked", cause="blocked", message=missing)
            except (StoreError, OSError) as error:
                outcome = Outcome(run_id, "storage", cause="storage", message=f"cannot start a worker: {error}")
            self._settle(run_id, outcome)

    def _spawn(self, run: PlannedRun) -> subprocess.Popen[bytes]:
        spec = self.submission.write_spec(self.root, run.spec)
        options = ["--root", str(self.root), "--submission", self.submission.id]
        options += ["--submitter", json.dumps(self.me.as_json())]
        # Output up to the claim comes through the pipe, and at the end one line; the rest goes to the attempt's log.
        # A session of its own keeps the terminal's Ctrl-C for the scheduler, which stops the workers in order.
        return subprocess.Popen(
            [*self.worker, *options, str(spec)],
            env=worker_environment(run.spec.threads, self.snapshot.path if self.snapshot else HOME),
            cwd=self.snapshot.trainer if self.snapshot else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _reap(self) -> None:
        for run_id, process in list(self.processes.items()):
            if process.poll() is None:
                continue
            del self.processes[run_id]
            assert process.stdout is not None
            with process.stdout:
                printed = process.stdout.read().decode(errors="replace")
            outcome = Outcome.parse(printed) or self._post_mortem(run_id, process, printed)
            if outcome.result == "taken":
                alive = living(self.root, {run_id})
                self._take_living(alive)
                if not alive:
                    self.waiting.insert(0, run_id)
            else:
                self._settle(run_id, outcome)

    def _post_mortem(self, run_id: str, process: subprocess.Popen[bytes], printed: str) -> Outcome:
        """The outcome of a worker that died without telling one."""
        if run_id in self.store.finished():
            return Outcome(run_id, "done")
        owned = [a for a in attempts_at(self.root, run_id) if (c := a.claim) and c.worker.pid == process.pid]
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            hint = " (by hand, or by the system for lack of memory)" if name == "SIGKILL" else ""
            cause, message = "killed", f"killed by {name}{hint}"
            if self._signals or name in ("SIGTERM", "SIGINT"):
                return Outcome(run_id, "interrupted", cause="interrupted", message=message)
        else:
            text = owned[0].log.read_text(errors="replace") if owned and owned[0].log.exists() else printed
            last = (text.strip().splitlines() or ["no output"])[-1]
            cause, message = "error", f"worker ended with exit code {process.returncode}: {last}"
        if not owned:
            return Outcome(run_id, "failed", cause=cause, message=message)
        try:
            record_death(self.root, self.runs[run_id].spec, owned[0], cause, message)
        except StoreError as error:
            return Outcome(run_id, "storage", owned[0].number, "storage", str(error))
        return Outcome(run_id, "failed", owned[0].number, cause, message)

    def _settle(self, run_id: str, outcome: Outcome) -> None:
        """A run has come to its end in this submission."""
        self.summary.outcomes[run_id] = outcome
        self.results[run_id] = outcome.result
        label = self.runs[run_id].label
        if outcome.result in ("done", "diverged"):
            attempts = attempts_at(self.root, run_id)
            beat = attempts[0].heartbeat if attempts else None
            if beat:
                self.clock.measured(run_id, beat.elapsed_before + beat.elapsed, here=True)
        if outcome.result == "storage":
            # Every further run would meet the same disk; what runs may still get through.
            self._storage = self._storage or outcome.message or "the data root cannot be written"
        if outcome.result != "done":
            self._news.append(f"{label} {outcome.result}: {outcome.message or outcome.cause}")

    def _block(self) -> None:
        """Set aside what waits for a tokenizer that will not come."""
        for run_id in list(self.waiting):
            run = self.runs[run_id]
            if not run.parent:
                continue
            parent = self.results.get(run.parent)
            if parent in (None, "done"):
                continue
            self.waiting.remove(run_id)
            reason = f"its tokenizer {self.runs[run.parent].label} {'was ' * (parent == 'interrupted')}{parent}"
            self.summary.outcomes[run_id] = Outcome(run_id, "blocked", cause=parent, message=reason)
            self.results[run_id] = "blocked"

    # --- signals and views --------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        for process in list(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if len(self._signals) == 1 else signal.SIGKILL)

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._observed < 0.25 and not last:
            return
        self._observed = now
        own = {run_id: self._own_heartbeat(run_id, process) for run_id, process in self.processes.items()}
        others = {run_id: attempt.heartbeat or Heartbeat() for run_id, attempt in self.elsewhere.items()}
        estimate = self.clock.estimate({**others, **own}, self.results, self.jobs)
        working = tuple(
            Working(self.runs[run_id], beat, run_id in others, estimate.left.get(run_id, 0.0))
            for run_id, beat in {**own, **others}.items()
        )
        results = list(self.results.values())
        self.observe(
            Snapshot(
                total=len(self.runs),
                done=sum(result in ("done", "diverged") for result in results),
                failed=sum(result in ("failed", "storage") for result in results),
                blocked=results.count("blocked"),
                working=working,
                seconds_done=estimate.done,
                seconds_total=estimate.total,
                eta=estimate.eta,
                elapsed=self.summary.elapsed,
                stopping=bool(self._signals),
                news=tuple(self._news),
            )
        )
        self._news.clear()

    def _own_heartbeat(self, run_id: str, process: subprocess.Popen[bytes]) -> Heartbeat:
        """The heartbeat of our worker, and not the last one of an earlier attempt."""
        attempts = attempts_at(self.root, run_id)
        if attempts and (claim := attempts[0].claim) and claim.worker.pid == process.pid:
            return attempts[0].heartbeat or Heartbeat()
        return Heartbeat()


def worker_environment(threads: int, code: Path = HOME) -> dict[str, str]:
    """The environment of a worker: as many threads as its specification says, and the copy of the code to run from."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    environment["VECLIB_MAXIMUM_THREADS"] = str(threads)
    if str(code) not in (*site.getsitepackages(), site.getusersitepackages()):
        # A snapshot, or a checkout that may not be installed.
        inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(HOME)]
        environment["PYTHONPATH"] = os.pathsep.join([str(code), *inherited])
    return environment
