"""The few calls with which any trainer writes its rows; needs neither torch nor pandas.

A recorder holds the rows of one run in memory. A checkpoint saves it next to the weights, so that rows and weights are
always of one moment and a resumed run has exactly the rows of an undisturbed one. At the end `tables` gives the three
tables of `results.schema`, stamped with the attempt that finishes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from results.store import atomic

from .errors import OtherRunError, StoreError, UsageError
from .protocol import Protocol
from .schema import COLUMNS, SCHEMA_VERSION, SPLITS, STATUSES, TRUNK, arrow_schema, metric_name, missing_fact
from .values import choice, real, text, whole

if TYPE_CHECKING:
    import pyarrow

_KEYS = {
    "curves": ("branch", "step", "split", "term"),
    "evaluations": ("branch", "step", "metric", "guidance", "split", "protocol"),
}
"""What makes rows of a table one row."""
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
        self.attempt = whole("attempt", attempt, least=1)
        self._rows: dict[str, list[dict[str, Any]]] = {"curves": [], "evaluations": []}
        self._keys: set[tuple[object, ...]] = set()
        self._facts: dict[str, Any] = {}

    def facts(self, **columns: Any) -> None:
        """Columns of this run's row in `runs` that only its trainer knows (FACTS); later ones replace earlier ones.

        Raises UsageError for another column, or a value of another type.
        """
        checks: dict[str, Callable[[str, Any], Any]] = {"string": text, "int64": whole, "float64": real}
        for name, value in columns.items():
            if name not in FACTS:
                raise UsageError(f"fact {name} is not allowed; allowed: {', '.join(FACTS)}")
            self._facts[name] = checks[FACTS[name].type](name, value)

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
            "step": whole("step", step),
            "images": _optional(whole, "images", images),
            "tokens": _optional(whole, "tokens", tokens),
            "flops": _optional(real, "flops", flops),
            "split": choice("split", split, SPLITS),
        }
        if not terms:
            raise UsageError(f"curve at step {position['step']} has no terms; give at least one, such as loss=...")
        values = {term: real(term, value, finite=False) for term, value in terms.items()}
        self._add("curves", [{**position, "term": term, "value": value} for term, value in values.items()])

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
            "step": whole("step", step),
            "images": _optional(whole, "images", images),
            "path_flops": _optional(real, "path_flops", path_flops),
            "metric": metric_name(metric),
            "value": real(metric, value),
            "standard_error": _optional(real, "standard_error", standard_error),
            "n": None if n is None else whole("n", n, least=1),
            "guidance": protocol.guidance if guidance is None else real("guidance", guidance),
            "split": choice("split", split, SPLITS),
            "protocol": protocol.id,
            "protocol_json": protocol.json,
            "flag": flag,
        }
        for name in ("metric", "n", "guidance"):
            if (told := getattr(protocol, name)) != row[name]:
                raise UsageError(f"protocol.{name} = {told!r} is not the row's; allowed: {row[name]!r}")
        self._add("evaluations", [row])

    @property
    def known_facts(self) -> dict[str, Any]:
        """A copy of what `facts` was told."""
        return dict(self._facts)

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Copies of the rows so far, by table, without run_id and attempt."""
        return {table: [dict(row) for row in rows] for table, rows in self._rows.items()}

    def rows_from(self, table: str, first: int) -> list[dict[str, Any]]:
        """Copies of the rows of `curves` or `evaluations` from number `first` on, without run_id and attempt."""
        return [dict(row) for row in self._rows[table][first:]]

    def resume(self, step: int, earlier: Recorder | None = None) -> None:
        """Go back to `step`: rows after it are dropped, for the trainer will measure them again; -1 drops all.

        With `earlier` its rows up to the step are taken over, in place of all rows of this one.
        """
        last = whole("step", step + 1) - 1
        source = self if earlier is None else earlier
        self._rows = {table: [row for row in rows if row["step"] <= last] for table, rows in source.rows.items()}
        self._facts = {**source.known_facts, **self._facts}
        self._keys = set(_keys(self._rows))

    def fill_flops(self, flops_per_image: float) -> None:
        """Where a row has images but no FLOPs, set these to images x `flops_per_image`."""
        for table, name in (("curves", "flops"), ("evaluations", "path_flops")):
            for row in self._rows[table]:
                if row[name] is None and row["images"] is not None:
                    row[name] = row["images"] * flops_per_image

    def save(self, path: Path) -> None:
        """Write all rows so far as JSON lines, atomically; floats survive exactly. Raises StoreError."""
        header = {"recorder": SCHEMA_VERSION, "run_id": self.run_id, "attempt": self.attempt}
        header |= {table: len(rows) for table, rows in self._rows.items()}
        lines = [header, *self._rows["curves"], *self._rows["evaluations"]]
        # json writes floats with repr, the shortest text that reads back as the same double.
        atomic.write(path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))

    def restore(self, path: Path) -> None:
        """Replace all rows by those that `save` wrote, also from an earlier attempt at the same run.

        Raises StoreError for a file that is missing, cut short or of a newer schema, OtherRunError for another run's.
        """
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            header, rows = lines[0], lines[1:]
            count = header["curves"]
            if header["recorder"] > SCHEMA_VERSION:
                raise StoreError(f"{path} has schema {header['recorder']}; this tokenlaw reads up to {SCHEMA_VERSION}")
            if header["run_id"] != self.run_id:
                raise OtherRunError(f"{path} belongs to run {header['run_id']}, not to {self.run_id}")
            if len(rows) != count + header["evaluations"]:
                raise StoreError(f"{path} is damaged: {len(rows)} rows of {count + header['evaluations']}")
            restored = {"curves": rows[:count], "evaluations": rows[count:]}
            self._keys = set(_keys(restored))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StoreError(f"{path} is damaged or missing: {error!r}") from error
        self._rows = restored

    def tables(self, run_row: Mapping[str, Any]) -> dict[str, pyarrow.Table]:
        """The three tables, with `run_row` as the one row of `runs`; run_id and attempt are filled in.

        Columns of `runs` that may be null can be left out; `facts` go before those of `run_row`.
        Raises UsageError that names a column which is unknown, missing or of the wrong type.
        """
        import pyarrow as pa

        key = {"run_id": self.run_id, "attempt": self.attempt}
        row = {**run_row, **self._facts, **key}
        columns = [column.name for column in COLUMNS["runs"]]
        unknown = sorted(row.keys() - columns)
        if unknown:
            raise UsageError(f"runs has no column {unknown[0]!r}; allowed: {', '.join(columns)}")
        missing = missing_fact(row)
        if missing:
            raise UsageError(f"runs.{missing} is missing for run {self.run_id}; it is required")
        choice("status", row["status"], STATUSES)
        tables = {"runs": [row]} | {table: [key | row for row in rows] for table, rows in self._rows.items()}
        result = {}
        for name, rows in tables.items():
            try:
                result[name] = pa.Table.from_pylist(rows, schema=arrow_schema(name))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise UsageError(f"a value in table {name} of run {self.run_id} has the wrong type: {error}") from error
        return result

    def _add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Refuses a second row of one key: after a resume it would mean that rows and weights have come apart."""
        keys = _keys({table: rows})
        for key in keys:
            if key in self._keys:
                raise UsageError(f"run {self.run_id} already has a row in {table} for {key[1:]}")
        self._keys.update(keys)
        self._rows[table] += rows


def _keys(rows: Mapping[str, list[dict[str, Any]]]) -> list[tuple[object, ...]]:
    return [(table, *(row[name] for name in _KEYS[table])) for table in rows for row in rows[table]]


def _branch(value: str) -> str:
    if not isinstance(value, str) or not (value == TRUNK or re.fullmatch(r"decay@\d+", value)):
        raise UsageError(f"branch = {value!r} is not allowed; allowed: 'trunk' or 'decay@<training images>'")
    return value


def _optional(check: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    return None if value is None else check(name, value)
