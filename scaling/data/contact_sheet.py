"""A sheet of what a run would see: crops of some pictures of each class, as one image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from results.errors import UsageError
from results.store import atomic
from scaling.specification.pictures import PicturesView

from .crops import Draw, see
from .sources.pictures import Pictures

COLUMNS, MOST_ROWS = 8, 8
GAP = 4
"""Pixels between crops."""
LARGEST_SIDE = 256
"""Crops are shown at most this large."""


def contact_sheet(pictures: Pictures, view: PicturesView) -> Image.Image:
    """Up to 64 pictures, classes in turn, cropped as in the first epoch of a training. Raises DataError, naming one."""
    indices = spread(pictures.labels, len(pictures.class_names), COLUMNS * MOST_ROWS)
    side = min(view.image_size, LARGEST_SIDE)
    rows = -(-len(indices) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + GAP) + GAP, rows * (side + GAP) + GAP), "white")
    for place, index in enumerate(indices):
        pixels = see(pictures.read(index), pictures.where(index), view, _draws(index))
        crop = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).squeeze(2 if len(pixels) == 1 else ()))
        corner = (GAP + place % COLUMNS * (side + GAP), GAP + place // COLUMNS * (side + GAP))
        sheet.paste(crop.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), corner)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write it as the kind of file that its name ends in. Raises UsageError for a kind that Pillow cannot write."""
    import io

    buffer = io.BytesIO()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise UsageError(f"--sheet = {str(path)!r} is not allowed; allowed: a name that ends in .png, .jpg or .webp")
    sheet.save(buffer, kind)
    atomic.make_folder(path.parent)
    atomic.write(path, buffer.getvalue())


def spread(labels: NDArray[np.int32], classes: int, most: int) -> Sequence[int]:
    """Up to `most` indices: as many of each class as the number allows, spread over its pictures, class by class."""
    present = [np.flatnonzero(labels == label) for label in range(classes)]
    present = [members for members in present if len(members)][:most]
    each = max(most // max(len(present), 1), 1)
    chosen = [
        members[np.linspace(0, len(members) - 1, min(each, len(members))).round().astype(int)] for members in present
    ]
    return [int(index) for members in chosen for index in members]


def _draws(index: int) -> Draw:
    """Draws for one picture, the same each time: without torch, so not those of a training."""
    state = [0]

    def draw(bound: int) -> int:
        state[0] += 1
        digest = hashlib.blake2b(f"contact sheet/{index}/{state[0]}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % bound

    return draw
