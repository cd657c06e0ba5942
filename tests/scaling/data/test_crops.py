"""Crops: ADM's arithmetic against an independent formulation, draws within their ranges, ten crops."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from results.errors import DataError
from scaling.data.crops import center_crop, fixed_views, random_crop, see, see_fixed, ten_crop
from scaling.specification.pictures import PicturesView

from .made_pictures import encoded, pixels


def bicubic(values: np.ndarray, size: int) -> np.ndarray:
    """One axis (the first) resized by Keys' kernel with a = -1/2, widened when shrinking: [n, ...] to [size, ...]."""
    scale = len(values) / size
    width = max(scale, 1.0)
    rows = []
    for target in range(size):
        center = (target + 0.5) * scale
        places = np.arange(max(int(center - 2 * width + 0.5), 0), min(int(center + 2 * width + 0.5), len(values)))
        distance = np.abs((places + 0.5 - center) / width)
        weights = np.where(
            distance < 1,
            (1.5 * distance - 2.5) * distance**2 + 1,
            np.where(distance < 2, ((-0.5 * distance + 2.5) * distance - 4) * distance + 2, 0),
        )
        rows.append(np.tensordot(weights / weights.sum(), values[places], 1))
    return np.stack(rows)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values.clip(0, 255) + 0.5)


def by_hand(picture: np.ndarray, side: int) -> np.ndarray:
    """ADM's centre crop in NumPy: [h, w, c] to [c, s, s], each pass rounded to 8 bits as Pillow does."""
    values = picture.astype(np.float64)
    while min(values.shape[:2]) >= 2 * side:
        # Halving an odd length weighs by overlap: a box of length n / (n // 2).
        values = np.moveaxis(rounded(box(np.moveaxis(values, 1, 0), values.shape[1] // 2)), 0, 1)
        values = rounded(box(values, values.shape[0] // 2))
    shorter = min(values.shape[:2])
    height, width = (round(length * (side / shorter)) for length in values.shape[:2])
    values = np.moveaxis(rounded(bicubic(np.moveaxis(values, 1, 0), width)), 0, 1)
    values = rounded(bicubic(values, height))
    top, left = (height - side) // 2, (width - side) // 2
    return values[top : top + side, left : left + side].transpose(2, 0, 1)


def box(values: np.ndarray, size: int) -> np.ndarray:
    """One axis (the first) by Pillow's box filter: pixels whose centre lies within half a step count equally."""
    scale = len(values) / size
    rows = []
    for target in range(size):
        center = (target + 0.5) * scale
        support = 0.5 * scale
        places = np.arange(max(int(center - support + 0.5), 0), min(int(center + support + 0.5), len(values)))
        # By the reciprocal, as Pillow does: pixels on the very edge are counted or not by its rounding.
        distance = (places - center + 0.5) * (1 / scale)
        inside = places[(distance > -0.5) & (distance <= 0.5)]
        rows.append(values[inside].mean(0))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("width", "height"), [(32, 32), (40, 32), (33, 61), (64, 64), (131, 97), (300, 70), (65, 200), (20, 31), (257, 129)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_center_crop_is_adms(width: int, height: int, channels: int) -> None:
    picture = pixels(width, width, height, channels)
    result = center_crop(Image.fromarray(picture), 32)
    assert result.shape == (channels, 32, 32) and result.dtype == np.uint8
    expected = by_hand(picture.reshape(height, width, channels), 32)
    # Pillow's weights are of 22 bits, so a value on the edge of rounding may fall to the other side.
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (64, 300), (90, 90)])
def test_center_crop_is_what_adm_writes(width: int, height: int) -> None:
    image = original = Image.fromarray(pixels(4, width, height))
    while min(image.size) >= 2 * 64:
        image = image.resize((image.size[0] // 2, image.size[1] // 2), Image.Resampling.BOX)
    scale = 64 / min(image.size)
    resized = np.asarray(image.resize((round(image.size[0] * scale), round(image.size[1] * scale)), 3))
    top, left = (resized.shape[0] - 64) // 2, (resized.shape[1] - 64) // 2
    expected = resized[top : top + 64, left : left + 64].transpose(2, 0, 1).astype(int)
    # Up to the order of the two passes, which Pillow has changed.
    assert np.abs(center_crop(original, 64) - expected).max() <= 3


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.sampled_from(["center", "random", "ten"]))
def test_every_crop_has_its_shape(width: int, height: int, side: int, crop: str) -> None:
    random = np.random.default_rng(width)
    bounds = []

    def draw(bound: int) -> int:
        bounds.append(bound)
        return int(random.integers(bound))

    view = PicturesView(image_size=side, channels=1, crop=crop, flip=True)
    content = encoded(np.full((height, width), 77, np.uint8))
    result = see(content, "x", view, draw)
    # Whatever the sizes, a constant picture stays so, up to edges.
    assert result.shape == (1, side, side) and (result == 77).all() and min(bounds) >= 1


def test_random_crop_draws_over_its_whole_range() -> None:
    image = Image.fromarray(pixels(1, 64, 48))
    asked = []

    def last(bound: int) -> int:
        asked.append(bound)
        return bound - 1

    largest = random_crop(image, 32, last)
    shorter = math.ceil(32 / 0.8)
    assert asked == [shorter - 32 + 1, shorter - 32 + 1, round(64 * shorter / 48) - 32 + 1]
    resized = np.asarray(image.resize((round(64 * shorter / 48), shorter), Image.Resampling.BICUBIC))
    assert np.array_equal(largest, resized[-32:, -32:].transpose(2, 0, 1))
    assert np.array_equal(
        random_crop(image, 32, lambda bound: 0)[0, 0], np.asarray(image.resize((43, 32), 3))[0, :32, 0]
    )


def test_ten_crops_are_corners_middle_and_mirrors() -> None:
    image = Image.fromarray(pixels(1, 60, 44))
    whole = center_crop(image, 44)
    crops = [ten_crop(image, 40, number) for number in range(10)]
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, mirror, (top, left) in zip(crops[:5], crops[5:], places, strict=True):
        assert np.array_equal(crop, whole[:, top : top + 40, left : left + 40])
        assert np.array_equal(mirror, crop[:, :, ::-1])


def test_mirror_and_fixed_views() -> None:
    content = encoded(pixels(1, 30, 30))
    view = PicturesView(image_size=24, flip=True)
    plain, mirror = (see(content, "x", view, lambda bound, n=number: n) for number in (0, 1))
    assert np.array_equal(plain[:, :, ::-1], mirror)
    assert np.array_equal(see(content, "x", view, None), plain)
    assert fixed_views(view) == 2 and fixed_views(PicturesView(crop="ten")) == 10 and fixed_views(PicturesView()) == 1
    assert np.array_equal(see_fixed(content, "x", view, 1), mirror)
    ten = PicturesView(image_size=24, crop="ten")
    assert np.array_equal(see_fixed(content, "x", ten, 7), ten_crop(Image.open(io.BytesIO(content)), 24, 7))


def test_long_and_narrow_is_refused_where_it_must_grow() -> None:
    content = encoded(np.zeros((1, 60_000), np.uint8))
    for call in (
        lambda: see(content, "long.png", PicturesView(image_size=256), None),
        lambda: see_fixed(content, "long.png", PicturesView(image_size=256, crop="ten"), 3),
    ):
        with pytest.raises(DataError, match=r"long\.png: 60000 x 1 pixels are too long and narrow for a side of 2"):
            call()
