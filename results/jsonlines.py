"""Rows as JSON lines: how a trainer of one's own, in any language, tells what it measures. No torch, no pandas.

One object a line, of one of these kinds:

    {"step": 100, "images": 6400, "loss": 0.5}        curves: every name that is no position is a term of the loss
    {"metric": "gfid", "value": 9.1, "step": 100, ...}     an evaluation; see EVALUATION for its fields
    {"facts": {"parameters_other": 1234567}}          columns of the run's row that only the trainer knows
    {"progress": 0.4, "images_per_second": 310}       for `tokenlaw status`
    {"resume": 100}                                   goes on after step 100: rows after it are dropped
    {"status": "diverged", "message": "loss is nan"}  how it ends, where the exit code does not say it

In Python, `open_rows()` gives an object that writes them, with the same checks.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from results.store import atomic

from .errors import UsageError
from .protocol import Protocol
from .recorder import COST_FACTS, Recorder
from .schema import METRICS, TRUNK, metric_name
from .values import choice, real, text

POSITION = ("branch", "step", "images", "tokens", "flops", "split")
"""Fields of a line of curves that are no terms."""
_MEASURED = ("metric", "value", "standard_error", "n", "guidance", "split", "flag")
_PROTOCOL = ("reference", "reference_hash", "crop", "extractor", "extractor_hash", "microbatch", "seed")
EVALUATION = ("branch", "step", "images", "path_flops", *_MEASURED, "protocol")
"""Fields of an evaluation; `protocol` is an object with fields of results.Protocol besides metric, n and guidance."""
PROGRESS = ("progress", "images_per_second", "phase", "detail")
ENDINGS = ("done", "diverged", "failed")
CAUSES = ("error", "out_of_memory", "mistake")
"""Causes that a trainer may give for `failed`; a mistake would happen again, and is not tried again by itself."""


class Lines:
    """Takes lines one by one into a recorder; what they say besides rows is in `progress` and `ending`.

    `earlier` gives the rows of the attempt that a first line {"resume": ...} goes on from, None if there is none.
    `staged` is false for runs of no stage: their trainer may tell every fact, others only the cost of their model.
    """

    def __init__(
        self, recorder: Recorder, *, staged: bool = True, earlier: Callable[[], Recorder | None] = lambda: None
    ) -> None:
        self.recorder = recorder
        self.progress: dict[str, Any] = {}
        self.ending: tuple[str, str, str] | None = None
        self._staged, self._earlier = staged, earlier
        self._begun = False

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one line. Raises UsageError that names field, value and what is allowed; then nothing of it is taken."""
        takers = {"resume": self._resume, "facts": self._facts, "progress": self._progress, "status": self._status,
                  "metric": self._evaluation}  # fmt: skip
        kind = next((name for name in takers if name in line), "curve")
        takers.get(kind, self._curve)(line)
        self._begun = self._begun or kind in ("resume", "metric", "curve")

    def _resume(self, line: Mapping[str, Any]) -> None:
        _only(line, ("resume",))
        step = line["resume"]
        if isinstance(step, bool) or not isinstance(step, int) or step < -1:
            raise UsageError(f"resume = {step!r} is not allowed; allowed: the last step that is kept, or -1 for none")
        self.recorder.resume(step, None if self._begun else self._earlier())

    def _facts(self, line: Mapping[str, Any]) -> None:
        _only(line, ("facts",))
        facts = line["facts"]
        if not isinstance(facts, dict):
            raise UsageError(f"facts = {facts!r} is not allowed; allowed: an object of names and values")
        unmeasured = [name for name in facts if name not in COST_FACTS] if self._staged else []
        if unmeasured:
            raise UsageError(
                f"fact {unmeasured[0]} is not allowed, the specification says it; allowed: {', '.join(COST_FACTS)}"
            )
        self.recorder.facts(**{name: _plain(value) for name, value in facts.items()})

    def _progress(self, line: Mapping[str, Any]) -> None:
        _only(line, PROGRESS)
        if not 0 <= real("progress", line["progress"]) <= 1:
            raise UsageError(f"progress = {line['progress']!r} is not allowed; allowed: a number from 0 to 1")
        rate = line.get("images_per_second")
        if rate is not None and real("images_per_second", rate) < 0:
            raise UsageError(f"images_per_second = {rate!r} is not allowed; allowed: a finite number from 0")
        for name in ("phase", "detail"):
            text(name, line.get(name, ""))
        self.progress = dict(line)

    def _status(self, line: Mapping[str, Any]) -> None:
        _only(line, ("status", "cause", "message"))
        status = choice("status", line["status"], ENDINGS)
        cause = line.get("cause", "diverged" if status == "diverged" else "error")
        if status == "failed":
            choice("cause", cause, CAUSES)
        message = text("message", line.get("message", ""))
        self.ending = (status, cause, " ".join(message.split()))

    def _evaluation(self, line: Mapping[str, Any]) -> None:
        _only(line, EVALUATION)
        metric_name(line["metric"])
        _needs(line, ("step", "value", *(("n",) if line["metric"] in METRICS else ())), f"metric {line['metric']!r}")
        values = {name: _plain(value) for name, value in line.items() if name != "protocol" and value is not None}
        for name in ("value", "guidance"):
            real(name, values.get(name, 1))
        given = line.get("protocol") or {}
        if not isinstance(given, dict) or set(given) - set(_PROTOCOL):
            raise UsageError(f"protocol = {given!r} is not allowed; allowed: an object of {', '.join(_PROTOCOL)}")
        protocol = Protocol(metric=line["metric"], n=values.get("n"), guidance=values.get("guidance"), **given)
        self.recorder.evaluation(**values, protocol=protocol)

    def _curve(self, line: Mapping[str, Any]) -> None:
        _needs(line, ("step",), "a line of curves")
        values = {name: _plain(value) for name, value in line.items() if name not in POSITION or value is not None}
        self.recorder.curve(**values)


class LinesFile:
    """A file of such lines, read while it grows; a last line that is not complete yet is left for the next `poll`."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self.path, self.lines = path, lines
        self._read = 0
        self._number = 0

    def poll(self) -> None:
        """Take the lines that have come. Raises UsageError that names the line, StoreError if it cannot be read."""
        content = self._rest()
        end = content.rfind(b"\n") + 1
        for line in content[:end].splitlines():
            self._take(line)
        self._read += end

    def close(self) -> str | None:
        """Take the rest. A last line that a kill has cut short is left out; what to tell of it, else None."""
        self.poll()
        rest = self._rest().strip()
        if not rest:
            return None
        try:
            json.loads(rest)
        except ValueError:
            return f"{self.path.name} line {self._number + 1} is cut short and left out: {rest[:60]!r}"
        self._take(rest)
        return None

    def _rest(self) -> bytes:
        with atomic.storage(self.path, "read"), suppress(FileNotFoundError), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._read:
                raise UsageError(f"{self.path.name} became shorter; allowed: lines that are only added at its end")
            file.seek(self._read)
            return file.read()
        return b""

    def _take(self, line: bytes) -> None:
        self._number += 1
        if not line.strip():
            return
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise UsageError(f"{values!r} is not allowed; allowed: an object")
            self.lines.take(values)
        except UsageError as error:
            raise UsageError(f"{self.path.name} line {self._number}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.path.name} line {self._number}: {line[:80]!r} is not JSON: {error}") from error


class Rows:
    """What a trainer in Python writes its rows with; every call adds a line to the file at once, checked before."""

    def __init__(self, path: Path, *, run_id: str, staged: bool, earlier: Path | None) -> None:
        self.path = path
        self.earlier = earlier
        """Folder of the attempt to resume from, with its `checkpoints` and `artifacts`; None if there is none."""
        # Earlier rows are checked by whoever reads the file; here it is enough that this attempt's own are sound.
        self._lines = Lines(Recorder(run_id, 1), staged=staged)
        if path.exists():
            LinesFile(path, self._lines).close()
        with atomic.storage(path):
            self._file = path.open("a", encoding="utf-8")

    def curve(
        self,
        *,
        step: SupportsIndex,
        images: SupportsIndex | None = None,
        tokens: SupportsIndex | None = None,
        flops: SupportsFloat | None = None,
        branch: str = TRUNK,
        split: str = "train",
        **terms: SupportsFloat,
    ) -> None:
        """The loss terms at a step. Raises UsageError for a bad value or a second row of one place."""
        self._write(
            {"step": step, "images": images, "tokens": tokens, "flops": flops, "branch": branch, "split": split} | terms
        )

    def evaluation(self, metric: str, value: SupportsFloat, *, step: SupportsIndex, **fields: Any) -> None:
        """A measurement; `fields` are those of EVALUATION. Raises UsageError."""
        self._write({"metric": metric, "value": value, "step": step} | fields)

    def facts(self, **columns: Any) -> None:
        """Columns of the run's row: parameters and FLOPs; for runs of no stage also others. Raises UsageError."""
        self._write({"facts": columns})

    def progress(self, share: SupportsFloat, **fields: Any) -> None:
        """Share of the work done, from 0 to 1; `fields` are images_per_second, phase, detail. Raises UsageError."""
        self._write({"progress": share} | fields)

    def resume(self, step: SupportsIndex) -> None:
        """The trainer goes on after this step from a checkpoint, of `earlier` or its own. Raises UsageError."""
        self._write({"resume": step})

    def end(self, status: str, message: str = "", cause: str | None = None) -> None:
        """How it ends, where the exit code does not say it: done (although asked to stop), diverged or failed."""
        self._write({"status": status, "message": message} | ({"cause": cause} if cause else {}))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, line: dict[str, Any]) -> None:
        content = json.dumps({name: value for name, value in line.items() if value is not None}, default=_scalar)
        self._lines.take(json.loads(content))
        with atomic.storage(self.path):
            self._file.write(content + "\n")
            self._file.flush()


def open_rows(path: Path | str | None = None) -> Rows:
    """The rows of the run that this process trains: the file $TOKENLAW_ROWS, `rows.jsonl` when run by hand.

    With several processes a run, one of them (rank 0) writes. Raises StoreError if the file cannot be written.
    """
    earlier = os.environ.get("TOKENLAW_EARLIER")
    return Rows(
        Path(path or os.environ.get("TOKENLAW_ROWS") or "rows.jsonl"),
        run_id=os.environ.get("TOKENLAW_RUN_ID") or "run",
        staged=os.environ.get("TOKENLAW_STAGE", "run") != "run",
        earlier=Path(earlier) if earlier else None,
    )


def _scalar(value: Any) -> int | float:
    """NumPy numbers and one-element tensors as JSON has them."""
    converters: tuple[Callable[[Any], int | float], ...] = (operator.index, float)
    for convert in converters:
        with suppress(TypeError, ValueError):
            return convert(value)
    raise UsageError(f"{value!r} is not allowed; allowed: a number")


def _plain(value: Any) -> Any:
    """Whole numbers that a language without them wrote as 12.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _only(line: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = [name for name in line if name not in allowed]
    if unknown:
        raise UsageError(f"field {unknown[0]} = {line[unknown[0]]!r} is not allowed; allowed: {', '.join(allowed)}")


def _needs(line: Mapping[str, Any], names: tuple[str, ...], kind: str) -> None:
    for name in names:
        if line.get(name) is None:
            raise UsageError(f"field {name} is missing; {kind} needs it")
