"""KID, Inception Score, precision and recall, MIND: closed forms, small re-implementations, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.evaluation.sets.inception_score import inception_score
from scaling.evaluation.sets.kid import kid
from scaling.evaluation.sets.mind import mind
from scaling.evaluation.sets.precision_recall import precision_recall


def normal(seed: int, n: int, d: int, shift: float = 0.0) -> Tensor:
    """Standard normal rows, moved along the first axis."""
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    features[:, 0] += shift
    return features


def test_kid_is_the_unbiased_sum_over_pairs() -> None:
    x, y = normal(0, 12, 5), normal(1, 12, 5, 1.0)

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / 5 + 1) ** 3

    pairs = [(i, j) for i in range(12) for j in range(12)]
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i, j in pairs if i != j) / (12 * 11)
    across = sum(kernel(x[i], y[j]) for i, j in pairs) / 144
    estimate = kid(x, y, subsets=3, size=12)
    assert estimate.value == pytest.approx(within - 2 * across, rel=1e-9)
    assert estimate.standard_error is None


def test_kid_draws_the_fields_subsets() -> None:
    """torch-fidelity 0.4.0: RandomState(2020), a subset of each side in turn."""
    x, y = normal(0, 60, 4), normal(1, 50, 4, 0.5)
    draws = np.random.RandomState(2020)
    values = []
    for _ in range(7):
        a = x[draws.choice(60, 20, replace=False)].double().numpy()
        b = y[draws.choice(50, 20, replace=False)].double().numpy()
        aa, bb, ab = ((p @ q.T / 4 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        values.append((aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (20 * 19) - 2 * ab.mean())
    assert kid(x, y, subsets=7, size=20).value == pytest.approx(np.mean(values), rel=1e-9)


def test_kid_is_not_biased_and_its_error_covers() -> None:
    values, inside = [], 0
    for seed in range(40):
        estimate = kid(normal(2 * seed, 400, 6, 0.6), normal(2 * seed + 1, 400, 6), subsets=20, size=80)
        values.append(estimate)
    truth = sum(v.value for v in values) / len(values)
    inside = sum(abs(v.value - truth) < 2 * (v.standard_error or 0) for v in values)
    assert inside >= 34
    equal = [kid(normal(2 * s, 200, 6), normal(2 * s + 1, 200, 6), subsets=10, size=50).value for s in range(30)]
    assert abs(float(np.mean(equal))) < 3 * float(np.std(equal)) / 30**0.5 + 1e-9


def test_inception_score_of_sure_and_of_unsure_classifiers() -> None:
    classes = torch.arange(1_000) % 10
    sure = torch.nn.functional.one_hot(classes, 10) * 1_000.0
    assert inception_score(sure).value == pytest.approx(10, rel=0.05)
    assert inception_score(torch.zeros(100, 10)).value == pytest.approx(1)
    assert inception_score(torch.zeros(100, 10)).standard_error == 0


def test_inception_score_by_its_definition() -> None:
    logits = normal(0, 50, 7) * 2
    p = logits.double().softmax(1)
    by_hand = math.exp(float((p * (p.log() - p.mean(0).log())).sum(1).mean()))
    assert inception_score(logits, parts=1).value == pytest.approx(by_hand, rel=1e-12)


def test_precision_and_recall_by_all_distances() -> None:
    x, y = normal(0, 80, 3, 0.8), normal(1, 70, 3)
    d_xy = torch.cdist(x.double(), y.double())
    radius_x = torch.cdist(x.double(), x.double()).sort(1).values[:, 3]
    radius_y = torch.cdist(y.double(), y.double()).sort(1).values[:, 3]
    shares = precision_recall(x, y, chunk=16)
    assert shares.precision == pytest.approx(float((d_xy <= radius_y).any(1).double().mean()))
    assert shares.recall == pytest.approx(float((d_xy <= radius_x[:, None]).any(0).double().mean()))
    assert precision_recall(x, x).precision == 1.0
    far = precision_recall(x + 100, x)
    assert (far.precision, far.recall) == (0.0, 0.0)
    few = precision_recall(y[:1].repeat(40, 1) + 1e-3 * normal(3, 40, 3), y)
    assert few.precision == 1.0 and few.recall < 0.2


def test_mind_of_shifted_sets_is_three_times_the_square() -> None:
    x = normal(0, 300, 16)
    shift = torch.zeros(16)
    shift[:2] = torch.tensor([3.0, 4.0])
    assert mind(x + shift, x, directions=4_000) == pytest.approx(3 * 25, rel=0.1)
    assert mind(x, x) == 0


def test_mind_on_a_line_is_that_of_sorted_values() -> None:
    x, y = normal(0, 50, 1), normal(1, 50, 1, 0.5)
    by_hand = 3 * float((x.sort(0).values - y.sort(0).values).square().mean())
    assert mind(x, y, directions=5) == pytest.approx(by_hand, rel=1e-5)
    assert mind(x, y[:30], seed=1) == mind(x, y[:30], seed=1) != mind(x, y[:30], seed=2)


def test_mind_tells_apart_what_moments_cannot() -> None:
    """Equal mean and covariance: FID sees nothing."""
    x = normal(0, 4_000, 2)
    signs = torch.randint(0, 2, (4_000, 2), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    assert mind(signs, x) > 20 * mind(normal(5, 4_000, 2), x)


@pytest.mark.parametrize("metric", [kid, precision_recall, mind])
@pytest.mark.parametrize(
    ("features", "reference", "message"),
    [
        (torch.ones(5), torch.ones(5, 2), "must be a matrix"),
        (torch.ones(5, 3), torch.ones(5, 2), "features of 3 and of 2 dimensions"),
        (torch.full((5, 2), float("nan")), torch.ones(5, 2), "not finite"),
        (torch.ones(5, 2), torch.full((5, 2), float("inf")), "reference features hold values that are not finite"),
        (torch.ones(0, 2), torch.ones(5, 2), "at least one row"),
    ],
)
def test_bad_features_are_refused(
    metric: Callable[[Tensor, Tensor], object], features: Tensor, reference: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(features, reference)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        kid(torch.ones(1, 2), torch.ones(9, 2))
    with pytest.raises(ValueError, match="more than 3 images"):
        precision_recall(torch.ones(3, 2), torch.ones(9, 2))
    with pytest.raises(ValueError, match="10 parts"):
        inception_score(torch.ones(9, 2))
    with pytest.raises(ValueError, match="not finite"):
        inception_score(torch.full((20, 2), float("nan")))
