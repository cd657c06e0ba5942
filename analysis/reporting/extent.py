"""How much of a large study is compared and drawn: the tokenizers that lead somewhere, and that this is said.

Comparing every two of a hundred tokenizers answers nothing that a reader could hold, and takes hours. Ranking pairs,
the tables and the page's chart always take all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from analysis.tokenizers.frames import StudyFrames

FEW = 12
"""Tokenizers of which every two are compared and all are drawn."""
MOST = 8
"""Tokenizers compared and drawn of more: what colours tell apart."""
MOST_LAWS = 160
"""Laws of single seeds fitted of more tokenizers than FEW."""
BINS = 12


def leading(frames: StudyFrames, most: int = MOST) -> list[str]:
    """All families of a study with few, in order of rate; else those with the lowest median of the metric in a twelfth
    of the points by compute, filled up to `most` with those of the lowest value."""
    families = [str(family) for family in frames.families["family"]]
    if len(families) <= FEW:
        return families
    points = frames.ranked
    if points.empty:
        return families[:most]
    rank = points["path_flops"].rank(method="first").to_numpy()
    twelfth = np.floor((rank - 1) / len(points) * BINS)
    medians = points.groupby([twelfth, points["family"]])["gfid"].median()
    best = [str(medians.loc[b].idxmin()) for b in np.unique(twelfth)]
    lowest = points.groupby("family")["gfid"].min().sort_values(kind="stable").index.astype(str)
    chosen = set(list(dict.fromkeys([*best, *lowest]))[:most])
    return [family for family in families if family in chosen]


def with_laws(frames: StudyFrames, families: list[str], floors: int) -> list[str]:
    """Those of `families` whose fronts get a law for each seed."""
    if len(frames.families) <= FEW:
        return families
    seeds = int(frames.families["tokenizer_seeds"].max())
    return families[: max(2, MOST_LAWS // max(1, seeds * floors))]


def drawn_frames(frames: StudyFrames, compared: Iterable[str]) -> StudyFrames:
    """The study as figures show it: of the leading tokenizers and those `compared` where there are many, else whole."""
    families = leading(frames)
    if len(families) == len(frames.families):
        return frames
    families = [*families, *compared]
    runs = frames.runs[frames.runs["family"].isin(families) | (frames.runs["stage"] == "run")]
    ids = set(runs["run_id"])
    curves, evaluations = (table[table["run_id"].isin(ids)] for table in (frames.curves, frames.evaluations))
    return replace(frames, runs=runs, curves=curves, evaluations=evaluations)


def extent_note(frames: StudyFrames, families: list[str]) -> str | None:
    """What a large study's answer leaves to the tables; None where it leaves nothing."""
    total = len(frames.families)
    if len(families) == total:
        return None
    return (
        f"Of {total} tokenizers the {len(families)} that lead at some compute or reach the lowest values are compared "
        "with each other and drawn; the best pairs are sought among all, and tables and chart have all"
    )
