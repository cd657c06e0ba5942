"""Batches of pictures for training and encoding, decoded ahead by worker processes.

What a batch holds is a function of (seed, purpose, position in the endless stream) alone: order, crop and mirror are
drawn from generators named by them. So it is the same for any number of workers and of ranks, and after a resume at any
image. Memory holds the batches that are decoded ahead, AHEAD a worker, and nothing else of the pictures.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from results.errors import DataError, RunError
from scaling import randomness
from scaling.specification.pictures import PicturesView

from .crops import Draw, Pixels, fixed_views, see, see_fixed
from .sources.pictures import Pictures

AHEAD = 2
"""Batches that each worker process decodes ahead."""


@dataclass(frozen=True, eq=False)
class Batch:
    """`pixels` uint8 [n, c, s, s], `labels` int64 [n]."""

    pixels: Tensor
    labels: Tensor


class PictureStream:
    """The endless stream of training pictures, each epoch its own permutation, in batches by position.

    `part` is this process's share of each global batch of `batch_size`; `workers` processes decode it, 0 for none.
    """

    def __init__(
        self,
        pictures: Pictures,
        view: PicturesView,
        seed: int,
        purpose: str,
        batch_size: int,
        *,
        part: slice | None = None,
        workers: int = 0,
    ) -> None:
        self._decoding = _Decoding(pictures, view, seed, purpose)
        self._batch_size, self._workers = batch_size, workers
        self._part = range(batch_size)[part or slice(None)]
        self._batches: Iterator[Batch] = iter(())
        self._next = -1

    def at(self, position: int) -> Batch:
        """This process's part of the batch whose first picture is number `position` of the stream.

        Batches in sequence are decoded ahead; any other position begins a new sequence. Raises DataError that names the
        picture, RunError if a worker process was killed.
        """
        if position != self._next:
            self.close()
            self._batches = _decoded(self._decoding, self._requests(position), self._workers)
        try:
            batch = next(self._batches)
        except BaseException:
            self.close()
            raise
        self._next = position + self._batch_size
        return batch

    def close(self) -> None:
        """End the worker processes; `at` starts them again."""
        self._batches, self._next = iter(()), -1

    def _requests(self, position: int) -> Iterator[_Request]:
        for start in itertools.count(position, self._batch_size):
            yield _Request(start + self._part.start, len(self._part))


def in_order(
    pictures: Pictures, view: PicturesView, batch_size: int, *, start: int = 0, number: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """All pictures from `start` on in the order of their names, once: crop `number` of crops.fixed_views(view).

    Raises as PictureStream.at does; ValueError for a number that there is not.
    """
    if not 0 <= number < fixed_views(view):
        raise ValueError(f"number = {number} is not allowed; allowed: 0 to {fixed_views(view) - 1}")
    size = len(pictures.names)
    return _stretch(pictures, view, batch_size, number * size + start, (number + 1) * size, workers)


def every_view(
    pictures: Pictures, view: PicturesView, batch_size: int, *, start: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """All pictures in order under each of crops.fixed_views(view) in turn, from number `start` of them all on.

    Raises as PictureStream.at does.
    """
    end = fixed_views(view) * len(pictures.names)
    return _stretch(pictures, view, batch_size, start, end, workers)


def _stretch(
    pictures: Pictures, view: PicturesView, batch_size: int, start: int, end: int, workers: int
) -> Iterator[Batch]:
    requests = (_Request(begin, min(batch_size, end - begin)) for begin in range(start, end, batch_size))
    return _decoded(_Decoding(pictures, view, 0, None), requests, workers)


@dataclass(frozen=True)
class _Request:
    """Pictures start .. start + count: of the stream, or of the set under its first view, its second, and so on."""

    start: int
    count: int


@dataclass(frozen=True)
class _Failure:
    """An error of a worker, which as an exception would arrive with a page of its process's trace."""

    message: str


class _Decoding(Dataset[Batch | _Failure]):
    """Decodes requests: of the stream of a purpose, or, without one, of the set in its order."""

    def __init__(self, pictures: Pictures, view: PicturesView, seed: int, purpose: str | None) -> None:
        self.pictures, self.view, self.seed, self.purpose = pictures, view, seed, purpose

    def __getitem__(self, request: _Request) -> Batch | _Failure:
        side, channels = self.view.image_size, self.view.channels
        pixels = np.empty((request.count, channels, side, side), np.uint8)
        indices = self._indices(request)
        try:
            for place, index in enumerate(indices):
                pixels[place] = self._see(index, request.start + place)
        except DataError as error:
            return _Failure(str(error))
        labels = self.pictures.labels[np.array(indices, np.int64)].astype(np.int64)
        return Batch(torch.from_numpy(pixels), torch.from_numpy(labels))

    def _indices(self, request: _Request) -> Sequence[int]:
        size = len(self.pictures.names)
        if self.purpose is None:
            return [position % size for position in range(request.start, request.start + request.count)]
        return randomness.batch_indices(self.seed, self.purpose, request.start, request.count, size).tolist()  # type: ignore[no-any-return]

    def _see(self, index: int, position: int) -> Pixels:
        content, where = self.pictures.read(index), self.pictures.where(index)
        if self.purpose is None:
            return see_fixed(content, where, self.view, position // len(self.pictures.names))
        return see(content, where, self.view, self._draws(index, position))

    def _draws(self, index: int, position: int) -> Draw | None:
        """Draws for a picture in the epoch of this position; None where nothing is drawn."""
        if self.view.crop == "center" and not self.view.flip:
            return None
        size = len(self.pictures.names)
        generator = randomness.generator(self.seed, f"{self.purpose} views", position // size * size + index)
        return lambda bound: int(torch.randint(bound, (), generator=generator))


class _InTurn(Sampler[_Request]):
    """The requests as they come."""

    def __init__(self, requests: Iterator[_Request]) -> None:
        self.requests = requests

    def __iter__(self) -> Iterator[_Request]:
        return self.requests


def _decoded(decoding: _Decoding, requests: Iterator[_Request], workers: int) -> Iterator[Batch]:
    """Batches in the order of the requests."""
    if not workers:
        for request in requests:
            yield _checked(decoding[request])
        return
    # Forked workers share the names and labels of a million pictures with this process.
    context = multiprocessing.get_context("fork") if sys.platform == "linux" else None
    loader: DataLoader[Batch | _Failure] = DataLoader(
        decoding, batch_size=None, sampler=_InTurn(requests), num_workers=workers, prefetch_factor=AHEAD,
        multiprocessing_context=context, collate_fn=_as_it_is,
    )  # fmt: skip
    try:
        for answer in loader:
            yield _checked(answer)
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise RunError(f"a process that decodes pictures was killed ({' '.join(str(error).split())})") from error


def _checked(answer: Batch | _Failure) -> Batch:
    if isinstance(answer, _Failure):
        raise DataError(answer.message)
    return answer


def _as_it_is(answer: Any) -> Any:
    """No conversion of what a worker made."""
    return answer
