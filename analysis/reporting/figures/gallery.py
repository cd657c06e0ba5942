"""The gallery: every figure of a study by name, and the writer of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.reporting.answer import Answer, answer
from analysis.tokenizers.frames import StudyFrames
from results.store import atomic

from . import best_pair, compute, regulariser, runs
from .style import FORMATS, STYLES, named, save

Draw = Callable[[StudyFrames, Answer, str], Figure | None]
"""A figure in a style, or None if the study holds nothing to show in it."""


GALLERY: dict[str, Draw] = {
    "worse-is-better": best_pair.worse_is_better,
    "gfid-compute": compute.gfid_against_compute,
    "regulariser": regulariser.regulariser_effect,
    "compute-multiplier": regulariser.compute_multiplier,
    "best-pair": best_pair.best_pair_at_budgets,
    "best-tokenizer": best_pair.best_tokenizer_by_compute,
    "cross-entropy": compute.cross_entropy_against_compute,
    "training": runs.training_curves,
    "memorisation": runs.memorisation,
    "own-metrics": runs.own_metrics,
}


def drawn(
    frames: StudyFrames, answer: Answer, style: str = "report", names: Sequence[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """Every figure (or those named) for which the study has data, by its name, in the gallery's order.

    Raises UsageError for an unknown name, listing what is allowed.
    """
    chosen = {name: named("figure", name, GALLERY) for name in (GALLERY if names is None else names)}
    for name, draw in chosen.items():
        figure = draw(frames, answer, style)
        if figure is not None:
            yield name, figure


def write_figures(
    frames: StudyFrames,
    out: Path,
    *,
    style: str = "neurips",
    formats: Sequence[str] = ("pdf",),
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write all figures into a folder, one file a figure and format; returns the paths.

    Raises UsageError for an unknown style, format or name, StoreError on a full disk.
    """
    named("style", style, STYLES)
    for form in formats:
        named("format", form, FORMATS)
    atomic.make_folder(out)
    paths = []
    for name, figure in drawn(frames, answer(frames), style, names):
        paths += [save(figure, out / f"{name}.{form}", style) for form in formats]
    return paths
