"""Contact sheets for people: reconstructions under originals, samples by class, samples beside nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

COLUMNS = 20


def sheet(rows: list[Tensor]) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] of rows of images, each uint8 [n, c, S, S] with one n and S."""
    bands = [np.concatenate(list(row.permute(0, 2, 3, 1).numpy()), axis=1) for row in rows]
    picture = np.concatenate(bands, axis=0)
    return picture[..., 0] if picture.shape[-1] == 1 else picture


def save_sheet(path: Path, rows: list[Tensor]) -> None:
    """Write a sheet as PNG, grey or RGB, byte for byte: a colour map would change some values by one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(rows)).save(path)


def pair_sheet(path: Path, above: Tensor, below: Tensor) -> None:
    """The first images, each above its reconstruction or its nearest neighbour."""
    save_sheet(path, [above[:COLUMNS], below[:COLUMNS]])


def sample_sheet(path: Path, samples: Tensor, labels: Tensor, classes: int, rows: int = 6) -> None:
    """Samples [n, c, S, S] as columns by class, of their labels [n]: each row holds every class, more than once where
    that fits, or those of the lowest numbers where they are many. Of a class that has none left, its first again."""
    shown = [label for label in range(classes) if bool((labels == label).any())][:COLUMNS]
    by_class = {label: (labels == label).nonzero().flatten() for label in shown}
    times = max(1, COLUMNS // len(shown))
    height = min(rows, max(len(numbers) for numbers in by_class.values()) // times) or 1
    table = [
        [by_class[label][(row * times + time) % len(by_class[label])] for time in range(times) for label in shown]
        for row in range(height)
    ]
    save_sheet(path, [samples[torch.stack(numbers)] for numbers in table])
