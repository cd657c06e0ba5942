"""What marks a run's measurements as not to be used, from its own curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scaling.specification.spec import TokenizerRun

SHRUNK = 0.25
"""Latents that end below this share of their largest norm have shrunk."""


def shrunk_latents(run: TokenizerRun, curves: Iterable[Mapping[str, Any]]) -> str | None:
    """Why a regularised run is not to be used: its loss was lowered by shorter latents; None where it was not.

    The rule: the loss is of latents that are not normalised (`can_shrink`), and their mean norm, in the last row of
    `curves`, is below SHRUNK of the largest of all rows. A normalised loss does not change with the norm, which may
    then drift freely.
    """
    if run.regulariser is None or not run.regulariser.can_shrink:
        return None
    rows = list(curves)
    of_terms = ([row["value"] for row in rows if row["term"] == term] for term in ("causal_latent_norm", "latent_norm"))
    values = next((values for values in of_terms if values), [])
    if not values or values[-1] >= SHRUNK * max(values):
        return None
    return (
        f"latents shrank to {values[-1] / max(values):.2g} of their largest norm under a loss that is not normalised "
        f"(below {SHRUNK:g})"
    )
