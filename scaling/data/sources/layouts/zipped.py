"""A zip archive read in place: its directory as compact arrays, kept; members by pread, safe with forked workers.

Python's zipfile needs about a kilobyte an entry and shares one position between processes; ImageNet's archive has 1.5
million entries. The format is PKWARE's APPNOTE 6.3: end record, ZIP64, stored and deflated members.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError

from .. import kept
from ..names import Names
from ..pictures import RangeReader, file_stamp

_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_FULL = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, eq=False)
class ZipArchive:
    """Files of a zip archive by number, in the archive's order; all arrays are [n].

    offsets, packed, sizes: place of the local header, and bytes in the archive and unpacked, int64
    methods, checks: how it is packed, and CRC-32 of the content
    """

    path: Path
    stamp: bytes
    names: Names
    offsets: NDArray[np.int64]
    packed: NDArray[np.int64]
    sizes: NDArray[np.int64]
    methods: NDArray[np.int64]
    checks: NDArray[np.int64]
    reader: RangeReader

    def read(self, index: int) -> bytes:
        """Content of a member. Raises DataError that names it: cut short, damaged, encrypted, another compression."""
        offset, method = int(self.offsets[index]), int(self.methods[index])
        if method not in (_STORED, _DEFLATED):
            raise DataError(f"{self.where(index)} is packed by method {method}; allowed: stored, deflated")
        header = self.reader.read(0, offset, 30)
        if header[:4] != _LOCAL:
            raise DataError(f"{self.where(index)} is damaged (no header at {offset})")
        name, extra = struct.unpack("<HH", header[26:30])
        content = self.reader.read(0, offset + 30 + name + extra, int(self.packed[index]))
        if struct.unpack("<H", header[6:8])[0] & 1:
            raise DataError(f"{self.where(index)} is encrypted")
        if method == _DEFLATED:
            try:
                content = zlib.decompress(content, -15, int(self.sizes[index]))
            except zlib.error as error:
                raise DataError(f"{self.where(index)} is damaged ({error})") from error
        if zlib.crc32(content) != int(self.checks[index]) or len(content) != int(self.sizes[index]):
            raise DataError(f"{self.where(index)} is damaged (its checksum differs)")
        return content

    def where(self, index: int) -> str:
        """Archive and member, for people."""
        return f"{self.path}: {self.names[index]}"


def open_zip(path: Path, cache: Path) -> ZipArchive:
    """The archive, its directory from the cache if it is known. Raises DataError if it is no archive, or cut short."""
    stamp, place = file_stamp(path), kept.kept_path(cache, "zips", str(path))
    arrays = kept.load(place, stamp)
    if arrays is None or set(arrays) != {"names", "ends", "table"}:
        try:
            arrays = _directory(path)
        except (struct.error, IndexError) as error:
            raise DataError(f"{path} is damaged: its directory ends early") from error
        kept.save(place, arrays, stamp)
    table: NDArray[np.int64] = arrays["table"]  # type: ignore[assignment]
    names = Names(arrays["names"], arrays["ends"])  # type: ignore[arg-type]
    offsets, packed, sizes, methods, checks = table
    return ZipArchive(path, stamp, names, offsets, packed, sizes, methods, checks, RangeReader((path,)))


def _directory(path: Path) -> dict[str, NDArray[np.generic]]:
    """Names, and a table int64 [5, n] of offsets, packed sizes, sizes, methods and checks."""
    reader, size = RangeReader((path,)), path.stat().st_size
    tail_start = max(size - 66_000, 0)  # The end record has a comment of at most 65,535 bytes.
    tail = reader.read(0, tail_start, size - tail_start)
    end = tail.rfind(_END)
    if end < 0:
        raise DataError(f"{path} is no zip archive, or cut short (it has no directory at its end)")
    count, length, start = struct.unpack("<HII", tail[end + 10 : end + 20])
    locator = tail[max(end - 20, 0) : end]
    if locator[:4] == _LOCATOR_64:
        record = reader.read(0, struct.unpack("<Q", locator[8:16])[0], 56)
        if record[:4] != _END_64:
            raise DataError(f"{path} is damaged (its ZIP64 record is not where it should be)")
        count, length, start = struct.unpack("<QQQ", record[32:56])
    directory = reader.read(0, start, length)
    names: list[bytes] = []
    table = np.zeros((5, count), np.int64)
    position = 0
    for _ in range(count):
        if directory[position : position + 4] != _ENTRY:
            raise DataError(f"{path} is damaged (entry {len(names)} of its directory)")
        method, _, _, check, packed, unpacked, name, extra, comment = struct.unpack(
            "<HHHIIIHHH", directory[position + 10 : position + 34]
        )
        offset = struct.unpack("<I", directory[position + 42 : position + 46])[0]
        begin = position + 46
        raw = directory[begin : begin + name]
        if _FULL in (packed, unpacked, offset):
            more = directory[begin + name : begin + name + extra]
            packed, unpacked, offset = _wide(more, packed, unpacked, offset)
        position = begin + name + extra + comment
        if not raw.endswith(b"/"):
            table[:, len(names)] = offset, packed, unpacked, method, check
            names.append(raw)
    texts = Names.of(names)
    return {"names": texts.buffer, "ends": texts.offsets, "table": table[:, : len(names)].copy()}


def _wide(extra: bytes, packed: int, unpacked: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset with those that do not fit into 32 bits taken from the ZIP64 field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[position : position + 4])
        if kind == 1:
            values = iter(struct.unpack(f"<{length // 8}Q", extra[position + 4 : position + 4 + length // 8 * 8]))
            # In this order, each only if its own field is full.
            unpacked, packed, offset = (next(values) if old == _FULL else old for old in (unpacked, packed, offset))
            break
        position += 4 + length
    return packed, unpacked, offset
