"""How every figure looks: widths and fonts by style, colour-blind safe colours, axes, and savers with stable bytes.

Figures are made without pyplot, so nothing global changes. Colours are Okabe and Ito's; a tokenizer has a colour, a
generator size a marker, a seed a thin line. Text and axes are drawn in INK, which a page can turn into its own colour.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from analysis.reporting import wording
from analysis.tokenizers.fronts import in_order
from results.errors import UsageError
from results.store import atomic

T = TypeVar("T")

INK = "#1f2328"
MUTED = "#7d8590"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BUDGET_SHADES = ("#9aa4b0", "#626d7a", INK)
"""From the smallest budget to the largest."""


@dataclass(frozen=True)
class Style:
    """A look: text width in inches, base font size in points, font family and maths font set, resolution of PNGs."""

    width: float
    font_size: float
    family: str
    maths: str
    dpi: int


STYLES = {
    "report": Style(7.2, 9.0, "DejaVu Sans", "dejavusans", 160),
    "neurips": Style(5.5, 8.0, "DejaVu Serif", "dejavuserif", 300),
    "slides": Style(10.0, 14.0, "DejaVu Sans", "dejavusans", 160),
}
"""`neurips`: the 5.5 inch text width of that template. Fonts are those that matplotlib itself ships."""

OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC")
"""Families for characters that matplotlib's own fonts lack, taken where they are installed."""

FORMATS: dict[str, Any] = {
    "pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None, "Creator": None},
}  # fmt: skip
"""File formats, with what is left out of their metadata, so that the same figure gives the same bytes."""
XML = '<?xml version="1.0" encoding="utf-8"?>\n'


def named(kind: str, name: str, allowed: Mapping[str, T]) -> T:
    """A style, format or figure by name. Raises UsageError, listing what is allowed."""
    if name not in allowed:
        raise UsageError(f"{kind} = {name!r} is unknown; allowed: {', '.join(allowed)}")
    return allowed[name]


@contextmanager
def applied(name: str) -> Iterator[Style]:
    """matplotlib's settings of a style, within the block only."""
    style = named("style", name, STYLES)
    others = [family for family in OTHER_SCRIPTS if family in {font.name for font in fontManager.ttflist}]
    base, small = style.font_size, 0.9 * style.font_size
    settings: Any = {
        "figure.constrained_layout.h_pad": 0.05, "figure.facecolor": "none", "figure.dpi": 100,
        "font.family": [style.family, *others], "font.size": base, "mathtext.fontset": style.maths,
        "axes.titlesize": base * 1.05, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": base, "xtick.labelsize": small, "ytick.labelsize": small,
        "legend.fontsize": base * 0.88, "legend.frameon": False,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.facecolor": "none",
        "axes.grid": True, "axes.axisbelow": True, "grid.color": MUTED, "grid.alpha": 0.22, "grid.linewidth": 0.6,
        "lines.linewidth": 1.6, "lines.markersize": base * 0.5, "path.simplify": True,
        "savefig.facecolor": "none", "svg.hashsalt": "tokenlaw", "svg.fonttype": "path", "pdf.fonttype": 42,
    }  # fmt: skip
    with mpl.rc_context(settings), warnings.catch_warnings():
        # a column may be named in a script that no font here has: its name is drawn as boxes, without a message each
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield style


@contextmanager
def new_figure(name: str, height: float, *, width: float | None = None, **grid: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of a style's width (or of `width` inches), `height` as a share of it, with the axes that
    `Figure.subplots` makes; the style's settings hold within the block."""
    with applied(name) as style:
        inches = width or style.width
        figure = Figure(figsize=(inches, inches * height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(**grid)


@dataclass(frozen=True)
class Palette:
    """Which colour each tokenizer family and which marker each generator size has, throughout a study."""

    colours: dict[str, str]
    markers: dict[str, str]
    dashes: dict[str, str]

    @staticmethod
    def of(families: pd.DataFrame, points: pd.DataFrame) -> Palette:
        """Families in order of rate; sizes in order of parameters; regularised families are dashed."""
        names = list(families["family"])
        regularised = set(families.loc[families["regulariser"].notna(), "family"])
        return Palette(
            {f: COLOURS[i % len(COLOURS)] for i, f in enumerate(names)},
            {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(in_order(points))},
            {f: "--" if f in regularised else "-" for f in names},
        )

    def present(self, rows: pd.DataFrame) -> list[str]:
        """The families of some rows, in order of rate."""
        shown = set(rows["family"])
        return [family for family in self.colours if family in shown]

    def handles(self, families: Iterable[str], *, sizes: bool = True) -> list[Line2D]:
        """Entries of a legend: families as lines and, unless told otherwise, all sizes as markers."""
        lines = [Line2D([], [], color=self.colours[f], ls=self.dashes[f], lw=2.2, label=f) for f in families]
        return lines + (self.size_handles() if sizes else [])

    def size_handles(self) -> list[Line2D]:
        """Entries of a legend for generator sizes."""
        return [Line2D([], [], color=MUTED, marker=m, ls="", label=s, ms=4.5) for s, m in self.markers.items()]


def counting_axis(axis: Axes, along: str = "path_flops", label: str | None = None) -> None:
    """Logarithmic x axis of compute (3 x 10^12), `images` or `step` (16k, 1M), with more labels where it spans little.

    `label`: by default what the column `along` is.
    """
    names = {"path_flops": "training FLOPs of the generator", "images": "training images", "step": "steps"}
    write: Callable[[float], str] = power_of_ten if along == "path_flops" else wording.images
    narrow, wide = ((1, 3), (1,)) if along == "path_flops" else ((1, 2, 5), (1, 3))
    axis.set_xscale("log")
    axis.set_xlabel(names[along] if label is None else label)
    low, high = axis.get_xlim()
    few = low > 0 and math.log10(high / low) < 1.6
    axis.xaxis.set_major_locator(LogLocator(base=10, subs=narrow if few else wide, numticks=20))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: write(v)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def note(axis: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """A text `offset` points from a place; `xycoords` tells what that is in, by default the data."""
    axis.annotate(text, at, xytext=offset, textcoords="offset points", **look)


def legend_below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend under all panels, in as many columns as the width of the figure holds."""
    # A character is about 0.6 em wide; the handle with its gaps takes about 5 em.
    widths = [0.6 * len(str(handle.get_label())) + 5.0 for handle in handles]
    room = figure.get_figwidth() * 72 / (0.88 * mpl.rcParams["font.size"])
    columns = next((n for n in range(len(handles), 1, -1) if _row_width(widths, n) <= room), 1)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def _row_width(widths: Sequence[float], columns: int) -> float:
    """Width of a legend whose columns are filled one after the other, the first ones with one entry more."""
    least, longer = divmod(len(widths), columns)
    ends = [least * i + min(i, longer) for i in range(columns + 1)]
    return sum(max(widths[low:high]) for low, high in pairwise(ends))


def power_of_ten(value: float) -> str:
    """3e12 as mathematics: 3 x 10^12."""
    mantissa, exponent = f"{value:.0e}".split("e")
    factor = "" if mantissa == "1" else rf"{mantissa}\!\times\!"
    return rf"${factor}10^{{{int(exponent)}}}$"


def log_value_axis(axis: Axes, label: str, values: Iterable[float], direction: str = "y") -> None:
    """Logarithmic value axis with plain numbers, more of them the narrower the range."""
    finite = np.array([v for v in values if np.isfinite(v) and v > 0])
    decades = float(np.log10(finite.max() / finite.min())) if len(finite) else 1.0
    subs: tuple[float, ...] = (1.0, 3.0)
    if decades < 0.6:
        subs = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    elif decades <= 2:
        subs = (1.0, 2.0, 5.0) if decades > 1.1 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    narrow = decades < 0.3
    locator: Locator = MaxNLocator(5, steps=[1, 2, 5, 10]) if narrow else LogLocator(base=10, subs=subs, numticks=20)
    getattr(axis, f"set_{direction}scale")("log")
    getattr(axis, f"set_{direction}label")(label)
    ticks = axis.yaxis if direction == "y" else axis.xaxis
    ticks.set_major_locator(locator)
    ticks.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}"))
    ticks.set_minor_formatter(NullFormatter())


def svg(figure: Figure, style: str = "report") -> str:
    """The figure as SVG text without XML declaration; the same figure gives the same text."""
    text = image_bytes(figure, "svg", style).decode()
    return text[text.index("<svg") :]


def image_bytes(figure: Figure, form: str, style: str = "report") -> bytes:
    """The figure as bytes of one of FORMATS, on a white ground but for SVG; no dates inside."""
    metadata = named("format", form, FORMATS)
    buffer = io.BytesIO()
    with applied(style) as look:
        engine = figure.get_layout_engine()
        if engine is not None:
            # Laid out once; otherwise every save does it twice, which is most of a save's time.
            engine.execute(figure)
            figure.set_layout_engine("none")
        ground: Any = {} if form == "svg" else {"dpi": look.dpi, "facecolor": "white"}
        figure.savefig(buffer, format=form, metadata=metadata, **ground)
    content = buffer.getvalue()
    return content if form != "svg" else XML.encode() + content[content.index(b"<svg") :]


def save(figure: Figure, path: Path, style: str = "report") -> Path:
    """Write the figure in the format of the path's suffix, atomically. Raises UsageError, StoreError."""
    atomic.write(path, image_bytes(figure, path.suffix.removeprefix(".").lower(), style), durable=False)
    return path
