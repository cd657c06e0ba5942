"""Which segments are the store's: a version names them, and the version with the highest number is in force.

    <root>/store/.compacted/version-<number>/manifest.json    segment-<hex>/ ...

A version is a folder, renamed into place exclusively like a set: of two writers that start from one version, one wins
and the other begins again. So the segments are swapped in one step for every reader, and no lock is needed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from results.errors import StoreError
from results.schema import SCHEMA_VERSION

from . import atomic
from .parquet import readable, reading
from .run_set import SetName
from .segments import IndexEntry, Segment

T = TypeVar("T")
FOLDER = ".compacted"
_VERSION = re.compile(r"version-([0-9]{10})")
_MANIFEST = "manifest.json"
_TRIES = 20


class Overtaken(StoreError):
    """Another writer has put other segments in force meanwhile; `settled` begins again."""


@dataclass(frozen=True)
class Version:
    """The segments in force. Number 0 is a store that was never compacted."""

    number: int
    segments: tuple[Segment, ...]

    def entry(self, name: SetName) -> IndexEntry | None:
        """A set among the segments'; None if it is not there."""
        return next((segment.entry(name) for segment in self.segments if name in segment.names), None)

    def names(self) -> set[SetName]:
        """All sets of the segments."""
        return {name for segment in self.segments for name in segment.names}


def numbers(folder: Path) -> list[int]:
    """Numbers of all versions below `folder` (the store's), ascending. Raises StoreError if it cannot be read."""
    return sorted(int(match[1]) for name in listing(folder / FOLDER) if (match := _VERSION.fullmatch(name)))


def listing(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no such folder. Raises StoreError."""
    with atomic.storage(folder, "read the store at"), suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)
    return []


def path_of(folder: Path, number: int) -> Path:
    """The folder of a version."""
    return folder / FOLDER / f"version-{number:010d}"


def settled(folder: Path, work: Callable[[], T]) -> T:
    """What `work` gives; again if it failed while another writer replaced versions or segments that it wanted.

    Raises StoreError where others change the segments each time.
    """
    for _ in range(_TRIES):
        before = numbers(folder)[-1:]
        try:
            return work()
        except StoreError:
            if numbers(folder)[-1:] == before:
                raise
    raise StoreError(f"{folder / FOLDER} was changed by others {_TRIES} times meanwhile; try again when they are done")


def current(folder: Path, known: Version | None = None) -> Version:
    """The version in force; `known` is given back if that is it. Raises StoreError if its manifest is damaged.

    Outside `settled` it seems damaged, too, if another writer has replaced it since the folder was listed.
    """
    number = max(numbers(folder), default=0)
    if known is not None and known.number == number:
        return known
    if not number:
        return Version(0, ())
    path = path_of(folder, number) / _MANIFEST
    with reading(path):
        content = json.loads(path.read_bytes())
        readable(content["schema_version"], path)
        segments = [Segment(folder / FOLDER / row["name"], row["files"]) for row in content["segments"]]
        return Version(number, tuple(segments))


def publish(folder: Path, base: Version, segments: Iterable[Segment]) -> Version:
    """Put other segments in force in place of `base`; those of it that are no longer named are left to `retire`.

    Raises StoreError, Overtaken if another writer was faster; then nothing is changed.
    """
    new = Version(base.number + 1, tuple(segments))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "segments": [{"name": segment.name, "files": segment.files} for segment in new.segments],
    }
    target = path_of(folder, new.number)
    atomic.make_folder(target.parent)
    if not atomic.new_folder_of(target, {_MANIFEST: (json.dumps(manifest) + "\n").encode()}):
        raise Overtaken(f"{target} was published by another")
    if numbers(folder)[-1] != new.number:
        # The number was free only because two later versions have come and the older of them was removed.
        discard(target)
        raise Overtaken(f"{target} was published by another before")
    return new


def retire(folder: Path, version: Version, old: Iterable[Segment]) -> None:
    """Remove what `version` has replaced: versions before it, and the segments among `old` that it does not name."""
    for number in numbers(folder):
        if number < version.number:
            discard(path_of(folder, number))
    named = {segment.name for segment in version.segments}
    for segment in old:
        if segment.name not in named:
            discard(segment.path)


def discard(path: Path) -> None:
    """Remove a folder so that it disappears in one step; one that is gone already is no error."""
    aside = path.with_name(f".removing-{path.name}-{secrets.token_hex(4)}")
    with atomic.storage(path), suppress(FileNotFoundError):
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
