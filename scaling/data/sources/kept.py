"""Arrays kept between processes in the user's cache: indices of large files, and what is known of each picture."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError, StoreError
from results.store import atomic

Arrays = Mapping[str, NDArray[np.generic]]
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/tokenlaw, or ~/.cache/tokenlaw. Raises DataError if neither is known."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    if Path(base).is_absolute():
        return Path(base) / "tokenlaw"
    try:
        return Path.home() / ".cache" / "tokenlaw"
    except RuntimeError as error:
        raise DataError("this user has no home folder; set XDG_CACHE_HOME") from error


def kept_path(cache: Path, kind: str, name: str | bytes) -> Path:
    """The file of what is kept under a name of any length."""
    return cache / kind / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.npz"


def load(path: Path, stamp: bytes = b"") -> Arrays | None:
    """What was kept with this stamp; None if there is nothing, something of another stamp, or a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _UNREADABLE:
        return None
    if arrays.pop("stamp", np.zeros(0, np.uint8)).tobytes() != stamp:
        return None
    return arrays


def save(path: Path, arrays: Arrays, stamp: bytes = b"") -> bool:
    """Keep arrays; False, and nothing is kept, where the cache cannot be written: the work is then done again."""
    buffer = io.BytesIO()
    np.savez(buffer, stamp=np.frombuffer(stamp, np.uint8), **arrays)  # type: ignore[arg-type]
    try:
        atomic.make_folder(path.parent)
        atomic.write(path, buffer.getvalue(), durable=False)
    except StoreError:
        return False
    return True
