"""A table for people (text, Markdown, LaTeX) with every number at full precision beside it (CSV); its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.rows import by_seed
from analysis.tokenizers.seed_intervals import Scale, SeedEstimate, over_seeds

from . import wording


@dataclass(frozen=True)
class Table:
    """A table: `columns` and `rows` of text for people, `data` the same facts as numbers, `note` what to know of it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    note: str = ""

    def to_csv(self) -> str:
        """The numbers, at full precision."""
        return self.data.to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """A pipe table."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def to_latex(self) -> str:
        """A booktabs table environment, text escaped."""
        head = " & ".join(_latex(c) for c in self.columns)
        body = "".join(" & ".join(_latex(cell) for cell in row) + " \\\\\n" for row in self.rows)
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_latex(self.title)}}}\n\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(self.columns)}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}"
            "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def cell(estimate: SeedEstimate | None, scale: float = 1.0) -> str:
    """Value with its interval in brackets, for a table cell."""
    if estimate is None:
        return "–"
    signed = estimate.scale == "difference"
    write: Callable[[float | None], str] = wording.signed if signed else wording.number
    text = write(scale * estimate.value)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({write(scale * estimate.low)} to {write(scale * estimate.high)})"


def flat(name: str, estimate: SeedEstimate | None) -> dict[str, Any]:
    """value, low, high and seeds of an estimate as flat columns."""
    if estimate is None:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan, f"{name}_seeds": 0}
    return {
        name: estimate.value,
        f"{name}_low": np.nan if estimate.low is None else estimate.low,
        f"{name}_high": np.nan if estimate.high is None else estimate.high,
        f"{name}_seeds": len(estimate.seeds),
    }


def estimate_of(rows: pd.DataFrame, metric: str, scale: Scale) -> SeedEstimate | None:
    """Estimate of a metric over the tokenizer seeds of some rows; None where it was not measured."""
    if metric not in rows or rows[metric].notna().sum() == 0:
        return None
    values = by_seed(rows.groupby("tokenizer_seed")[metric].mean())
    if scale != "difference" and min(values.values()) <= 0:
        return None
    return over_seeds(values, scale=scale, paired=False)


def level(estimate: SeedEstimate | None) -> str:
    return "–" if estimate is None else wording.number(estimate.value)
