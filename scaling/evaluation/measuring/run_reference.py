"""The images that a run is compared with, in each of its feature spaces, with one pass of features a space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from scaling.data.run_images import RunImages

from ..fid import reference_moments
from ..memorisation import kept_features, training_features
from ..networks.features import features_in_order
from ..networks.run_networks import Judge
from ..sets.moments import Moments

MOST_KEPT = 2**27
"""Values of features of a split that are kept whole: 100,000 images of 1,280 in half a gigabyte."""
ROWS = 5_000


def training_moments(images: RunImages, judge: Judge, cache: Path, step: Callable[[], None] = lambda: None) -> Moments:
    """Moments of the training images under a network, kept in `cache`.

    A general network takes most of an evaluation's time, and memorisation needs the same features: where they are few
    enough they are kept, and nothing is computed twice.
    """
    keeps = judge.dimensions is not None and judge.dimensions * images.data.train_images <= MOST_KEPT

    def known() -> Iterable[Tensor]:
        features, _ = training_features(images, judge.network, judge.sha256, cache, step)
        return features.split(ROWS)

    return reference_moments(images, "train", judge.network, cache, step, known if keeps else None)


def held_out_features(images: RunImages, judge: Judge, cache: Path, step: Callable[[], None] = lambda: None) -> Tensor:
    """Features [n, d] of the validation images under a network. They are those of every tokenizer of a study, so where
    they are few enough they are kept in `cache`."""
    if (judge.dimensions or 0) * images.data.validation_images <= MOST_KEPT:
        return kept_features(images, "validation", judge.network, judge.sha256, cache, step)
    return torch.cat(list(features_in_order(judge.network, images.central("validation"), step=step)))
