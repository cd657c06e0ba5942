"""Tables as Parquet and CSV in memory: what is written, and the checks with which every file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import StoreError
from results.schema import LATER_COLUMNS, SCHEMA_VERSION, arrow_schema

if TYPE_CHECKING:
    import pyarrow

_SMALL_ROWS = 1000
_ADVICE = "`tokenlaw store check` moves it aside so that it can run again"


class Damaged(StoreError):
    """A file that is not what was written; one of a newer tokenlaw is another StoreError, and never moved aside."""


def damage(path: Path, reason: str) -> Damaged:
    """The error for a damaged file of the store."""
    return Damaged(f"{path} is damaged: {reason}; {_ADVICE}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the block raises for a file that is missing or says something else into a Damaged about `path`."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damage(path, repr(error)) from error


def listed(content: bytes) -> dict[str, Any]:
    """What a listing of files has of one, so that damage is recognised: its size and checksum."""
    return {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def read_listed(path: Path, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A file's content, compared with its entry in a listing of files by name. Raises StoreError."""
    with reading(path):
        content, expected = path.read_bytes(), files[path.name]
    if len(content) != expected["bytes"]:
        raise damage(path, f"{len(content)} bytes instead of {expected['bytes']}")
    if listed(content)["sha256"] != expected["sha256"]:
        raise damage(path, "its checksum differs")
    return content


def readable(version: int, path: Path) -> int:
    """A schema version that this package reads. Raises StoreError for a newer one."""
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, newer than {SCHEMA_VERSION}, which this tokenlaw reads; upgrade it"
        )
    return version


def parquet_bytes(table: pyarrow.Table, *, row_group_size: int | None = None) -> bytes:
    """A table as Parquet. Every page carries a CRC, so that the undamaged parts of a damaged file can be told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # Of a table with few rows reading is all overhead, of a decompressor and a dictionary for each column.
    small = len(table) < _SMALL_ROWS
    pq.write_table(
        table,
        sink,
        compression="snappy" if small else "zstd",
        use_dictionary=not small,
        write_statistics=not small,
        row_group_size=row_group_size,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def csv_bytes(table: pyarrow.Table) -> bytes:
    """A table as CSV, with a header."""
    import pyarrow as pa
    import pyarrow.csv as csv

    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def read_parquet(content: bytes, table: str, path: Path) -> pyarrow.Table:
    """One of TABLES from the content of the file `path`, in the columns of this schema.

    Raises StoreError for damage, or for a schema newer than this package.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One thread: a reader inside a run must not take the cores of others.
        rows = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise damage(path, str(error).splitlines()[0]) from error
    return current_form(rows, table, path)


def current_form(rows: pyarrow.Table, table: str, path: Path) -> pyarrow.Table:
    """A table of this or an earlier schema version in the columns of this one; `path` is for messages.

    Raises StoreError for other columns, or for a schema newer than this package.
    """
    import pyarrow as pa

    version = readable(int((rows.schema.metadata or {}).get(b"tokenlaw_schema", b"0")), path)
    wanted = arrow_schema(table)
    for name, since in LATER_COLUMNS.items() if table == "runs" else ():
        if version < since and name not in rows.schema.names:
            rows = rows.append_column(wanted.field(name), pa.nulls(len(rows), wanted.field(name).type))
    present = {field.name: field.type for field in rows.schema}
    if list(present.items()) != [(field.name, field.type) for field in wanted]:
        raise damage(path, f"its columns are not those of table {table} in schema {version}")
    for field in wanted:
        if not field.nullable and rows[field.name].null_count:
            raise damage(path, f"column {field.name} has empty values, but is required in table {table}")
    return pa.Table.from_arrays(rows.columns, schema=wanted)
