"""Merging the sets of many runs into a few large Parquet files, beside living writers and readers.

The order makes it safe to be killed at any moment: new segments are written and flushed; a new version that names them
is published in one step; only then the folders that they replace are removed. A set that is both in a folder and in a
segment counts as the segment's, so that readers see it once at every moment. What arrives meanwhile stays as it is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from results.errors import StoreError, UsageError

from .run_set import LooseSet, SetName
from .segments import IndexBlock, Segment, load_sets, merge, write_segment
from .versions import FOLDER, Version, current, discard, listing, numbers, path_of, publish, retire

T = TypeVar("T")
LARGE_BYTES = 256 * 2**20
"""A segment this large is left as it is; smaller ones are merged with what has come since."""
_SETS_A_SEGMENT = 20_000
_TRIES = 10
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


def compact(folder: Path, *, settle: float = 0.0) -> Compaction:
    """Compact the store at `folder`. Raises StoreError if it cannot be written or read.

    `settle` is the time in seconds between publishing and removing what was replaced: on a network file system whose
    clients cache folder listings (NFS), longer than they may be stale. Damaged sets are left for `check`.
    """
    if settle < 0:
        raise UsageError(f"settle = {settle!r} is not allowed; allowed: seconds from 0")

    def attempt() -> Compaction | None:
        # What is listed first and gone after it is in the version that is read after it.
        loose, base = loose_sets(folder), current(folder)
        if not loose and not base.number:
            return Compaction(0, 0, 0, 0, 0, ())
        return unless_overtaken(folder, base, lambda: _compacted(folder, loose, base, settle))

    return until_done(folder, attempt)


def _compacted(folder: Path, loose: dict[SetName, LooseSet], base: Version, settle: float) -> Compaction | None:
    """Put loose sets and small segments together; None if another writer was faster."""
    present = base.names()
    fresh, damaged = load_sets({name: files for name, files in loose.items() if name not in present})
    small = [segment for segment in base.segments if segment.size < LARGE_BYTES]
    version = base
    if fresh.entries or len(small) > 1:
        published = _replace(folder, base, small, [*(segment.block() for segment in small), fresh])
        if published is None:
            return None
        version = published
        time.sleep(settle)
    retire(folder, version, base.segments)
    present |= {entry.summary.name for entry in fresh.entries}
    # Should another version be in force by now, what it holds may differ: the next compaction removes the folders.
    replaced = [name for name in loose if name in present] if numbers(folder)[-1:] == [version.number] else []
    for name in replaced:
        discard(folder / str(name))
    clean(folder, version)
    return Compaction(
        len(fresh.entries),
        len(replaced),
        len(version.segments),
        sum(len(segment.names) for segment in version.segments),
        sum(segment.size for segment in version.segments),
        tuple(str(name) for name in damaged if (folder / str(name)).is_dir()),
    )


def add(folder: Path, make: Callable[[Version], tuple[IndexBlock, set[SetName]] | None]) -> bool:
    """Add a block of new sets as one segment, all of them in one step, in place of the compacted sets that it names.

    `make` is given the version that it must fit, again if another writer was faster. False if it gives None.
    Raises StoreError.
    """

    def attempt() -> bool | None:
        base = current(folder)
        return unless_overtaken(folder, base, lambda: _added(folder, base, make))

    return until_done(folder, attempt)


def _added(
    folder: Path, base: Version, make: Callable[[Version], tuple[IndexBlock, set[SetName]] | None]
) -> bool | None:
    addition = make(base)
    if addition is None:
        return False
    block, replaced = addition
    old = [segment for segment in base.segments if replaced & segment.names.keys()]
    blocks = [segment.block() for segment in old]
    kept = [whole.only([e for e in whole.entries if e.summary.name not in replaced]) for whole in blocks]
    version = _replace(folder, base, old, [*kept, block])
    if version is None:
        return None
    retire(folder, version, base.segments)
    return True


def unless_overtaken(folder: Path, base: Version, work: Callable[[], T]) -> T | None:
    """What `work` gives; None if it failed because another writer has replaced the segments of `base` meanwhile."""
    try:
        return work()
    except StoreError:
        if current(folder).number == base.number:
            raise
        return None


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


def until_done(folder: Path, attempt: Callable[[], T | None]) -> T:
    """What `attempt` gives; again while it gives None. Raises StoreError where others change the segments each time."""
    for _ in range(_TRIES):
        if (result := attempt()) is not None:
            return result
    raise StoreError(f"{folder / FOLDER} was changed by others {_TRIES} times meanwhile; try again when they are done")


def _replace(folder: Path, base: Version, old: Collection[Segment], blocks: Sequence[IndexBlock]) -> Version | None:
    """Publish a version in which the segments of `blocks` stand for the `old` ones; None if another was faster."""
    whole = merge(blocks)
    written: list[Segment] = []
    try:
        for begin in range(0, len(whole.entries), _SETS_A_SEGMENT):
            chosen = whole.entries[begin : begin + _SETS_A_SEGMENT]
            part = whole if len(chosen) == len(whole.entries) else whole.only(chosen)
            written.append(write_segment(folder / FOLDER, part))
    except BaseException:
        _drop(written)
        raise
    kept = [segment for segment in base.segments if segment not in list(old)]
    try:
        version = publish(folder, base, [*kept, *written])
    except StoreError:
        # If the version is there, it may be ours and in force: the segments must stay.
        if not path_of(folder, base.number + 1).exists():
            _drop(written)
        raise
    if version is None:
        _drop(written)
    return version


def _drop(segments: Sequence[Segment]) -> None:
    for segment in segments:
        discard(segment.path)
