"""What marks a run's measurements as not to be used, from its own curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scaling.specification.spec import TokenizerRun

LEAST_USED = 0.01
LEAST_PERPLEXITY = 2.0
"""A codebook of which held-out images use a smaller share of the codes, or fewer codes in effect, has collapsed."""

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


def collapsed_codebook(utilisation: float, perplexity: float) -> str | None:
    """Why a tokenizer is not to be used whose codebook has collapsed; None where it has not.

    The rule: held-out images use fewer than LEAST_USED of the codes, or their perplexity is below LEAST_PERPLEXITY.
    """
    if utilisation >= LEAST_USED and perplexity >= LEAST_PERPLEXITY:
        return None
    return (
        f"the codebook collapsed: held-out images use {100 * utilisation:.2g} % of it, with a perplexity of "
        f"{perplexity:.3g} (below {100 * LEAST_USED:g} % or {LEAST_PERPLEXITY:g})"
    )
