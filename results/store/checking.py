"""Finding damage in the store, moving it aside with the reason, and keeping every set that is whole."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from . import atomic
from .compaction import clean, loose_sets, unless_overtaken, until_done
from .parquet import Damaged
from .run_set import SetName
from .segments import INDEX, IndexBlock, Segment, parse_index, write_segment
from .versions import FOLDER, Version, current, discard, listing, numbers, path_of, publish, retire

QUARANTINE = ".quarantine"


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
    damaged = _check_version(folder) + _check_segments(folder)
    lost = sum(len(damage.lost) for damage in damaged)
    listed = loose_sets(folder)
    version, compacted = _named(folder)
    loose = {name: files for name, files in listed.items() if name not in compacted}
    for name, files in loose.items():
        damage = files.damaged_file()
        if damage is not None and files.path.is_dir():
            moved_to = _quarantine(folder, files.path, damage[1])
            damaged.append(Damage(str(name), *damage, moved_to, (name.run_id,)))
    return CheckReport(len(loose) + len(compacted) + lost, tuple(damaged), tuple(clean(folder, version)))


def _check_version(folder: Path) -> list[Damage]:
    """If the manifest of the version in force is damaged: put all segments in force that explain themselves."""
    try:
        current(folder)
        return []
    except Damaged as error:
        reason = str(error)
    number = numbers(folder)[-1]
    paths = [folder / FOLDER / name for name in listing(folder / FOLDER) if name.startswith("segment-")]
    covered: set[SetName] = set()
    segments = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        segment = _self_described(path)
        if segment is None:
            continue
        new = segment.names.keys() - covered
        covered |= new
        if len(new) == len(segment.names):
            segments.append(segment)
        elif new:
            # A segment whose sets were merged into a newer one only in part: a crash left it behind.
            block, _ = segment.salvage()
            kept = [entry for entry in block.entries if entry.summary.name in new]
            segments.append(write_segment(folder / FOLDER, block.only(kept)))
    if publish(folder, Version(number, ()), segments) is None:
        return []
    path = path_of(folder, number)
    return [Damage(path.name, "manifest.json", reason, _quarantine(folder, path, reason))]


def _self_described(path: Path) -> Segment | None:
    """A segment with the checksums of its own index; None if the index is damaged."""
    try:
        content = (path / INDEX).read_bytes()
        files = dict(parse_index(content, path / INDEX)["files"])
    except (OSError, Damaged):
        return None
    return Segment(path, files | {INDEX: {"bytes": len(content), "sha256": sha256(content).hexdigest()}})


def _check_segments(folder: Path) -> list[Damage]:
    """Replace each damaged segment by one with the sets of it that are whole."""

    def attempt() -> list[Damage] | None:
        version = current(folder)
        damage_of = {segment.name: flaw for segment in version.segments if (flaw := segment.damaged_file())}
        if current(folder).number != version.number:
            return None  # What seems damaged may only have been replaced.
        if not damage_of:
            return []
        bad = [segment for segment in version.segments if segment.name in damage_of]
        rescued = {segment.name: _salvaged(segment) for segment in bad}
        written = [write_segment(folder / FOLDER, block) for block, _ in rescued.values() if block and block.entries]
        kept = [segment for segment in version.segments if segment.name not in damage_of]
        new = publish(folder, version, [*kept, *written])
        if new is None:
            for segment in written:
                discard(segment.path)
            return None
        retire(folder, new, ())
        damages = []
        for segment in bad:
            file, reason = damage_of[segment.name]
            lost = sorted({name.run_id for name in rescued[segment.name][1]})
            text = f"{reason}\nlost: {', '.join(lost) or 'nothing'}"
            damages.append(Damage(segment.name, file, reason, _quarantine(folder, segment.path, text), tuple(lost)))
        return damages

    return until_done(folder, attempt)


def _named(folder: Path) -> tuple[Version, set[SetName]]:
    """The version in force, and all sets of its segments."""

    def attempt() -> tuple[Version, set[SetName]] | None:
        version = current(folder)
        return unless_overtaken(folder, version, lambda: (version, version.names()))

    return until_done(folder, attempt)


def _salvaged(segment: Segment) -> tuple[IndexBlock | None, list[SetName]]:
    """What can be kept of a segment, and what is lost; of one without index and tables not even that is known."""
    try:
        return segment.salvage()
    except Damaged:
        return None, []


def _quarantine(folder: Path, path: Path, reason: str) -> Path:
    target = atomic.make_folder(folder / QUARANTINE) / f"{path.name}-{secrets.token_hex(4)}"
    with atomic.storage(target):
        path.rename(target)
        (target / "reason.txt").write_text(reason + "\n")
    return target
