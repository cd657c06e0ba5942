"""Where cross-entropy and image quality rank tokenizers differently, and when cross-entropy may rank them at all.

Nats and bits share units over tokenizers, not quality: a coarser tokenizer is easier to predict. They may be asked to
rank only tokenizers of one rate (tokens x log2 codes) or of one rFID; even then they need not agree with gFID.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from results.errors import UsageError

from ..frames import StudyFrames
from ..measure import LOSSES, NAMES
from ..rows import Record, groups
from .matched import MATCHED_RATE, MATCHED_RFID, alike


@dataclass(frozen=True)
class LossRanking(Record):
    """Tokenizers of one rate with one generator at one compute, ranked by a cross-entropy and by the study's measure:
    of `families` the one of the lowest loss, and its place by the measure (1: the best)."""

    loss: str
    size: str
    flops: float
    families: tuple[str, ...]
    lowest_loss: str
    loss_value: float
    gfid: float
    place: int
    best: str
    best_gfid: float
    seeds: int


def loss_rankings(frames: StudyFrames) -> list[LossRanking]:
    """Every such group of two tokenizers or more in which the lowest loss does not have the best gFID."""
    points = frames.ranked
    rate = points["tokens_per_image"] * np.log2(points["codebook_size"].astype(float))
    points = points.assign(_rate=rate.round(6), _flops=np.log(points["path_flops"].astype(float)).round(2))
    rankings = []
    loss = next((name for name in ("nats_per_image", "nats_per_token") if name in points), None)
    if loss is None:
        return []
    for (size, _, _), rows in groups(points[points[loss].notna()], ["size", "_rate", "_flops"]):
        means: Any = rows.groupby("family")[[loss, "gfid", "path_flops"]].mean()
        if len(means) < 2:
            continue
        lowest, best = str(means[loss].idxmin()), str(means["gfid"].idxmin())
        if lowest != best:
            place = int((means["gfid"] < means.loc[lowest, "gfid"]).sum()) + 1
            at, top = means.loc[lowest], means.loc[best]
            families = tuple(map(str, means.index))
            rankings.append(
                LossRanking(
                    loss, str(size), float(at["path_flops"]), families, lowest, float(at[loss]), float(at["gfid"]),
                    place, best, float(top["gfid"]), int(rows["tokenizer_seed"].nunique()),
                )
            )  # fmt: skip
    return rankings


def refuse_loss(frames: StudyFrames) -> None:
    """Raise UsageError if the study is to be judged by a cross-entropy over tokenizers of other rate and other rFID."""
    if frames.measure.metric not in LOSSES:
        return
    table = frames.families[frames.families["family"].isin(set(frames.ranked["family"]))]
    if len(table) < 2:
        return
    bits = table["bits_per_image"].to_numpy(dtype=float)
    tokenizers = frames.tokenizers
    rfid = tokenizers.groupby("family")["rfid"].mean().reindex(table["family"]) if "rfid" in tokenizers else None
    if alike(bits.min(), bits.max(), MATCHED_RATE):
        return
    if rfid is not None and rfid.notna().all() and alike(rfid.min(), rfid.max(), MATCHED_RFID):
        return
    rates = ", ".join(f"{f} {b:.4g} bits" for f, b in zip(table["family"], bits, strict=True))
    raise UsageError(
        f"metric = {frames.measure.metric!r} ({NAMES.get(frames.measure.metric, 'a cross-entropy')}) ranks "
        f"tokenizers only "
        f"at matched rate (within {MATCHED_RATE:.0%}) or rFID (within {MATCHED_RFID:.0%}); here an image has: {rates}. "
        "Allowed: gfid, a metric of your own, or the runs of one rate"
    )
