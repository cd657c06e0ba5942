"""The gallery: every figure of a study by name, with its title and caption, and the writer of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analysis.reporting.answer import Answer, answer
from analysis.tokenizers.frames import StudyFrames
from results.store import atomic

from . import best_pair, compute, regulariser, runs
from .style import FORMATS, STYLES, named, save

Draw = Callable[[StudyFrames, Answer, str], Figure | None]
"""A figure in a style, or None if the study holds nothing to show in it."""


@dataclass(frozen=True)
class GalleryFigure:
    """A figure: file name, what draws it, title, and caption for a report."""

    name: str
    draw: Draw
    title: str
    caption: str


GALLERY: tuple[GalleryFigure, ...] = (
    GalleryFigure(
        "worse-is-better", best_pair.worse_is_better, "Reconstruction against generation",
        "Each tokenizer's rFID against the gFID of the best generator trained on it, one line a compute budget. A line "
        "that falls to the right says that at this budget the tokenizer that reconstructs worse is the one to train "
        "on. Rings mark the lowest gFID at each budget, bars are 95 % intervals over tokenizer seeds, hollow points "
        "are tokenizers with the regulariser.",
    ),
    GalleryFigure(
        "gfid-compute", compute.gfid_against_compute, "gFID against compute",
        "Points are the ends of all decays; thin lines each tokenizer seed along the Pareto front that the other seeds "
        "select, thick ones their geometric mean. The grey band is the 95 % interval of the crossover: all compute at "
        "which the paired test over tokenizer seeds cannot tell the two fronts apart.",
    ),
    GalleryFigure(
        "regulariser", regulariser.regulariser_effect, "The causal regulariser at equal compute",
        "Pairs share tokenizer seed, generator seed, size and budget. Dots are seeds, bars 95 % t intervals over them; "
        "diamonds average over budgets within each seed first.",
    ),
    GalleryFigure(
        "compute-multiplier", regulariser.compute_multiplier, "Compute multiplier of the regulariser",
        "Compute without the regulariser divided by compute with it, at the same gFID. Stage 1 is not counted.",
    ),
    GalleryFigure(
        "best-pair", best_pair.best_pair_at_budgets, "Best pair at three budgets",
        "Expected gFID with its 95 % interval; in percent the probability that the pair is the best of those measured, "
        "from a hierarchical model over tokenizer seeds.",
    ),
    GalleryFigure(
        "best-tokenizer", best_pair.best_tokenizer_by_compute, "Best tokenizer by compute",
        "Probability that the best pair uses each tokenizer, summed over generator sizes.",
    ),
    GalleryFigure(
        "cross-entropy", compute.cross_entropy_against_compute, "Cross-entropy",
        "Bits per pixel share a unit, not a quality: they compare generators on one tokenizer, and tokenizers only at "
        "matched rate or matched rFID.",
    ),
    GalleryFigure(
        "training", runs.training_curves, "Training",
        "Losses along the trunks, before any decay. Markers tell generator sizes apart.",
    ),
    GalleryFigure(
        "memorisation", runs.memorisation, "Memorisation",
        "Distance from samples to their nearest training images in feature space, relative to that of held-out images. "
        "A near copy is a sample closer to a training image than 99 % of held-out images are.",
    ),
    GalleryFigure(
        "own-metrics", runs.own_metrics, "Metrics of your own",
        "Dots are measurements at the ends of runs, lines join the means of one series.",
    ),
)  # fmt: skip


def entry(name: str) -> GalleryFigure:
    """A figure by name. Raises UsageError, listing what is allowed."""
    return named("figure", name, {figure.name: figure for figure in GALLERY})


def drawn(
    frames: StudyFrames, answer: Answer, style: str = "report", names: Sequence[str] | None = None
) -> Iterator[tuple[GalleryFigure, Figure]]:
    """Every figure (or those named) for which the study has data, in the gallery's order."""
    for item in GALLERY if names is None else [entry(n) for n in names]:
        figure = item.draw(frames, answer, style)
        if figure is not None:
            yield item, figure


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
    for item, figure in drawn(frames, answer(frames), style, names):
        paths += [save(figure, out / f"{item.name}.{form}", style) for form in formats]
    return paths
