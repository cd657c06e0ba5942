"""Numbers as people write them: 1.3B, 1,000, 350M, 62 %, 1e12 FLOPs, 1.2x10^18."""

from __future__ import annotations

import math
import re

FACTORS = {
    "": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "b": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "%": 1e-2,
}  # fmt: skip
"""What each suffix multiplies by. A small m is none: it is a million to some and a thousandth to others."""
NOUNS = ("flops", "flop", "params", "param", "parameters", "tokens", "images", "samples", "steps", "examples")
"""Words behind a number that say what is counted and change nothing."""

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<digits>\d{1,3}(?:[,\u00a0\u202f ]\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?P<exponent>[eE][+-]?\d+)?"
    r"(?:\s*[x×*]\s*10(?:\^|\*\*)(?P<power>[+-]?\d+))?\s*(?P<words>%|[A-Za-z ]*)"
)
_GROUPS = re.compile(r"[,\u00a0\u202f ]")


def quantity(text: str) -> float | None:
    """The number that a text with separators of thousands, a suffix of FACTORS or a noun of NOUNS stands for.

    1.3B is 1.3e9, 62 % is 0.62, `3 GFLOPs` is 3e9. None for a text that is none or could be several.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    factor = _factor(match["words"].strip())
    if factor is None:
        return None
    value = float(_GROUPS.sub("", match["sign"] + match["digits"]) + (match["exponent"] or ""))
    try:
        value *= factor * 10.0 ** int(match["power"] or 0)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _factor(words: str) -> float | None:
    if words in FACTORS:
        return FACTORS[words]
    if words.lower().rstrip("s") in FACTORS and len(words) > 2:  # Million, billions
        return FACTORS[words.lower().rstrip("s")]
    for noun in NOUNS:
        if words.lower() == noun or words.lower().endswith(noun):
            before = words[: len(words) - len(noun)].rstrip()
            return FACTORS.get(before, FACTORS.get(before.lower().rstrip("s")) if len(before) > 2 else None)
    return None
