"""Features of many images in a file that is mapped into memory: what is held does not grow with their number.

A file is a .npy of float32 [n, d], as NumPy reads it, with 32 bytes after it: the SHA-256 of all that is before. It is
written a block at a time under another name and renamed when whole. Features of a few images stay in memory.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as layout
from torch import Tensor

from results.errors import DataError
from results.store import atomic

IN_MEMORY = 2**24
"""Values that are kept in memory where nothing is to be kept in a file: 64 MiB."""
READ_AT_ONCE = 2**22
"""Bytes of a file that are checked at a time."""
DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


class Spool:
    """Rows that come in blocks, in memory while they are few, else in a file of `folder` that has no name."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._blocks, self._count = folder, list[Tensor](), 0
        self._file: IO[bytes] | None = None

    def add(self, block: Tensor) -> None:
        """Rows [n, d]. Raises StoreError if they cannot be written."""
        self._blocks.append(block.detach().to("cpu", torch.float32))
        self._count += len(block)
        if sum(kept.numel() for kept in self._blocks) > IN_MEMORY:
            with atomic.storage(self._folder):
                if self._file is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
                for kept in self._blocks:
                    self._file.write(_bytes(kept))
            self._blocks = [self._blocks[-1][:0]]

    def rows(self) -> Tensor:
        """All rows float32 [n, d]; writing to them changes no file. Raises ValueError if there are none."""
        if not self._count:
            raise ValueError("features of no images")
        width = self._blocks[-1].shape[1]
        if self._file is None:
            return torch.cat(self._blocks).clone()
        with atomic.storage(self._folder):
            for kept in self._blocks:
                self._file.write(_bytes(kept))
            self._file.flush()
        return _mapped(self._file, 0, (self._count, width))


def kept_rows(path: Path, count: int, blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
    """Rows float32 [count, d] of a file, mapped; computed a block at a time and put there if it is absent or damaged.

    Files are renamed when whole, so that any number of processes may share a folder. Raises StoreError for one that
    cannot be written, ValueError for blocks of another number of rows in all.
    """
    if path.exists():
        try:
            return _checked(path, count)
        except (DataError, OSError, ValueError) as error:
            _log.warning("%s is damaged: %s; computed again", path, error)
    atomic.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with atomic.storage(path), temporary.open("xb") as file:
            digest, written = hashlib.sha256(), 0
            for block in blocks():
                rows = block.detach().to("cpu", torch.float32)
                content = _bytes(rows) if written else _header(count, rows.shape[1]) + _bytes(rows)
                digest.update(content)
                file.write(content)
                written += len(rows)
            if written != count or not count:
                raise ValueError(f"features of {written} images, {count} were expected")
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        with atomic.storage(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return _checked(path, count)


def _checked(path: Path, count: int) -> Tensor:
    """The rows of a file. Raises DataError for a damaged one, OSError and ValueError for none."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256()
        while size - DIGEST > file.tell():
            digest.update(file.read(min(READ_AT_ONCE, size - DIGEST - file.tell())))
        if file.read() != digest.digest():
            raise DataError("its SHA-256 is not that of its rows")
        file.seek(0)
        layout.read_magic(file)
        shape, _, kind = layout.read_array_header_1_0(file)
        if len(shape) != 2 or shape[0] != count or kind != np.float32:
            raise DataError(f"it holds {kind} {list(shape)}, {count} rows were expected")
        return _mapped(file, file.tell(), shape)


def _mapped(file: IO[bytes], offset: int, shape: tuple[int, ...]) -> Tensor:
    # Copy on write: torch wants memory that may be written, and no write is to reach the file.
    return torch.from_numpy(np.memmap(file, np.float32, "c", offset, shape))  # type: ignore[call-overload]


def _header(count: int, width: int) -> bytes:
    buffer = io.BytesIO()
    layout.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (count, width)})
    return buffer.getvalue()


def _bytes(rows: Tensor) -> bytes:
    return rows.contiguous().numpy().astype("<f4", copy=False).tobytes()
