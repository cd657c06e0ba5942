"""From an encoded picture to pixels: one rule for each kind of file, upright, 8 bits, no more than MAX_PIXELS.

The rules: alpha, and colours named transparent, go onto white, round(a c + (255 - a) 255) / 255; palettes become their
colours; CMYK, YCbCr and Lab become RGB as Pillow converts them, without colour profiles; 16-bit grey becomes
round(v / 257), while of 16-bit colour Pillow keeps the upper byte; grey from colour is (299 R + 587 G + 114 B) / 1000
(ITU-R 601); of several frames the first; turned as EXIF says. Pixels in floating point have no stated range: refused.
JPEG's reduced decoding (draft mode) is not used for pixels, for its results differ from ADM's halving.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from results.errors import DataError

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded: 300 MB as RGB. Larger ones are refused by their header."""
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
"""What is decoded, whatever a file is called; other formats of Pillow are interpreters, or rare."""
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
        ".jp2",
    }
)  # fmt: skip
"""Endings, in lower case, by which files count as pictures."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""
_ORIENTATION = 0x0112
_opening = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What a file is: width and height in pixels, upright, and its kind, such as `JPEG RGB`."""

    width: int
    height: int
    kind: str


def decode(content: bytes, where: str, channels: int) -> Image.Image:
    """The picture as RGB (3 channels) or grey (1), 8 bits, upright. Raises DataError: `where`, and what is wrong."""
    try:
        image = _open(content)
        _load(image)
        # Turned first: an orientation of EXIF is no longer known of a converted image.
        return _flat(_upright(image), channels)
    except Exception as error:  # Whatever a decoder stumbles over, the file is to blame, and named.
        raise DataError(f"{where} cannot be decoded ({_reason(error)})") from error


def examine(content: bytes, where: str) -> Header:
    """What a file is, having decoded it, a JPEG in reduced form. Raises DataError as `decode` would."""
    try:
        image = _open(content)
        kind = f"{image.format} {image.mode}"
        width, height = image.size
        if image.mode == "F":
            raise DataError("mode F, floating point, has no stated range")
        # All of the file is read, so that a cut is noticed, but most of the arithmetic is left out.
        image.draft(None, (max(width // 8, 1), max(height // 8, 1)))
        _load(image)
        if image.mode == "I":
            _flat(image, 1)
        if _orientation(image) >= 5:
            width, height = height, width
        return Header(width, height, kind)
    except Exception as error:
        raise DataError(f"{where} cannot be decoded ({_reason(error)})") from error


def _open(content: bytes) -> Image.Image:
    if not content:
        raise DataError("the file is empty")
    # Pillow warns of, or refuses, large pictures by a limit of the whole process; ours is below. Filters of warnings
    # are of the process too, hence the lock.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise DataError(f"{error}; allowed: up to {MAX_PIXELS:,} pixels") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} pixels; allowed: up to {MAX_PIXELS:,} pixels")
    return image


def _load(image: Image.Image) -> None:
    image.load()
    if min(image.size) < 1:
        raise DataError(f"{image.size[0]} x {image.size[1]} pixels")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if there is none, or EXIF cannot be read: the picture itself may be good."""
    if not {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  Any of a parser's errors means the same.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info
    return turned


def _flat(image: Image.Image, channels: int) -> Image.Image:
    """The image as RGB or L by the rules above."""
    if image.mode == "F":
        raise DataError("mode F, floating point, has no stated range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", straight.size, "white"), straight)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"mode {image.mode} with values from {values.min()} to {values.max()}; allowed: 0 to 65535")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    """One line without the name of a buffer."""
    if type(error).__name__ == "UnidentifiedImageError":
        return f"no picture of a known format; allowed: {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
