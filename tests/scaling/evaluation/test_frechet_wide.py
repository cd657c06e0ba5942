"""Wide features: the fast route and its rule, streamed moments, first-order standard errors."""

from __future__ import annotations

import pytest
import torch
from scipy import linalg
from torch import Tensor

from scaling.evaluation.fid import frechet_estimate, paired_frechet_estimate
from scaling.evaluation.sets import frechet
from scaling.evaluation.sets.fid_curve import frechet_curve
from scaling.evaluation.sets.moments import Moments, MomentsStream

WIDE = 300


def rows(seed: int, n: int, d: int = WIDE, orders: float = 2, factor: float = 1.0) -> Tensor:
    """Rows whose standard deviations fall over some orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -orders, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scales * factor


def by_square_root(a: Moments, b: Moments) -> float:
    """pytorch-fid's formula."""
    product = linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    means = float((a.mean - b.mean).square().sum())
    return means + float(a.covariance.trace() + b.covariance.trace()) - 2 * float(product.trace().real)


def test_fast_route_agrees_with_the_square_root() -> None:
    a, b = Moments.of(rows(0, 900)), Moments.of(rows(1, 800, factor=1.2))
    fast = frechet.fast_distance(a, b)
    assert fast is not None
    assert fast == pytest.approx(by_square_root(a, b), rel=1e-6)
    assert fast == pytest.approx(frechet.exact_distance(a, b), rel=1e-9)
    assert frechet.distance(a, b) == fast
    assert frechet.distance(b, a) == pytest.approx(fast, rel=1e-9)


@pytest.mark.parametrize("n", [2, 100, WIDE, WIDE + 1])
def test_fewer_rows_than_dimensions_take_the_exact_route(n: int) -> None:
    a, b = Moments.of(rows(0, n)), Moments.of(rows(1, 900, factor=1.2))
    assert frechet.fast_distance(a, b) is None or n > WIDE
    assert frechet.distance(a, b) == pytest.approx(frechet.exact_distance(a, b), rel=1e-6)


def test_ill_conditioned_moments_take_the_exact_route() -> None:
    steep = [Moments.of(rows(seed, 900, orders=9)) for seed in (0, 1)]
    assert frechet.fast_distance(*steep) is None
    constant = [Moments.of(torch.cat([rows(seed, 900), torch.ones(900, 1)], dim=1)) for seed in (0, 1)]
    assert frechet.fast_distance(*constant) is None
    assert frechet.distance(*constant) == frechet.exact_distance(*constant) > 0


@pytest.mark.parametrize("orders", [0.5, 2, 3, 4, 5])
def test_whatever_the_rule_accepts_is_within_a_millionth(orders: float) -> None:
    a, b = Moments.of(rows(2, 700, orders=orders)), Moments.of(rows(3, 700, orders=orders, factor=1.1))
    assert frechet.distance(a, b) == pytest.approx(frechet.exact_distance(a, b), rel=1e-6)


def test_equal_moments_are_at_no_distance() -> None:
    a = Moments.of(rows(0, 900))
    assert frechet.distance(a, a) < 1e-9


def test_narrow_features_take_todays_route_bit_for_bit() -> None:
    a, b = Moments.of(rows(0, 400, 96)), Moments.of(rows(1, 400, 96, factor=1.2))
    assert frechet.distance(a, b) == frechet.exact_distance(a, b)


@pytest.mark.parametrize("sizes", [[1, 1, 998], [250] * 4, [1000]])
def test_stream_in_chunks_and_ranks_is_the_whole(sizes: list[int]) -> None:
    features = rows(0, 1_000, 40) + 1_000
    whole, parts = Moments.of(features), []
    for chunk in features.split(sizes):
        stream = MomentsStream()
        stream.add(chunk)
        parts.append(stream.moments)
    stream = MomentsStream()
    for chunk in features.to(torch.float32).split(sizes):
        stream.add(chunk)
    total = Moments.total(parts)
    assert total.count == stream.count == 1_000
    torch.testing.assert_close(total.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(total.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(stream.moments.scatter, Moments.of(features.float()).scatter, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([torch.zeros(3)], "must be a matrix"),
        ([torch.ones(2, 3), torch.ones(2, 4)], "4 dimensions after ones of 3"),
        ([torch.tensor([[1.0, float("nan")]])], "not finite"),
        ([torch.tensor([[1.0, float("inf")]])], "not finite"),
        ([], "no features"),
    ],
)
def test_bad_features_are_refused(chunks: list[Tensor], message: str) -> None:
    stream = MomentsStream()
    with pytest.raises(ValueError, match=message):
        for chunk in chunks:
            stream.add(chunk)
        _ = stream.moments


def test_influence_is_the_gradient() -> None:
    """Against the change of the distance when one row weighs a little more."""
    x, other = rows(0, 200, 8, orders=0.5), Moments.of(rows(1, 200, 8, orders=0.5, factor=1.3) + 0.2)
    moments = Moments.of(x)
    influence = frechet.Influence.of(moments, other).of_rows(x)
    influence = influence - influence.mean()
    small = 1e-5
    for index in (0, 50):
        deviation = x[index] - moments.mean
        covariance = moments.scatter / 200
        mean = moments.mean + small * deviation
        moved = covariance + small * (torch.outer(deviation, deviation) - covariance)
        changed = Moments(10**9, mean, moved * (10**9 - 1))
        still = Moments(10**9, moments.mean, covariance * (10**9 - 1))
        slope = (frechet.exact_distance(changed, other) - frechet.exact_distance(still, other)) / small
        assert slope == pytest.approx(float(influence[index]), rel=0.02, abs=0.02)


@pytest.mark.parametrize(("n", "tails"), [(80, 0.0), (400, 0.0), (400, 0.5)])
def test_standard_errors_cover(n: int, tails: float) -> None:
    """Nominal 95 % around the mean estimate; 120 draws, whose own error is 2 %."""
    generator, d = torch.Generator().manual_seed(5), 24
    scales = torch.logspace(0, -1, d, dtype=torch.float64)
    reference = Moments(10**9, 0.2 * scales, torch.diag(1.8 * scales**2) * (10**9 - 1))
    values, stated = [], []
    for _ in range(120):
        features = torch.randn(n, d, generator=generator, dtype=torch.float64) * scales
        features *= torch.exp(tails * torch.randn(n, 1, generator=generator, dtype=torch.float64) - tails**2)
        values.append(frechet.exact_distance(Moments.of(features), reference))
        stated.append(frechet.standard_error(features, reference))
    value, error = torch.tensor(values), torch.tensor(stated)
    inside = float(((value - value.mean()).abs() < 1.96 * error).double().mean())
    assert 0.88 <= inside <= 1.0
    assert 0.8 < float(error.mean() / value.std()) < 1.4


def test_wide_estimates_use_it_and_pairs_count_once() -> None:
    x, reference = rows(0, 900), Moments.of(rows(1, 900, factor=1.2))
    estimate = frechet_estimate(x, reference)
    assert estimate.value == frechet.distance(Moments.of(x), reference)
    assert estimate.standard_error == frechet.standard_error(x, reference)
    noisy = x + 0.3 * rows(7, 900)
    paired = paired_frechet_estimate(noisy, x)
    apart = frechet_estimate(noisy, Moments.of(x))
    assert 0 < paired.standard_error < apart.standard_error
    with pytest.raises(ValueError, match="at least 25 images, not 10"):
        frechet.standard_error(x[:10], reference)


def test_curve_falls_to_its_limit() -> None:
    truth = Moments(10**9, torch.zeros(20, dtype=torch.float64), torch.eye(20, dtype=torch.float64) * (10**9 - 1))
    curve = frechet_curve(rows(0, 4_000, 20, orders=0), truth)
    assert curve.sizes[0] == 1_000 and curve.sizes[-1] == 4_000
    assert curve.values[0] > curve.values[-1] > abs(curve.limit)
    assert curve.slope > 0
    with pytest.raises(ValueError, match="allowed: at least two different ones from 2 to 50"):
        frechet_curve(rows(0, 50, 20), truth, [60, 70])
