"""Sets that are moved aside with the reason: damaged ones, so that every whole one is kept, and results to be replaced.

<root>/store/.quarantine/<set or segment>-<hex>/    what `check` found damaged, and reason.txt
<root>/store/.superseded/<set>-<hex>/               runs, curves, evaluations (.parquet), manifest.json, reason.txt
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from results.schema import TABLES

from . import atomic, run_set
from .compaction import add, clean, loose_sets, replace, view_of
from .parquet import Damaged, listed
from .run_set import SetName
from .segments import INDEX, IndexBlock, Segment, parse_index
from .versions import FOLDER, Overtaken, Version, current, listing, numbers, path_of, retire, settled

QUARANTINE = ".quarantine"
SUPERSEDED = ".superseded"


@dataclass(frozen=True)
class Damage:
    """What `check` found damaged: the set or segment, the file, the reason, where it was moved, and the runs whose rows
    are lost with it."""

    name: str
    file: str
    reason: str
    moved_to: Path
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What `check` did: sets verified, sets moved aside, temporary folders of dead writers removed."""

    sets: int
    damaged: tuple[Damage, ...]
    removed: tuple[str, ...]


def check(folder: Path) -> CheckReport:
    """Verify the store at `folder`; see Store.check."""
    damaged = _check_version(folder) + settled(folder, lambda: _check_segments(folder))
    lost = sum(len(damage.lost) for damage in damaged)
    view = settled(folder, lambda: view_of(folder))
    for name, files in view.loose.items():
        damage = files.damaged_file()
        if damage is not None and files.path.is_dir():
            damaged.append(Damage(str(name), *damage, _quarantine(folder, files.path, damage[1]), (name.run_id,)))
    sets = len(view.loose) + len(view.version.names()) + lost
    return CheckReport(sets, tuple(damaged), tuple(clean(folder, view.version)))


def supersede(folder: Path, run_ids: Collection[str], reason: str) -> dict[str, Path]:
    """Move results of the store at `folder` aside, loose or compacted; where each lies now. Raises StoreError.

    A copy of a compacted set is complete before the set goes: killed in between, the set counts as before.
    """
    names = {SetName(run_id) for run_id in run_ids}
    version = settled(folder, lambda: view_of(folder)).version
    loose = loose_sets(folder)
    place = atomic.make_folder(folder / SUPERSEDED)
    moved: dict[SetName, Path] = {}
    for segment in version.segments:
        chosen = [name for name in segment.names if name in names]
        block = segment.block().only(chosen) if chosen else IndexBlock({}, ())
        for name in chosen:
            single = block.only({name})
            summary = single.entries[0].summary
            tables = {table: single.tables[False, table] for table in TABLES}
            files = run_set.contents(summary.run_id, tables, summary.status, summary.attempt)
            moved[name] = _target(place, str(name))
            atomic.new_folder_of(moved[name], files | {"reason.txt": f"{reason}\n".encode()})
    if moved:
        compacted = set(moved)
        add(folder, lambda base: (IndexBlock({}, ()), compacted))
    moved |= {name: _move(loose[name].path, place, reason) for name in names if name in loose}
    atomic.sync_folder(folder)
    return {name.run_id: path for name, path in moved.items()}


def _check_version(folder: Path) -> list[Damage]:
    """If the manifest of the version in force is damaged: put all segments in force that explain themselves."""
    try:
        settled(folder, lambda: current(folder))
        return []
    except Damaged as error:
        reason = str(error)
    number = numbers(folder)[-1]
    paths = [folder / FOLDER / name for name in listing(folder / FOLDER) if name.startswith("segment-")]
    covered: set[SetName] = set()
    whole, rescued = [], []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        segment = _self_described(path)
        if segment is None:
            continue
        new = segment.names.keys() - covered
        covered |= new
        if len(new) == len(segment.names):
            whole.append(segment)
        elif new:
            # A segment whose sets were merged into a newer one only in part: a crash left it behind.
            rescued.append(segment.salvage()[0].only(new))
    try:
        replace(folder, Version(number, tuple(whole)), (), rescued)
    except Overtaken:
        return []
    path = path_of(folder, number)
    return [Damage(path.name, "manifest.json", reason, _quarantine(folder, path, reason))]


def _self_described(path: Path) -> Segment | None:
    """A segment with the checksums of its own index; None if the index is damaged."""
    try:
        content = (path / INDEX).read_bytes()
        return Segment(path, parse_index(content, path / INDEX)["files"] | {INDEX: listed(content)})
    except (OSError, Damaged):
        return None


def _check_segments(folder: Path) -> list[Damage]:
    """Replace each damaged segment by the sets of it that are whole. Raises StoreError, Overtaken to begin again."""
    version = current(folder)
    damage_of = {segment.name: damage for segment in version.segments if (damage := segment.damaged_file())}
    if current(folder).number != version.number:
        raise Overtaken("what seems damaged may only have been replaced")
    if not damage_of:
        return []
    bad = [segment for segment in version.segments if segment.name in damage_of]
    rescued = [segment.salvage() for segment in bad]
    retire(folder, replace(folder, version, bad, [block for block, _ in rescued]), ())
    damages = []
    for segment, (_, names) in zip(bad, rescued, strict=True):
        file, reason = damage_of[segment.name]
        lost = sorted({name.run_id for name in names})
        moved_to = _quarantine(folder, segment.path, f"{reason}\nlost: {', '.join(lost) or 'nothing'}")
        damages.append(Damage(segment.name, file, reason, moved_to, tuple(lost)))
    return damages


def _target(place: Path, name: str) -> Path:
    return place / f"{name}-{secrets.token_hex(4)}"


def _quarantine(folder: Path, path: Path, reason: str) -> Path:
    return _move(path, atomic.make_folder(folder / QUARANTINE), reason)


def _move(path: Path, place: Path, reason: str) -> Path:
    """Move a set or segment to another folder, with the reason; where it lies now."""
    target = _target(place, path.name)
    with atomic.storage(target):
        path.rename(target)
        atomic.write_synced(target / "reason.txt", f"{reason}\n".encode())
    return target
