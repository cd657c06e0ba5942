"""Sheets of pictures that runs left: reconstructions of every tokenizer, samples of every pair."""

from __future__ import annotations

from hashlib import sha256

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import imread

from analysis.tokenizers.rows import records

from .drawing.page import Page
from .registry import Evidence, NotDrawn, Plot, Shown

SHOWN = 8
"""Pictures of a sheet at most."""


def _sheet(evidence: Evidence, stage: str, what: str) -> Shown:
    runs = evidence.frames.runs
    runs = runs[(runs["stage"] == stage) & runs["run_id"].isin(list(evidence.pictures))]
    if runs.empty:
        raise NotDrawn(f"no picture of a {stage} lies beside its rows (artifacts/RUN/preview.png)")
    order = {name: i for i, name in enumerate(evidence.palette.colours)}
    sizes = {name: i for i, name in enumerate(evidence.palette.markers)}
    rows = sorted(records(runs), key=lambda r: (order.get(r["family"], 99), sizes.get(r["size"], 99), r["seed"]))
    kept: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows:
        # One seed of each: the first.
        path = evidence.pictures[row["run_id"]]
        facts = {"family": row["family"], "size": row["size"], "seed": row["seed"], "run_id": row["run_id"]}
        digest = sha256(path.read_bytes()).hexdigest()
        kept.setdefault((row["family"], str(row["size"])), facts | {"picture": path.name, "sha256": digest})
    left = len(kept) - SHOWN
    notes = (f"{left} more are not shown.",) if left > 0 else ()
    caption = f"{what}, the first seed of each; not chosen by eye."
    return Shown(pd.DataFrame(list(kept.values())[:SHOWN]), caption, notes=notes)


def _reconstructions(evidence: Evidence) -> Shown:
    return _sheet(evidence, "tokenizer", "Held-out images and their reconstructions by every tokenizer")


def _samples(evidence: Evidence) -> Shown:
    return _sheet(evidence, "generator", "Samples of every pair of tokenizer and generator at its longest budget")


def sheet(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """The pictures below each other or beside, each with its name above."""
    pictures = [imread(page.pictures[run_id]) for run_id in rows["run_id"]]
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    across = 1 if tallest < 0.45 else 2 if page.columns == 1 else 3
    axes = page.panels(len(pictures), tallest + 0.12 * across * 8 / 10, across=across)
    for axis, picture, row in zip(axes, pictures, records(rows), strict=True):
        axis.imshow(picture, interpolation="nearest", cmap="gray")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        name = f"{row['family']} + {row['size']}" if isinstance(row["size"], str) else row["family"]
        axis.set_xlabel(name, fontsize=page.small)
    return axes


PLOTS = (
    Plot("reconstructions", "held-out images and what each tokenizer makes of them", sheet, _reconstructions,
         of="runs"),
    Plot("samples", "samples of every pair, the first seed, not chosen by eye", sheet, _samples, of="runs"),
)  # fmt: skip
