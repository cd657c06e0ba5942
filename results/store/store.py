"""The store: what every finished run measured, in files with checksums; what it holds is the truth about a study.

    <root>/store/<run_id>/                       runs, curves, evaluations (.parquet) and manifest.json
    <root>/store/<run_id>.failed-<attempt>/      the same for an attempt that failed
    <root>/store/.compacted/                     many such sets in a few large files (see versions.py, segments.py)
    <root>/store/.quarantine/                    what `check` found damaged and moved aside, with the reason
    <root>/store/.superseded/                    results that were set aside so that their runs are trained again

A set is written to a temporary folder, flushed to disk and renamed. The rename is exclusive: of several attempts that
finish one run the first wins and the others are ignored, also after `compact` has moved the first one's rows. No locks,
so that many machines can write to one file system.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from results.errors import DataError, StoreError, UsageError
from results.schema import TABLES
from results.values import choice

from . import atomic, run_set
from .aside import CheckReport, check, supersede
from .compaction import Compaction, View, compact, view_of
from .parquet import csv_bytes, parquet_bytes, read_parquet
from .run_set import SetName, StoredRun
from .segments import IndexEntry, Piece, gather
from .versions import Version, current, discard, listing, settled

if TYPE_CHECKING:
    import pyarrow

_WRITERS = {"parquet": parquet_bytes, "csv": csv_bytes}


class Store:
    """The finished and failed runs below one root folder. Opening it neither reads nor creates anything."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.folder = self.root / "store"
        self._version: Version | None = None

    @staticmethod
    def open_folder(path: Path | str) -> Store:
        """A read-only store over a folder that holds runs.parquet, curves.parquet and evaluations.parquet.

        Raises DataError if one of them is missing.
        """
        return PublishedStudy(Path(path))

    def append(self, run_id: str, tables: Mapping[str, pyarrow.Table], *, status: str, attempt: int) -> bool:
        """Store the tables of one attempt. False: another attempt has finished this run before; nothing is changed.

        `tables` is what `Recorder.tables` gives. Raises UsageError for tables that do not fit the schema or the
        arguments, StoreError if the set cannot be written; then nothing of it is left behind.
        """
        files = run_set.contents(run_id, tables, status, attempt)
        name = SetName.of(run_id, status, attempt)
        atomic.make_folder(self.folder)
        if self._compacted(name) is not None:
            return False
        final = self.folder / str(name)
        if not atomic.new_folder_of(final, files):
            return False
        # The place may have been free only because a compaction has moved the winner's rows since the first look.
        # If the compacted set is this very one, it was this one that won.
        compacted = self._compacted(name)
        if compacted is None or compacted.digest == sha256(files[run_set.MANIFEST]).hexdigest():
            return True
        discard(final)
        return False

    def finished(self) -> set[str]:
        """Ids of all runs with a result (done or diverged). Reads a folder listing and, once compacted, an index."""
        # The listing comes first: whatever a compaction removes after it is in the version that is read after it.
        loose = {name.run_id for text in listing(self.folder) if (name := SetName.parse(text)) and name.failed is None}
        return settled(self.folder, lambda: loose.union(*(segment.results() for segment in self._current().segments)))

    def results(self, run_ids: Collection[str] | None = None) -> dict[str, StoredRun]:
        """Summaries of the runs with a result, by id; reads no Parquet. Raises StoreError for a damaged manifest."""
        summaries = self._summaries(lambda name: name.failed is None and (run_ids is None or name.run_id in run_ids))
        return {summary.run_id: summary for summary in summaries}

    def failures(self, run_ids: Collection[str] | None = None) -> dict[str, list[StoredRun]]:
        """Summaries of the failed attempts by run id, oldest attempt first, also of runs that succeeded later."""
        attempts: dict[str, list[StoredRun]] = {}
        for summary in self._summaries(lambda n: n.failed is not None and (run_ids is None or n.run_id in run_ids)):
            attempts.setdefault(summary.run_id, []).append(summary)
        return attempts

    def read(
        self, table: str, run_ids: Collection[str] | None = None, *, include_failed: bool = False
    ) -> pyarrow.Table:
        """All rows of one of TABLES, ordered by run id, for all runs with a result or for `run_ids` alone.

        Rows of failed attempts come only with `include_failed`. Every file is checked against its checksum.
        Raises StoreError, naming the file, for damage or a schema newer than this package.
        """
        table_name(table)

        def wanted(name: SetName) -> bool:
            return (run_ids is None or name.run_id in run_ids) and (name.failed is None or include_failed)

        return settled(self.folder, lambda: self._rows(self.view(), table, wanted))

    def check(self) -> CheckReport:
        """Verify every file; move damaged ones to store/.quarantine with a reason, so that their runs can run again.

        Of a damaged compacted file every set that is whole is kept. Also removes what dead writers left a day ago or
        earlier. Raises StoreError if the store cannot be written or was written by a newer tokenlaw.
        """
        return check(self.folder)

    def supersede(self, run_ids: Collection[str], reason: str) -> dict[str, Path]:
        """Set the results of these runs aside with a reason; their runs have none then, and can be trained again.

        The sets themselves are kept in store/.superseded; where each lies, by run id. Raises StoreError.
        """
        return supersede(self.folder, run_ids, reason)

    def compact(self, *, settle: float = 0.0) -> Compaction:
        """Put the sets of all runs into a few large files, beside living writers and readers; see compaction.py."""
        return compact(self.folder, settle=settle)

    def export(
        self, out: Path | str, run_ids: Collection[str] | None = None, *, format: Literal["parquet", "csv"] = "parquet"
    ) -> list[Path]:
        """Write each table as one file into the folder `out` (created); `open_folder` reads the Parquet form back.

        Raises UsageError for an unknown format, StoreError for damage or an unwritable folder.
        """
        check_format(format)
        tables = {table: self.read(table, run_ids) for table in TABLES}
        folder = atomic.make_folder(Path(out))
        return [write_table(rows, folder / f"{name}.{format}", format) for name, rows in tables.items()]

    def view(self) -> View:
        """What is there now; a set that is both loose and compacted counts as compacted."""
        view = view_of(self.folder, self._version)
        self._version = view.version
        return view

    def _compacted(self, name: SetName) -> IndexEntry | None:
        return settled(self.folder, lambda: self._current().entry(name))

    def _current(self) -> Version:
        # Kept from call to call: a version and its index never change.
        self._version = current(self.folder, self._version)
        return self._version

    def _summaries(self, wanted: Callable[[SetName], bool]) -> list[StoredRun]:
        def look() -> list[StoredRun]:
            view = self.view()
            summaries = [loose.manifest()[0] for name, loose in view.loose.items() if wanted(name)]
            for segment in view.version.segments:
                summaries += [segment.entry(name).summary for name in segment.names if wanted(name)]
            return sorted(summaries, key=lambda summary: summary.name.order)

        return settled(self.folder, look)

    def _rows(self, view: View, table: str, wanted: Callable[[SetName], bool]) -> pyarrow.Table:
        pieces: list[Piece] = []
        for name, loose in view.loose.items():
            if wanted(name):
                rows = loose.table(table)
                pieces.append((rows, [(name, len(rows))]))
        for segment in view.version.segments:
            present = {name.failed is not None for name in segment.names if wanted(name)}
            pieces += [segment.piece(failed, table) for failed in sorted(present)]
        return gather(table, pieces, wanted)


class PublishedStudy(Store):
    """Three whole tables in a folder, such as a study that was published; cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.folder = path
        missing = [f"{table}.parquet" for table in TABLES if not (path / f"{table}.parquet").is_file()]
        if missing:
            raise DataError(
                f"{path} is no study folder: {', '.join(missing)} is missing; a study folder holds all three"
            )
        self._tables: dict[str, pyarrow.Table] = {}

    def _read_only(self, *arguments: Any, **options: Any) -> NoReturn:
        raise StoreError(f"cannot write {self.folder}: a folder of exported tables is read-only")

    append = supersede = compact = _read_only

    def check(self) -> CheckReport:
        for table in TABLES:
            self._whole(table)
        return CheckReport(len(self.finished()), (), ())

    def finished(self) -> set[str]:
        return set(self.results())

    def _summaries(self, wanted: Callable[[SetName], bool]) -> list[StoredRun]:
        summaries = [StoredRun.of_row(row) for row in self._whole("runs").to_pylist()]
        return [summary for summary in summaries if wanted(summary.name)]

    def read(
        self, table: str, run_ids: Collection[str] | None = None, *, include_failed: bool = False
    ) -> pyarrow.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        whole = self._whole(table_name(table))
        if run_ids is not None:
            whole = whole.filter(pc.is_in(whole["run_id"], value_set=pa.array(sorted(run_ids), pa.string())))
        if not include_failed:
            runs = self._whole("runs")
            failed = _keys(runs.filter(pc.equal(runs["status"], "failed")))
            whole = whole.filter(pc.invert(pc.is_in(_keys(whole), value_set=failed)))
        return whole

    def _whole(self, table: str) -> pyarrow.Table:
        if table not in self._tables:
            path = self.folder / f"{table}.parquet"
            with atomic.storage(path, "read"):
                content = path.read_bytes()
            self._tables[table] = read_parquet(content, table, path)
        return self._tables[table]


def _keys(table: pyarrow.Table) -> pyarrow.ChunkedArray:
    """Run and attempt of each row as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(table["run_id"], pc.cast(table["attempt"], pa.string()), " ")


def table_name(table: str) -> str:
    """`table` if it is one of TABLES. Raises UsageError otherwise."""
    if table not in TABLES:
        raise UsageError(f"table = {table!r} is unknown; allowed: {', '.join(TABLES)}")
    return table


def check_format(format: str) -> None:
    """Raise UsageError unless tables can be written in this format."""
    choice("format", format, _WRITERS)


def write_table(table: pyarrow.Table, path: Path, format: str) -> Path:
    """Write a table atomically as `parquet` or `csv`. Raises UsageError for another format, StoreError."""
    check_format(format)
    atomic.write(path, _WRITERS[format](table))
    return path
