"""A user's own pictures as a run's images: decoded as they are needed, or once where they are few.

See LabelledImages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling.specification.pictures import PicturesView

from .crops import see_fixed
from .images import BatchStream, Images, LabelledImages
from .loader import PictureStream, every_view
from .sources.pictures import Pictures

KEPT_BYTES = 2**28
"""Most pixels of a split that are kept in memory rather than decoded in each epoch: 21,845 pictures of 64 pixels."""
DECODING_BATCH = 64
MOST_WORKERS = 8


def picture_images(pictures: Pictures, view: PicturesView, workers: int = 0) -> LabelledImages:
    """Pictures as images; in memory where a view is all there is of each, and they fit into KEPT_BYTES.

    Which of the two it is changes no pixel and no order. Raises DataError that names a picture.
    """
    images = PictureImages(pictures, view, workers)
    if not view.is_central or len(images) * view.channels * view.image_size**2 > KEPT_BYTES:
        return images
    return Images(torch.cat(list(images.in_order(DECODING_BATCH))), images.labels)


def decoding_workers(threads: int) -> int:
    """Processes that decode beside a training of `threads` threads: as many as its job has further CPUs, at most 8.

    Without a job of SLURM it is one, since other runs share the machine.
    """
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(0, min(int(given) - threads, MOST_WORKERS)) if given.isdigit() else 1


@dataclass(frozen=True, eq=False)
class PictureImages:
    """A split that is decoded as it is read, by `workers` processes; see LabelledImages. All raise DataError."""

    pictures: Pictures
    view: PicturesView
    workers: int

    def __len__(self) -> int:
        return self.view.fixed_views * len(self.pictures.names)

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.pictures.labels).long().repeat(self.view.fixed_views)

    def central(self) -> LabelledImages:
        return picture_images(self.pictures, self.view.central, self.workers)

    def in_order(self, batch: int, start: int = 0) -> Iterator[Tensor]:
        for decoded in every_view(self.pictures, self.view, batch, start=start, workers=self.workers):
            yield decoded.pixels

    def take(self, indices: Tensor) -> Tensor:
        size = len(self.pictures.names)
        pixels = [self._see(*divmod(number, size)) for number in indices.tolist()]
        side = self.view.image_size
        return torch.stack(pixels) if pixels else torch.empty(0, self.view.channels, side, side, dtype=torch.uint8)

    def _see(self, number: int, index: int) -> Tensor:
        pixels = see_fixed(self.pictures.read(index), self.pictures.where(index), self.view, number)
        return torch.from_numpy(pixels.copy())

    def stream(self, seed: int, purpose: str, batch_size: int, part: slice) -> BatchStream:
        return _Decoded(
            PictureStream(self.pictures, self.view, seed, purpose, batch_size, part=part, workers=self.workers)
        )


@dataclass(frozen=True, eq=False)
class _Decoded:
    """See BatchStream."""

    stream: PictureStream

    def at(self, position: int) -> Tensor:
        return self.stream.at(position).pixels

    def close(self) -> None:
        self.stream.close()
