"""One run's set of files in the store: its name, what it must hold, its manifest, and reading it with every check.

A set is a folder with runs, curves and evaluations (.parquet) and manifest.json, which has the checksums and a summary.
It is named by its run id if it is a result, `<run_id>.failed-<attempt>` if it is a failed attempt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results.errors import UsageError
from results.schema import COLUMNS, SCHEMA_VERSION, TABLES, arrow_schema, missing_fact

from .parquet import Damaged, listed, parquet_bytes, read_listed, read_parquet, readable, reading

if TYPE_CHECKING:
    import pyarrow

_NAME = re.compile(r"(?P<run_id>[A-Za-z0-9_-]+)(\.failed-(?P<attempt>[0-9]+))?")
MANIFEST = "manifest.json"


class SetName(NamedTuple):
    """Which set: that of a run's result (`failed` None), or of its failed attempt of that number."""

    run_id: str
    failed: int | None = None

    def __str__(self) -> str:
        return self.run_id if self.failed is None else f"{self.run_id}.failed-{self.failed}"

    @property
    def order(self) -> tuple[str, int]:
        """Sets are read by run id, the result before the failed attempts."""
        return self.run_id, self.failed or 0

    @classmethod
    def parse(cls, text: str) -> SetName | None:
        """The name that a folder's name says; None for other folders."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        return cls(match["run_id"], int(match["attempt"]) if match["attempt"] else None)

    @classmethod
    def of(cls, run_id: str, status: str, attempt: int) -> SetName:
        """The name under which an attempt with this ending is stored."""
        return cls(run_id, attempt if status == "failed" else None)


@dataclass(frozen=True)
class StoredRun:
    """What the manifest of a set says about it, so that nobody needs Parquet to know how a run ended.

    `wall_seconds` is 0 where it is not known (rows measured elsewhere).
    """

    run_id: str
    attempt: int
    status: str
    stage: str
    label: str
    cause: str | None
    message: str | None
    wall_seconds: float
    finished_at: str

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> StoredRun:
        """The summary of a row of `runs`."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**values | {"wall_seconds": values["wall_seconds"] or 0.0})

    @property
    def name(self) -> SetName:
        """Under which name this is stored."""
        return SetName.of(self.run_id, self.status, self.attempt)


def contents(run_id: str, tables: Mapping[str, pyarrow.Table], status: str, attempt: int) -> dict[str, bytes]:
    """The files of a set. Raises UsageError for tables that do not fit the schema, each other or the arguments."""
    summary = _summary(run_id, tables, status, attempt)
    files = {f"{name}.parquet": parquet_bytes(tables[name]) for name in TABLES}
    listing = {name: listed(content) | {"rows": len(tables[Path(name).stem])} for name, content in files.items()}
    manifest = {"schema_version": SCHEMA_VERSION, "summary": vars(summary), "files": listing}
    files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    return files


@dataclass(frozen=True)
class LooseSet:
    """A set in a folder of its own. Every reading method raises StoreError for damage or a newer schema."""

    path: Path

    def manifest_bytes(self) -> bytes:
        """The manifest's content, by which two sets of one name are told apart."""
        path = self.path / MANIFEST
        with reading(path):
            return path.read_bytes()

    def manifest(self) -> tuple[StoredRun, dict[str, Any]]:
        """Summary and file listing."""
        path = self.path / MANIFEST
        content = self.manifest_bytes()
        with reading(path):
            values = json.loads(content)
            readable(values["schema_version"], path)
            return StoredRun(**values["summary"]), values["files"]

    def table(self, table: str, files: Mapping[str, Any] | None = None) -> pyarrow.Table:
        """One of TABLES; `files` is the listing if it was read before."""
        listing = self.manifest()[1] if files is None else files
        path = self.path / f"{table}.parquet"
        return read_parquet(read_listed(path, listing), table, path)

    def damaged_file(self) -> tuple[str, str] | None:
        """The first file that is damaged, and the reason; None for a sound set."""
        file = MANIFEST
        try:
            _, files = self.manifest()
            for table in TABLES:
                file = f"{table}.parquet"
                self.table(table, files)
        except Damaged as error:
            return file, str(error)
        return None


def _summary(run_id: str, tables: Mapping[str, pyarrow.Table], status: str, attempt: int) -> StoredRun:
    """Check that the tables belong together and to the arguments; the manifest's summary of them."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", run_id):
        raise UsageError(f"run_id = {run_id!r} is not allowed; allowed: letters, digits, - and _")
    if set(tables) != set(TABLES):
        raise UsageError(f"tables = {sorted(tables)} is not allowed; allowed: exactly {', '.join(TABLES)}")
    for name, table in tables.items():
        if not table.schema.equals(arrow_schema(name)):
            raise UsageError(f"table {name} of run {run_id} does not have the columns of schema {SCHEMA_VERSION}")
        if set(table["run_id"].to_pylist()) - {run_id} or set(table["attempt"].to_pylist()) - {attempt}:
            raise UsageError(f"table {name} has rows that are not of run {run_id}, attempt {attempt}")
        for column in COLUMNS[name]:
            if column.required is True and table[column.name].null_count:
                raise UsageError(f"{name}.{column.name} has empty values for run {run_id}; it is required")
    runs = tables["runs"].to_pylist()
    if len(runs) != 1:
        raise UsageError(f"table runs has {len(runs)} rows for run {run_id}; allowed: 1")
    missing = missing_fact(runs[0])
    if missing:
        raise UsageError(f"runs.{missing} has empty values for run {run_id}; it is required")
    if runs[0]["status"] != status:
        raise UsageError(f"status = {status!r} is not the {runs[0]['status']!r} of table runs for run {run_id}")
    return StoredRun.of_row(runs[0])
