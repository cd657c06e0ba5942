"""Numbers, intervals and lists as people read them: one way of writing each, for sentences, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.tokenizers.comparisons.crossover import Crossover
from analysis.tokenizers.seed_intervals import SeedEstimate


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, without an exponent between 0.001 and 100,000; a dash for no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if not 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:.{digits - 1}e}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign, a true minus included."""
    if value is None or not math.isfinite(value):
        return "–"
    text = number(abs(value), digits)
    return ("−" if value < 0 else "+") + text


def flops(value: float | None) -> str:
    """A compute amount with two significant digits: 6.1e12."""
    if value is None or not math.isfinite(value):
        return "–"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def images(value: float) -> str:
    """A number of images, rounded: 64k, 1.3M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{float(f'{value / unit:.3g}'):g}{name}"
    return f"{value:.0f}"


def percent(value: float | None) -> str:
    """A share in percent; a probability is never rounded to certainty by the draws that estimated it."""
    if value is None:
        return "–"
    if value < 0.005:
        return "< 1 %"
    if value > 0.995:
        return "> 99 %"
    return f"{100 * value:.0f} %"


def seeds(estimate: SeedEstimate) -> str:
    """On what an interval stands: "95 % intervals over 3 paired tokenizer seeds, df 2", or one seed alone."""
    if estimate.conditional:
        return "one seed: conditional on this tokenizer"
    over = "paired tokenizer seeds" if "paired" in estimate.method else "tokenizer seeds"
    return f"95 % intervals over {len(estimate.seeds)} {over}, df {estimate.df}"


def spread(low: float | None, high: float | None) -> str:
    """An interval of numbers in brackets after its value; nothing where there is none."""
    return "" if low is None else f" ({number(low)} to {number(high)})"


def span(estimate: SeedEstimate, verdict: str = "") -> str:
    """The interval of an estimate in brackets after its value, with what follows from it; nothing without interval."""
    if estimate.low is None:
        return ""
    write = signed if estimate.scale == "difference" else number
    return f" ({write(estimate.low)} to {write(estimate.high)}{verdict})"


def crossover_ends(cross: Crossover, below: str, beyond: str) -> tuple[str, str]:
    """Both ends of a crossover's interval; of one that reaches an end of the range, that end in `below` or `beyond`."""
    low = below.format(flops(cross.low)) if cross.interval_low is None else flops(cross.interval_low)
    high = beyond.format(flops(cross.high)) if cross.interval_high is None else flops(cross.interval_high)
    return low, high


def listing(items: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"
