"""Checkpoints of a run: weights, optimiser, position and the rows so far, always of one moment; read without code.

A checkpoint is a folder, written under a temporary name, synced and renamed; its manifest holds the SHA-256 of every
file, so that a damaged one is recognised and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from results.errors import OtherRunError, RunError, StoreError
from results.recorder import Recorder
from results.store import atomic

KEPT = 2
"""Checkpoints that an attempt keeps: the newest, and one to fall back to."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: which segment of its schedule, and images seen along its branch."""

    segment: int
    images: int


Check = Callable[[Position, dict[str, Tensor]], None]
"""Raises StoreError for a checkpoint that its training cannot go on from."""


def save(folder: Path, position: Position, tensors: dict[str, Tensor], recorder: Recorder) -> Path:
    """Write one checkpoint under `folder`, drop all but the newest KEPT. Raises StoreError (full disk, read-only)."""
    target = folder / f"{position.segment:04d}-{position.images:015d}"

    def fill(temporary: Path) -> None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "state.safetensors")
        recorder.save(temporary / "rows.jsonl")
        (temporary / "position.json").write_text(json.dumps(asdict(position)))
        files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(files))
        for path in temporary.iterdir():
            atomic.sync(path)

    try:
        atomic.make_folder(folder)
        shutil.rmtree(target, ignore_errors=True)
        atomic.new_folder(target, fill)
    except (StoreError, SafetensorError) as error:
        raise StoreError(f"checkpoint {target} could not be written: {error}") from error
    for old in _listed(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(
    path: Path, recorder: Recorder, check: Check = lambda position, tensors: None
) -> tuple[Position, dict[str, Tensor]]:
    """Position and tensors of one checkpoint; restores the recorder's rows.

    Raises StoreError for one that is damaged or that `check` refuses, OtherRunError for another run's.
    """
    try:
        for name, expected in json.loads((path / "manifest.json").read_text()).items():
            if _sha256(path / name) != expected:
                raise StoreError(f"{path / name} is damaged: its SHA-256 is not the manifest's")
        position = Position(**json.loads((path / "position.json").read_text()))
        tensors = load_file(path / "state.safetensors")
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    check(position, tensors)
    recorder.restore(path / "rows.jsonl")
    return position, tensors


def load_newest(
    folders: Iterable[Path], recorder: Recorder, check: Check = lambda position, tensors: None
) -> tuple[Path, Position, dict[str, Tensor]] | None:
    """The furthest valid checkpoint of several attempts' folders; restores the recorder's rows. None: there is none.

    Those that are damaged or that `check` refuses are passed over, and named on standard output, which is the attempt's
    log. One of another run was put there by hand: RunError, before hours are trained in place of what was meant.
    """
    checkpoints = [path for folder in folders for path in _listed(folder)]
    for path in sorted(checkpoints, key=lambda path: path.name, reverse=True):
        try:
            return path, *load(path, recorder, check)
        except OtherRunError as error:
            raise RunError(f"checkpoint of another run: {error}; remove {path}, and try again", "mistake") from error
        except StoreError as error:
            print(f"checkpoint {path.name} of attempt {path.parent.parent.name} is passed over: {error}", flush=True)
    return None


def retire(folder: Path, earlier: Iterable[Path]) -> None:
    """Remove the checkpoints of earlier attempts once `folder` has KEPT of its own: a run that is preempted often
    would fill the disk."""
    if len(_listed(folder)) >= KEPT:
        for old in earlier:
            shutil.rmtree(old, ignore_errors=True)


def _listed(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, furthest first; one that is being written begins with a dot."""
    return sorted(folder.glob("[!.]*"), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
