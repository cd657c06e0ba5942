"""Contact sheet: previews of reconstructions and samples, side by side with what they scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from results.errors import DataError

from . import style as look


@dataclass(frozen=True)
class Preview:
    """A picture (a grid of images, PNG) with its caption."""

    path: Path
    caption: str


def contact_sheet(previews: Sequence[Preview], style: str = "report", columns: int = 3) -> Figure | None:
    """All previews in a grid, captions above; None without previews. Raises DataError naming an unreadable file."""
    if not previews:
        return None
    pictures = []
    for preview in previews:
        try:
            pictures.append(np.asarray(imread(preview.path)))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{preview.path} is no readable PNG picture: {error}") from error
    columns = min(columns, len(previews))
    rows = -(-len(previews) // columns)
    with look.applied(style) as chosen:
        aspect = float(np.mean([p.shape[0] / p.shape[1] for p in pictures]))
        figure, axes = look.new_figure(
            chosen, rows / columns * aspect + 0.05 * rows, nrows=rows, ncols=columns, squeeze=False
        )
        for axis in axes.flat:
            axis.axis("off")
        for axis, preview, picture in zip(axes.flat, previews, pictures, strict=False):
            axis.imshow(picture, cmap="gray", interpolation="nearest", vmin=0, vmax=1 if picture.ndim == 2 else None)
            axis.set_title(preview.caption, fontsize="small", weight="normal")
    return figure
