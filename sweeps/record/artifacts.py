"""A run's artifacts: staged by each attempt under a name of its own, published by the one whose rows the store took.

    <root>/artifacts/<run_id>/                       weights, tokens, pictures of a finished run
    <root>/artifacts/.staged-<run_id>-<attempt>/     the same of an attempt that is about to finish
    <root>/artifacts/.replaced-<run_id>-<hex>/       for a moment, what lay where artifacts are published

Rows and artifacts of a run are always of one attempt: the exclusive rename in the store decides which. An attempt
that dies between its rows and its artifacts has staged them, and whoever needs them next publishes them, as does
`tokenlaw store check`.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from results import Store
from results.store import atomic
from results.store.versions import listing

_ASIDE = re.compile(
    r"(?P<removing>\.removing-)?\.(?P<kind>staged|replaced)-(?P<run_id>[A-Za-z0-9_-]+)-(?P<which>[0-9a-f]+)"
    r"(?(removing)-[0-9a-f]+)"
)


@dataclass(frozen=True)
class Aside:
    """A folder below <root>/artifacts that is not a run's own: what it is, of which run, of which attempt (0: unknown).

    `removing` is one whose removal was begun.
    """

    path: Path
    kind: Literal["staged", "replaced", "removing"]
    run_id: str
    attempt: int


def folder(root: Path, run_id: str) -> Path:
    """Where the artifacts of a finished run lie."""
    return root / "artifacts" / run_id


def _staged(root: Path, run_id: str, attempt: int) -> Path:
    return root / "artifacts" / f".staged-{run_id}-{attempt}"


def stage(root: Path, run_id: str, attempt: int, artifacts: Path) -> None:
    """Move what an attempt made to where `publish` finds it. Raises StoreError."""
    if not artifacts.is_dir():
        return
    target = _staged(root, run_id, attempt)
    atomic.make_folder(target.parent)
    with atomic.storage(target):
        artifacts.rename(target)
    atomic.sync_folder(target.parent)


def discard(root: Path, run_id: str, attempt: int) -> None:
    """Remove what an attempt staged that did not win."""
    shutil.rmtree(_staged(root, run_id, attempt), ignore_errors=True)


def aside(root: Path) -> Iterator[Aside]:
    """All folders that are staged, replaced or being removed, in order. Raises StoreError."""
    for name in listing(root / "artifacts"):
        match = _ASIDE.fullmatch(name)
        if match is not None:
            kind = "removing" if match["removing"] else match["kind"]
            attempt = int(match["which"]) if kind == "staged" else 0
            yield Aside(root / "artifacts" / name, kind, match["run_id"], attempt)  # type: ignore[arg-type]


def publish_left(root: Path) -> list[str]:
    """Publish what attempts staged that then wrote their rows and died; ids of these runs. Raises StoreError."""
    staged = [(moved.run_id, moved.attempt) for moved in aside(root) if moved.kind == "staged"]
    results = Store(root).results({run_id for run_id, _ in staged}) if staged else {}
    left = [run_id for run_id, attempt in staged if run_id in results and results[run_id].attempt == attempt]
    for run_id in left:
        publish(root, run_id)
    return left


def publish(root: Path, run_id: str) -> None:
    """Give the artifacts of the attempt that the store took their name. Again, or by several at once: no harm.

    Raises StoreError if the folder cannot be written, or if the store's manifest of the run is damaged.
    """
    summary = Store(root).results([run_id]).get(run_id)
    if summary is None:
        return
    staged, target = _staged(root, run_id, summary.attempt), folder(root, run_id)
    if not staged.is_dir():
        return
    old = target.with_name(f".replaced-{run_id}-{secrets.token_hex(4)}")
    with atomic.storage(target):
        # What lies there is of a set that `store check` moved away, or of a version that published before the rows.
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            atomic.rename_exclusively(staged, target)
        except FileNotFoundError:
            # Another process published them in between, and what was moved away is perhaps what it published.
            with suppress(OSError):
                old.rename(target)
    atomic.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
