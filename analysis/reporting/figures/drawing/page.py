"""The sheet that a figure is drawn on: panels, direct labels, a legend, and what the figure itself must say.

Everything is laid out once, in `finish`: what stands below the panels (legend, notes) adds to the height, so that the
panels keep theirs; labels go where they cover nothing, or else into the legend; ticks that would overlap are thinned.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from analysis.reporting.latex import caption_text

from . import labels
from .labels import Label
from .style import INK, NOTE, Palette, Style

LEAST_PANEL = 1.55
"""Inches per 8 points of text that a panel is wide and high at least; more panels go below each other."""
LETTERS = "abcdefghijklmnop"
SHORT = 24
"""Characters of a panel's name that stand beside its letter, as in (a) K1024-T16; longer ones are in the caption."""
_MATHS = re.compile(r"\\[a-z!]+|[${}^]")
_JOINT = "\1"
_FORMULA = re.compile(r"\$[^$]*\$")


@dataclass
class Page:
    """Where a figure is drawn, by its function, which gets the rows and this and returns its axes.

    `palette`: the colours, markers and dashes of the study. `fit`: what was estimated from the rows. `measure` and
    `compute` name the axes of what the study is judged by and of what its budgets pay for.
    """

    style: Style
    columns: int
    palette: Palette
    fit: Mapping[str, Any] = field(default_factory=dict)
    measure: str = "gFID"
    measure_label: str = "gFID"
    compute_label: str = "training compute (FLOPs)"
    pictures: Mapping[str, Path] = field(default_factory=dict)
    inches: float | None = None
    figure: Figure = field(init=False)
    titles: dict[Axes, str] = field(default_factory=dict)
    _labels: list[Label] = field(default_factory=list)
    _handles: list[Line2D] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Without a layout engine of its own: with one, every save draws twice.
        self.figure = Figure(figsize=(self.width, self.width))
        FigureCanvasAgg(self.figure)

    @property
    def width(self) -> float:
        """Inches of the figure: those asked for, else the style's."""
        return self.inches or self.style.widths[self.columns - 1]

    @property
    def small(self) -> float:
        """Points of small text."""
        return self.style.small

    def axes(self, height: float = 0.62) -> Axes:
        """One panel, `height` as a share of its width, no wider than is good for it."""
        return self.panels(1, height)[0]

    def panels(self, count: int, height: float = 0.8, *, across: int = 3, **grid: Any) -> list[Axes]:
        """So many panels, at most `across` beside each other, each `height` times as high as wide."""
        least = LEAST_PANEL * self.style.font_size / 8.0
        across = max(1, min(count, across, int(self.width / least)))
        rows = -(-count // across)
        across = -(-count // rows)  # Four are two by two.
        panel = self.width / across
        self._size(rows * max(panel * height, least))
        drawn = self.figure.subplots(rows, across, squeeze=False, **grid).ravel().tolist()
        for axis in drawn[count:]:
            axis.remove()
        for axis in drawn[max(0, count - across) : count]:
            # Below the last ones of the row above there may be none that shows their common ticks.
            axis.tick_params(labelbottom=True)
        return drawn[:count]

    def stacked(self, ratios: Sequence[float], height: float) -> list[Axes]:
        """Panels of one x axis below each other, together `height` times as high as wide."""
        self._size(self.width * height)
        grid: Any = {"height_ratios": list(ratios), "squeeze": False, "sharex": True}
        axes: list[Axes] = self.figure.subplots(len(ratios), 1, **grid).ravel().tolist()
        return axes

    def tall(self, inches: float, count: int = 1, **grid: Any) -> list[Axes]:
        """Panels beside each other, of a height in inches per 8 points of text."""
        self._size(inches * self.style.font_size / 8.0)
        axes: list[Axes] = self.figure.subplots(1, count, squeeze=False, **grid).ravel().tolist()
        return axes

    def _size(self, inches: float) -> None:
        self.figure.set_size_inches(self.width, inches)

    def title(self, axis: Axes, text: str) -> None:
        """What a panel shows: its title on screen and slides, its letter in a paper, whose caption says the rest."""
        self.titles[axis] = text

    def wrapped(self, text: str, panels: int) -> str:
        """A small text in lines that fit into one of so many panels beside each other."""
        # Letters of a text of mixed case are about 0.56 of their size wide; some room is left between the panels.
        return _wrapped(text, max(12, int(0.92 * self.width / panels * 72 / (0.56 * self.small))))

    def note(self, text: str) -> None:
        """What a reader must know of what is missing, extrapolated or held: written below the panels."""
        if text and text not in self._notes:
            self._notes.append(text)

    def label(self, axis: Axes, text: str, x: Any, y: Any, colour: Any = INK, **options: Any) -> None:
        """A text beside the curve (x, y): where it covers nothing, else in the legend. Options: those of Label."""
        xs, ys = np.atleast_1d(np.asarray(x, dtype=float)), np.atleast_1d(np.asarray(y, dtype=float))
        self._labels.append(Label(axis, text, xs, ys, colour, self.small, **options))

    def legend(self, handles: Sequence[Line2D]) -> None:
        """Entries of the legend below the panels; one of each text."""
        known = {str(handle.get_label()) for handle in self._handles}
        for handle in handles:
            if str(handle.get_label()) not in known:
                known.add(str(handle.get_label()))
                self._handles.append(handle)

    def panel_caption(self) -> str:
        """What the lettered panels show, for the caption; nothing where there is one, or where they have titles."""
        if not self.style.paper or len(self.titles) < 2:
            return ""
        return " ".join(f"({LETTERS[i]}) {_plain(text)}." for i, text in enumerate(self.titles.values()))

    def finish(self) -> Figure:
        """The figure, laid out for good."""
        for i, (axis, text) in enumerate(self.titles.items()):
            if not self.style.paper:
                axis.set_title(_wrapped(text, self._letters(axis.get_position().width)))
            elif len(self.titles) > 1:
                name = f" {text}" if len(_MATHS.sub("", text)) <= SHORT else ""
                axis.set_title(f"({LETTERS[i]}){name}", weight="normal")
        base = self.figure.get_figheight()
        self._lay_out(base)
        if self._wrap_names():
            self._lay_out(base)
        for axis in self.figure.axes:
            _thin(axis)
        missing = labels.place(self.figure, self._labels)
        if missing:
            # The place of those already drawn holds: the panels keep their height.
            self.legend([label.handle or Line2D([], [], color=label.colour, label=label.text) for label in missing])
            self._lay_out(base)
        return self.figure

    def _wrap_names(self) -> bool:
        """Break names of axes that are longer than their axis, and leave a panel only its letter where its name does
        not fit above it; whether that changed anything."""
        renderer: Any = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        changed = False
        for axis in self.figure.axes:
            frame = axis.get_window_extent(renderer)
            for name, length in ((axis.xaxis.label, frame.width), (axis.yaxis.label, frame.height)):
                box, text = name.get_window_extent(renderer), name.get_text()
                long = box.width if name is axis.xaxis.label else box.height
                longest = max(map(len, text.split("\n")))
                if long > 1.04 * length and "$" not in text and " " in text:
                    name.set_text(textwrap.fill(" ".join(text.split()), max(8, int(longest * length / long))))
                    name.set_linespacing(labels.SPACING)
                    changed = True
            title = axis._left_title  # type: ignore[attr-defined]
            if title.get_text() and title.get_window_extent(renderer).width > 1.02 * frame.width:
                words = title.get_text().replace("\n", " ")
                room = frame.width / title.get_window_extent(renderer).width
                shorter = _wrapped(words, max(8, int(min(0.8, room) * len(_plain(words)))))
                title.set_text(words.split(" ")[0] if self.style.paper else shorter)
                changed = True
        return changed

    def _letters(self, share: float) -> int:
        """Characters of text in a share of the width."""
        return max(12, int(share * self.width * 72 / (0.6 * self.style.font_size)))

    def _lay_out(self, base: float) -> None:
        """Legend and notes below, then the panels above them."""
        figure = self.figure
        for old in (*figure.legends, *figure.texts):
            old.remove()
        for _ in range(2):
            # Their heights are known once they are drawn at the final width.
            note = self._draw_notes()
            legend = self._draw_legend(note)
            figure.set_size_inches(self.width, base + note + legend)
            if _:
                break
            for old in (*figure.legends, *figure.texts):
                old.remove()
        below = (note + legend) / figure.get_figheight()
        ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below)).execute(figure)

    def _inches(self, artist: Any) -> float:
        renderer: Any = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        return float(artist.get_window_extent(renderer).height) / self.figure.dpi

    def _draw_notes(self) -> float:
        if not self._notes:
            return 0.0
        look: Any = {"fontsize": self.small, "color": NOTE, "style": "italic", "linespacing": 1.1}
        drawn = self.figure.text(0.012, 0.03 / self.figure.get_figheight(), "", va="bottom", ha="left", **look)
        renderer: Any = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        for per_line in range(int(self.width * 72 / (0.4 * self.small)), 10, -4):
            lines = [textwrap.fill(caption_text(note), per_line, subsequent_indent="  ") for note in self._notes]
            drawn.set_text("\n".join(lines))
            if drawn.get_window_extent(renderer).x1 < 0.99 * self.figure.bbox.width:
                break
        return self._inches(drawn) + 0.07

    def _draw_legend(self, note: float) -> float:
        if not self._handles:
            return 0.0
        figure = self.figure
        # Lines first, then marks alone.
        handles = sorted(self._handles, key=lambda handle: getattr(handle, "get_linestyle", str)() in ("None", ""))
        columns = legend_columns(handles, self.width * 72 / self.small)
        place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, note / figure.get_figheight())}
        legend: Legend = figure.legend(handles=handles, ncols=columns, **place)
        return self._inches(legend) + 0.02


def _plain(text: str) -> str:
    """A panel's name for a caption in plain text: mathematics such as 5.3 x 10^10 as 5.3e10."""
    return re.sub(r"\$(?:([\d.]+)\\!\\times\\!)?10\^\{(-?\d+)\}\$", lambda m: f"{m[1] or '1'}e{m[2]}", text)


def _wrapped(text: str, width: int) -> str:
    """Lines of at most so many letters, broken between words, within a longer word after a hyphen, and never within
    mathematics."""
    formulas = _FORMULA.findall(text)
    # Each formula is a word of the length that it has on paper.
    kept = iter(formulas)
    stand_in = _FORMULA.sub(lambda m: "\0" * max(1, len(_plain(m[0]))), text)
    # Names of tokenizers have hyphens between letters and digits, where textwrap does not break.
    parts = " ".join(word.replace("-", f"-{_JOINT} ") if len(word) > width else word for word in stand_in.split(" "))
    lines = textwrap.fill(parts, width + (_JOINT in parts), break_long_words=False, break_on_hyphens=False)
    return re.sub("\0+", lambda _: next(kept), lines.replace(f"{_JOINT} ", "").replace(_JOINT, ""))


def legend_columns(handles: Sequence[Line2D], room: float) -> int:
    """How many columns a legend of these entries may have in `room` em of its text."""
    # A character is about 0.56 em wide; the handle with its gaps takes about 4.8 em.
    widths = [0.56 * len(str(handle.get_label())) + 4.8 for handle in handles]
    return next((n for n in range(len(handles), 1, -1) if _row_width(widths, n) <= room), 1)


def _row_width(widths: Sequence[float], columns: int) -> float:
    """Width of a legend whose columns are filled one after the other, the first ones with one entry more."""
    least, longer = divmod(len(widths), columns)
    ends = [least * i + min(i, longer) for i in range(columns + 1)]
    return sum(max(widths[low:high]) for low, high in pairwise(ends))


def _thin(axis: Axes) -> None:
    """Leave every second label of a logarithmic axis out, until none touches the next."""
    figure: Any = axis.figure
    renderer = figure.canvas.get_renderer()
    for ticks in (axis.xaxis, axis.yaxis):
        if ticks.get_scale() != "log":
            continue
        low, high = sorted(ticks.get_view_interval())
        for every in (1, 2, 3, 4):
            shown = [tick for tick in ticks.get_major_ticks() if low <= tick.get_loc() <= high]
            texts = [tick.label1 for tick in shown if tick.label1.get_visible() and tick.label1.get_text()]
            boxes = [text.get_window_extent(renderer) for text in texts]
            if all(not a.padded(1.5).overlaps(b) for a, b in pairwise(boxes)):
                break
            kept = [tick.get_loc() for tick in shown][:: every + 1]
            ticks.set_major_locator(_fixed(kept))


def _fixed(places: Sequence[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(list(places))
