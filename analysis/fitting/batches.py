"""Problems of one law side by side: which of them share a batch, and their rows at one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .law import Columns
from .problem import Problem

ELEMENTS = 60_000  # starts x rows of one batch: its arrays stay in the processor's cache
LONGER = 2.0  # rows of a batch's longest problem over those of its shortest: the rest is padding


def batches(problems: Sequence[Problem], starts: Sequence[int], which: Sequence[int]) -> list[list[int]]:
    """Indices `which` of problems, by those that are searched together; starts: how many each problem has.

    Together go problems of similar length with the same loss in scaled units. Least absolute deviations are solved one
    problem at a time.
    """
    out: list[list[int]] = []
    alike: dict[object, list[int]] = {}
    for k in sorted(which, key=lambda k: problems[k].target.shape[-1]):
        alone = k if problems[k].loss.kind == "lad" else None
        alike.setdefault((problems[k].loss, alone), []).append(k)
    for group in alike.values():
        batch: list[int] = []
        for k in group:
            count, rows = sum(starts[i] for i in batch) + starts[k], problems[k].target.shape[-1]
            if batch and (count * rows > ELEMENTS or rows > LONGER * problems[batch[0]].target.shape[-1]):
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
    missing = [(0, rows - problem.target.shape[-1]) for problem in problems]
    return replace(
        first,
        columns=Columns.stacked([problem.columns for problem in problems], rows),
        target=np.stack([np.pad(q.target, pad, mode="edge") for q, pad in zip(problems, missing, strict=True)]),
        weights=np.stack([np.pad(q.weights, pad) for q, pad in zip(problems, missing, strict=True)]),
    )
