"""Images that metrics compare: folders, .npz files, built-in data sets; features, kept by what they are of.

What is kept depends on (source by content, crop, quantisation, extractor by hash, resize kernel) and nothing else.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from results.errors import DataError, StoreError, UsageError
from scaling.data.crops import center_crop
from scaling.data.decode import decode
from scaling.data.images import Split, load_images
from scaling.data.loader import in_order
from scaling.data.sources.kept import kept_path
from scaling.data.sources.opening import guess_source, open_pictures
from scaling.data.sources.pictures import Pictures
from scaling.specification.catalogue import DATASETS
from scaling.specification.pictures import PicturesLocation, PicturesView
from scaling.specification.spec import DataSpec

from .kept_rows import Spool, kept_rows
from .networks.extractors import Extractor
from .npz import IMAGES, content_hash, npz_arrays, npz_images
from .sets.moments import Moments, MomentsStream

Batches = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images to judge or to compare with: uint8 batches [<= size, c, h, w] by `batches(size)`, in a fixed order.

    name: for people and protocols; content: SHA-256 of what they are, in this order; crop: how they were cut.
    """

    name: str
    count: int
    content: str
    crop: str
    batches: Batches


@dataclass(frozen=True, eq=False)
class Features:
    """Of a source under an extractor: moments, and rows float32 [n, d] and logits [n, classes] where kept."""

    moments: Moments
    rows: Tensor
    logits: Tensor | None


def open_images(text: str, cache: Path, image_size: int | None = None, workers: int = 0) -> ImageSource:
    """Images at a path, or of a built-in data set (NAME or NAME/validation).

    `image_size` cuts each by ADM's centre crop; without it all must have one size, and are taken as they are.
    Raises DataError or UsageError that names the path and what is wrong.
    """
    path = Path(text).expanduser()
    name, _, split = text.partition("/")
    if not path.exists() and name in DATASETS and split in ("", "train", "validation"):
        return _data_set(name, "validation" if split == "validation" else "train", image_size)
    if not path.exists():
        raise UsageError(f"{text!r} does not exist; allowed: a folder, an .npz, or {', '.join(DATASETS)}")
    if path.suffix == ".npz":
        if image_size is not None:
            raise UsageError(f"{path}: images of an .npz are taken as they are; leave --image-size out")
        images = npz_images(path)
        return ImageSource(str(path), images.count, content_hash(path), "none", images.batches)
    source = guess_source(path)
    if source == "folder":
        # A folder of images is judged whole, also if it has folders named train and validation.
        from scaling.data.sources.layouts.folder import open_folder

        pictures: Pictures = open_folder(path)
    else:
        pictures = open_pictures(PicturesLocation(source=source, path=text), cache).train
    crop = "none" if image_size is None else f"adm-center-{image_size}"
    batches = _as_they_are(pictures) if image_size is None else _cropped(pictures, image_size, workers)
    return ImageSource(str(path), len(pictures.names), _content(pictures), crop, batches)


def _data_set(name: str, split: Split, image_size: int | None) -> ImageSource:
    if image_size is not None:
        raise UsageError(f"{name} is padded to its side as studies do; leave --image-size out")
    data = DataSpec()

    def batches(size: int) -> Iterator[Tensor]:
        return iter(load_images(data, split).pixels.split(size))

    dataset = DATASETS[name]
    count = dataset.train_images if split == "train" else dataset.validation_images
    content = hashlib.sha256(f"{data.fingerprint}|{split}|{data.image_size}".encode()).hexdigest()
    return ImageSource(f"{name}/{split}", count, content, f"pad{data.image_size}", batches)


def _cropped(pictures: Pictures, side: int, workers: int) -> Batches:
    view = PicturesView(image_size=side)

    def batches(size: int) -> Iterator[Tensor]:
        return (batch.pixels for batch in in_order(pictures, view, size, workers=workers))

    return batches


def _as_they_are(pictures: Pictures) -> Batches:
    """Decoded to RGB, of one size. Raises DataError that names the first of another size."""

    def batches(size: int) -> Iterator[Tensor]:
        expected: tuple[int, int] | None = None
        waiting: list[np.ndarray] = []
        for index in range(len(pictures.names)):
            image = decode(pictures.read(index), pictures.where(index), 3)
            expected = expected or image.size
            if image.size != expected:
                raise DataError(
                    f"{pictures.where(index)} has {image.size[0]} x {image.size[1]} pixels, the first image "
                    f"{expected[0]} x {expected[1]}; --image-size N cuts all to one size"
                )
            square = image.size[0] == image.size[1]
            pixels = center_crop(image, image.size[0]) if square else np.asarray(image).transpose(2, 0, 1)
            waiting.append(pixels)
            if len(waiting) == size or index == len(pictures.names) - 1:
                yield torch.from_numpy(np.stack(waiting))
                waiting = []

    return batches


def _content(pictures: Pictures) -> str:
    """SHA-256 over the hashes of all files in the order of their names."""
    digest = hashlib.sha256()
    for index in range(len(pictures.names)):
        digest.update(hashlib.sha256(pictures.read(index)).digest())
    return digest.hexdigest()


def extract(
    source: ImageSource, extractors: Sequence[Extractor], folder: Path, batch: int = 64, limit: int | None = None
) -> list[Features]:
    """One pass of a source through each extractor: rows, moments in float64, logits of a classifier.

    Images are read, or drawn, once for all; features of many are kept in files without a name below `folder`. `limit`
    takes the first images alone. Raises DataError if nothing is there, or features are not finite.
    """
    spools = [(Spool(folder), Spool(folder)) for _ in extractors]
    count = 0
    for pixels in source.batches(batch):
        if limit is not None and count + len(pixels) > limit:
            pixels = pixels[: limit - count]
        if not len(pixels):
            break
        count += len(pixels)
        for extractor, (rows, logits) in zip(extractors, spools, strict=True):
            features = _features_of(source, extractor, pixels)
            rows.add(features)
            if extractor.classify is not None:
                with torch.inference_mode():
                    logits.add(extractor.classify(features).float())
    if not count:
        raise DataError(f"{source.name} has no images")
    return [
        _features(rows.rows(), logits.rows() if extractor.classify is not None else None)
        for extractor, (rows, logits) in zip(extractors, spools, strict=True)
    ]


def _features_of(source: ImageSource, extractor: Extractor, pixels: Tensor) -> Tensor:
    """The extractor's; what it refuses is told with the source's name."""
    try:
        return extractor.features(pixels)
    except (UsageError, DataError) as error:
        raise type(error)(f"{source.name}: {error}") from None


def _features(rows: Tensor, logits: Tensor | None = None) -> Features:
    stream = MomentsStream()
    stream.add(rows)
    return Features(stream.moments, rows, logits)


def reference_features(source: ImageSource, extractor: Extractor, cache: Path, batch: int = 64) -> Features:
    """As `extract`, kept in `cache` by source content, crop, quantisation, extractor and resize kernel."""
    facts = (source.content, source.crop, "uint8", extractor.name, extractor.sha256, extractor.resize)
    path = kept_path(cache, "features", "|".join(facts)).with_suffix(".npy")

    def blocks() -> Iterator[Tensor]:
        return (_features_of(source, extractor, pixels) for pixels in source.batches(batch))

    try:
        return _features(kept_rows(path, source.count, blocks))
    except StoreError:
        # A cache that cannot be written is no reason not to judge; the work is done again each time.
        return extract(source, [extractor], Path(tempfile.gettempdir()), batch)[0]


def holds_images(path: Path) -> bool:
    """Whether an .npz has images; one with statistics alone has not. Raises DataError if it is no .npz."""
    return IMAGES in npz_arrays(path)
