"""Reads every picture once: the SHA-256 of its bytes, its size and kind, and why it cannot be decoded, if so.

What is known is kept by (path, size, time of change, place in the file), so a second survey of a million files reads
none of them. Threads suffice: reading, hashing and decoding leave Python's lock.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError

from ..decode import examine
from . import kept
from .names import Names
from .pictures import Pictures

Report = Callable[[int, int], None]
"""Takes the number of pictures surveyed, and of all."""
CHUNK = 1024
"""Pictures between reports."""
SAVE_SECONDS = 60.0
"""Between savings of what is known, so that an interrupted survey goes on."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts on n pictures; a damaged one has size 0 x 0, and a digest of zeros if it cannot even be read.

    digests: SHA-256, uint8 [n, 32]; widths, heights: pixels, upright, int32 [n]
    kinds: numbers into kind_names, such as `JPEG RGB`, int32 [n]; reasons: why a picture is damaged, by its index
    """

    digests: NDArray[np.uint8]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    kinds: NDArray[np.int32]
    kind_names: tuple[str, ...]
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which can be decoded, a mask [n]."""
        mask = np.ones(len(self), np.bool_)
        mask[list(self.reasons)] = False
        return mask

    def take(self, indices: NDArray[np.int64]) -> Survey:
        """The facts on some pictures."""
        reasons = {new: self.reasons[old] for new, old in enumerate(indices.tolist()) if old in self.reasons}
        columns = (self.digests[indices], self.widths[indices], self.heights[indices], self.kinds[indices])
        return Survey(*columns, self.kind_names, reasons)


def silent(done: int, total: int) -> None:
    pass


def survey(pictures: Pictures, cache: Path, report: Report = silent, threads: int | None = None) -> Survey:
    """Facts on all pictures, those known from `cache` without reading them; `threads`: default, all cores.

    Raises DataError if what holds the pictures has gone; a picture that is damaged or unreadable is a fact.
    """
    total = len(pictures.names)
    place = kept.kept_path(cache, "surveys", pictures.origin)
    keys = np.zeros((total, 2), np.uint64)
    stampable = np.ones(total, np.bool_)
    for index in range(total):
        try:
            keys[index] = np.frombuffer(hashlib.blake2b(pictures.stamp(index), digest_size=16).digest(), np.uint64)
        except DataError:
            stampable[index] = False
    table = _Table.empty(total)
    known = table.fill(keys, kept.load(place)) & stampable
    order = pictures.storage_order()
    waiting = order[~known[order]]
    done, saved = total - len(waiting), time.monotonic()
    report(done, total)
    with ThreadPoolExecutor(threads or _cores()) as pool:
        for begin in range(0, len(waiting), CHUNK):
            chunk = waiting[begin : begin + CHUNK]
            for index, fact in zip(chunk.tolist(), pool.map(lambda i: _look(pictures, int(i)), chunk), strict=True):
                table.put(index, fact)
                # Rights to read may come back without a new time: such a failure is not kept.
                known[index] = stampable[index] and fact.digest is not None
            done += len(chunk)
            report(done, total)
            if time.monotonic() - saved > SAVE_SECONDS:
                kept.save(place, table.pack(keys, known))
                saved = time.monotonic()
    if len(waiting):
        kept.save(place, table.pack(keys, known))
    widths, heights, kinds = table.numbers.T
    return Survey(table.facts, widths, heights, kinds, tuple(table.kinds), table.reasons)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Fact:
    digest: bytes | None
    width: int = 0
    height: int = 0
    kind: str = ""
    reason: str | None = None


def _look(pictures: Pictures, index: int) -> _Fact:
    try:
        content = pictures.read(index)
    except DataError as error:
        return _Fact(None, reason=str(error))
    digest = hashlib.sha256(content).digest()
    try:
        header = examine(content, pictures.where(index))
    except DataError as error:
        return _Fact(digest, reason=str(error))
    return _Fact(digest, header.width, header.height, header.kind)


@dataclass(eq=False)
class _Table:
    """Facts while they are gathered: digests uint8 [n, 32]; width, height, number of kind, int32 [n, 3]."""

    facts: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    kinds: dict[str, int]
    reasons: dict[int, str]

    @classmethod
    def empty(cls, total: int) -> _Table:
        return cls(np.zeros((total, 32), np.uint8), np.zeros((total, 3), np.int32), {}, {})

    def put(self, index: int, fact: _Fact) -> None:
        if fact.digest is not None:
            self.facts[index] = np.frombuffer(fact.digest, np.uint8)
        self.numbers[index] = fact.width, fact.height, self.kinds.setdefault(fact.kind, len(self.kinds))
        if fact.reason is not None:
            self.reasons[index] = fact.reason

    def pack(self, keys: NDArray[np.uint64], known: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
        """What is known, by key, as arrays to keep."""
        kinds, texts = Names.of(self.kinds), [self.reasons.get(i, "") for i in np.flatnonzero(known).tolist()]
        reasons = Names.of(texts)
        return {
            "keys": keys[known], "facts": self.facts[known], "numbers": self.numbers[known],
            "kinds": kinds.buffer, "kind_ends": kinds.offsets,
            "reasons": reasons.buffer, "reason_ends": reasons.offsets,
        }  # fmt: skip

    def fill(self, keys: NDArray[np.uint64], arrays: kept.Arrays | None) -> NDArray[np.bool_]:
        """Take over what was kept under these keys; which that are, a mask [n]."""
        names = {"keys", "facts", "numbers", "kinds", "kind_ends", "reasons", "reason_ends"}
        if arrays is None or set(arrays) != names or not len(arrays["keys"]):
            return np.zeros(len(keys), np.bool_)
        stored: NDArray[np.uint64] = arrays["keys"]  # type: ignore[assignment]
        order = np.argsort(stored[:, 0], kind="stable")
        rows = order[np.minimum(np.searchsorted(stored[order, 0], keys[:, 0]), len(order) - 1)]
        known: NDArray[np.bool_] = (stored[rows] == keys).all(axis=1)
        self.facts[known] = arrays["facts"][rows[known]]
        self.numbers[known] = arrays["numbers"][rows[known]]
        self.kinds.update({name: number for number, name in enumerate(Names(arrays["kinds"], arrays["kind_ends"]))})  # type: ignore[arg-type]
        reasons = Names(arrays["reasons"], arrays["reason_ends"])  # type: ignore[arg-type]
        damaged = np.flatnonzero(known & (np.diff(reasons.offsets)[rows] > 0))
        self.reasons.update({int(index): reasons[int(rows[index])] for index in damaged})
        return known
