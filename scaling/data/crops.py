"""Square crops of a picture, uint8: ADM's centre crop, its random crop, and ten crops.

After openai/guided-diffusion, image_datasets.py (MIT): its arithmetic is kept exactly, since the field's reference
statistics are of pictures cropped so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from results.errors import DataError
from scaling.specification.pictures import PicturesView

from .decode import MAX_PIXELS, decode

Pixels = NDArray[np.uint8]
Draw = Callable[[int], int]
"""draw(n): a whole number from 0 to n - 1, all equally likely."""

SMALLEST_SHARE = 0.8
"""A random crop is of at least this share of the shorter side (ADM's min_crop_frac)."""
TEN_CROP_RANGE = 1.1
"""Ten crops are taken of a central crop larger than them by this factor (LlamaGen's crop range)."""


def see(content: bytes, where: str, view: PicturesView, draw: Draw | None) -> Pixels:
    """What a run sees of an encoded picture, uint8 [c, s, s]; without `draw` the central crop, as validation sees it.

    Raises DataError that names the picture.
    """
    image = decode(content, where, view.channels)
    try:
        if draw is None or view.crop == "center":
            pixels = center_crop(image, view.image_size)
        elif view.crop == "random":
            pixels = random_crop(image, view.image_size, draw)
        else:
            pixels = ten_crop(image, view.image_size, draw(10))
    except _TooLongError as error:
        raise DataError(f"{where}: {error}") from error
    if draw is not None and view.flip and draw(2):
        pixels = pixels[:, :, ::-1]
    return pixels


def fixed_views(view: PicturesView) -> int:
    """In how many ways `see_fixed` crops a picture."""
    return view.fixed_views


def see_fixed(content: bytes, where: str, view: PicturesView, number: int) -> Pixels:
    """Crop `number` of a picture, uint8 [c, s, s], for tokens made once: of ten crops all, else centre and its mirror.

    Raises DataError that names the picture.
    """
    if view.crop != "ten":
        pixels = see(content, where, view, None)
        return pixels[:, :, ::-1] if number else pixels
    image = decode(content, where, view.channels)
    try:
        return ten_crop(image, view.image_size, number)
    except _TooLongError as error:
        raise DataError(f"{where}: {error}") from error


def center_crop(image: Image.Image, side: int) -> Pixels:
    """ADM's: halved by a box filter while the shorter side is at least 2 s, bicubic to s, then the middle [c, s, s]."""
    image = _shrink(image, side)
    return _square(image, (image.size[1] - side) // 2, (image.size[0] - side) // 2, side)


def random_crop(image: Image.Image, side: int, draw: Draw) -> Pixels:
    """ADM's: the shorter side goes to s .. ceil(s / 0.8) at random, then a square of s at random, uint8 [c, s, s]."""
    image = _shrink(image, side + draw(math.ceil(side / SMALLEST_SHARE) - side + 1))
    top, left = draw(image.size[1] - side + 1), draw(image.size[0] - side + 1)
    return _square(image, top, left, side)


def ten_crop(image: Image.Image, side: int, number: int) -> Pixels:
    """Crop `number` of ten, uint8 [c, s, s]: four corners (top first, left first), the middle, and their mirrors."""
    whole = int(side * TEN_CROP_RANGE)
    image = _shrink(image, whole)
    rest, place = whole - side, number % 5
    # The middle is rounded as torchvision's ten-crop does.
    top, left = (round(rest / 2),) * 2 if place == 4 else (rest * (place // 2), rest * (place % 2))
    pixels = _square(image, (image.size[1] - whole) // 2 + top, (image.size[0] - whole) // 2 + left, side)
    return pixels[:, :, ::-1] if number >= 5 else pixels


def _shrink(image: Image.Image, shorter: int) -> Image.Image:
    """The image with that shorter side."""
    while min(image.size) >= 2 * shorter:
        image = _resize(image, (image.size[0] // 2, image.size[1] // 2), Image.Resampling.BOX)
    scale = shorter / min(image.size)
    size = (round(image.size[0] * scale), round(image.size[1] * scale))
    if size[0] * size[1] > MAX_PIXELS:
        raise _TooLongError(f"{image.size[0]} x {image.size[1]} pixels are too long and narrow for a side of {shorter}")
    return _resize(image, size, Image.Resampling.BICUBIC)


def _resize(image: Image.Image, size: tuple[int, int], kernel: Image.Resampling) -> Image.Image:
    """Rows first, then columns, each rounded to 8 bits: as Pillow did when the field's references were made.

    Pillow 13 takes whichever is cheaper first, which changes some pixels of tall pictures by 1.
    """
    for step in ((size[0], image.size[1]), size):
        if step != image.size:
            image = image.resize(step, kernel)
    return image


class _TooLongError(ValueError):
    """A picture so long and narrow that it cannot be enlarged within MAX_PIXELS."""


def _square(image: Image.Image, top: int, left: int, side: int) -> Pixels:
    """A square of the image as uint8 [c, s, s]."""
    pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    return pixels.reshape(side, side, -1).transpose(2, 0, 1)
