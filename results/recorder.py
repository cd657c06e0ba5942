"""The few calls with which any trainer writes its rows; needs neither torch nor pandas.

A recorder holds the rows of one run in memory. A checkpoint saves it next to the weights, so that rows and weights are
always of one moment and a resumed run has exactly the rows of an undisturbed one. At the end `tables` gives the three
tables of `results.schema`, stamped with the attempt that finishes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from results.store import atomic

from .errors import StoreError, UsageError
from .protocol import Protocol
from .schema import COLUMNS, SCHEMA_VERSION, STATUSES, TRUNK, arrow_schema, metric_name, missing_fact

if TYPE_CHECKING:
    import pyarrow

_SPLITS = ("train", "validation")
COST_FACTS = (
    "parameters_embedding", "parameters_other", "parameters_frozen", "flops_per_image", "path_flops", "executed_flops",
    "peak_memory_bytes",
)  # fmt: skip
"""Columns of `runs` that a trainer of one's own may measure of its own model, in place of what a specification says."""
_NOT_FACTS = ("run_id", "attempt", "stage", "status", "cause", "message", "spec", "seed", "provenance", "source")
FACTS = {column.name: column for column in COLUMNS["runs"] if column.name not in _NOT_FACTS}
"""Columns of `runs` that a trainer may tell of a run of no stage."""


class Recorder:
    """Collects the rows of one attempt at one run.

    Values may be Python or NumPy numbers or one-element tensors; they are stored as float64 and int64, exactly.
    """

    def __init__(self, run_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = _whole("attempt", attempt, least=1)
        self._curves: list[dict[str, Any]] = []
        self._evaluations: list[dict[str, Any]] = []
        self._keys: set[tuple[object, ...]] = set()
        self._facts: dict[str, Any] = {}

    def facts(self, **columns: Any) -> None:
        """Columns of this run's row in `runs` that only its trainer knows (FACTS); later ones replace earlier ones.

        Raises UsageError for another column, or a value of another type.
        """
        for name, value in columns.items():
            column = FACTS.get(name)
            if column is None:
                raise UsageError(f"fact {name} is not allowed; allowed: {', '.join(FACTS)}")
            if column.type == "string":
                if not isinstance(value, str):
                    raise UsageError(f"{name} = {value!r} is not allowed; allowed: text")
            elif column.type == "int64":
                value = _whole(name, value)
            else:
                value = _finite(name, value)
            self._facts[name] = value

    def curve(
        self,
        *,
        branch: str = TRUNK,
        step: SupportsIndex,
        images: SupportsIndex | None = None,
        tokens: SupportsIndex | None = None,
        flops: SupportsFloat | None = None,
        split: str = "train",
        **terms: SupportsFloat,
    ) -> None:
        """Record one row a term in `curves`. A term may be infinite or NaN: that a loss diverged is a fact.

        Raises UsageError for a bad value, or for a second row of one (branch, step, split, term).
        """
        position = {
            "branch": _branch(branch),
            "step": _whole("step", step),
            "images": _optional(_whole, "images", images),
            "tokens": _optional(_whole, "tokens", tokens),
            "flops": _optional(_finite, "flops", flops),
            "split": _choice("split", split, _SPLITS),
        }
        if not terms:
            raise UsageError(f"curve at step {position['step']} has no terms; give at least one, such as loss=...")
        rows = [{**position, "term": term, "value": _real(term, value)} for term, value in terms.items()]
        self._claim([("curves", branch, position["step"], split, row["term"]) for row in rows])
        self._curves += rows

    def evaluation(
        self,
        *,
        branch: str = TRUNK,
        step: SupportsIndex,
        images: SupportsIndex | None = None,
        path_flops: SupportsFloat | None = None,
        metric: str,
        value: SupportsFloat,
        n: SupportsIndex | None = None,
        protocol: Protocol,
        standard_error: SupportsFloat | None = None,
        guidance: SupportsFloat | None = None,
        split: str = "validation",
        flag: str | None = None,
    ) -> None:
        """Record one row in `evaluations`; `guidance` defaults to the protocol's.

        Raises UsageError for an unknown metric, a value that is not finite, a protocol of another metric, n or
        guidance, or for a second row of one (branch, step, metric, guidance, split, protocol).
        """
        row = {
            "branch": _branch(branch),
            "step": _whole("step", step),
            "images": _optional(_whole, "images", images),
            "path_flops": _optional(_finite, "path_flops", path_flops),
            "metric": metric_name(metric),
            "value": _finite(metric, value),
            "standard_error": _optional(_finite, "standard_error", standard_error),
            "n": None if n is None else _whole("n", n, least=1),
            "guidance": protocol.guidance if guidance is None else _finite("guidance", guidance),
            "split": _choice("split", split, _SPLITS),
            "protocol": protocol.id,
            "protocol_json": protocol.json,
            "flag": flag,
        }
        for name in ("metric", "n", "guidance"):
            if getattr(protocol, name) != row[name]:
                raise UsageError(
                    f"protocol.{name} = {getattr(protocol, name)!r} is not the row's; allowed: {row[name]!r}"
                )
        self._claim([("evaluations", branch, row["step"], metric, row["guidance"], split, protocol.id)])
        self._evaluations.append(row)

    @property
    def known_facts(self) -> dict[str, Any]:
        """A copy of what `facts` was told."""
        return dict(self._facts)

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Copies of the rows so far, by table, without run_id and attempt."""
        return {"curves": [dict(row) for row in self._curves], "evaluations": [dict(r) for r in self._evaluations]}

    def resume(self, step: int, earlier: Recorder | None = None) -> None:
        """Go back to `step`: rows after it are dropped, for the trainer will measure them again; -1 drops all.

        With `earlier` its rows up to the step are taken over, in place of all rows of this one.
        """
        last = _whole("step", step + 1) - 1
        source = self if earlier is None else earlier
        kept = source.rows
        self._curves = [row for row in kept["curves"] if row["step"] <= last]
        self._evaluations = [row for row in kept["evaluations"] if row["step"] <= last]
        self._facts = {**source.known_facts, **self._facts}
        self._keys = _keys(self._curves, self._evaluations)

    def fill_flops(self, flops_per_image: float) -> None:
        """Where a row has images but no FLOPs, set these to images x `flops_per_image`."""
        for rows, name in ((self._curves, "flops"), (self._evaluations, "path_flops")):
            for row in rows:
                if row[name] is None and row["images"] is not None:
                    row[name] = row["images"] * flops_per_image

    def save(self, path: Path) -> None:
        """Write all rows so far as JSON lines, atomically; floats survive exactly. Raises StoreError."""
        header = {"recorder": SCHEMA_VERSION, "run_id": self.run_id, "attempt": self.attempt}
        header |= {"curves": len(self._curves), "evaluations": len(self._evaluations)}
        lines = [header, *self._curves, *self._evaluations]
        # json writes floats with repr, the shortest text that reads back as the same double.
        atomic.write(path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))

    def restore(self, path: Path) -> None:
        """Replace all rows by those that `save` wrote, also from an earlier attempt at the same run.

        Raises StoreError for a file that is missing, cut short, of another run or of a newer schema.
        """
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            header, rows = lines[0], lines[1:]
            count = header["curves"]
            if header["recorder"] > SCHEMA_VERSION:
                raise StoreError(f"{path} has schema {header['recorder']}; this tokenlaw reads up to {SCHEMA_VERSION}")
            if header["run_id"] != self.run_id:
                raise StoreError(f"{path} belongs to run {header['run_id']}, not to {self.run_id}")
            if len(rows) != count + header["evaluations"]:
                raise StoreError(f"{path} is damaged: {len(rows)} rows of {count + header['evaluations']}")
            curves, evaluations = rows[:count], rows[count:]
            keys = _keys(curves, evaluations)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StoreError(f"{path} is damaged or missing: {error!r}") from error
        self._curves, self._evaluations, self._keys = curves, evaluations, keys

    def tables(self, run_row: Mapping[str, Any]) -> dict[str, pyarrow.Table]:
        """The three tables, with `run_row` as the one row of `runs`; run_id and attempt are filled in.

        Columns of `runs` that may be null can be left out; `facts` go before those of `run_row`.
        Raises UsageError that names a column which is unknown, missing or of the wrong type.
        """
        import pyarrow as pa

        key = {"run_id": self.run_id, "attempt": self.attempt}
        row = {**run_row, **self._facts, **key}
        columns = {column.name: column for column in COLUMNS["runs"]}
        unknown = sorted(set(row) - set(columns))
        if unknown:
            raise UsageError(f"runs has no column {unknown[0]!r}; allowed: {', '.join(columns)}")
        missing = missing_fact(row)
        if missing:
            raise UsageError(f"runs.{missing} is missing for run {self.run_id}; it is required")
        _choice("status", row["status"], STATUSES)
        tables = {"runs": [row], "curves": [key | r for r in self._curves]}
        tables["evaluations"] = [key | r for r in self._evaluations]
        result = {}
        for name, rows in tables.items():
            try:
                result[name] = pa.Table.from_pylist(rows, schema=arrow_schema(name))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise UsageError(f"a value in table {name} of run {self.run_id} has the wrong type: {error}") from error
        return result

    def _claim(self, keys: list[tuple[object, ...]]) -> None:
        """Refuse a second row of one key: after a resume it would mean that rows and weights have come apart."""
        for key in keys:
            if key in self._keys:
                raise UsageError(f"run {self.run_id} already has a row in {key[0]} for {key[1:]}")
        self._keys.update(keys)


def _keys(curves: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> set[tuple[object, ...]]:
    """What makes rows one row, as `_claim` takes it."""
    names = ("branch", "step", "metric", "guidance", "split", "protocol")
    return {("curves", row["branch"], row["step"], row["split"], row["term"]) for row in curves} | {
        ("evaluations", *(row[name] for name in names)) for row in evaluations
    }


def _branch(value: str) -> str:
    if not isinstance(value, str) or not (value == TRUNK or re.fullmatch(r"decay@\d+", value)):
        raise UsageError(f"branch = {value!r} is not allowed; allowed: 'trunk' or 'decay@<training images>'")
    return value


def _choice(name: str, value: str, allowed: Mapping[str, object] | tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: {', '.join(allowed)}")
    return value


def _optional(check: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    return None if value is None else check(name, value)


def _whole(name: str, value: SupportsIndex, least: int = 0) -> int:
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: a whole number from {least}")
    return number


def _real(name: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: a number") from error


def _finite(name: str, value: SupportsFloat) -> float:
    number = _real(name, value)
    if not math.isfinite(number):
        raise UsageError(f"{name} = {number!r} is not allowed; allowed: a finite number")
    return number
