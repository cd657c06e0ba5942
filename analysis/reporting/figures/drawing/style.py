"""How every figure looks: widths and fonts by style, colour-blind safe colours, and savers with stable bytes.

Figures are made without pyplot, so nothing global changes. Colours are Okabe and Ito's; a tokenizer has a colour and a
dash, a generator size a marker, so that a print in grey says as much. Text and axes are drawn in INK, which a page can
turn into its own colour.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D

from analysis.tokenizers.fronts import in_order
from results.errors import UsageError
from results.store import atomic

T = TypeVar("T")

INK = "#1f2328"
MUTED = "#7d8590"
NOTE = "#4d5661"
"""Of small remarks: 7 to 1 against white."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8C6BB1", "#5C4A32")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.3, 1.2)), (0, (6, 1.4, 1.3, 1.4)), (0, (9, 1.6)), (0, (3, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BUDGET_SHADES = ("#9aa4b0", "#626d7a", INK)
"""From the smallest budget to the largest."""
LEAST_POINTS = 7.0
"""No text of a figure is smaller at print size; only exponents and indices are."""


@dataclass(frozen=True)
class Style:
    """A look. `widths`: inches of one column and of the whole text; sizes of text in points; font family and maths font
    set; resolution of PNGs. `paper`: no titles, which a caption beside the figure says; panels have letters."""

    widths: tuple[float, float]
    font_size: float
    small: float
    family: str
    maths: str
    dpi: int
    paper: bool

    @property
    def width(self) -> float:
        """Inches of the whole text."""
        return self.widths[1]


STYLES = {
    "report": Style((4.4, 7.2), 9.0, 8.0, "DejaVu Sans", "dejavusans", 160, False),
    "neurips": Style((2.7, 5.5), 8.0, 7.0, "STIXGeneral", "stix", 300, True),
    "cvpr": Style((3.25, 6.875), 8.0, 7.0, "STIXGeneral", "stix", 300, True),
    "icml": Style((3.25, 6.75), 8.0, 7.0, "STIXGeneral", "stix", 300, True),
    "talk": Style((6.2, 12.0), 16.0, 14.0, "DejaVu Sans", "dejavusans", 160, False),
}
"""Widths are those of the templates; a text of one column (neurips) is halved for two figures side by side. Fonts are
those that matplotlib itself ships: STIX has the forms of Times, which the three templates are set in."""

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
    installed = {font.name for font in fontManager.ttflist}
    others = [family for family in ("DejaVu Sans", *OTHER_SCRIPTS) if family in installed and family != style.family]
    base, small = style.font_size, style.small
    settings: Any = {
        "figure.constrained_layout.h_pad": 0.04, "figure.constrained_layout.w_pad": 0.04, "figure.facecolor": "none",
        "figure.dpi": 100, "font.family": [style.family, *others], "font.size": base, "mathtext.fontset": style.maths,
        "axes.titlesize": base, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 4.0,
        "axes.labelsize": base, "axes.labelpad": 2.5, "xtick.labelsize": small, "ytick.labelsize": small,
        "legend.fontsize": small, "legend.title_fontsize": small, "legend.frameon": False, "legend.handlelength": 2.4,
        "legend.borderaxespad": 0.2, "legend.borderpad": 0.2, "legend.columnspacing": 1.4, "legend.labelspacing": 0.3,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.facecolor": "none",
        "axes.grid": True, "axes.axisbelow": True, "grid.color": MUTED, "grid.alpha": 0.22, "grid.linewidth": 0.6,
        "lines.linewidth": 0.17 * base, "lines.markersize": 0.48 * base, "path.simplify": True, "hatch.linewidth": 0.6,
        "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
        "savefig.facecolor": "none", "svg.hashsalt": "tokenlaw", "svg.fonttype": "path", "pdf.fonttype": 42,
        "ps.fonttype": 42,
    }  # fmt: skip
    with mpl.rc_context(settings), warnings.catch_warnings():
        # a column may be named in a script that no font here has: its name is drawn as boxes, without a message each
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield style


@dataclass(frozen=True)
class Palette:
    """Which colour and dash each tokenizer family and which marker and shade each generator size has, throughout a
    study."""

    colours: dict[str, str]
    markers: dict[str, str]
    dashes: dict[str, Any]
    shades: dict[str, Any]
    regularised: frozenset[str] = frozenset()

    @staticmethod
    def of(families: pd.DataFrame, points: pd.DataFrame) -> Palette:
        """Families in order of rate; sizes in order of parameters, from a light shade to a dark one."""
        names, sizes = list(families["family"]), in_order(points)
        ramp = mpl.colormaps["viridis_r"]
        return Palette(
            {f: COLOURS[i % len(COLOURS)] for i, f in enumerate(names)},
            {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(sizes)},
            {f: DASHES[i % len(DASHES)] for i, f in enumerate(names)},
            {size: ramp(0.25 + 0.6 * i / max(1, len(sizes) - 1)) for i, size in enumerate(sizes)},
            frozenset(families.loc[families["regulariser"].notna(), "family"]),
        )

    def present(self, rows: pd.DataFrame) -> list[str]:
        """The families of some rows, in order of rate."""
        shown = set(rows["family"])
        return [family for family in self.colours if family in shown]

    def sizes(self, rows: pd.DataFrame) -> list[str]:
        """The generator sizes of some rows, from the smallest to the largest."""
        shown = set(rows["size"])
        return [size for size in self.markers if size in shown]

    def handles(self, families: Iterable[str]) -> list[Line2D]:
        """Entries of a legend for tokenizer families, as lines."""
        return [Line2D([], [], color=self.colours[f], ls=self.dashes[f], lw=1.8, label=f) for f in families]

    def size_handles(self, sizes: Iterable[str]) -> list[Line2D]:
        """Entries of a legend for generator sizes, as markers."""
        return [Line2D([], [], color=MUTED, marker=self.markers[s], ls="", label=s, ms=4.5) for s in sizes]


NO_PALETTE = Palette({}, {}, {}, {})
"""Of a figure of no study."""


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
