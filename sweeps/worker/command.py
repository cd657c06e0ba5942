"""One attempt at a run by a trainer of one's own: its command, the rows that it writes, its end. No torch, no shell.

The command runs in the folder of the worker (the trainer's folder in the snapshot of a submission) and finds what it
needs in placeholders and in its environment (and where a job has several processes, torchrun's variables):

    {spec}         TOKENLAW_SPEC          the specification of the run, JSON
    {rows}         TOKENLAW_ROWS          the file for its rows, JSON lines (see results.jsonlines)
    {out}          TOKENLAW_OUT           the folder for what the run leaves: weights, pictures; kept with the run
    {checkpoints}  TOKENLAW_CHECKPOINTS   the folder for checkpoints; removed when the run is done
    {earlier}      TOKENLAW_EARLIER       folder of the attempt to resume from (its checkpoints/, artifacts/), or empty
    {tokenizer}    TOKENLAW_TOKENIZER     the folder that the generator's tokenizer left, for generators
    {run_id} {seed} {attempt} {stage}     the same in capitals
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from results import Recorder, RunError, UsageError
from results.jsonlines import Lines, LinesFile
from results.store import atomic
from scaling.ranks import Place
from scaling.specification.command_template import fill
from scaling.specification.spec import GeneratorRun
from scaling.specification.workspace import Progress, Workspace
from sweeps.record.attempts import ROWS, Attempt, resumable, size_of
from sweeps.record.failure_causes import says_out_of_memory
from sweeps.record.memory import memory_kills
from sweeps.study.external_run import AnyRun, ExternalRun, facts_of

from .rendezvous import log_of

ABOUT = "command.json"
POLL_SECONDS = 0.2
GRACE_SECONDS = 600.0
"""Time for a trainer to save and end once it was asked to; SLURM's own limits (KillWait, the warning) are shorter."""
TRY_AGAIN = 75
"""Exit code with which a trainer says that it has stopped on its own and shall be resumed (EX_TEMPFAIL)."""
ALONE = Place()
"""Of a training of one process."""
_WORKERS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\+00:00 ")
"""How lines of the worker in the log begin."""
_MISTAKE = re.compile(
    r"(results\.errors\.(Usage|Spec)Error|ModuleNotFoundError|SyntaxError|IndentationError|TabError): "
    r"|.*can't open file"
)
"""Last lines of Python after which the same would happen again: a row that is refused, a module that is missing."""
_NO_PROGRAM = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC)
_NOT_EXECUTABLE = (126, 127)
"""Exit codes of shells and `env` for a program that is not executable or not there."""


def run_command(
    spec: AnyRun,
    spec_path: Path,
    workspace: Workspace,
    recorder: Recorder,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    *,
    place: Place = ALONE,
) -> None:
    """Execute the command of a run until it ends; its rows are then the recorder's.

    Of several processes of one training each executes the command; the rows of rank 0 count. The others get a file of
    their own, so that a trainer that writes rows in each of them needs no change.
    Raises RunError with a cause: error (exit code), mistake (bad row, no rows, no such program), out_of_memory,
    diverged, interrupted. StoreError if the attempt's folder cannot be written.
    """
    assert spec.trainer is not None
    for folder in (workspace.artifacts, workspace.checkpoints):
        atomic.make_folder(folder)
    earlier = resumable(workspace.earlier)
    values = placeholders(spec, spec_path.resolve(), workspace, earlier)
    if place.rank:
        values["rows"] = str(Path(values["rows"]).with_name(f"rows-{place.rank}.jsonl"))
    command = fill(spec.trainer, values)
    if place.rank == 0:
        about = {"command": command, "earlier": earlier.name if earlier else None}
        atomic.write(workspace.attempt / ABOUT, json.dumps(about) + "\n", durable=False)

    lines = _lines(spec, recorder, earlier)
    rows = LinesFile(Path(values["rows"]), lines)
    kills = memory_kills()
    log = log_of(Attempt(workspace.attempt), place.rank)
    with _started(command, values, log, _ranks(place)) as trainer:
        code = _follow(trainer, rows, report, stop)
        incomplete = rows.close()
    if incomplete:
        print(incomplete, flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    recorder.facts(peak_memory_bytes=peak if sys.platform == "darwin" else peak * 1024)
    flops = recorder.known_facts.get("flops_per_image") or facts_of(spec).get("flops_per_image")
    if flops is not None:
        recorder.fill_flops(flops)
    _judge(code, trainer, lines, stop(), incomplete, memory_kills() != kills)
    if place.rank == 0 and not any(recorder.rows.values()):
        raise RunError(
            f"{trainer.program} ended well but wrote no rows; allowed: JSON lines in the file $TOKENLAW_ROWS", "mistake"
        )


def placeholders(spec: AnyRun, spec_path: Path, workspace: Workspace, earlier: Path | None) -> dict[str, str]:
    """What stands for the placeholders of a command."""
    values = {
        "spec": spec_path,
        "rows": workspace.attempt.resolve() / ROWS,
        "out": workspace.artifacts.resolve(),
        "checkpoints": workspace.checkpoints.resolve(),
        "earlier": earlier.resolve() if earlier else "",
        "seed": spec.seed,
        "run_id": spec.run_id,
        "attempt": workspace.attempt.name,
        "stage": spec.stage,
    }
    if isinstance(spec, GeneratorRun) and workspace.parent is not None:
        values["tokenizer"] = workspace.parent.resolve()
    return {name: str(value) for name, value in values.items()}


def _ranks(place: Place) -> dict[str, str]:
    """What torch.distributed and others read from the environment; nothing for a process that is alone."""
    if place.size == 1:
        return {}
    ranks = {"RANK": str(place.rank), "WORLD_SIZE": str(place.size), "LOCAL_RANK": str(place.local)}
    return ranks | {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}


def earlier_rows(spec: AnyRun, attempt: Path) -> Recorder:
    """The rows that an earlier attempt at the run had, with those that it went on from in its turn."""
    recorder = Recorder(spec.run_id, int(attempt.name))
    before: Path | None = None
    with suppress(OSError, ValueError, LookupError, TypeError):
        name = json.loads((attempt / ABOUT).read_text())["earlier"]
        before = attempt.parent / name if name and int(name) < int(attempt.name) else None
    # It may have ended for a bad row; those before it are good.
    with suppress(UsageError):
        LinesFile(attempt / ROWS, _lines(spec, recorder, before)).close()
    return recorder


def _lines(spec: AnyRun, recorder: Recorder, earlier: Path | None) -> Lines:
    """What takes the lines of a run, which may go on from an earlier attempt."""
    return Lines(
        recorder,
        staged=not isinstance(spec, ExternalRun),
        earlier=lambda: earlier_rows(spec, earlier) if earlier else None,
    )


@dataclass
class _Trainer:
    """The process of a command, and its log, in which what it printed comes after `begin` bytes."""

    process: subprocess.Popen[bytes]
    program: str
    log: Path
    begin: int

    def signal(self, number: int) -> None:
        """Send a signal to the command's process; of stopping signals the one that it handles."""
        handled = _caught(self.process.pid)
        if handled is not None and number not in handled:
            # A signal that it does not handle would kill it before it can save.
            number = next((n for n in (signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR1) if n in handled), signal.SIGTERM)
        print(f"asking the trainer to save and stop ({signal.Signals(number).name})", flush=True)
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def last_lines(self) -> list[str]:
        """The end of what it printed, without empty lines and without those of the worker, which shares the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.begin, size_of(self.log) - 8192))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip() and not _WORKERS.match(line)]


@contextmanager
def _started(
    command: Sequence[str], values: dict[str, str], log: Path, variables: Mapping[str, str]
) -> Iterator[_Trainer]:
    """The command, in a process group of its own that does not outlive this process. Raises RunError."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    environment |= {f"TOKENLAW_{name.upper()}": value for name, value in values.items()}
    if shutil.which(command[0]) is None:
        # `python` where nothing of that name is on the path: the one that executes this.
        environment["PATH"] = os.pathsep.join([environment.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    print(f"trainer: {' '.join(command)}", flush=True)
    begin = size_of(log)
    with atomic.storage(log):
        output = log.open("ab")
    with output:
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_ignore_warnings,
            )
        except OSError as error:
            cause = "mistake" if error.errno in _NO_PROGRAM else "error"
            raise RunError(
                f"trainer {command[0]!r} cannot be started in {Path.cwd()}: {error.strerror}", cause
            ) from error
    trainer = _Trainer(process, command[0], log, begin)
    guard = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("watchdog.py")), str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield trainer
    finally:
        trainer.kill()
        process.wait()
        with suppress(OSError):
            guard.communicate(b"done")
        guard.wait()


def _ignore_warnings() -> None:
    """Keep SLURM's warning from killing a trainer that has no handler for it, before it could be asked to save.

    SLURM sends USR2 to every process of a job's steps, the trainer and what it starts included.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _follow(trainer: _Trainer, rows: LinesFile, report: Callable[[Progress], None], stop: Callable[[], bool]) -> int:
    """Wait for the end, passing on progress, and requests to stop; the exit code. Raises RunError for a bad row."""
    asked = 0
    deadline = float("inf")
    shown = rows.lines.progress
    while True:
        try:
            code = trainer.process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        try:
            rows.poll()
        except UsageError as error:
            raise RunError(str(error), "mistake") from error
        if rows.lines.progress is not shown:
            shown = rows.lines.progress
            phase, detail, speed = shown.get("phase", "train"), shown.get("detail", ""), shown.get("images_per_second")
            report(Progress(phase, shown["progress"], detail, speed))
        if code is not None:
            return code
        if stop():
            signals = list(getattr(stop, "signals", ())) or [signal.SIGTERM]
            for number in signals[asked:]:
                trainer.signal(signal.SIGTERM if number == signal.SIGINT else number)
            if not asked:
                deadline = time.monotonic() + GRACE_SECONDS
            asked = len(signals)
            if time.monotonic() > deadline:
                print(f"the trainer did not stop within {GRACE_SECONDS:g} s; it is killed", flush=True)
                trainer.kill()


def _judge(
    code: int, trainer: _Trainer, lines: Lines, stopped: bool, incomplete: str | None, memory_killed: bool
) -> None:
    """Raise the RunError that an end deserves, if it is not the end of a run that is done."""
    status, cause, message = lines.ending or ("", "", "")
    last = trainer.last_lines()
    tail = f": {last[-1][:300]}" if last else ""
    if status == "diverged":
        raise RunError(message or f"the trainer said that it diverged{tail}", "diverged")
    if status == "failed":
        raise RunError(message or f"the trainer said that it failed{tail}", cause)
    if stopped and not (code == 0 and status == "done"):
        raise RunError(f"the trainer was asked to stop and ended ({_ending(code)})", "interrupted")
    if code == TRY_AGAIN:
        raise RunError(f"the trainer stopped on its own to be resumed ({_ending(code)}){tail}", "interrupted")
    if code != 0:
        short = memory_killed and code == -signal.SIGKILL
        if short or (code > 0 and any(map(says_out_of_memory, last[-20:]))):
            raise RunError(f"{trainer.program} ran out of memory ({_ending(code)}){tail}", "out_of_memory")
        again = code in _NOT_EXECUTABLE or (code > 0 and last and _MISTAKE.match(last[-1]))
        raise RunError(f"{trainer.program} ended with {_ending(code)}{tail}", "mistake" if again else "error")
    if incomplete:
        raise RunError(incomplete)


def _ending(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _caught(pid: int) -> set[int] | None:
    """The signals for which a process has handlers; None where that cannot be known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        mask = int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
    except (OSError, ValueError, StopIteration):
        return None
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}
