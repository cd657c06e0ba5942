"""Tokenizers of one rate, or of one rFID, side by side: what is left of their difference when that is held equal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from results.errors import FitError

from ..frames import StudyFrames
from ..fronts import designs
from ..rows import Record
from .contrasts import Contrast, Multiplier, contrast, multiplier, tokenizer_scores

MATCHED_RATE, MATCHED_RFID = 0.02, 0.05
"""Relative differences of bits per image, and of rFID, up to which two tokenizers count as matched."""


@dataclass(frozen=True)
class Matched(Record):
    """Two tokenizers that agree in `matched` ("rate", "rFID" or both): bits per image and mean rFID of each (NaN where
    it was not measured), what exchanging the first for the second does at equal images and generator, and the compute
    multiplier of the second (None where their fronts share no level)."""

    matched: tuple[str, ...]
    bits_per_image: tuple[float, float]
    rfid: tuple[float, float]
    effect: Contrast
    multiplier: Multiplier | None


def alike(first: float, second: float, within: float) -> bool:
    """Whether the larger of two positive numbers exceeds the other by at most the share `within`; not for NaN."""
    return max(first, second) <= (1 + within) * min(first, second)


def matched_tokenizers(frames: StudyFrames, families: list[str]) -> list[Matched]:
    """Every two of `families` that were run with the same generators and have one rate (within MATCHED_RATE) or one
    rFID (within MATCHED_RFID, means over seeds); of two that differ in having a regulariser the one without is first.
    """
    points = frames.ranked
    table = frames.families.set_index("family")
    scores = tokenizer_scores(frames)
    reconstruction = scores.groupby("family")["rfid"].mean() if "rfid" in scores else pd.Series(dtype=float)
    pairs = []
    for first, second in combinations(families, 2):
        if pd.notna(table["regulariser"][first]) and pd.isna(table["regulariser"][second]):
            first, second = second, first
        bits = (float(table["bits_per_image"][first]), float(table["bits_per_image"][second]))
        rfid = (float(reconstruction.get(first, np.nan)), float(reconstruction.get(second, np.nan)))
        shared = (("rate", alike(*bits, MATCHED_RATE)), ("rFID", alike(*rfid, MATCHED_RFID)))
        names = tuple(name for name, holds in shared if holds)
        if not names or not designs(points, first, second):
            continue
        try:
            effect = contrast(frames, first, second)
        except FitError:
            # Of other lengths of training throughout: nothing is paired.
            continue
        gap = multiplier(points, first, second, noise=frames.noise)
        pairs.append(Matched(names, bits, rfid, effect, gap if gap.estimate is not None else None))
    return pairs
