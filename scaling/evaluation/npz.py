"""ADM's .npz files: images as `arr_0`, or statistics as `mu` and `sigma`; read without pickle, images as a stream.

The layout is that of openai/guided-diffusion's evaluations: arr_0 uint8 [n, h, w, 3], mu float [d], sigma [d, d], of
Inception's last pool (their mu_s and sigma_s, for sFID, are passed over). Files written here also hold `count`,
`extractor` and `extractor_sha256`, by which statistics of other networks are recognised.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as layout
from torch import Tensor

from results.errors import DataError
from results.store import atomic

from .sets.moments import Moments

IMAGES, MEAN, COVARIANCE = "arr_0", "mu", "sigma"
UNKNOWN_COUNT = 10**9
"""Rows assumed where a file with statistics does not tell: the difference of n and n - 1 is then nothing."""
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class NpzImages:
    """Images in a file: `count` of [height, width, channels], uint8."""

    path: Path
    count: int
    height: int
    width: int
    channels: int

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 [<= size, c, h, w] in order, read as they are wanted. Raises DataError if the file is cut short."""
        row = self.height * self.width * self.channels
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{IMAGES}.npy") as member:
                _header(member)
                for start in range(0, self.count, size):
                    count = min(size, self.count - start)
                    content = member.read(count * row)
                    if len(content) != count * row:
                        raise DataError(f"{self.path}: {IMAGES} is cut short")
                    pixels = np.frombuffer(content, np.uint8).reshape(count, self.height, self.width, self.channels)
                    yield torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        except _UNREADABLE as error:
            raise DataError(f"{self.path} cannot be read ({_reason(error)})") from error


@dataclass(frozen=True, eq=False)
class NpzStatistics:
    """Moments in a file; `count`, `extractor` and its hash are None where the file does not tell (ADM's do not)."""

    moments: Moments
    count: int | None
    extractor: str | None
    extractor_sha256: str | None


def npz_arrays(path: Path) -> tuple[str, ...]:
    """Names of the arrays. Raises DataError if it is no .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as .npz ({_reason(error)})") from error


def npz_images(path: Path) -> NpzImages:
    """The images of a file, none of them read yet. Raises DataError: no arr_0, another type or shape, a pickle."""
    if IMAGES not in npz_arrays(path):
        raise DataError(f"{path} has no array {IMAGES} (images); it has {', '.join(npz_arrays(path)) or 'none'}")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
            shape, fortran, kind = _header(member)
    except _UNREADABLE as error:
        raise DataError(f"{path}: {IMAGES} cannot be read ({_reason(error)})") from error
    if kind.hasobject:
        raise DataError(f"{path}: {IMAGES} is pickled Python objects, which are not loaded; allowed: uint8 images")
    if kind != np.uint8 or fortran or len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape:
        shown = f"{kind} {list(shape)}{' in Fortran order' if fortran else ''}"
        raise DataError(f"{path}: {IMAGES} is {shown}; allowed: uint8 [images, height, width, 1 or 3]")
    return NpzImages(path, *shape)


def npz_statistics(path: Path) -> NpzStatistics:
    """The statistics of a file. Raises DataError: a missing array, another type, a pickle, values not finite."""
    names = npz_arrays(path)
    for name in (MEAN, COVARIANCE):
        if name not in names:
            raise DataError(f"{path} has no array {name} (statistics); it has {', '.join(names) or 'none'}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (MEAN, COVARIANCE)}
            facts = {name: archive[name].item() for name in ("count", "extractor", "extractor_sha256") if name in names}
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({_reason(error)})") from error
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float64):
            raise DataError(f"{path}: {name} is {array.dtype}; allowed: float32 or float64")
    count = int(facts["count"]) if facts.get("count") else None
    try:
        mean, covariance = (torch.from_numpy(arrays[name]) for name in (MEAN, COVARIANCE))
        moments = Moments.of_statistics(mean, covariance, count or UNKNOWN_COUNT)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return NpzStatistics(moments, count, facts.get("extractor"), facts.get("extractor_sha256"))


def write_statistics(path: Path, moments: Moments, extractor: str, extractor_sha256: str) -> None:
    """mu and sigma as ADM's evaluator reads them, with what they are of. Raises StoreError if that fails."""
    buffer = io.BytesIO()
    np.savez(
        buffer, mu=moments.mean.numpy(), sigma=moments.covariance.numpy(), count=np.array(moments.count),
        extractor=np.array(extractor), extractor_sha256=np.array(extractor_sha256),
    )  # fmt: skip
    atomic.write(path, buffer.getvalue())


def content_hash(path: Path) -> str:
    """SHA-256 of a file. Raises DataError that names it."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether in Fortran order, and type. Raises ValueError."""
    version = layout.read_magic(member)
    read = layout.read_array_header_1_0 if version == (1, 0) else layout.read_array_header_2_0
    return read(member)


def _reason(error: Exception) -> str:
    if "pickle" in str(error).lower():
        return "it holds pickled Python objects, which are not loaded"
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
