"""Removing what attempts left on disk and nobody needs, by policy; first only told, with sizes and inodes.

Kept always: all of living attempts and of what their run could resume from; artifacts of finished runs (they lie below
<root>/artifacts), and staged ones that may yet be published: those of the attempt whose rows the store took, and all of
a run without a result; the store; every attempt's specification, claim, heartbeat, rows and log. Of a run without one
the furthest two checkpoints stay, the newest of each segment of its schedule, with the state where a decay forks, and
what it has encoded; of a trainer of one's own, whose checkpoints have other names, all of the attempt that it would
resume from.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from results import Store, StoredRun
from results.store.versions import discard
from scaling.specification.workspace import KEPT_TO_RESUME

from .artifacts import Aside, aside
from .attempts import Attempt, attempted, attempts_at, resumable

FINISHED = "checkpoints of finished runs"
LOST = "artifacts of attempts that did not win"
OLDER = "older checkpoints of unfinished runs"
LEFT = "left by a removal that was interrupted"
_CHECKPOINT = re.compile(r"(?P<segment>[0-9]+)-(?P<images>[0-9]+)")
_FURTHEST = 2
"""The last checkpoint, and one to fall back to should it be damaged."""
_ABANDONED_SECONDS = 24 * 3600.0
"""What was moved aside this long ago is being put back by nobody: publishing takes moments."""


@dataclass(frozen=True)
class Removable:
    """A folder that may go: why, of which run, the disk space and the inodes that it takes."""

    path: Path
    why: str
    run_id: str
    bytes: int
    inodes: int


def removable(root: Path, run_ids: Collection[str] | None = None) -> list[Removable]:
    """What the policy lets go, of all runs or of `run_ids`; removes nothing. Raises StoreError for a damaged store."""
    results = Store(root).results(run_ids)
    chosen = sorted(attempted(root) if run_ids is None else attempted(root) & set(run_ids))
    folders = [(path, why, run_id) for run_id in chosen for path, why in _of_run(root, run_id, results.get(run_id))]
    folders += [(moved.path, why, moved.run_id) for moved, why in _aside(root, results, run_ids)]
    return [Removable(path, why, run_id, *_usage(path)) for path, why, run_id in folders]


def remove(root: Path, items: Iterable[Removable]) -> list[Removable]:
    """Remove what `removable` found and the policy still lets go; what was removed. Raises StoreError."""
    removed = []
    by_run: dict[str, list[Removable]] = {}
    for item in items:
        by_run.setdefault(item.run_id, []).append(item)
    for run_id, group in by_run.items():
        # The run may have begun anew since, and resume from what was of no use a moment ago.
        still = {item.path for item in removable(root, [run_id])}
        for item in group:
            if item.path not in still:
                continue
            if item.why == LEFT:
                shutil.rmtree(item.path, ignore_errors=True)
            else:
                discard(item.path)
            removed.append(item)
    return removed


def _of_run(root: Path, run_id: str, result: StoredRun | None) -> Iterator[tuple[Path, str]]:
    attempts = attempts_at(root, run_id)
    if not attempts or any(attempt.alive for attempt in attempts):
        return
    if result is None:
        yield from _unfinished(attempts)
    for attempt in attempts:
        for path in _folders(attempt.path):
            if path.name.startswith(".removing-"):
                yield path, LEFT
            elif result is not None and path.name in KEPT_TO_RESUME:
                yield path, FINISHED
            elif result is not None and path.name == "artifacts" and attempt.number != result.attempt:
                yield path, LOST


def _unfinished(attempts: list[Attempt]) -> Iterator[tuple[Path, str]]:
    """What no further attempt would resume from."""
    checkpoints = [path for attempt in attempts for path in _folders(attempt.path / "checkpoints")]
    ours = [path for path in checkpoints if _CHECKPOINT.fullmatch(path.name)]
    if checkpoints and len(ours) == len(checkpoints):
        kept = _kept(ours)
        yield from ((path, OLDER) for path in ours if path not in kept)
        return
    source = resumable([attempt.path for attempt in attempts])
    for attempt in attempts:
        if attempt.path != source:
            for path in _folders(attempt.path):
                if path.name in ("checkpoints", "artifacts") and any(path.iterdir()):
                    yield path, OLDER


def _kept(checkpoints: list[Path]) -> set[Path]:
    """The furthest, and the newest of each segment. Of two of one place in two attempts both stay."""
    names = sorted({path.name for path in checkpoints})
    newest = {name.split("-")[0]: name for name in names}
    return {path for path in checkpoints if path.name in {*names[-_FURTHEST:], *newest.values()}}


def _aside(root: Path, results: dict[str, StoredRun], run_ids: Collection[str] | None) -> Iterator[tuple[Aside, str]]:
    """Artifacts under temporary names that nobody will publish, and why they may go: those of attempts that lost,
    unless an attempt at their run lives, and those that were replaced a day ago."""
    for moved in aside(root):
        if run_ids is not None and moved.run_id not in run_ids:
            continue
        result = results.get(moved.run_id)
        if moved.kind == "removing":
            yield moved, LEFT
        elif result is None:
            # Whoever staged them may be about to write its rows.
            continue
        elif moved.kind == "replaced":
            if _age(moved.path) > _ABANDONED_SECONDS:
                yield moved, LOST
        elif moved.attempt != result.attempt and not any(a.alive for a in attempts_at(root, moved.run_id)):
            yield moved, LOST


def _age(path: Path) -> float:
    """Seconds since a folder got its name, which its time of modification does not tell; 0 if it is gone."""
    with suppress(OSError):
        return time.time() - path.stat().st_ctime
    return 0.0


def _folders(path: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def _usage(path: Path) -> tuple[int, int]:
    """Bytes on disk and inodes of a folder and all below it."""
    space, inodes = 0, 0
    for place, _, files in os.walk(path):
        for name in (place, *(os.path.join(place, file) for file in files)):  # noqa: PTH118 - many files
            with suppress(OSError):
                status = os.lstat(name)
                space += status.st_blocks * 512
                inodes += 1
    return space, inodes
