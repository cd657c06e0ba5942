"""Compacted sets: many sets in a few large Parquet files, with an index that names them and checksums of every part.

    segment-<hex>/  runs, curves, evaluations (.parquet), failed-runs, ... (.parquet) for failed attempts
                    index.json    which sets, their summaries and row counts; byte ranges and checksums of row groups
                    footers.json  copies of the Parquet footers, so that a file cut short still gives its first rows

A segment never changes. Its rows are ordered by run id; of a damaged one every set whose row groups are sound survives.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import StoreError
from results.schema import SCHEMA_VERSION, TABLES, arrow_schema

from . import atomic
from .parquet import Damaged, current_form, damage, listed, parquet_bytes, read_listed, read_parquet, readable, reading
from .run_set import LooseSet, SetName, StoredRun

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

INDEX = "index.json"
FOOTERS = "footers.json"
ROW_GROUP = {"runs": 512, "curves": 32_768, "evaluations": 8_192}
"""Rows that are lost together when a file is damaged; larger groups read a little faster."""

KINDS = tuple((failed, table) for failed in (False, True) for table in TABLES)
"""The files of a segment: rows of each table, of results and of failed attempts."""
_SUMMARY_WIDTH = len(StoredRun.__dataclass_fields__)
_SLICES = 1000
"""So many parts of other tables make up one without being copied; with more, what reads it becomes slow."""

Piece = tuple["pyarrow.Table", Sequence[tuple[SetName, int]]]
"""Rows of one table, and whose they are: sets in the order of the rows, each with its number of rows."""


@dataclass(frozen=True)
class IndexEntry:
    """A set in a segment: its summary, its rows by table, and the hash of the manifest that it had as a folder."""

    summary: StoredRun
    rows: Mapping[str, int]
    digest: str


@dataclass(frozen=True)
class IndexBlock:
    """Sets in memory: tables by KINDS (one left out has no rows), and the entries in the order of their rows."""

    tables: Mapping[tuple[bool, str], pyarrow.Table]
    entries: tuple[IndexEntry, ...]

    def only(self, names: Collection[SetName]) -> IndexBlock:
        """Some of its sets."""
        return merge([self], names)

    def piece(self, failed: bool, table: str) -> Piece:
        """The rows of one kind."""
        entries = [entry for entry in self.entries if (entry.summary.name.failed is not None) is failed]
        return self.tables[failed, table], [(entry.summary.name, entry.rows[table]) for entry in entries]


def file_name(failed: bool, table: str) -> str:
    """The file of a segment with the rows of one table, of results or of failed attempts."""
    return f"{'failed-' if failed else ''}{table}.parquet"


@dataclass(frozen=True)
class Segment:
    """A segment by its folder; `files` lists size and checksum of its files, as the version that names it does.

    Every reading method raises StoreError for damage or a newer schema.
    """

    path: Path
    files: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(int(file["bytes"]) for file in self.files.values())

    def content(self, name: str) -> bytes:
        """A file's content, verified."""
        return read_listed(self.path / name, self.files)

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of index.json."""
        return parse_index(self.content(INDEX), self.path / INDEX)

    @cached_property
    def names(self) -> dict[SetName, list[Any]]:
        """What it holds, in the order of the rows, as lines of the index; much cheaper than `entries`."""
        return {SetName(row[0], row[1] if row[2] == "failed" else None): row for row in self.index["sets"]}

    def entry(self, name: SetName) -> IndexEntry:
        """A set of its `names`."""
        row = self.names[name]
        with reading(self.path / INDEX):
            rows = dict(zip(TABLES, row[_SUMMARY_WIDTH:-1], strict=True))
            return IndexEntry(StoredRun(*row[:_SUMMARY_WIDTH]), rows, row[-1])

    @cached_property
    def entries(self) -> dict[SetName, IndexEntry]:
        """What it holds, in the order of the rows."""
        return {name: self.entry(name) for name in self.names}

    def results(self) -> set[str]:
        """Ids of the runs whose results it holds; cheaper than `entries`."""
        return {row[0] for row in self.index["sets"] if row[2] != "failed"}

    def counts(self, failed: bool, table: str) -> list[tuple[SetName, int]]:
        """Whose rows a file holds, in order."""
        column = _SUMMARY_WIDTH + TABLES.index(table)
        return [(name, row[column]) for name, row in self.names.items() if (name.failed is not None) is failed]

    def rows(self, failed: bool, table: str) -> pyarrow.Table:
        """The content of one file; no rows if it has none of failed attempts."""
        name = file_name(failed, table)
        if failed and name not in self.files:
            return arrow_schema(table).empty_table()
        return read_parquet(self.content(name), table, self.path / name)

    def piece(self, failed: bool, table: str) -> Piece:
        """The rows of one file, and whose they are."""
        rows, counts = self.rows(failed, table), self.counts(failed, table)
        if len(rows) != (expected := sum(count for _, count in counts)):
            raise damage(self.path / file_name(failed, table), f"{len(rows)} rows instead of {expected}")
        return rows, counts

    def block(self) -> IndexBlock:
        """All that it holds."""
        return IndexBlock({kind: self.piece(*kind)[0] for kind in KINDS}, tuple(self.entries.values()))

    def damaged_file(self) -> tuple[str, str] | None:
        """The first file that is damaged, and the reason; None for a sound segment."""
        for name in (INDEX, *sorted(set(self.files) - {INDEX})):
            try:
                if name == INDEX:
                    _ = self.entries
                elif name == FOOTERS:
                    self.content(name)
                else:
                    self.piece(name.startswith("failed-"), Path(name.removeprefix("failed-")).stem)
            except Damaged as error:
                return name, str(error)
        return None

    def salvage(self) -> tuple[IndexBlock, list[SetName]]:
        """The sets that can be read in full although files are damaged, and the names of those that cannot.

        A damaged index is made anew from the tables if these are sound. Without index and tables nothing is left, nor
        is it known what is lost.
        """
        try:
            index = self.index
        except Damaged:
            with suppress(Damaged):
                return self._without_index(), []
            return IndexBlock({}, ()), []
        footers: dict[str, bytes] = {}
        with suppress(StoreError, ValueError):
            footers = {name: base64.b64decode(text) for name, text in json.loads(self.content(FOOTERS)).items()}
        tables = {}
        left = {name: dict(entry.rows) for name, entry in self.entries.items()}
        for failed, table in KINDS:
            file = file_name(failed, table)
            if file in index["files"]:
                listing = index["files"][file]
                tables[failed, table], sound = _sound_rows(self.path / file, table, listing, footers.get(file))
                begin = 0
                for name, count in self.counts(failed, table):
                    left[name][table] = int(sound[begin : begin + count].sum())
                    begin += count
        lost = [name for name, entry in self.entries.items() if left[name] != entry.rows]
        entries = [replace(entry, rows=left[name]) for name, entry in self.entries.items()]
        return IndexBlock(tables, tuple(entries)).only(left.keys() - lost), lost

    def _without_index(self) -> IndexBlock:
        """The block, with entries made from the rows. Raises StoreError if any table is damaged as well."""
        tables = {kind: self.rows(*kind) for kind in KINDS}
        entries = []
        for failed in (False, True):
            keys = {table: tables[failed, table].select(["run_id", "attempt"]).to_pylist() for table in TABLES}
            counts = {table: Counter((key["run_id"], key["attempt"]) for key in keys[table]) for table in TABLES}
            for row in tables[failed, "runs"].to_pylist():
                rows = {table: counts[table][row["run_id"], row["attempt"]] for table in TABLES}
                entries.append(IndexEntry(StoredRun.of_row(row), rows, ""))
        return merge([IndexBlock(tables, tuple(entries))])


def gather(table: str, pieces: Sequence[Piece], wanted: Callable[[SetName], bool]) -> pyarrow.Table:
    """Rows of several pieces of one of TABLES as one table in the order of sets; only of the `wanted` sets."""
    import numpy as np
    import pyarrow as pa

    ranges: list[tuple[tuple[str, int], int, int]] = []
    begin = 0
    for _, counts in pieces:
        for name, count in counts:
            if wanted(name):
                ranges.append((name.order, begin, count))
            begin += count
    whole = pa.concat_tables([arrow_schema(table).empty_table(), *(rows for rows, _ in pieces)])
    ranges.sort()
    joined: list[list[int]] = []
    for _, start, count in ranges:
        if joined and start == joined[-1][1]:
            joined[-1][1] += count
        else:
            joined.append([start, start + count])
    if joined == [[0, len(whole)]]:
        return whole
    if len(joined) <= _SLICES:
        return pa.concat_tables([whole.slice(0, 0), *(whole.slice(start, end - start) for start, end in joined)])
    return whole.combine_chunks().take(np.concatenate([np.arange(start, end) for start, end in joined]))


def load_sets(loose: Mapping[SetName, LooseSet]) -> tuple[IndexBlock, list[SetName]]:
    """Sets in folders of their own as one block, and those that are damaged. Raises StoreError for a newer schema."""
    blocks, damaged = [], []
    for name, loose_set in loose.items():
        try:
            summary, files = loose_set.manifest()
            tables = {(name.failed is not None, table): loose_set.table(table, files) for table in TABLES}
            digest = sha256(loose_set.manifest_bytes()).hexdigest()
        except Damaged:
            damaged.append(name)
            continue
        counts = {table: len(rows) for (_, table), rows in tables.items()}
        blocks.append(IndexBlock(tables, (IndexEntry(summary, counts, digest),)))
    return merge(blocks), damaged


def merge(blocks: Sequence[IndexBlock], names: Collection[SetName] | None = None) -> IndexBlock:
    """Several blocks as one; only the sets of these names if given."""
    entries = [entry for block in blocks for entry in block.entries if names is None or entry.summary.name in names]
    entries.sort(key=lambda entry: entry.summary.name.order)
    chosen = {entry.summary.name for entry in entries}
    tables = {
        kind: gather(kind[1], [block.piece(*kind) for block in blocks if kind in block.tables], chosen.__contains__)
        for kind in KINDS
    }
    return IndexBlock(tables, tuple(entries))


def write_segment(folder: Path, block: IndexBlock) -> Segment:
    """Write a new segment below `folder`, flushed to disk; nobody reads it before a version names it.

    Raises StoreError, and then leaves nothing behind.
    """
    files: dict[str, bytes] = {}
    listing: dict[str, dict[str, Any]] = {}
    footers: dict[str, str] = {}
    for (failed, table), rows in block.tables.items():
        if failed and not len(block.tables[True, "runs"]):
            continue
        name = file_name(failed, table)
        content = parquet_bytes(rows, row_group_size=ROW_GROUP[table])
        groups = _row_groups(content)
        end = groups[-1][1] if groups else 4
        files[name] = content
        footers[name] = base64.b64encode(content[end:]).decode()
        listing[name] = listed(content) | {"rows": len(rows), "groups": groups}
    files[FOOTERS] = json.dumps(footers).encode()
    sets = [[*vars(e.summary).values(), *(e.rows[table] for table in TABLES), e.digest] for e in block.entries]
    index = {"schema_version": SCHEMA_VERSION, "files": listing, "sets": sets}
    files[INDEX] = json.dumps(index, separators=(",", ":")).encode()
    path = folder / f"segment-{secrets.token_hex(8)}"
    atomic.make_folder(folder)
    atomic.new_folder_of(path, files)
    return Segment(path, {name: listed(content) for name, content in files.items()})


def parse_index(content: bytes, path: Path) -> dict[str, Any]:
    """An index from its text. Raises StoreError for damage or a newer schema."""
    with reading(path):
        index: dict[str, Any] = json.loads(content)
        readable(index["schema_version"], path)
        _ = index["files"], index["sets"]
    return index


def _row_groups(content: bytes) -> list[tuple[int, int, int, str]]:
    """First byte, end, rows and checksum of each row group of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(i) for i in range(group.num_columns)]
        begins = [min(c.data_page_offset, c.dictionary_page_offset or c.data_page_offset) for c in columns]
        begin = min(begins)
        end = max(first + column.total_compressed_size for first, column in zip(begins, columns, strict=True))
        groups.append((begin, end, group.num_rows, sha256(content[begin:end]).hexdigest()))
    return groups


def _sound_rows(
    path: Path, table: str, listing: Mapping[str, Any], footer: bytes | None
) -> tuple[pyarrow.Table, np.ndarray]:
    """The rows of a file without those of damaged row groups, and for each row whether it is among them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()[: listing["bytes"]]
    except OSError:
        content = b""
    restored = bytearray(content.ljust(listing["bytes"], b"\0"))
    if footer is not None:
        restored[len(restored) - len(footer) :] = footer
    row_groups, sound = [arrow_schema(table).empty_table()], []
    for number, (first, end, rows, checksum) in enumerate(listing["groups"]):
        try:
            if sha256(restored[first:end]).hexdigest() != checksum:
                raise damage(path, f"row group {number}")
            row_group = pq.ParquetFile(pa.BufferReader(bytes(restored))).read_row_group(number, use_threads=False)
            row_groups.append(current_form(row_group, table, path))
            sound.append(np.ones(rows, dtype=bool))
        except (pa.ArrowException, OSError, Damaged):
            sound.append(np.zeros(rows, dtype=bool))
    return pa.concat_tables(row_groups), np.concatenate(sound or [np.zeros(0, dtype=bool)])
