"""What a figure is: a function of rows that draws, with the columns it needs, what it shows and how it is described.

`Plot` is one entry; `figure` makes one of a function of one's own, `from_file` finds that by FILE.py:FUNCTION.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.reporting.answer import Answer, answer
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.pairs import best_pairs, default_budgets
from results.errors import UsageError

from .drawing.page import Page
from .drawing.style import Palette

TABLES = ("ranked", "points", "tokenizers", "runs", "curves", "evaluations", "guided", "own")
"""The tables of StudyFrames that a figure may stand on."""
CHANCES, DRAWS = 33, 4000
"""Compute values at which the best pair is asked for, and draws at each."""


class NotDrawn(Exception):
    """A figure that the study has no data for; the message is the reason, for people."""


@dataclass(frozen=True)
class Evidence:
    """All that figures of a study are drawn from: its frames and answer, pictures that its runs left, by run id (or run
    id/what), and further tables by name."""

    frames: StudyFrames
    answer: Answer
    pictures: Mapping[str, Path] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def palette(self) -> Palette:
        """Colours, markers and dashes, the same in every figure."""
        return Palette.of(self.frames.families, self.frames.points)

    @property
    def points(self) -> pd.DataFrame:
        """One row a generator run and budget, the metric that ranks in the column `gfid`."""
        return self.frames.ranked

    @cached_property
    def chances(self) -> pd.DataFrame | None:
        """Probability of each pair to be the best at CHANCES compute values: columns path_flops, family, size,
        probability, extrapolated, reach, gfid. None where no pair was run with two tokenizer seeds."""
        if self.points.empty:
            return None
        ends = default_budgets(self.points, 2)
        rows = []
        for flops in np.geomspace(ends[0], ends[-1], CHANCES):
            judged = best_pairs(self.points, float(flops), draws=DRAWS, curves=self.frames.curves_of_pairs)
            if judged.df == 0:
                return None
            rows += [
                {"path_flops": float(flops), "family": p.family, "size": p.size, "probability": p.probability,
                 "extrapolated": p.extrapolated, "reach": p.reach, "gfid": p.gfid}
                for p in judged.pairs
            ]  # fmt: skip
        return pd.DataFrame(rows)

    @staticmethod
    def of(frames: StudyFrames, **more: Any) -> Evidence:
        """With the study's answer worked out."""
        return Evidence(frames, answer(frames), **more)


@dataclass(frozen=True)
class Shown:
    """What a figure shows: `rows` with every number that is drawn, `fit` what was estimated from them (JSON-ready),
    `caption` in plain words, `notes` that stand in the figure itself."""

    rows: pd.DataFrame
    caption: str
    fit: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A figure by name. `draw(rows, page)` returns its axes; `shown` gathers what it draws from the evidence, and
    raises NotDrawn with the reason where that is not there. `of` and `needs`: the table and its columns without which
    there is none. `paper`: the figure of arXiv 2412.16326 that it is. `report`: whether the report shows it.
    """

    name: str
    summary: str
    draw: Callable[[pd.DataFrame, Page], Any]
    shown: Callable[[Evidence], Shown]
    of: str = "ranked"
    needs: tuple[str, ...] = ()
    paper: str = ""
    report: bool = False

    def of_study(self, evidence: Evidence) -> Shown:
        """What it shows of a study. Raises NotDrawn."""
        rows = getattr(evidence.frames, self.of)
        if not len(rows):
            raise NotDrawn(f"the study has no {WORDS[self.of]}")
        for column in self.needs:
            if column not in rows or not rows[column].notna().any():
                raise NotDrawn(f"{column} is known of no row of its {WORDS[self.of]}")
        shown = self.shown(evidence)
        if not len(shown.rows):
            raise NotDrawn(f"nothing is left of its {WORDS[self.of]} with {', '.join(self.needs)}")
        return shown


WORDS = {
    "ranked": "generators with the metric that ranks at a known compute", "points": "evaluated generators",
    "tokenizers": "tokenizers", "runs": "runs", "curves": "training curves", "evaluations": "evaluations",
    "guided": "evaluations with guidance", "own": "metrics of your own",
}  # fmt: skip

Drawer = Callable[[pd.DataFrame, Page], Any]


def figure(of: str = "ranked", needs: tuple[str, ...] = (), caption: str = "") -> Callable[[Drawer], Drawer]:
    """Declares what a figure function of one's own stands on: a table of StudyFrames and the columns it needs.

    caption: by default the first paragraph of its docstring. Raises UsageError for another table.
    """
    if of not in TABLES:
        raise UsageError(f"of = {of!r} is no table of a study; allowed: {', '.join(TABLES)}")

    def declare(draw: Drawer) -> Drawer:
        draw.stands_on = (of, tuple(needs), caption)  # type: ignore[attr-defined]
        return draw

    return declare


def plot_of(draw: Drawer) -> Plot:
    """The entry of a function of one's own, `@figure(...)` before it or not."""
    of, needs, caption = getattr(draw, "stands_on", ("ranked", (), ""))
    paragraph = " ".join((inspect.getdoc(draw) or "").split("\n\n")[0].split())
    name = draw.__name__.replace("_", "-")
    words = caption or paragraph or f"{name.replace('-', ' ').capitalize()}."

    def shown(evidence: Evidence) -> Shown:
        rows: pd.DataFrame = getattr(evidence.frames, of)
        known = rows[list(needs)].notna().all(axis=1) if needs else slice(None)
        return Shown(rows[known].reset_index(drop=True), words)

    return Plot(name, words, draw, shown, of=of, needs=needs)


def from_file(text: str) -> Plot:
    """A figure of one's own by FILE.py:FUNCTION. Raises UsageError for a file or function that is not there."""
    place = re.fullmatch(r"(.+\.py):(\w+)", text)
    if place is None:
        raise UsageError(f"figure = {text!r} is no function of a file; allowed: FILE.py:FUNCTION")
    path, name = Path(place[1]), place[2]
    if not path.is_file():
        raise UsageError(f"figure = {text!r}: there is no file {path}")
    specification = importlib.util.spec_from_file_location(f"figures_of_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    draw = getattr(module, name, None)
    if not callable(draw):
        functions = [value for value in vars(module).values() if inspect.isfunction(value)]
        known = [f.__name__ for f in functions if f.__module__ == module.__name__ and not f.__name__.startswith("_")]
        raise UsageError(f"figure = {text!r}: {path} has no function {name}; it has: {', '.join(known) or 'none'}")
    return plot_of(draw)
