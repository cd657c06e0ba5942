"""Merging the sets of many runs into a few large Parquet files, beside living writers and readers.

The order makes it safe to be killed at any moment: new segments are written and flushed; a new version that names them
is published in one step; only then the folders that they replace are removed. A set that is both in a folder and in a
segment counts as the segment's, so that readers see it once at every moment. What arrives meanwhile stays as it is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from results.errors import UsageError

from .run_set import LooseSet, SetName
from .segments import IndexBlock, Segment, load_sets, merge, write_segment
from .versions import FOLDER, Overtaken, Version, current, discard, listing, numbers, path_of, publish, retire, settled

LARGE_BYTES = 256 * 2**20
"""A segment this large is left as it is; smaller ones are merged with what has come since."""
_SETS_A_SEGMENT = 20_000
_ABANDONED_SECONDS = 24 * 3600.0
"""What is this old has no living writer: writing takes seconds."""


@dataclass(frozen=True)
class Compaction:
    """What `compact` did: sets put into segments, folders removed, segments in force, and damaged sets left alone."""

    merged: int
    removed: int
    segments: int
    sets: int
    bytes: int
    damaged: tuple[str, ...]


def loose_sets(folder: Path) -> dict[SetName, LooseSet]:
    """The sets below the store's folder that have a folder of their own, in order."""
    names = (SetName.parse(name) for name in listing(folder))
    sets = {name: LooseSet(folder / str(name)) for name in names if name is not None}
    return dict(sorted(sets.items(), key=lambda item: item[0].order))


@dataclass(frozen=True)
class View:
    """The store at one moment: sets in folders of their own, in order, and the version of the compacted ones."""

    loose: Mapping[SetName, LooseSet]
    version: Version


def view_of(folder: Path, known: Version | None = None) -> View:
    """What is there now; a set that is both loose and compacted counts as compacted. To be called within `settled`."""
    # What is listed first and gone after it is in the version that is read after it.
    loose, version = loose_sets(folder), current(folder, known)
    compacted = [segment.names for segment in version.segments]
    return View({n: s for n, s in loose.items() if not any(n in names for names in compacted)}, version)


def compact(folder: Path, *, settle: float = 0.0) -> Compaction:
    """Compact the store at `folder`. Raises StoreError if it cannot be written or read.

    `settle` is the time in seconds between publishing and removing what was replaced: on a network file system whose
    clients cache folder listings (NFS), longer than they may be stale. Damaged sets are left for `check`.
    """
    if settle < 0:
        raise UsageError(f"settle = {settle!r} is not allowed; allowed: seconds from 0")
    return settled(folder, lambda: _compacted(folder, settle))


def _compacted(folder: Path, settle: float) -> Compaction:
    """Put loose sets and small segments together. Raises StoreError, Overtaken if another writer was faster."""
    view = view_of(folder)
    base = version = view.version
    if not view.loose and not base.number:
        return Compaction(0, 0, 0, 0, 0, ())
    fresh, damaged = load_sets(view.loose)
    small = [segment for segment in base.segments if segment.size < LARGE_BYTES]
    if fresh.entries or len(small) > 1:
        version = replace(folder, base, small, [*(segment.block() for segment in small), fresh])
        time.sleep(settle)
    retire(folder, version, base.segments)
    present = version.names()
    # Should another version be in force by now, what it holds may differ: the next compaction removes the folders.
    in_force = numbers(folder)[-1:] == [version.number]
    replaced = [name for name in loose_sets(folder) if name in present] if in_force else []
    for name in replaced:
        discard(folder / str(name))
    clean(folder, version)
    return Compaction(
        len(fresh.entries),
        len(replaced),
        len(version.segments),
        len(present),
        sum(segment.size for segment in version.segments),
        tuple(str(name) for name in damaged if (folder / str(name)).is_dir()),
    )


def add(folder: Path, make: Callable[[Version], tuple[IndexBlock, set[SetName]] | None]) -> None:
    """Add a block of new sets as one segment, all of them in one step, in place of the compacted sets that it names.

    `make` is given the version that it must fit, again if another writer was faster; None is nothing to add.
    Raises StoreError.
    """

    def attempt() -> None:
        base = current(folder)
        addition = make(base)
        if addition is not None:
            block, replaced = addition
            old = [segment for segment in base.segments if replaced & segment.names.keys()]
            kept = [segment.block().only(segment.names.keys() - replaced) for segment in old]
            retire(folder, replace(folder, base, old, [*kept, block]), base.segments)

    settled(folder, attempt)


def clean(folder: Path, version: Version) -> list[str]:
    """Remove what dead writers left, and segments that no version names, both a day old; names of what was removed."""
    named = {segment.name for segment in version.segments}
    removed = []
    for place in (folder, folder / FOLDER):
        for name in listing(place):
            path = place / name
            if name.startswith(".removing-"):
                shutil.rmtree(path, ignore_errors=True)
            elif name.startswith(".writing-") or (name.startswith("segment-") and name not in named):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)
                        removed.append(name)
    return removed


def replace(folder: Path, base: Version, old: Sequence[Segment], blocks: Sequence[IndexBlock]) -> Version:
    """Publish a version in which segments of `blocks` stand for the `old` ones.

    Raises StoreError, Overtaken if another writer was faster; then nothing is changed.
    """
    whole = merge(blocks)
    kept = [segment for segment in base.segments if segment not in old]
    written: list[Segment] = []
    try:
        for begin in range(0, len(whole.entries), _SETS_A_SEGMENT):
            names = {entry.summary.name for entry in whole.entries[begin : begin + _SETS_A_SEGMENT]}
            written.append(write_segment(folder / FOLDER, whole.only(names)))
        return publish(folder, base, [*kept, *written])
    except BaseException as error:
        # A version of this number may be ours and in force although `publish` failed: then its segments must stay.
        if isinstance(error, Overtaken) or not path_of(folder, base.number + 1).exists():
            for segment in written:
                discard(segment.path)
        raise
