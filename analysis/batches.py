"""Problems of one law side by side: which of them share a batch, and their rows at one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.formula import Array, Columns
from analysis.problem import Problem

ELEMENTS = 60_000  # starts x rows of one batch: its arrays stay in the processor's cache
LONGER = 1.5  # rows of a batch's longest problem over those of its shortest: the rest is padding


def batches(problems: Sequence[Problem], starts: Sequence[int], leaders: int) -> list[list[int]]:
    """Indices of the problems that are searched together, every problem in one batch.

    Alike are problems with the same loss in scaled units, and with more starts than `leaders` or not. Least absolute
    deviations are solved one problem at a time.
    """
    out: list[list[int]] = []
    rows = [problem.target.shape[-1] for problem in problems]
    alike: dict[object, list[int]] = {}
    for k in sorted(range(len(problems)), key=lambda k: rows[k]):
        alone = k if problems[k].loss.kind == "lad" else None
        alike.setdefault((problems[k].loss, starts[k] > leaders, alone), []).append(k)
    for group in alike.values():
        batch: list[int] = []
        for k in group:
            size = rows[k] * (sum(starts[i] for i in batch) + starts[k])
            if batch and (size > ELEMENTS or rows[k] > LONGER * rows[batch[0]]):
                out.append(batch)
                batch = []
            batch.append(k)
        out.append(batch)
    return out


def stacked(problems: Sequence[Problem]) -> Problem:
    """One problem with the rows of each of K problems, (K, n): shorter ones repeat their last row without weight."""
    first = problems[0]
    if len(problems) == 1:
        return first
    rows = max(problem.target.shape[-1] for problem in problems)
    return replace(
        first,
        columns=Columns.stacked([problem.columns for problem in problems], rows),
        target=np.stack([_padded(problem.target, rows) for problem in problems]),
        weights=np.stack([_without_weight(problem.weights, rows) for problem in problems]),
    )


def _padded(values: Array, rows: int) -> Array:
    return np.pad(values, (0, rows - len(values)), mode="edge")


def _without_weight(weights: Array, rows: int) -> Array:
    return np.pad(weights, (0, rows - len(weights)))
