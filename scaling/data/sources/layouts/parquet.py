"""Parquet files with encoded pictures, read in place a row group at a time.

The image column holds bytes, or structs {bytes, path} as Hugging Face writes them; the label column numbers or words,
or is absent. Names of classes come from Hugging Face's description in the schema, where there is one.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from results.errors import DataError

from ..labels import SINGLE_CLASS, numbered
from ..names import Names
from ..pictures import file_stamp

LARGEST_GROUP = 256 * 2**20
"""Bytes of pictures in a row group: all of one is decompressed to get at one row."""
KEPT_BYTES = 64 * 2**20
"""Row groups that a process keeps; always the last one, however large."""


@dataclass(frozen=True, eq=False)
class ParquetPictures:
    """Pictures in rows, in the order of their names; see Pictures. `files`, `groups` and `rows` are int32 [n]."""

    root: Path
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    groups_of: GroupReader
    stamps: tuple[bytes, ...]
    files: NDArray[np.int32]
    groups: NDArray[np.int32]
    rows: NDArray[np.int32]

    @property
    def origin(self) -> str:
        return "\0".join(map(str, self.groups_of.paths))

    def read(self, index: int) -> bytes:
        content = self.groups_of.read(int(self.files[index]), int(self.groups[index]))[int(self.rows[index])].as_py()
        if content is None:
            raise DataError(f"{self.where(index)} holds no bytes; allowed: encoded pictures in the file itself")
        return bytes(content)

    def where(self, index: int) -> str:
        place = f"row {self.rows[index]} of row group {self.groups[index]}"
        return f"{self.groups_of.paths[self.files[index]]}: {self.names[index]} ({place})"

    def stamp(self, index: int) -> bytes:
        return self.stamps[self.files[index]] + f"\0{self.groups[index]}\0{self.rows[index]}".encode()

    def storage_order(self) -> NDArray[np.int64]:
        return np.lexsort((self.rows, self.groups, self.files))


@dataclass(eq=False)
class GroupReader:
    """Columns of pictures by (file, row group), the last few kept up to KEPT_BYTES."""

    paths: tuple[Path, ...]
    column: str
    """The leaf with the bytes, such as `image.bytes`."""
    _opened: dict[int, parquet.ParquetFile] = field(default_factory=dict)
    _kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, file: int, group: int) -> pa.ChunkedArray:
        """The pictures of a row group. Raises DataError that names the file."""
        with self._lock:
            if (file, group) not in self._kept:
                self._kept[file, group] = self._read(file, group)
                while len(self._kept) > 1 and sum(array.nbytes for array in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((file, group))
            return self._kept[file, group]

    def _read(self, file: int, group: int) -> pa.ChunkedArray:
        path = self.paths[file]
        try:
            if file not in self._opened:
                if len(self._opened) >= 64:
                    self._opened.clear()
                self._opened[file] = open_file(path)
            table = self._opened[file].read_row_group(group, [self.column], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({one_line(error)})") from error
        array = table.column(0)
        if pa.types.is_struct(array.type):
            array = pa.chunked_array([chunk.field("bytes") for chunk in array.chunks], array.type.field("bytes").type)
        return array


def open_parquet(
    root: Path, paths: Sequence[Path], image_column: str, label_column: str, classes: tuple[str, ...] | None = None
) -> ParquetPictures:
    """All pictures of these files; `classes` fixes the numbering of labels.

    Raises DataError that names file and column: damaged or cut short, no such column, another type, a row group of more
    than LARGEST_GROUP, a label that is missing or not allowed.
    """
    labels, names, places = [], [], []
    leaf, class_names = image_column, classes
    for number, path in enumerate(paths):
        try:
            file = open_file(path)
            leaf = image_leaf(file.schema_arrow, image_column, path)
            _check_groups(file.metadata, leaf, path)
            class_names = class_names or described_classes(file.schema_arrow.metadata, label_column)
            has_label = label_column in file.schema_arrow.names
            columns = ([label_column] if has_label else []) + ([f"{image_column}.path"] if leaf != image_column else [])
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns, use_threads=False)
                count = file.metadata.row_group(group).num_rows
                places.append((number, group, count))
                labels.append(table.column(label_column) if has_label else None)
                names.append(_paths(table, image_column) if leaf != image_column else None)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({one_line(error)})") from error
    counts = [count for _, _, count in places]
    total = sum(counts)
    if not total:
        raise DataError(f"{root} has no row in {len(paths)} Parquet files ({paths[0]}, ...)")
    files, groups = (np.repeat([place[i] for place in places], counts).astype(np.int32) for i in (0, 1))
    rows = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    texts = row_names(names, total)

    def where(index: int) -> str:
        return f"{paths[files[index]]}: row {rows[index]} of row group {groups[index]}"

    values, class_names = label_numbers(labels, total, class_names, where)
    order = texts.order()
    return ParquetPictures(
        root, texts.take(order), values[order], class_names, GroupReader(tuple(paths), leaf),
        tuple(file_stamp(path) for path in paths), files[order], groups[order], rows[order],
    )  # fmt: skip


def open_file(path: Path) -> parquet.ParquetFile:
    """Raises OSError or ArrowException."""
    return parquet.ParquetFile(path, memory_map=False, pre_buffer=False)


def image_leaf(schema: pa.Schema, column: str, path: Path) -> str:
    """The column with the bytes: the image column, or its field `bytes`. Raises DataError."""
    if column not in schema.names:
        raise DataError(f"{path} has no column {column!r}; data.image_column allows: {', '.join(schema.names)}")
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
        return f"{column}.bytes"
    if _is_binary(kind):
        return column
    raise DataError(f"{path}: column {column!r} is of type {kind}; allowed: binary, or struct<bytes: binary, path>")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _check_groups(metadata: Any, leaf: str, path: Path) -> None:
    for group in range(metadata.num_row_groups):
        columns = (metadata.row_group(group).column(i) for i in range(metadata.num_columns))
        size = next(column.total_uncompressed_size for column in columns if column.path_in_schema == leaf)
        if size > LARGEST_GROUP:
            raise DataError(
                f"{path}: row group {group} holds {size / 2**20:,.0f} MiB of pictures; allowed: up to "
                f"{LARGEST_GROUP >> 20} MiB, since one picture needs all of it: write it with row_group_size=100"
            )


def _paths(table: pa.Table, column: str) -> pa.ChunkedArray | None:
    array = table.column(column)
    if array.type.get_field_index("path") < 0:
        return None
    return pa.chunked_array([chunk.field("path") for chunk in array.chunks], array.type.field("path").type)


def described_classes(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Class names that Hugging Face's description in a schema gives for a column of labels."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"])) or None
    except (KeyError, ValueError, TypeError):
        return None


def row_names(paths: Sequence[pa.ChunkedArray | None], total: int) -> Names:
    """Names of rows: their paths where all have one and all differ, else their numbers."""
    if all(array is not None and array.null_count == 0 for array in paths):
        names = Names.of(text for array in paths if array is not None for text in array.to_pylist())
        if names.repeated() is None and all(len(name) for name in names):
            return names
    return Names.of(f"{number:09d}" for number in range(total))


def label_numbers(
    columns: Sequence[pa.ChunkedArray | None], total: int, classes: tuple[str, ...] | None, where: Any
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Class numbers [n] and class names of the columns of labels. Raises DataError that names the row."""
    if all(column is None for column in columns):
        return np.zeros(total, np.int32), classes or SINGLE_CLASS
    texts: list[str] = []
    for column in columns:
        if column is None or column.null_count:
            row = 0 if column is None else int(np.argmax(column.is_null().to_numpy()))
            raise DataError(f"{where(len(texts) + row)} has no label")
        if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
            raise DataError(f"{where(len(texts))}: labels are of type {column.type}; allowed: whole numbers or texts")
        texts += map(str, column.to_pylist())
    return numbered(Names.of(texts), classes, where)


def one_line(error: BaseException) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())
