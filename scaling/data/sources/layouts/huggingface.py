"""Data sets of Hugging Face `datasets`: saved ones are Arrow files, mapped and read without that package.

A folder of `save_to_disk` needs pyarrow alone. Any other name is asked of `datasets.load_dataset` (extra `datasets`),
which prepares the same kind of files in its own cache. Saving keeps only base names of paths, so the fingerprint
differs from that of the folder the pictures came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.errors import DataError

from ..labels import listed
from ..names import Names
from ..pictures import file_stamp
from ..splits import TRAIN, VALIDATION
from .parquet import described_classes, image_leaf, label_numbers, one_line, row_names


@dataclass(frozen=True, eq=False)
class ArrowPictures:
    """Pictures in mapped Arrow files, in the order of their names; see Pictures. `rows` is int64 [n]."""

    root: Path
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    stamps: tuple[bytes, ...]
    column: pa.ChunkedArray
    ends: NDArray[np.int64]
    """Number of rows up to the end of each file."""
    rows: NDArray[np.int64]

    @property
    def origin(self) -> str:
        return "\0".join(map(str, self.paths))

    def read(self, index: int) -> bytes:
        content = self.column[int(self.rows[index])].as_py()
        if content is None:
            raise DataError(f"{self.where(index)} holds no bytes; allowed: encoded pictures in the file itself")
        return bytes(content)

    def where(self, index: int) -> str:
        return f"{self.paths[self._file(index)]}: {self.names[index]} (row {self.rows[index]})"

    def stamp(self, index: int) -> bytes:
        return self.stamps[self._file(index)] + f"\0{self.rows[index]}".encode()

    def storage_order(self) -> NDArray[np.int64]:
        return np.argsort(self.rows, kind="stable")

    def _file(self, index: int) -> int:
        return int(np.searchsorted(self.ends, self.rows[index], side="right"))


def split_arrows(root: Path, text: str, train: str | None, validation: str | None) -> tuple[list[Path], list[Path]]:
    """Arrow files of both splits of a saved data set at `root`, else of the one that `text` names to `datasets`.

    The second is empty if there is one split only. Raises DataError for a split that is absent, or without the extra.
    """
    splits = _saved(root) if root.exists() else _prepared(text)
    for name, field in ((train, "train_split"), (validation, "validation_split")):
        if name is not None and name not in splits:
            raise DataError(f"data.{field} = {name!r} is no split of {text}; allowed: {listed(list(splits))}")
    first = train or (TRAIN if TRAIN in splits else next(iter(splits)) if len(splits) == 1 else None)
    if first is None:
        raise DataError(f"{text} has no split {TRAIN!r}; data.train_split allows: {listed(list(splits))}")
    second = validation or next((name for name in VALIDATION if name in splits and name != first), None)
    return splits[first], splits[second] if second else []


def open_arrows(
    root: Path, paths: Sequence[Path], image_column: str, label_column: str, classes: tuple[str, ...] | None = None
) -> ArrowPictures:
    """All pictures of these files. Raises DataError that names file and column, as open_parquet does."""
    images, labels, names, counts = [], [], [], []
    for path in paths:
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({one_line(error)})") from error
        leaf = image_leaf(table.schema, image_column, path)
        image = table.column(image_column)
        nested = leaf != image_column
        images.append(_field(image, "bytes") if nested else image)
        names.append(_field(image, "path") if nested and image.type.get_field_index("path") >= 0 else None)
        labels.append(table.column(label_column) if label_column in table.schema.names else None)
        classes = classes or described_classes(table.schema.metadata, label_column)
        counts.append(len(table))
    ends, total = np.cumsum(counts), sum(counts)
    if not total:
        raise DataError(f"{root} has no row in {len(paths)} Arrow files")

    def where(index: int) -> str:
        return f"{paths[int(np.searchsorted(ends, index, side='right'))]}: row {index}"

    values, class_names = label_numbers(labels, total, classes, where)
    column = pa.chunked_array([chunk for array in images for chunk in array.chunks])
    texts = row_names(names, total)
    order = texts.order()
    return ArrowPictures(
        root, texts.take(order), values[order], class_names, tuple(paths), tuple(map(file_stamp, paths)), column,
        ends, order,
    )  # fmt: skip


def _field(array: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.field(name) for chunk in array.chunks], array.type.field(name).type)


def _saved(root: Path) -> dict[str, list[Path]]:
    """Files by split of a folder that `save_to_disk` wrote."""
    try:
        if (root / "dataset_dict.json").is_file():
            names = json.loads((root / "dataset_dict.json").read_text())["splits"]
            return {str(name): _saved(root / str(name))[TRAIN] for name in names}
        state = json.loads((root / "state.json").read_text())
        files = [root / str(entry["filename"]) for entry in state["_data_files"]]
        if state.get("_indices_data_files"):
            raise DataError(f"{root} keeps indices beside its rows; write it after flatten_indices()")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root} is no data set of save_to_disk ({one_line(error)})") from error
    return {TRAIN: files}


def _prepared(text: str) -> dict[str, list[Path]]:
    """Files by split of a data set that the package `datasets` loads by name."""
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise DataError(
            f"data.path = {text!r} is no folder; a data set by name needs the extra: pip install 'tokenlaw[datasets]'"
        ) from error
    try:
        loaded = datasets.load_dataset(text)
    except Exception as error:  # Many kinds, of several packages; all mean that there is no such data.
        raise DataError(f"data.path = {text!r} cannot be loaded by datasets ({one_line(error)[:200]})") from error
    return {str(name): [Path(file["filename"]) for file in split.cache_files] for name, split in loaded.items()}
