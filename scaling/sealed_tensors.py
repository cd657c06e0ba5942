"""Tensors in safetensors with a checksum of their values: a file that was cut or changed is recognised."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from results.errors import DataError
from results.store import atomic

SEAL = "sealed"
_log = logging.getLogger(__name__)


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names and values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def seal(tensors: dict[str, Tensor], **facts: str) -> bytes:
    """The tensors and facts about them as one file's content."""
    told = json.dumps(facts | {"sha256": checksum(tensors)}, sort_keys=True)
    # One entry: safetensors writes several in any order, and equal content is to be equal bytes.
    return save({k: v.contiguous() for k, v in tensors.items()}, metadata={SEAL: told})


def unseal(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The reverse of `seal`. Raises DataError if the content is damaged."""
    try:
        tensors = load(content)
        facts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        facts = json.loads(facts[SEAL]) if SEAL in facts else facts  # files of earlier versions have an entry a fact
        if facts.pop("sha256") != checksum(tensors):
            raise DataError("its SHA-256 is not that of its tensors")
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(str(error)) from error
    return tensors, facts


def cached(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, computed and put there if it is absent; those of a damaged file are computed again.

    Files are written whole by rename, so that any number of processes may share a cache. Raises StoreError.
    """
    if path.exists():
        try:
            return unseal(path.read_bytes())[0]
        except DataError as error:
            _log.warning("%s is damaged: %s; computed again", path, error)
    tensors = compute()
    atomic.write(atomic.make_folder(path.parent) / path.name, seal(tensors))
    return tensors
