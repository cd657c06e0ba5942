"""Class folders: a folder a class with pictures at any depth below it, or a flat folder, which is one class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError
from scaling.data.decode import SUFFIXES

from ..labels import SINGLE_CLASS, by_folder, listed
from ..names import Names
from ..pictures import file_stamp, read_file


@dataclass(frozen=True, eq=False)
class FolderPictures:
    """Pictures as files below `root`; see Pictures."""

    root: Path
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]

    @property
    def origin(self) -> str:
        return str(self.root)

    def read(self, index: int) -> bytes:
        return read_file(self.where(index))

    def where(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}"

    def stamp(self, index: int) -> bytes:
        return file_stamp(self.where(index))

    def storage_order(self) -> NDArray[np.int64]:
        return np.arange(len(self.names))


def open_folder(root: Path, classes: tuple[str, ...] | None = None) -> FolderPictures:
    """All pictures below `root`; classes are its folders, empty ones included, sorted, or `classes`.

    Hidden files and files of other kinds are passed over. Raises DataError that names what cannot be listed: a folder
    that is absent or forbidden, a loop of links, pictures beside class folders, a class that `classes` lacks.
    """
    names = Names.of(list_pictures(root))
    if not len(names):
        raise DataError(f"{root} has no picture; files of these kinds count: {' '.join(sorted(SUFFIXES))}")
    firsts = by_folder(names)
    if firsts is None:
        return FolderPictures(root, names, np.zeros(len(names), np.int32), classes or SINGLE_CLASS)
    folders = (entry.name for entry in os.scandir(root) if entry.is_dir() and _counts(entry.name))
    known = tuple(sorted(folders)) if classes is None else classes
    numbers = {name: number for number, name in enumerate(known)}
    strange = next((index for index, name in enumerate(firsts) if name not in numbers), None)
    if strange is not None:
        raise DataError(f"{root}/{names[strange]}: class {firsts[strange]!r} is not allowed; allowed: {listed(known)}")
    labels = np.fromiter((numbers[name] for name in firsts), np.int32, len(firsts))
    return FolderPictures(root, names, labels, known)


def list_pictures(root: Path) -> Iterator[str]:
    """Relative names of the pictures below `root`, in the order of their bytes. Raises DataError."""
    waiting = [_Entry(str(root), "", True, ())]
    while waiting:
        entry = waiting.pop()
        if not entry.is_folder:
            yield entry.name
            continue
        folder = _identity(entry.path)
        if folder in entry.ancestors:
            raise DataError(f"{entry.path} is a loop of links: it leads back to a folder above it")
        waiting += reversed(_children(entry, (*entry.ancestors, folder)))


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    name: str
    is_folder: bool
    ancestors: tuple[tuple[int, int], ...]

    @property
    def key(self) -> bytes:
        """Sorts as the names of all pictures below do."""
        return os.fsencode(f"{self.name}/" if self.is_folder else self.name)


def _children(entry: _Entry, ancestors: tuple[tuple[int, int], ...]) -> list[_Entry]:
    prefix = f"{entry.name}/" if entry.name else ""
    children = []
    try:
        with os.scandir(entry.path) as listing:
            for child in listing:
                if _counts(child.name):
                    is_folder = child.is_dir()
                    if is_folder or Path(child.name).suffix.lower() in SUFFIXES:
                        children.append(_Entry(child.path, prefix + child.name, is_folder, ancestors))
    except OSError as error:
        raise DataError(f"{error.filename or entry.path} cannot be listed ({error.strerror})") from error
    return sorted(children, key=lambda child: child.key)


def _counts(name: str) -> bool:
    """Whether a file or folder is the user's, not a system's."""
    return not name.startswith((".", "__MACOSX"))


def _identity(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return status.st_dev, status.st_ino
