"""Contact sheets for people: reconstructions under originals, samples by class, samples beside nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

COLUMNS = 20


def sheet(rows: list[Tensor]) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] of rows of images, each uint8 [n, c, S, S] with one n and S."""
    bands = [np.concatenate(list(row.permute(0, 2, 3, 1).numpy()), axis=1) for row in rows]
    picture = np.concatenate(bands, axis=0)
    return picture[..., 0] if picture.shape[-1] == 1 else picture


def save_sheet(path: Path, rows: list[Tensor]) -> None:
    """Write a sheet as PNG."""
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sheet(rows)
    imsave(path, picture, cmap="gray", vmin=0, vmax=255)


def pair_sheet(path: Path, above: Tensor, below: Tensor) -> None:
    """The first images, each above its reconstruction or its nearest neighbour."""
    save_sheet(path, [above[:COLUMNS], below[:COLUMNS]])


def sample_sheet(path: Path, samples: Tensor, classes: int, rows: int = 6) -> None:
    """Samples drawn with class i % classes, as columns by class: each row holds every class, twice where it fits."""
    wide = max(1, COLUMNS // classes) * classes
    save_sheet(path, [samples[i * wide : (i + 1) * wide] for i in range(rows) if (i + 1) * wide <= len(samples)])
