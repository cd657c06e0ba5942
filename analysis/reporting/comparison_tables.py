"""The numbers behind two sentences of the answer: two tokenizers at equal images, and a multiplier along the metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.tokenizers.contrasts import contrast
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import designs
from results.errors import FitError

from . import wording
from .answer import Answer
from .rendering import Shown, Table, known

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
