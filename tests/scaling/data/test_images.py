"""Images as arrays: padding, conversions, resizing, the IDX format, and the real data set."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from results.errors import DataError
from scaling.data import images
from scaling.data.sources.builtin import catalogue_files as sources
from scaling.specification.catalogue import DATASETS
from scaling.specification.spec import DataSpec


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 255))
def test_idx_round_trip(shape: list[int], fill: int) -> None:
    array = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8) ^ fill
    assert np.array_equal(images.parse_idx(idx(array), "name"), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x09\x01\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\x02\0\0\0\x01", "ends within its header"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"holds 5 values, its header says \(2, 3\)"),
    ],
)
def test_broken_idx_is_named(content: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=f"some-file.*{complaint}"):
        images.parse_idx(content, "some-file")


@given(st.integers(1, 9), st.integers(0, 7))
def test_padding_is_central_and_loses_nothing(native: int, rest: int) -> None:
    pixels = torch.randint(1, 256, (2, 1, native, native), dtype=torch.uint8)
    padded = images.pad(pixels, native + rest)
    assert padded.shape == (2, 1, native + rest, native + rest)
    before = rest // 2
    assert torch.equal(padded[..., before : before + native, before : before + native], pixels)
    assert padded.sum(dtype=torch.int64) == pixels.sum(dtype=torch.int64)


def test_padding_never_crops() -> None:
    with pytest.raises(ValueError, match="side = 4 is below the images' 5 pixels"):
        images.pad(torch.zeros(1, 1, 5, 5, dtype=torch.uint8), 4)


def test_pixels_and_floats_are_inverse() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = images.to_float(pixels)
    assert floats.dtype == torch.float32
    assert floats.min() == -1 and floats.max() == 1
    assert torch.equal(images.to_pixels(floats), pixels)


@given(st.floats(-3, 3, width=32))
def test_to_pixels_rounds_and_clamps(value: float) -> None:
    found = int(images.to_pixels(torch.full((1, 1, 1, 1), value)))
    wanted = min(max((value + 1) * 127.5, 0), 255)
    assert abs(found - wanted) <= 0.5 + 1e-4


def test_to_pixels_leaves_its_input_alone() -> None:
    floats = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)
    assert not images.to_pixels(floats).requires_grad
    assert floats.detach().eq(2).all()


def test_resize_keeps_means_and_ramps() -> None:
    constant = torch.full((1, 1, 32, 32), 0.25)
    for side in (16, 24, 40, 64):
        torch.testing.assert_close(images.resize(constant, side), torch.full((1, 1, side, side), 0.25))
    assert images.resize(constant, 32) is constant
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    halved = images.resize(ramp, 16)[0, 0, 8]
    # Away from the borders a bicubic filter reproduces straight lines: pixel i covers old pixels 2i and 2i + 1.
    torch.testing.assert_close(halved[4:12], ramp[0, 0, 0].unflatten(0, (16, 2)).mean(1)[4:12], atol=1e-5, rtol=0)


def test_antialiasing_removes_what_cannot_be_shown() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 1, 32, 32)
    assert images.resize(stripes, 8)[..., 2:6, 2:6].abs().max() < 0.05


def test_wrong_shape_is_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        images.LOADERS, "fashion-mnist", lambda *_: (np.zeros((5, 1, 28, 28), np.uint8), np.zeros(5, np.uint8))
    )
    with pytest.raises(DataError, match="fashion-mnist, train"):
        images.load_images(DataSpec(), "train")


def test_every_data_set_of_the_catalogue_has_a_loader() -> None:
    assert set(images.LOADERS) == set(DATASETS)


@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("validation", 10_000)])
def test_fashion_mnist(fashion_mnist: dict[str, Path], split: images.Split, count: int) -> None:
    loaded = images.load_images(DataSpec(), split)
    assert loaded.pixels.shape == (count, 1, 32, 32) and loaded.pixels.dtype == torch.uint8
    assert loaded.labels.dtype == torch.int64 and len(loaded) == count
    assert torch.bincount(loaded.labels).tolist() == [count // 10] * 10
    border = loaded.pixels.clone()
    border[..., 2:30, 2:30] = 0
    assert not border.any()
    # The inside is the file's own bytes, in order.
    name = "train-images-idx3-ubyte" if split == "train" else "t10k-images-idx3-ubyte"
    content = sources.read_files(DATASETS["fashion-mnist"], [name])[name]
    inside = loaded.pixels[..., 2:30, 2:30].contiguous().numpy().tobytes()
    assert content[16:] == inside


@settings(max_examples=5)
@given(st.integers(28, 64))
def test_other_sides(side: int) -> None:
    pixels = torch.ones(1, 1, 28, 28, dtype=torch.uint8)
    assert images.pad(pixels, side).shape[-1] == side
