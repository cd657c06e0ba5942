"""The one interface of all sources: encoded pictures with labels, in the order of their names."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError

from .names import Names


class Pictures(Protocol):
    """A split of n encoded pictures. Reading is safe in threads and in forked processes; nothing is kept of it."""

    @property
    def names(self) -> Names:
        """Relative names [n], sorted by their bytes: the same pictures give the same order in every layout."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """Class numbers [n]."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, by number."""

    @property
    def origin(self) -> str:
        """What was opened, for the names of caches."""

    def read(self, index: int) -> bytes:
        """The encoded picture. Raises DataError that names it."""

    def where(self, index: int) -> str:
        """Its place, for people: a path, or a file and what it is in it."""

    def stamp(self, index: int) -> bytes:
        """Text that changes when its content may have: path, size and time of its file. Raises DataError."""

    def storage_order(self) -> NDArray[np.int64]:
        """Indices [n] in the order in which reading is fastest."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Some pictures of another source, under names, labels and classes of their own (sorted by name)."""

    base: Pictures
    indices: NDArray[np.int64]
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]

    @property
    def origin(self) -> str:
        return self.base.origin

    def read(self, index: int) -> bytes:
        return self.base.read(int(self.indices[index]))

    def where(self, index: int) -> str:
        return self.base.where(int(self.indices[index]))

    def stamp(self, index: int) -> bytes:
        return self.base.stamp(int(self.indices[index]))

    def storage_order(self) -> NDArray[np.int64]:
        rank = np.empty(len(self.base.names), np.int64)
        rank[self.base.storage_order()] = np.arange(len(rank))
        return np.argsort(rank[self.indices], kind="stable")


def select(pictures: Pictures, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Selection:
    """The chosen pictures (a mask [n], or increasing indices) with their names and labels."""
    indices = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
    return Selection(
        pictures, indices, pictures.names.take(indices), pictures.labels[indices], pictures.class_names
    )  # fmt: skip


def read_file(path: str | Path) -> bytes:
    """A whole regular file. Raises DataError that names it: absent, forbidden, a loop, a pipe or a folder."""
    try:
        # Without O_NONBLOCK a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} cannot be read (it is no regular file)")
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def file_stamp(path: str | Path) -> bytes:
    """Path, size in bytes and time of change in ns of a file. Raises DataError that names it."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return os.fsencode(path) + f"\0{status.st_size}\0{status.st_mtime_ns}".encode()


class RangeReader:
    """Reads ranges of some large files in place, by pread: no position is shared, so forks and threads are safe."""

    KEPT = 256
    """Files kept open, well below the usual limit of 1,024; others are opened for each read."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """`size` bytes of file `number` from `offset`. Raises DataError if the file is shorter, or cannot be read."""
        path = self.paths[number]
        try:
            descriptor, kept = self._open(number)
            try:
                content = _pread(descriptor, offset, size)
            finally:
                if not kept:
                    os.close(descriptor)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        if len(content) != size:
            raise DataError(f"{path} is cut short: {size} bytes from {offset} are not all there")
        return content

    def _open(self, number: int) -> tuple[int, bool]:
        """A descriptor, and whether it stays open."""
        with self._lock:
            if number in self._descriptors:
                return self._descriptors[number], True
            descriptor = os.open(self.paths[number], os.O_RDONLY | os.O_CLOEXEC)
            if len(self._descriptors) >= self.KEPT:
                return descriptor, False
            self._descriptors[number] = descriptor
            return descriptor, True

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def __reduce__(self) -> tuple[type[RangeReader], tuple[tuple[Path, ...]]]:
        return RangeReader, (self.paths,)


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    """Up to `size` bytes; one call may give fewer (Linux: at most 2 GiB)."""
    content = os.pread(descriptor, size, offset)
    while 0 < len(content) < size:
        following = os.pread(descriptor, size - len(content), offset + len(content))
        if not following:
            break
        content += following
    return content
