"""A table for people (text, Markdown, LaTeX) with every number at full precision beside it (CSV); its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.rows import by_seed
from analysis.tokenizers.seed_intervals import Scale, SeedEstimate, over_seeds

from . import wording
from .latex import escaped

Facts = Mapping[str, Any]
Shown = str | Callable[[Facts], str]


@dataclass(frozen=True)
class Table:
    """A table: `columns` and `rows` of text for people, `data` the same facts as numbers, `note` what to know of it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    note: str = ""

    @staticmethod
    def of(name: str, title: str, facts: Sequence[Facts], columns: Mapping[str, Shown], note: str = "") -> Table | None:
        """The table that shows `facts`, one a row, under the headings of `columns`; None without facts.

        What a heading shows is a fact by name, as `text_of` writes it, or a function of the row's facts. Facts whose
        names begin with _ are shown only; estimates are value, low, high and seeds among the numbers.
        """
        if not facts:
            return None
        rows = [tuple(show(f) if callable(show) else text_of(f[show]) for show in columns.values()) for f in facts]
        estimates = {key for f in facts for key, value in f.items() if isinstance(value, SeedEstimate)}
        data: list[dict[str, Any]] = []
        for f in facts:
            data.append({})
            for key, value in f.items():
                if not key.startswith("_"):
                    data[-1] |= _flat(key, value) if key in estimates else {key: value}
        return Table(name, title, tuple(columns), tuple(rows), pd.DataFrame(data), note)

    def to_csv(self) -> str:
        """The numbers, at full precision."""
        return self.data.to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """A pipe table under its title, the note below."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def to_latex(self) -> str:
        """A booktabs table environment, text escaped."""
        head = " & ".join(escaped(column) for column in self.columns)
        body = "".join(" & ".join(escaped(text) for text in row) + " \\\\\n" for row in self.rows)
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{escaped(self.title)}}}\n\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(self.columns)}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}"
            "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )


def text_of(value: Any) -> str:
    """A fact for people: an estimate with its interval, a number, a text; a dash for what is not known."""
    if isinstance(value, SeedEstimate):
        return cell(value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.0f}" if float(value).is_integer() else wording.number(float(value))
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def level(key: str, write: Callable[[float], str] = wording.number) -> Shown:
    """Shows the value of an estimate without its interval."""
    return lambda f: "–" if f[key] is None else write(f[key].value)


def known(key: str, write: Callable[[float], str]) -> Shown:
    """Shows a number that may not be known, as of rows measured elsewhere."""
    return lambda f: "–" if pd.isna(f[key]) else write(f[key])


def cell(estimate: SeedEstimate) -> str:
    """Value with its interval in brackets, for a table cell."""
    write = wording.signed if estimate.scale == "difference" else wording.number
    return write(estimate.value) + wording.span(estimate)


def _flat(name: str, estimate: SeedEstimate | None) -> dict[str, Any]:
    """value, low, high and seeds of an estimate as flat columns."""
    value, low, high = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    seeds = 0 if estimate is None else len(estimate.seeds)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_seeds": seeds}


def table_estimate(rows: pd.DataFrame) -> SeedEstimate | None:
    """Estimate of the column `value` over seeds: a geometric mean, or a plain one where values are not positive."""
    return estimate_of(rows, "value", "level") or estimate_of(rows, "value", "difference")


def estimate_of(rows: pd.DataFrame, metric: str, scale: Scale) -> SeedEstimate | None:
    """Estimate of a metric over the tokenizer seeds of some rows; None where it was not measured."""
    if metric not in rows or rows[metric].notna().sum() == 0:
        return None
    values = by_seed(rows.groupby("tokenizer_seed")[metric].mean())
    if scale != "difference" and min(values.values()) <= 0:
        return None
    return over_seeds(values, scale=scale, paired=False)


def estimates_of(
    rows: pd.DataFrame, cell: list[str], metric: str, scale: Scale
) -> dict[tuple[Any, ...], SeedEstimate | None]:
    """`estimate_of` of every cell, by the values of its columns; cells without the metric are left out."""
    if metric not in rows:
        return {}
    means = rows[rows[metric].notna()].groupby([*cell, "tokenizer_seed"], dropna=False)[metric].mean()
    by_cell: dict[tuple[Any, ...], dict[int, float]] = {}
    for (*place, seed), value in zip(means.index.tolist(), means.tolist(), strict=True):
        if not pd.isna(seed):
            by_cell.setdefault(tuple(place), {})[int(seed)] = float(value)
    return {
        place: None
        if scale != "difference" and min(values.values()) <= 0
        else over_seeds(values, scale=scale, paired=False)
        for place, values in by_cell.items()
    }
