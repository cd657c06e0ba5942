"""Learning rates and the order of work: trunk segments, and the decay forked for each budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from results.schema import TRUNK, decay_branch
from scaling.specification.spec import GeneratorRun, OptimiserSpec, RunSpec, TokenizerRun

WARMUP_START = 0.1
"""Warm-up begins at this share of the peak (paper App. A: 1e-5 of 1e-4, 3e-4 of 3e-3)."""


@dataclass(frozen=True)
class ScheduleSegment:
    """Images start .. end of one branch. At the end of a segment with `evaluated`, the branch is measured; a decay
    segment starts from the trunk's state, and the trunk goes on from where it was forked. An `interim` measurement is
    of the trunk as it is, at no budget."""

    branch: str
    start: int
    end: int
    evaluated: bool
    interim: bool = False

    @property
    def decays(self) -> bool:
        """Whether this is a decay forked off the trunk."""
        return self.branch != TRUNK


def segments(run: RunSpec) -> tuple[ScheduleSegment, ...]:
    """What a run executes, in order."""
    places = () if isinstance(run, TokenizerRun) else run.evaluate_images
    return tuple(piece for segment in _branches(run) for piece in _cut(segment, places))


def _cut(segment: ScheduleSegment, places: tuple[int, ...]) -> list[ScheduleSegment]:
    """A segment of the trunk in pieces, with an interim measurement at each place in it."""
    if segment.decays:
        return [segment]
    within = [place for place in places if segment.start < place < segment.end]
    edges = pairwise((segment.start, *within))
    pieces = [ScheduleSegment(segment.branch, start, end, evaluated=True, interim=True) for start, end in edges]
    last = replace(segment, start=within[-1]) if within else segment
    if segment.end in places and not segment.evaluated:
        last = replace(last, evaluated=True, interim=True)
    return [*pieces, last]


def _branches(run: RunSpec) -> tuple[ScheduleSegment, ...]:
    if isinstance(run, TokenizerRun) or run.schedule == "cosine":
        return (ScheduleSegment(TRUNK, 0, run.executed_images, evaluated=True),)
    if run.schedule == "constant":
        edges = pairwise((0, *run.train_images))
        return tuple(ScheduleSegment(TRUNK, start, end, evaluated=True) for start, end in edges)
    branches, position = [], 0
    for budget in run.train_images:
        fork = budget - run.decay_images(budget)
        if fork > position:
            branches.append(ScheduleSegment(TRUNK, position, fork, evaluated=False))
        branches.append(ScheduleSegment(decay_branch(budget), fork, budget, evaluated=True))
        position = max(position, fork)
    return tuple(branches)


def warmup(optimiser: OptimiserSpec, images: int) -> float:
    """Factor of the peak learning rate after `images` images: linear from WARMUP_START to 1."""
    if images >= optimiser.warmup_images:
        return 1.0
    return WARMUP_START + (1 - WARMUP_START) * images / optimiser.warmup_images


def one_minus_sqrt(progress: float) -> float:
    """The decay of arXiv 2405.18392: 1 - sqrt(progress), for progress from 0 to 1."""
    return 1 - math.sqrt(min(max(progress, 0.0), 1.0))


def tokenizer_learning_rate(run: TokenizerRun, images: int) -> float:
    """Learning rate of the step that starts after `images` images."""
    rate = run.optimiser.learning_rate * warmup(run.optimiser, images)
    decay_start = (1 - run.decay_fraction) * run.train_images
    if images > decay_start:
        rate *= one_minus_sqrt((images - decay_start) / (run.train_images - decay_start))
    return rate


def generator_learning_rate(run: GeneratorRun, segment: ScheduleSegment, images: int) -> float:
    """Learning rate of the step that starts after `images` images of a segment."""
    rate = run.optimiser.learning_rate * warmup(run.optimiser, images)
    if run.schedule == "cosine":
        start, end = run.optimiser.warmup_images, run.train_images[0]
        if images > start:
            rate *= 0.5 * (1 + math.cos(math.pi * (images - start) / (end - start)))
    elif segment.decays:
        rate *= one_minus_sqrt((images - segment.start) / (segment.end - segment.start))
    return rate
