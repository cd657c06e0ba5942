"""Setting results aside, so that their runs can be trained again: what was measured is kept, with the reason.

<root>/store/.superseded/<set>-<hex>/    runs, curves, evaluations (.parquet), manifest.json, reason.txt
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

from results.schema import TABLES

from . import atomic, run_set
from .compaction import add
from .run_set import LooseSet, SetName
from .segments import IndexBlock
from .versions import Version

SUPERSEDED = ".superseded"


def supersede(
    folder: Path, loose: Mapping[SetName, LooseSet], version: Version, names: Collection[SetName], reason: str
) -> dict[SetName, Path]:
    """Move sets of the store at `folder` aside, loose or compacted; where each lies now. Raises StoreError.

    A copy of a compacted set is complete before the set goes: killed in between, the set counts as before.
    """
    place = atomic.make_folder(folder / SUPERSEDED)
    moved: dict[SetName, Path] = {}
    for segment in version.segments:
        chosen = [entry for name, entry in segment.entries.items() if name in names]
        if not chosen:
            continue
        block = segment.block()
        for entry in chosen:
            summary = entry.summary
            tables = {table: block.only([entry]).tables[summary.status == "failed", table] for table in TABLES}
            files = run_set.contents(summary.run_id, tables, summary.status, summary.attempt)
            moved[summary.name] = _target(place, summary.name)
            with atomic.storage(place):
                run_set.write(moved[summary.name], files | {"reason.txt": f"{reason}\n".encode()})
    if moved:
        compacted = set(moved)
        add(folder, lambda base: (IndexBlock.of({}, ()), compacted))
    for name in names:
        if name in loose:
            moved[name] = _target(place, name)
            with atomic.storage(place):
                loose[name].path.rename(moved[name])
                atomic.write_synced(moved[name] / "reason.txt", f"{reason}\n".encode())
    atomic.sync_folder(folder)
    return moved


def _target(place: Path, name: SetName) -> Path:
    return place / f"{name}-{secrets.token_hex(4)}"
