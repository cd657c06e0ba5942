"""Training and validation: by the names of folders and files, or drawn by content where there is one split only."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError

from .labels import listed

TRAIN = "train"
VALIDATION = ("validation", "val", "valid", "test")
"""Names of a validation split, the first that there is counts."""
MOST_RAISED = 0.5
"""Largest share of each class that validates where more was not asked for."""


def split_folders(root: Path, train: str | None, validation: str | None) -> tuple[Path, Path | None]:
    """Folders of both splits; (root, None) where the folder is one split.

    It has splits if it has a folder `train` and one of VALIDATION, or nothing but such folders; classes may bear these
    names otherwise. Raises DataError if a split that was asked for is not there.
    """
    folders = sorted(entry.name for entry in _entries(root) if entry.is_dir() and not entry.name.startswith("."))
    for name, field in ((train, "train_split"), (validation, "validation_split")):
        if name is not None and not (root / name).is_dir():
            raise DataError(f"data.{field} = {name!r} is no folder of {root}; allowed: {listed(folders)}")
    if validation is None:
        validation = next((name for name in VALIDATION if name in folders and name != train), None)
        if train is None and not (TRAIN in folders and (validation or folders == [TRAIN])):
            return root, None
    elif train is None and TRAIN not in folders:
        raise DataError(f"data.validation_split = {validation!r} needs data.train_split: {root} has no folder {TRAIN}")
    return root / (train or TRAIN), root / validation if validation else None


def split_files(
    root: Path, suffix: str, train: str | None, validation: str | None
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files of both splits below `root` (or `root` itself), sorted, by the word of the split in their relative names.

    The second is empty where names tell no splits. Raises DataError if there is no file of this suffix, none of a split
    that was asked for, or one of both.
    """
    if root.is_file():
        return (root,), ()
    files = sorted(path for path in _below(root) if path.suffix == suffix and not path.name.startswith("."))
    if not files:
        raise DataError(f"{root} has no file *{suffix}")
    names = [str(path.relative_to(root)) for path in files]

    def matching(word: str) -> set[int]:
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])")
        return {index for index, name in enumerate(names) if pattern.search(name)}

    for word, field in ((train, "train_split"), (validation, "validation_split")):
        if word is not None and not matching(word):
            raise DataError(f"data.{field} = {word!r} is in the name of no file; there are: {listed(names)}")
    first = matching(train or TRAIN)
    if validation is None:
        validation = next((word for word in VALIDATION if matching(word) and word != train), None)
    second = matching(validation) if validation else set()
    if not first:
        if second:
            raise DataError(f"{root} has files of split {validation!r} and none of {train or TRAIN!r}: {listed(names)}")
        return tuple(files), ()
    if first & second:
        raise DataError(f"{files[min(first & second)]} bears the names of both splits, {train or TRAIN}, {validation}")
    return tuple(files[i] for i in sorted(first)), tuple(files[i] for i in sorted(second))


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror})") from error


def _below(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root} is no folder and no file")
    return [path for path in root.rglob("*") if path.is_file()]


def draw_validation(
    digests: NDArray[np.uint8], labels: NDArray[np.int32], fraction: float, seed: int, least: int = 0
) -> NDArray[np.bool_]:
    """Which of n pictures validate, a mask [n], from their SHA-256 `digests` [n, 32].

    Of each class the fraction, rounded, at least one and never all. A draw is a hash of (seed, content), so it depends
    neither on names nor on the order, and copies of a picture are always on the same side. Where the fraction gives
    fewer than `least` pictures, it is raised until it gives as many; not above a half, and not at all where a half
    would not do.
    """
    unique, first, inverse = np.unique(digests.view("V32").reshape(-1), return_index=True, return_inverse=True)
    owners = np.full(len(unique), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(owners, inverse, labels)
    key = f"validation/{seed}".encode()
    draws = np.array([_draw(digests[i].tobytes(), key) for i in first], np.uint64)
    order = np.lexsort((draws, owners))
    groups = np.split(order, np.flatnonzero(np.diff(owners[order])) + 1)

    def chosen(share: float) -> NDArray[np.bool_]:
        validates = np.zeros(len(unique), np.bool_)
        for group in groups:
            if len(group) > 1:
                validates[group[: min(max(round(share * len(group)), 1), len(group) - 1)]] = True
        return validates[inverse]

    mask = chosen(fraction)
    if mask.sum() >= least or fraction >= MOST_RAISED or chosen(MOST_RAISED).sum() < least:
        return mask
    share = max(fraction, least / len(labels))
    while (mask := chosen(share)).sum() < least:
        share = min(share * 1.01, MOST_RAISED)
    return mask


def _draw(content: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "big")
