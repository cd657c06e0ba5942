"""Metrics of a set of images beside a Frechet distance, from its features: one place for runs and for `evaluate`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .sets import inception_score, kid, mind, precision_recall


class SetFigure(NamedTuple):
    """A value with its standard error (None where none is known), its name in results.schema and for people, and what
    its protocol says of it."""

    metric: str
    stem: str
    value: float
    standard_error: float | None
    settings: str
    seed: int | None = None


def compare(metric: str, features: Tensor, references: Tensor, seed: int) -> list[SetFigure]:
    """`kid`, `precision-recall` or `mind` of features [n, d] against those of reference images [m, d]."""
    if metric == "kid":
        estimate = kid.kid(features, references)
        settings = f"subsets={kid.SUBSETS} size={estimate.size}"
        return [SetFigure("kid", "KID", estimate.value, estimate.standard_error, settings, 2020)]
    if metric == "precision-recall":
        shares = precision_recall.precision_recall(features, references)
        settings = f"k={precision_recall.NEIGHBOUR} references={len(references)}"
        values = (("precision", shares.precision), ("recall", shares.recall))
        return [SetFigure(name, name, value, None, settings) for name, value in values]
    if metric == "mind":
        settings = f"directions={mind.DIRECTIONS} used={min(len(features), len(references))}"
        value = mind.mind(features, references, seed=seed)
        return [SetFigure("mind", "MIND", value, None, settings, seed)]
    raise ValueError(f"metric = {metric!r} is not allowed; allowed: kid, precision-recall, mind")


def score(logits: Tensor) -> SetFigure:
    """The Inception Score of logits [n, classes]."""
    of_classes = inception_score.inception_score(logits)
    settings = f"parts={inception_score.PARTS}"
    return SetFigure("inception_score", "IS", of_classes.value, of_classes.standard_error, settings, 2020)
