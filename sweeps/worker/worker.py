"""What a job executes: one attempt at one run, from its specification to its rows in the store.

    python -m sweeps.worker.worker --root ROOT [--job ID] [--microbatch N] [--strategy fsdp2]
                                   [--recompute-activations] [--compile] [--trackers JSON] SPEC.json

The worker claims the run, so that no second process works on it; keeps a heartbeat; runs `scaling.run.execute`, or the
command that the run names as its trainer; on TERM or USR2 lets it save a checkpoint and stop; and at the end stages the
artifacts, appends the rows and publishes the artifacts, in this order, so that what the store and `artifacts` hold of a
run is of one attempt. An attempt that was held for dead notices its successor and writes nothing. The worker prints one
line of JSON, an Outcome, on the standard output that it was started with; all else goes to the attempt's log.

Of a job with several tasks each executes this: rank 0 claims and writes, the others train with it (`rendezvous`).

A worker outlives its submitter: hours of training should not die with a terminal. The next `submit` finds its claim,
counts it against the cap on parallel jobs, and waits for it; `tokenlaw cancel` stops it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from results import Recorder, RunError, Store, StoreError, TokenlawError, UsageError
from results.provenance import provenance
from results.store import atomic
from scaling.data.sources import locations, weights
from scaling.ranks import Place, Strategy
from scaling.specification.spec import GeneratorRun, canonical_json
from scaling.specification.workspace import KEPT_TO_RESUME, Progress, Workspace
from sweeps.record import artifacts, failure_causes
from sweeps.record.attempts import SUPERSEDED, Attempt, Claim, State, attempts_at, attempts_folder, claim_attempt
from sweeps.record.dependencies import blocking
from sweeps.record.endings import run_row
from sweeps.record.memory import peak_memory
from sweeps.record.outcome import EXIT_CODES, Outcome, Result
from sweeps.record.process_identity import ProcessId
from sweeps.study.external_run import AnyRun, ExternalRun, parse_any_run
from sweeps.study.sections import Trackers

from . import rendezvous
from .heartbeat import STOPPING, Pulse, Stop
from .log import SaidProgress, one_line, redirect, say
from .trackers.tracking import Tracking

Execute = Callable[[AnyRun, Workspace, Recorder, Callable[[Progress], None], Callable[[], bool]], None]

SHEETS = "sheets"
"""Folder of an attempt with pictures of its evaluations, where trackers show them."""
OVERTAKEN = "a newer attempt has begun; this one was held for dead and writes nothing"


@dataclass(frozen=True)
class Options:
    """How a worker works on a run, which changes neither the run nor its results beyond floating-point order.

    submission, submitter  whose work it is
    job, restarts          its SLURM job with its index, and how often that was requeued
    microbatch             images that a process holds at a time; None for its whole part of the batch
    place                  which of the job's processes this is
    strategy               how several processes train a generator
    recompute, compiled    keep fewer activations and compute them again; train with networks compiled by torch
    trackers               what is told of it while it runs
    """

    submission: str = ""
    submitter: ProcessId | None = None
    job: str | None = None
    restarts: int = 0
    microbatch: int | None = None
    place: Place = field(default_factory=Place)
    strategy: Strategy = "ddp"
    recompute: bool = False
    compiled: bool = False
    trackers: Trackers = field(default_factory=Trackers)


def work(
    root: Path,
    spec: AnyRun,
    options: Options | None = None,
    *,
    execute: Execute | None = None,
    log: Callable[[Path], None] = lambda path: None,
) -> Outcome:
    """Make one attempt at a run, in this process. Never raises for what goes wrong in the run; that is an Outcome.

    `execute` takes the place of training. `log` is called with the attempt's log file once the run is claimed.
    """
    started_at = datetime.now(UTC)
    options = options or Options()
    place = options.place
    try:
        if place.rank:
            return _follow(root, spec, options, execute, log)
        attempt = _claim(root, spec, options)
        if isinstance(attempt, Outcome):
            rendezvous.announce(root, spec.run_id, place, {"outcome": asdict(attempt)})
            return attempt
        with atomic.storage(attempt.log):
            log(attempt.log)
        place = place.hosted()
        meeting = {"attempt": attempt.number, "address": place.address, "port": place.port}
        rendezvous.announce(root, spec.run_id, place, meeting)
    except StoreError as error:
        return Outcome(spec.run_id, "storage", cause="storage", message=str(error))
    return _Worker(root, spec, attempt, started_at, replace(options, place=place)).perform(execute)


def _claim(root: Path, spec: AnyRun, options: Options) -> Attempt | Outcome:
    """The attempt that this process owns from now on, or why there is none. Raises StoreError."""
    store, run_id = Store(root), spec.run_id
    if run_id in store.finished():
        return _done_before(root, run_id)
    blocked = blocking(store, spec)
    if blocked:
        return Outcome(run_id, "blocked", cause="blocked", message=blocked)
    attempt = claim_attempt(
        root, run_id, canonical_json(spec), options.submission, options.submitter,
        job=options.job, restarts=options.restarts, gone=job_is_over,
    )  # fmt: skip
    if attempt is None:
        return Outcome(run_id, "taken", message="another process works on this run")
    if run_id in store.finished():
        # Its last owner finished it between the two looks; the claim was free only because of that.
        shutil.rmtree(attempt.path)
        return _done_before(root, run_id)
    return attempt


def _done_before(root: Path, run_id: str) -> Outcome:
    if not artifacts.folder(root, run_id).is_dir():
        artifacts.publish(root, run_id)
    return Outcome(run_id, "done", message="was done before")


def job_is_over(claim: Claim) -> bool:
    """Whether the queue knows that the SLURM job of a claim has ended, or has been started anew since."""
    from sweeps.record.slurm_client import Queue, SlurmError

    try:
        job = Queue().read().get(claim.job or "")
    except SlurmError:
        # A controller that does not answer proves nothing; the age of the heartbeat decides.
        return False
    return job is None or job.restarts > claim.restarts


def _earlier(root: Path, attempt: Attempt) -> list[Attempt]:
    """The attempts that this one may resume from, newest first."""
    before = [other for other in attempts_at(root, attempt.run_id) if other.number < attempt.number]
    return [other for other in before if not (other.path / SUPERSEDED).exists()]


def _train(
    root: Path, spec: AnyRun, attempt: Attempt, options: Options, execute: Execute | None,
    recorder: Recorder, report: Callable[[Progress], None], stop: Stop,
) -> None:  # fmt: skip
    """Execute a run in the folders of an attempt: by `execute`, the command that it names as its trainer, or our own
    training. Raises whatever ends it."""
    folders = Workspace(
        attempt=attempt.path,
        earlier=tuple(other.path for other in _earlier(root, attempt)),
        parent=artifacts.folder(root, spec.tokenizer.run_id) if isinstance(spec, GeneratorRun) else None,
        cache=atomic.make_folder(root / "cache"),
        pictures=root / locations.FOLDER,
        pretrained=root / weights.FOLDER,
        sheets=attempt.path / SHEETS if options.trackers.names else None,
    )
    said = SaidProgress(report)
    if execute is not None:
        execute(spec, folders, recorder, said, stop)
    elif spec.trainer:
        from .command import run_command

        run_command(spec, attempt.path / "spec.json", folders, recorder, said, stop, place=options.place)
    else:
        from scaling.run import execute as train

        assert not isinstance(spec, ExternalRun)
        train(
            spec, folders, recorder, said, stop, microbatch=options.microbatch, place=options.place,
            strategy=options.strategy, recompute=options.recompute, compiled=options.compiled,
        )  # fmt: skip


class _Worker:
    """One attempt, from claim to end."""

    def __init__(self, root: Path, spec: AnyRun, attempt: Attempt, started_at: datetime, options: Options) -> None:
        self.root, self.spec, self.attempt, self.started_at = root, spec, attempt, started_at
        self.options = options
        self.store = Store(root)
        self.earlier = _earlier(root, attempt)
        self.elapsed_before = sum(beat.elapsed for other in self.earlier if (beat := other.heartbeat))
        self.stop = Stop()
        self.pulse = Pulse(attempt.path / "heartbeat.json", self.elapsed_before, self._look)
        self.recorder = Recorder(spec.run_id, attempt.number)
        self.tracking = Tracking(root, spec, options.trackers, self.recorder, attempt.path / SHEETS)

    def _look(self) -> None:
        if self.attempt.overtaken:
            self.stop.overtaken = True

    def perform(self, execute: Execute | None) -> Outcome:
        """Run it, and end the attempt one way or the other."""
        with self.stop.catching():
            self.pulse.start()
            say(_beginning(self.spec, self.attempt, self.options))
            try:
                result, cause, message = self._outcome(execute)
                if result in ("done", "diverged", "failed"):
                    result, message = self._finish(result, cause, message)
            except (StoreError, OSError) as error:
                say(traceback.format_exc())
                if self.attempt.overtaken:
                    # Its successor is done, and has cleared away the checkpoints that this one was about to write.
                    result, cause, message = "taken", None, OVERTAKEN
                else:
                    result, cause, message = "storage", "storage", one_line(error)
            self.tracking.close(result)
            self._end(result, cause, message)
            say(f"{result}: {message}" if message else result)
        return Outcome(self.spec.run_id, result, self.attempt.number, cause, message)

    def _outcome(self, execute: Execute | None) -> tuple[Result, str | None, str | None]:
        """Execute the run; result, cause and message."""
        try:
            _train(
                self.root, self.spec, self.attempt, self.options, execute, self.recorder,
                self.tracking.following(self.pulse.report), self.stop,
            )  # fmt: skip
        except RunError as error:
            if error.cause == "interrupted":
                if self.stop.overtaken:
                    return "taken", None, OVERTAKEN
                return "interrupted", failure_causes.of_stop(self.stop.signals, self.options.job), one_line(error)
            if not self.spec.trainer:
                # What ended a trainer of one's own is in its own words above, not where we noticed it.
                say(traceback.format_exc())
            return "diverged" if error.cause == "diverged" else "failed", error.cause, one_line(error)
        except StoreError:
            raise
        except Exception as error:  # whatever ends a run is recorded with its cause, and told
            cause, message = failure_causes.of_error(error), one_line(error)
            if cause == "storage":
                raise StoreError(f"{self.root}: {message}; free some space and run the same command again") from error
            say(traceback.format_exc())
            if self.options.place.size > 1:
                return "failed", *self._of_others(cause, message)
            return "failed", cause, message
        return "done", None, None

    def _of_others(self, cause: str, message: str) -> tuple[str, str]:
        """Cause and message where another process of the training ended first, which here is a broken connection."""
        told = rendezvous.first_end(self.attempt)
        if told is not None:
            return told
        if cause == "error" and "connection" in message.lower():
            cause, why = failure_causes.of_death(self.attempt.heartbeat, signal.SIGKILL)
            return cause, f"another process of the training ended without a word, perhaps {why}"
        return cause, message

    def _finish(self, result: Result, cause: str | None, message: str | None) -> tuple[Result, str | None]:
        """Write the rows, and for a success the artifacts. An attempt that has been overtaken writes nothing."""
        run_id, number = self.spec.run_id, self.attempt.number
        if self.attempt.overtaken:
            return "taken", OVERTAKEN
        seconds = self.elapsed_before + self.pulse.elapsed
        row = run_row(
            self.spec, status=result, cause=cause, message=message, started_at=self.started_at, wall_seconds=seconds,
            peak_memory_bytes=peak_memory(),
        )  # fmt: skip
        tables = self.recorder.tables(row)
        if result == "done":
            artifacts.stage(self.root, run_id, number, self.attempt.path / "artifacts")
        if not self.store.append(run_id, tables, status=result, attempt=number):
            artifacts.discard(self.root, run_id, number)
            return "done", "another attempt finished it first; the rows of this one are ignored"
        if result == "done":
            artifacts.publish(self.root, run_id)
        if result != "failed":
            for attempt in (self.attempt, *self.earlier):
                for name in KEPT_TO_RESUME:
                    shutil.rmtree(attempt.path / name, ignore_errors=True)
        return result, message

    def _end(self, result: Result, cause: str | None, message: str | None) -> None:
        states: dict[Result, State] = {"taken": "interrupted", "blocked": "interrupted", "storage": "failed"}
        state: State = states.get(result, result)  # type: ignore[arg-type]
        self.pulse.end(state, cause, message)
        with suppress(OSError):
            rendezvous.withdraw(self.root, self.spec.run_id, self.options.place)


def _follow(
    root: Path, spec: AnyRun, options: Options, execute: Execute | None, log: Callable[[Path], None]
) -> Outcome:
    """The part of a process that is not rank 0: train with it, write nothing but a log. Raises StoreError."""
    place, run_id = options.place, spec.run_id
    told = rendezvous.await_leader(root, run_id, place)
    if "attempt" not in told:
        return Outcome(**told["outcome"])
    number = int(told["attempt"])
    options = replace(options, place=replace(place, address=told["address"], port=told["port"]))
    attempt = Attempt(attempts_folder(root) / run_id / str(number))
    with atomic.storage(attempt.path):
        log(rendezvous.log_of(attempt, place.rank))
    stop = Stop()
    with stop.catching():
        say(_beginning(spec, attempt, options))
        try:
            _train(root, spec, attempt, options, execute, Recorder(run_id, number), lambda progress: None, stop)
        except RunError as error:
            if error.cause == "interrupted":
                return Outcome(run_id, "interrupted", number, "interrupted", one_line(error))
            # What ends all ranks alike, such as divergence, rank 0 records.
            say(traceback.format_exc())
            rendezvous.await_end(attempt)
            return Outcome(run_id, "failed", number, error.cause, one_line(error))
        except Exception as error:  # noqa: BLE001 - told to rank 0, which sees no more than a broken connection
            say(traceback.format_exc())
            cause, message = failure_causes.of_error(error), one_line(error)
            rendezvous.tell_end(attempt, place.rank, cause, message)
            rendezvous.await_end(attempt)
            return Outcome(run_id, "failed", number, cause, message)
        return Outcome(run_id, "done", number)


def _beginning(spec: AnyRun, attempt: Attempt, options: Options) -> str:
    facts, place = provenance(), options.place
    job = f", job {options.job} restart {options.restarts}" if options.job else ""
    rank = f", rank {place.rank} of {place.size}" if place.size > 1 else ""
    ways = {f"microbatch {options.microbatch}": options.microbatch, options.strategy: options.strategy != "ddp",
            "recomputing activations": options.recompute, "compiled": options.compiled}  # fmt: skip
    return (
        f"{spec.stage} {spec.label} ({spec.run_id}), attempt {attempt.number} on {facts['host']}, pid {os.getpid()}"
        f"{job}{rank}{''.join(f', {way}' for way, told in ways.items() if told)}, code {facts['code'][:12]}"
    )


def main(arguments: Sequence[str] | None = None, execute: Execute | None = None) -> int:
    """The worker process; the exit code is that of EXIT_CODES."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.worker.worker", description="make one attempt at one run")
    parser.add_argument("--root", type=Path, required=True, help="the data root")
    parser.add_argument("--submission", default="", help="id of the submission")
    parser.add_argument("--submitter", default="", help="JSON that names the process of the submitter")
    parser.add_argument("--job", help="id of the SLURM job with its index, such as 17_3")
    parser.add_argument("--microbatch", type=int, help="images a process holds at a time, at the same global batch")
    parser.add_argument("--strategy", choices=get_args(Strategy), default="ddp", help="how processes share a generator")
    parser.add_argument("--recompute-activations", action="store_true", help="keep fewer, and compute them again")
    parser.add_argument("--compile", action="store_true", help="train with networks compiled by torch")
    parser.add_argument("--trackers", default="{}", help="JSON of a study's section of that name")
    parser.add_argument("spec", type=Path, help="JSON file with the specification of the run")
    given = parser.parse_args(arguments)
    try:
        spec = parse_any_run(given.spec.read_bytes())
        if given.microbatch is not None and given.microbatch < 1:
            raise UsageError(f"--microbatch = {given.microbatch} is not allowed; allowed: 1 or more")
        options = Options(
            submission=given.submission,
            submitter=ProcessId.from_json(json.loads(given.submitter)) if given.submitter else None,
            job=given.job,
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")) if given.job else 0,
            microbatch=given.microbatch,
            place=Place.from_environment(job=given.job),
            strategy=given.strategy,
            recompute=given.recompute_activations,
            compiled=given.compile,
            trackers=Trackers.model_validate_json(given.trackers),
        )
    except (OSError, ValueError, TokenlawError) as error:
        print(f"error: {given.spec}: {one_line(error)}", file=sys.stderr)
        return 2
    told = os.dup(sys.stdout.fileno())
    outcome = work(given.root, spec, options, execute=execute, log=redirect)
    # What is left is to say how it ended.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if options.place.rank:
        # Rank 0 speaks for all, and its exit code is the one that counts.
        return int(outcome.result in ("failed", "storage"))
    # The submitter may be gone by now; the store tells what this line would.
    with suppress(OSError):
        os.write(told, f"{outcome.line()}\n".encode())
    return EXIT_CODES[outcome.result]


if __name__ == "__main__":
    sys.exit(main())
