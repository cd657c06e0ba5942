"""Inception Score (arXiv 1606.03498): exp of the mean divergence of an image's classes from the mean over images.

IS = exp(mean_i KL(p_i || mean p)), p the softmax of a classifier's logits; over ten parts of the samples in random
order, as the field does, the mean is reported. It needs no reference, so it cannot tell whether images look like the
data, nor see a lack of variety within a class; it has a meaning only where the classifier's classes are the data's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PARTS = 10
SEED = 2020
"""torch-fidelity's, whose order of the samples is drawn again."""


@dataclass(frozen=True)
class InceptionScore:
    """Mean over parts, their standard deviation (which the field prints), and the standard error of the mean."""

    value: float
    spread: float
    standard_error: float
    n: int


def inception_score(logits: Tensor, parts: int = PARTS, seed: int = SEED) -> InceptionScore:
    """Of logits [n, classes]. Raises ValueError for fewer rows than parts, or values that are not finite.

    The bias of a part of n / parts rows (the score is too low) is not in the standard error; the parts are disjoint, so
    their scatter / parts^1/2 is the error over the draw of samples.
    """
    if logits.ndim != 2 or len(logits) < parts:
        raise ValueError(f"an Inception Score of {parts} parts needs at least as many rows, not {list(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits hold values that are not finite")
    n = len(logits)
    order = np.random.RandomState(seed).permutation(n)
    logs = logits[torch.from_numpy(order).to(logits.device)].to("cpu", torch.float64).log_softmax(dim=1)
    scores = []
    for i in range(parts):
        part = logs[i * n // parts : (i + 1) * n // parts]
        marginal = part.exp().mean(dim=0).log()
        # A class of probability 0 everywhere adds 0, not 0 x (-inf - -inf).
        divergence = torch.where(part.exp() > 0, part.exp() * (part - marginal), 0.0).sum(dim=1).mean()
        scores.append(float(divergence.exp()))
    spread = float(np.std(scores))
    error = float(np.std(scores, ddof=1) / parts**0.5) if parts > 1 else float("nan")
    return InceptionScore(float(np.mean(scores)), spread, error, n)
