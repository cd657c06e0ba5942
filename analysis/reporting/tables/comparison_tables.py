"""Tokenizers compared two by two: at equal images, at matched rate or rFID, by form of regulariser, and the multiplier
along the metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.tokenizers.comparisons.contrasts import Effect, contrast
from analysis.tokenizers.comparisons.matched import MATCHED_RATE, MATCHED_RFID, matched_tokenizers
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import designs
from analysis.tokenizers.seed_intervals import SeedEstimate
from results.errors import FitError

from .. import wording
from ..answer import Answer
from ..extent import leading
from ..rendering import Shown, Table, known

LEVELS = 9


def equal_images_table(frames: StudyFrames, answer: Answer) -> Table | None:
    """The two tokenizers that are compared first, at equal training images and generator."""
    if not answer.compression:
        return None
    cross = answer.compression[0].crossover
    points = frames.ranked
    if not designs(points[points["images"].notna()], cross.first, cross.second):
        return None
    try:
        effects = [e for e in contrast(frames, cross.second, cross.first).per_budget if e.metric == "gfid"]
    except FitError:
        # Nothing is common to both; the sentence is left out likewise.
        return None
    facts = [
        {"first": cross.first, "second": cross.second, "images": e.budget, "sizes": " ".join(e.sizes)}
        | {"ratio": e.estimate}
        for e in effects
    ]
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['first']} / {f['second']}", "training images": known("images", wording.images),
        "generators": "sizes", f"{frames.measure.name} ratio (95 %)": "ratio",
    }  # fmt: skip
    note = "Paired by tokenizer seed, generator seed and size. Equal images are not equal compute: see the output head."
    return Table.of("equal-images", "At equal training images", facts, columns, note)


def matched_table(frames: StudyFrames) -> Table | None:
    """Every two of the compared tokenizers of one rate or one rFID, with the same generators at equal images."""
    if frames.ranked.empty:
        return None
    facts = [
        {
            "first": pair.effect.base, "second": pair.effect.treatment, "matched": " and ".join(pair.matched),
            "first_bits": pair.bits_per_image[0], "second_bits": pair.bits_per_image[1],
            "first_rfid": pair.rfid[0], "second_rfid": pair.rfid[1],
            "gfid_ratio": _estimate(pair.effect.effect("gfid")),
            "nats_difference": _estimate(pair.effect.effect("nats_per_image")),
            "multiplier": None if pair.multiplier is None else pair.multiplier.estimate,
        }
        for pair in matched_tokenizers(frames, leading(frames))
    ]  # fmt: skip
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['second']} / {f['first']}", "matched": "matched",
        "bits per image": lambda f: f"{wording.number(f['second_bits'])} / {wording.number(f['first_bits'])}",
        "rFID": lambda f: f"{_or_dash(f['second_rfid'])} / {_or_dash(f['first_rfid'])}",
        f"{frames.measure.name} ratio (95 %)": "gfid_ratio", "nats per image, difference": "nats_difference",
        "compute multiplier": "multiplier",
    }  # fmt: skip
    note = (
        f"Matched: bits per image within {100 * MATCHED_RATE:g} %, mean rFID within {100 * MATCHED_RFID:g} %. Paired "
        "by tokenizer seed, generator seed, size and images, over all budgets; equal images are equal compute where "
        "tokens and codebook are equal. The multiplier is at equal quality, above 1 a saving by the one named first."
    )
    return Table.of("matched", "At matched rate or rFID", facts, columns, note)


def forms_table(answer: Answer, metric: str) -> Table | None:
    """One row a regularised tokenizer where several are compared with one base: what its form gains, and costs."""
    facts: list[dict[str, Any]] = []
    bases = [c.base for c in answer.regulariser]
    for c, m in zip(answer.regulariser, answer.compute_multiplier, strict=True):
        if bases.count(c.base) < 2:
            continue
        facts.append(
            {"base": c.base, "treatment": c.treatment}
            | {name: _estimate(c.effect(name)) for name in ("nats_per_image", "rfid", "gfid")}
            | {
                "multiplier": m.estimate,
                "no_difference_p": m.no_difference,
                "tokenizer_flops_ratio": c.tokenizer_flops_ratio,
            }
        )
    _holm(facts)
    columns: dict[str, Shown] = {
        "tokenizer": "treatment", "against": "base", "nats per image, difference": "nats_per_image",
        "rFID ratio": "rfid", f"{metric} ratio": "gfid", "compute multiplier": "multiplier",
        "p": known("no_difference_p", wording.number), "p, all forms": known("all_forms_p", wording.number),
        "stage-1 FLOPs, ratio": known("tokenizer_flops_ratio", wording.number),
    }  # fmt: skip
    note = (
        "Paired as in the table of each, over all sizes and budgets, with 95 % t intervals over tokenizer seeds. p: of "
        "the t test that the mean log multiplier is 0; all forms: the same by Holm's step-down over the forms of one "
        "base, for the best of several is chosen by the data that judge it."
    )
    return Table.of("regulariser-forms", "Forms of the regulariser, side by side", facts, columns, note)


def _holm(facts: list[dict[str, Any]]) -> None:
    """Add to each fact `all_forms_p`, Holm's adjusted p within its base (Holm 1979, Scand. J. Statist. 6, 65-70)."""
    for f in facts:
        f["all_forms_p"] = None
    for base in {f["base"] for f in facts}:
        tested = [f for f in facts if f["base"] == base and f["no_difference_p"] is not None]
        largest = 0.0
        for rank, f in enumerate(sorted(tested, key=lambda fact: float(fact["no_difference_p"]))):
            largest = max(largest, min(1.0, (len(tested) - rank) * f["no_difference_p"]))
            f["all_forms_p"] = largest


def _estimate(effect: Effect | None) -> SeedEstimate | None:
    """The estimate of an effect that was measured."""
    return None if effect is None else effect.estimate


def _or_dash(number: float) -> str:
    return "–" if np.isnan(number) else wording.number(number)


def multiplier_table(answer: Answer, metric: str) -> Table | None:
    """Each compute multiplier along the metric: both ends, the largest, and levels between."""
    facts: list[dict[str, Any]] = []
    for m in answer.compute_multiplier:
        levels, values = m.along
        if not len(levels):
            continue
        low, high = m.band if m.band is not None else (np.full(len(levels), np.nan),) * 2
        shown = np.linspace(0, len(levels) - 1, min(LEVELS, len(levels))).round().astype(int)
        facts += [
            {
                "base": m.base, "treatment": m.treatment, "level": float(levels[i]), "multiplier": float(values[i]),
                "low": float(low[i]), "high": float(high[i]), "no_difference_p": m.no_difference,
            }
            for i in np.unique([*shown, int(values.argmax())])
        ]  # fmt: skip
    columns: dict[str, Shown] = {
        "comparison": lambda f: f"{f['treatment']} / {f['base']}", metric: known("level", wording.number),
        "compute multiplier (95 %)": lambda f: wording.number(f["multiplier"])
        + ("" if np.isnan(f["low"]) else wording.spread(f["low"], f["high"])),
    }  # fmt: skip
    note = "Geometric means over seeds with 95 % t intervals, where every seed reaches the level with both."
    return Table.of("multipliers", f"Compute multiplier along {metric}", facts, columns, note)
