"""Images as arrays: a catalogue's data set, padded to its side, and the conversions between pixels and floats."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from results.errors import DataError
from scaling import randomness
from scaling.specification.catalogue import DATASETS, Dataset
from scaling.specification.spec import DataSpec

from .sources.builtin import catalogue_files as sources

Split = Literal["train", "validation"]


class BatchStream(Protocol):
    """One process's part of each batch of an endless stream of images, by position."""

    def at(self, position: int) -> Tensor:
        """uint8 pixels [n, c, s, s] of the part of the batch whose first image is number `position` of the stream."""

    def close(self) -> None:
        """Give back what reading ahead holds; `at` may be called again."""


class LabelledImages(Protocol):
    """A split of a run's images, each in as many fixed views as it is encoded in: all images in the first view, then
    all in the second, and so on."""

    @property
    def labels(self) -> Tensor:
        """int64 [n], of each image in each view."""

    def __len__(self) -> int: ...

    def central(self) -> LabelledImages:
        """Each image once, as metrics see it."""

    def in_order(self, batch: int, start: int = 0) -> Iterator[Tensor]:
        """uint8 pixels [batch, c, s, s] at a time (the last may be fewer), from number `start` on."""

    def take(self, indices: Tensor) -> Tensor:
        """uint8 pixels [m, c, s, s] of images by number [m]."""

    def stream(self, seed: int, purpose: str, batch_size: int, part: slice) -> BatchStream:
        """Images for training: each epoch a permutation named by (seed, purpose, epoch), in batches by position;
        `part` is this process's share of each."""


@dataclass(frozen=True, eq=False)
class Images:
    """A split in memory, in one view: `pixels` uint8 [n, c, s, s] and `labels` int64 [n]; see LabelledImages."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def central(self) -> Images:
        return self

    def in_order(self, batch: int, start: int = 0) -> Iterator[Tensor]:
        for begin in range(start, len(self.pixels), batch):
            yield self.pixels[begin : begin + batch]

    def take(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]

    def stream(self, seed: int, purpose: str, batch_size: int, part: slice) -> BatchStream:
        return _InMemory(self.pixels, seed, purpose, batch_size, part)


@dataclass(frozen=True, eq=False)
class _InMemory:
    """See BatchStream."""

    pixels: Tensor
    seed: int
    purpose: str
    batch_size: int
    part: slice

    def at(self, position: int) -> Tensor:
        indices = randomness.batch_indices(self.seed, self.purpose, position, self.batch_size, len(self.pixels))
        return self.pixels[indices[self.part]]

    def close(self) -> None:
        pass


Loader = Callable[[Dataset, Split], tuple[np.ndarray, np.ndarray]]
"""Reads a split at its native side: pixels uint8 [n, c, s, s] and labels [n]."""


def load_images(spec: DataSpec, split: Split) -> Images:
    """A split of the data set that `spec` names, padded with zeros on all sides to `spec.image_size`.

    Raises DataError if the data set cannot be found, or its files are damaged.
    """
    dataset = DATASETS[spec.name]
    pixels, labels = LOADERS[spec.name](dataset, split)
    expected = dataset.train_images if split == "train" else dataset.validation_images
    shape = (expected, dataset.channels, dataset.native_size, dataset.native_size)
    if pixels.shape != shape or labels.shape != (expected,):
        raise DataError(f"{spec.name}, {split}: images {pixels.shape}, labels {labels.shape}, expected {shape}")
    return Images(pad(torch.from_numpy(pixels), spec.image_size), torch.from_numpy(labels.astype(np.int64)))


def pad(pixels: Tensor, side: int) -> Tensor:
    """Pixels [n, c, s, s] with zeros around them, centred, up to `side`; an odd rest goes right and below."""
    rest = side - pixels.shape[-1]
    if rest < 0:
        raise ValueError(f"side = {side} is below the images' {pixels.shape[-1]} pixels")
    before, after = rest // 2, rest - rest // 2
    return functional.pad(pixels, (before, after, before, after))


def to_float(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def to_pixels(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8, rounded to the nearest and clamped; the inverse of `to_float` on its image."""
    return images.detach().to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resize(images: Tensor, side: int) -> Tensor:
    """Float images [n, c, s, s] at another side, bicubic and antialiased; unchanged if `side` is theirs."""
    if images.shape[-1] == side and images.shape[-2] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def _fashion_mnist(dataset: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    prefix = "train" if split == "train" else "t10k"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    contents = sources.read_files(dataset, names)
    images, labels = (parse_idx(contents[name], name) for name in names)
    return images[:, None], labels


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """Array of an IDX file (LeCun's format: zeros, type, rank, big-endian sizes, data). Raises DataError, naming it."""
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise DataError(f"{name} ends within its header")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{name} holds {len(content) - header} values, its header says {shape}")
    # A copy: torch wants writable memory.
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


LOADERS: dict[str, Loader] = {"fashion-mnist": _fashion_mnist}
"""How each data set of the catalogue is read; a new source adds its name here."""
