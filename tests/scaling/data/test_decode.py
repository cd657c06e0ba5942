"""Decoding: every mode by its stated rule, upright, and one line for every kind of damage."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from results.errors import DataError
from scaling.data.decode import MAX_PIXELS, decode, examine

from .made_pictures import encoded, pixels


def colours(content: bytes, channels: int = 3) -> np.ndarray:
    image = decode(content, "file", channels)
    assert image.mode == ("RGB" if channels == 3 else "L")
    return np.asarray(image)


def test_colour_and_grey_are_as_they_were() -> None:
    colour, grey = pixels(1, 9, 7), pixels(2, 9, 7, 1)
    assert np.array_equal(colours(encoded(colour)), colour)
    assert np.array_equal(colours(encoded(grey), 1), grey)
    assert np.array_equal(colours(encoded(grey)), np.repeat(grey[:, :, None], 3, 2))


def test_grey_of_colour_is_itu_601() -> None:
    colour = pixels(3, 20, 20)
    expected = (colour.astype(float) @ [0.299, 0.587, 0.114]).round()
    assert np.abs(colours(encoded(colour), 1) - expected).max() <= 1


def test_palette_becomes_its_colours() -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[::2], colour[1::2] = (200, 10, 30), (5, 250, 120)
    image = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(colours(encoded(image)), colour)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_goes_onto_white(kind: str) -> None:
    values = np.zeros((2, 3, 4), np.uint8)
    values[..., :3], values[..., 3] = (10, 100, 200), [[0, 128, 255]] * 2
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    result = colours(encoded(Image.fromarray(values), kind, **options)).astype(int)
    alpha = values[..., 3:].astype(float) / 255
    assert np.abs(result - (values[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    assert (result[:, 0] == 255).all() and (result[:, 2] == (10, 100, 200)).all()


def test_grey_with_alpha_and_transparent_colours() -> None:
    values = np.array([[[0, 0], [0, 255]]], np.uint8)
    assert colours(encoded(Image.fromarray(values)), 1).tolist() == [[255, 0]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.putpixel((1, 0), 1)
    assert colours(encoded(palette, transparency=0)).tolist() == [[[255] * 3, [90] * 3]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert colours(encoded(keyed, transparency=(1, 2, 3))).tolist() == [[[255] * 3, [4, 5, 6]]]


def test_16_bits_are_scaled() -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    expected = [round(int(v) / 257) for v in values[0]]
    for kind in ("PNG", "TIFF"):
        assert colours(encoded(Image.fromarray(values), kind), 1).tolist() == [expected]


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    result = colours(encoded(image, "JPEG", quality=95))
    assert np.abs(result.astype(int) - (255, 0, 0)).max() <= 6
    assert examine(encoded(image, "JPEG"), "file").kind == "JPEG CMYK"


def test_bits_are_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert colours(encoded(image), 1).tolist() == [[255, 0]]


def test_floating_point_and_odd_integers_are_refused() -> None:
    for content in (encoded(Image.new("F", (3, 3)), "TIFF"), encoded(Image.new("I", (3, 3), 70_000), "TIFF")):
        for call in (lambda c: decode(c, "x.tif", 3), lambda c: examine(c, "x.tif")):
            with pytest.raises(DataError, match=r"x\.tif cannot be decoded \(mode [FI]"):
                call(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright(kind: str, orientation: int) -> None:
    corner = np.full((16, 32, 3), 255, np.uint8)
    corner[:8, :8] = 0
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    upright = Image.fromarray(corner)
    stored = upright if orientation == 1 else upright.transpose(turns[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    content = encoded(stored, kind, exif=exif, **options)
    result = colours(content)
    assert result.shape == corner.shape
    assert np.abs(result.astype(int) - corner).max() <= 30
    header = examine(content, "file")
    assert (header.width, header.height) == (32, 16)


def test_broken_exif_does_no_harm() -> None:
    content = encoded(pixels(1, 16, 16), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert colours(content).shape == (16, 16, 3)
    assert examine(content, "file").width == 16


def test_first_of_several_frames() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert (colours(buffer.getvalue(), 1) == 10).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and ends."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("call", [lambda c: decode(c, "a/b.png", 3), lambda c: examine(c, "a/b.png")])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF", "no picture of a known format; allowed: JPEG, PNG"),
        (b"<html>not found</html>", "no picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known format"),
        (encoded(pixels(1, 40, 40), "JPEG")[:-300], "truncated"),
        (encoded(pixels(1, 40, 40))[:300], "truncated"),
        (png_header(20_000, 20_000), "allowed: up to 100,000,000 pixels"),
        (png_header(10_001, 10_000), "10001 x 10000 pixels; allowed: up to 100,000,000 pixels"),
        (png_header(3, 3), ""),
    ],
    ids=["empty", "short", "web page", "postscript", "cut JPEG", "cut PNG", "400 MP", "over 100 MP", "no pixels"],
)
def test_damage_is_one_line_with_the_name(call, content: bytes, reason: str) -> None:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"^a/b\.png cannot be decoded \(") as raised:
            call(content)
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def test_flipped_bits_are_noticed_in_png() -> None:
    content = bytearray(encoded(pixels(1, 40, 40)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(DataError, match=r"x cannot be decoded"):
        decode(bytes(content), "x", 3)


@settings(max_examples=60)
@given(st.data())
def test_no_garbage_escapes_as_another_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    content = bytearray(encoded(pixels(5, 12, 12), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    for call in (lambda: decode(bytes(content), "x", 3), lambda: examine(bytes(content), "x")):
        try:
            call()
        except DataError as error:
            assert str(error).startswith("x cannot be decoded (")


def test_one_pixel() -> None:
    assert colours(encoded(np.full((1, 1, 3), 7, np.uint8))).tolist() == [[[7, 7, 7]]]


@pytest.mark.slow
def test_100_megapixels(tmp_path: Path) -> None:
    content = encoded(Image.new("L", (10_000, 10_000), 9))
    assert MAX_PIXELS == 10_000 * 10_000
    assert examine(content, "x").width == 10_000
    assert decode(content, "x", 1).size == (10_000, 10_000)
