"""Axes as papers have them: logarithmic in powers of ten with their unit, plain numbers where the range is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.reporting import wording

from .style import MUTED

NAMES = {"path_flops": "training compute (FLOPs)", "images": "training images", "step": "steps"}
LEAST_TICKS = 3
MANTISSAS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
)
"""Of the labelled ticks of a logarithmic axis: the first of these with enough of them in range."""


def power_of_ten(value: float) -> str:
    """3e12 as mathematics: 3 x 10^12."""
    mantissa, exponent = f"{value:.1e}".split("e")
    digits = mantissa.removesuffix(".0")
    factor = "" if digits == "1" else rf"{digits}\!\times\!"
    return rf"${factor}10^{{{int(exponent)}}}$"


def compute_axis(axis: Axes, along: str = "path_flops", label: str | None = None) -> None:
    """Logarithmic x axis of compute in powers of ten, or of `images` or `step` (16k, 1M), over what is drawn.

    `label`: by default what the column `along` is.
    """
    write: Callable[[float], str] = power_of_ten if along == "path_flops" else wording.images
    axis.set_xscale("log")
    axis.set_xlabel(NAMES[along] if label is None else label)
    low, high = axis.get_xlim()
    _log_ticks(axis.xaxis, low, high, write)


def log_value_axis(axis: Axes, label: str, values: Iterable[float], direction: str = "y") -> None:
    """Logarithmic value axis with plain numbers, more of them the narrower the range."""
    finite = np.array([v for v in values if np.isfinite(v) and v > 0])
    getattr(axis, f"set_{direction}scale")("log")
    getattr(axis, f"set_{direction}label")(label)
    ticks = axis.yaxis if direction == "y" else axis.xaxis
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 10.0)
    if high / low < 1.8:
        ticks.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ticks.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))
        ticks.set_minor_locator(NullLocator())
        ticks.set_minor_formatter(NullFormatter())
        return
    write: Callable[[float], str] = (lambda v: f"{v:.3g}") if low >= 1e-3 and high < 1e5 else power_of_ten
    _log_ticks(ticks, low, high, write)


def _log_ticks(ticks: Any, low: float, high: float, write: Callable[[float], str]) -> None:
    for mantissas in MANTISSAS:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        inside = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(inside) >= LEAST_TICKS:
            break
    # Fixed ones would be missing where the limits are moved outwards later.
    ticks.set_major_locator(LogLocator(base=10, subs=mantissas, numticks=20))
    ticks.set_major_formatter(FuncFormatter(lambda v, _: write(v)))
    ticks.set_minor_locator(LogLocator(base=10, subs=tuple(range(2, 10)), numticks=20))
    ticks.set_minor_formatter(NullFormatter())


def code_axis(axis: Axes, sizes: Iterable[float], label: str = "codebook size") -> None:
    """x axis of codebook sizes, logarithmic to base 2, with a tick at each."""
    places = sorted({float(size) for size in sizes})
    axis.set_xscale("log", base=2)
    axis.set_xlabel(label)
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _codes(v)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(places[0] / 1.5, places[-1] * 1.5)


def _codes(value: float) -> str:
    whole = round(value)
    return f"{whole // 1024}k" if whole >= 1024 and whole % 1024 == 0 else str(whole)


def neutral_line(axis: Axes, value: float) -> None:
    """A thin line at what says no difference."""
    axis.axhline(value, color=MUTED, lw=0.8, zorder=1)
