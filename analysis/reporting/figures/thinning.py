"""Marks of very many runs: fewer are drawn, evenly, and the figure says so; all would be slow and no clearer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .drawing.page import Page

MOST_MARKS = 1500
"""Runs drawn as marks in one figure. What is drawn of them otherwise (fronts, means, intervals) stands on all."""


def thinned(runs: pd.DataFrame, page: Page, value: str = "gfid") -> pd.DataFrame:
    """At most MOST_MARKS of the rows, evenly along `value` so that both extremes stay; the figure says where rows are
    left out. The file of the figure's rows has all."""
    if len(runs) <= MOST_MARKS:
        return runs
    places = np.linspace(0, len(runs) - 1, MOST_MARKS).round().astype(int)
    page.note(f"Marks: {MOST_MARKS:,} of {len(runs):,} measurements, evenly along the vertical axis; the data has all.")
    return runs.sort_values(value, kind="stable").iloc[places].sort_index()
