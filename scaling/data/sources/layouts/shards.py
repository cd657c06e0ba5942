"""Tar shards in webdataset's layout, read in place: an index of offsets is made once a shard and kept.

Members of one key (the path up to the first dot of the file name) are one sample: the picture, and its label as `.cls`
(a number or a word) or in `.json`. Without either, classes are the first folders of the keys, if there are any.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError
from scaling.data.decode import SUFFIXES

from .. import kept
from ..labels import SINGLE_CLASS, by_folder, numbered
from ..names import Names
from ..pictures import RangeReader, file_stamp

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Kinds of archive that cannot be read in place."""


@dataclass(frozen=True, eq=False)
class ShardPictures:
    """Pictures in tar files, in the order of their names; see Pictures. `shards`, `offsets`, `sizes` are int64 [n]."""

    root: Path
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    reader: RangeReader
    stamps: tuple[bytes, ...]
    shards: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def origin(self) -> str:
        return "\0".join(map(str, self.reader.paths))

    def read(self, index: int) -> bytes:
        return self.reader.read(int(self.shards[index]), int(self.offsets[index]), int(self.sizes[index]))

    def where(self, index: int) -> str:
        return f"{self.reader.paths[self.shards[index]]}: {self.names[index]}"

    def stamp(self, index: int) -> bytes:
        return self.stamps[self.shards[index]] + f"\0{self.offsets[index]}".encode()

    def storage_order(self) -> NDArray[np.int64]:
        return np.lexsort((self.offsets, self.shards))


@dataclass(frozen=True, eq=False)
class _Index:
    """What one shard holds: member names, places, and label texts (empty names where `labelled` is false)."""

    names: Names
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Names
    labelled: bool


def open_shards(
    root: Path, paths: Sequence[Path], cache: Path, label_key: str = "label", classes: tuple[str, ...] | None = None
) -> ShardPictures:
    """All pictures of these shards. `label_key` is the field of a sample's JSON; `classes` fixes the numbering.

    Raises DataError that names shard and member: no tar file, cut short, compressed, two samples of one key, a label
    that is missing or not allowed.
    """
    for path in paths:
        if path.name.endswith(COMPRESSED):
            raise DataError(f"{path} is compressed and cannot be read in place; unpack it to .tar")
    stamps = tuple(file_stamp(path) for path in paths)
    with ThreadPoolExecutor(min(len(paths), 8)) as pool:
        indices = list(
            pool.map(lambda pair: _index(pair[0], pair[1], cache, label_key), zip(paths, stamps, strict=True))
        )
    names = Names.of(raw for index in indices for raw in index.names.raws())
    if not len(names):
        raise DataError(f"{root} has no picture in {len(paths)} shards ({paths[0]}, ...)")
    shards = np.repeat(np.arange(len(paths)), [len(index.names) for index in indices])
    offsets, sizes = (np.concatenate([getattr(index, name) for index in indices]) for name in ("offsets", "sizes"))

    def where(index: int) -> str:
        return f"{paths[shards[index]]}: {names[index]}"

    labelled = np.repeat([index.labelled for index in indices], [len(index.names) for index in indices])
    if labelled.any() != labelled.all():
        raise DataError(
            f"{where(int(np.argmin(labelled)))} has no label (.cls or .json), unlike {where(int(np.argmax(labelled)))}"
        )
    if labelled.all():
        texts = Names.of(raw for index in indices for raw in index.labels.raws())
        labels, class_names = numbered(texts, classes, where)
    elif (firsts := by_folder(names)) is not None:
        # With a letter before, so that folders with numbers for names are words.
        words = tuple(f"/{name}" for name in classes or sorted(set(firsts)))
        labels, class_names = numbered(Names.of(f"/{name}" for name in firsts), words, where)
        class_names = tuple(name[1:] for name in class_names)
    else:
        labels, class_names = np.zeros(len(names), np.int32), classes or SINGLE_CLASS
    if names.repeated() is not None:
        # Keys that begin anew in each shard: the shard's name tells them apart.
        names = Names.of(f"{paths[shards[i]].stem}/{names[i]}" for i in range(len(names)))
        if (twice := names.repeated()) is not None:
            raise DataError(f"{root}: two pictures are named {twice}; allowed: different names")
    order = names.order()
    return ShardPictures(
        root, names.take(order), labels[order], class_names, RangeReader(tuple(paths)), stamps,
        shards[order], offsets[order], sizes[order],
    )  # fmt: skip


def _index(path: Path, stamp: bytes, cache: Path, label_key: str) -> _Index:
    place = kept.kept_path(cache, "shards", f"{path}\0{label_key}")
    arrays = kept.load(place, stamp)
    if arrays is None or "labelled" not in arrays:
        arrays = _read_index(path, label_key)
        kept.save(place, arrays, stamp)
    return _Index(
        Names(arrays["names"], arrays["name_ends"]),  # type: ignore[arg-type]
        arrays["offsets"],  # type: ignore[arg-type]
        arrays["sizes"],  # type: ignore[arg-type]
        Names(arrays["labels"], arrays["label_ends"]),  # type: ignore[arg-type]
        bool(arrays["labelled"].all()),
    )


def _read_index(path: Path, label_key: str) -> dict[str, NDArray[np.generic]]:
    names: list[str] = []
    places: list[tuple[int, int]] = []
    labels: dict[str, bytes] = {}
    keys: dict[str, str] = {}
    for member, key, ending, content in _members(path):
        if f".{ending}" in SUFFIXES:
            if key in keys:
                raise DataError(f"{path}: {keys[key]} and {member.name} are two pictures of one sample; allowed: one")
            keys[key] = member.name
            names.append(member.name)
            places.append((member.offset_data, member.size))
        elif content is not None:
            labels[key] = _label(content, ending, f"{path}: {member.name}", label_key)
    missing = next((name for key, name in keys.items() if key not in labels), None)
    if missing is not None and labels.keys() & keys.keys():
        raise DataError(f"{path}: {missing} has no label (.cls or .json), unlike others of the shard")
    labelled = missing is None and bool(keys)
    texts = Names.of(labels[key] for key in keys) if labelled else Names.of(b"" for _ in keys)
    packed = Names.of(names)
    table = np.array(places, np.int64).reshape(-1, 2)
    return {
        "names": packed.buffer, "name_ends": packed.offsets, "offsets": table[:, 0], "sizes": table[:, 1],
        "labels": texts.buffer, "label_ends": texts.offsets, "labelled": np.array([labelled or not keys]),
    }  # fmt: skip


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, str, str, bytes | None]]:
    """Members that are files, with key, ending in lower case, and content if it may tell a label."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # It would keep all of them.
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                content = None
                if ending.lower() in ("cls", "json"):
                    file = archive.extractfile(member)
                    content = file.read() if file else b""
                    if len(content) != member.size:
                        raise DataError(f"{path} is cut short within {member.name}")
                yield member, folder + slash + stem, ending.lower(), content
            end = archive.offset
        with path.open("rb") as file:
            file.seek(end)
            # Every archive ends in blocks of zeros: without one, its writer did not get to the end.
            if file.read(512) != bytes(512):
                raise DataError(f"{path} is cut short: an archive's closing blocks are not there")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is no tar file, damaged or cut short ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def _label(content: bytes, ending: str, where: str, key: str) -> bytes:
    """The label's text. Raises DataError."""
    if ending == "cls":
        return content.strip()
    try:
        values = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error})") from error
    value = values.get(key) if isinstance(values, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where} has no field {key!r} with a number or a text; data.label_column names it")
    return os.fsencode(str(value))
