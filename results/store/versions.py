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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import StoreError
from results.schema import SCHEMA_VERSION

from . import atomic
from .parquet import damage, readable
from .run_set import SetName
from .segments import IndexEntry, Segment

FOLDER = ".compacted"
_VERSION = re.compile(r"version-([0-9]{10})")
_MANIFEST = "manifest.json"
_TRIES = 50


@dataclass(frozen=True)
class Version:
    """The segments in force. Number 0 is a store that was never compacted."""

    number: int
    segments: tuple[Segment, ...]

    def entry(self, name: SetName) -> IndexEntry | None:
        """A set among the segments'; None if it is not there."""
        return next((entry for segment in self.segments if (entry := segment.entry(name))), None)

    def names(self) -> set[SetName]:
        """All sets of the segments."""
        return {name for segment in self.segments for name in segment.names}


def numbers(folder: Path) -> list[int]:
    """Numbers of all versions below `folder` (the store's), ascending. Raises StoreError if it cannot be read."""
    return sorted(int(match[1]) for name in listing(folder / FOLDER) if (match := _VERSION.fullmatch(name)))


def listing(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no such folder. Raises StoreError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read the store at {folder}: {error.strerror}") from error


def path_of(folder: Path, number: int) -> Path:
    """The folder of a version."""
    return folder / FOLDER / f"version-{number:010d}"


def current(folder: Path, known: Version | None = None) -> Version:
    """The version in force; `known` is given back if that is it. Raises StoreError if its manifest is damaged."""
    for attempt in range(_TRIES):
        listed = numbers(folder)
        if not listed:
            return Version(0, ())
        if known is not None and known.number == listed[-1]:
            return known
        path = path_of(folder, listed[-1]) / _MANIFEST
        try:
            return Version(listed[-1], _segments(folder, path))
        except FileNotFoundError as error:
            # A newer version has come, and this one was removed since the listing: look again.
            if attempt + 1 == _TRIES or numbers(folder)[-1:] == listed[-1:]:
                raise damage(path, "it is missing") from error
    raise AssertionError("unreachable")


def publish(folder: Path, base: Version, segments: Iterable[Segment]) -> Version | None:
    """Put other segments in force in place of `base`; None if another writer was faster, then nothing is changed.

    The segments of `base` that are no longer named stay where they are: `retire` removes them. Raises StoreError.
    """
    new = Version(base.number + 1, tuple(segments))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "segments": [{"name": segment.name, "files": segment.files} for segment in new.segments],
    }
    target = path_of(folder, new.number)
    atomic.make_folder(target.parent)
    if not atomic.new_folder_of(target, {_MANIFEST: (json.dumps(manifest) + "\n").encode()}):
        return None
    if numbers(folder)[-1] != new.number:
        # The number was free only because two later versions have come and the older of them was removed.
        discard(target)
        return None
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
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise atomic.storage_error(error, path) from error
    shutil.rmtree(aside, ignore_errors=True)


def _segments(folder: Path, path: Path) -> tuple[Segment, ...]:
    """The segments that a manifest names. Raises StoreError, or FileNotFoundError if there is no such file."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_bytes())
        readable(content["schema_version"], path)
        return tuple(Segment(folder / FOLDER / row["name"], row["files"]) for row in content["segments"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damage(path, repr(error)) from error
