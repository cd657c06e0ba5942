"""Wide features: the fast route and its rule, streamed moments, standard errors."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import linalg
from torch import Tensor

from scaling.evaluation.fid import frechet_estimate, paired_frechet_estimate
from scaling.evaluation.sets import frechet, frechet_error
from scaling.evaluation.sets.fid_curve import frechet_curve
from scaling.evaluation.sets.frechet_error import Deletions
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


@pytest.mark.parametrize("n", [60, 12])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("left_out", [[3], [1, 4], [2, 5, 7]])
def test_distances_without_rows_are_those_of_what_is_left(n: int, paired: bool, left_out: list[int]) -> None:
    """More rows than dimensions, and fewer; every row is left out on both sides where the other is of the same."""
    x = rows(0, n, 20, orders=1.5)
    originals = x + 0.5 * rows(1, n, 20, orders=1.5) + 0.1
    fixed = Moments.of(rows(2, 200, 20, orders=1.5, factor=1.2))
    kept = [row for row in range(n) if row not in left_out]
    expected = frechet.exact_distance(Moments.of(x[kept]), Moments.of(originals[kept]) if paired else fixed)
    deleted = Deletions.of(x, originals if paired else fixed)
    (value,) = deleted.distances(torch.tensor([[0, *left_out]]), [tuple(range(1, len(left_out) + 1))])
    assert float(value) == pytest.approx(expected, rel=1e-7 if n > 20 else 1e-4)
    whole = frechet.exact_distance(Moments.of(x), Moments.of(originals) if paired else fixed)
    assert deleted.whole == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.7])
def test_variance_of_terms(share: float) -> None:
    """Terms of one row alone, of pairs alone, and those of a log-determinant with more of one row."""
    terms = [2 * share**k / k for k in range(1, 200)]

    def sums(a: list[float]) -> list[float]:
        return [sum(math.comb(k, order) * term for k, term in enumerate(a, 1)) for order in (1, 2, 3)]

    assert frechet_error.variance(*sums(terms)) == pytest.approx(-2 * math.log(1 - share), rel=1e-9)
    assert frechet_error.variance(*sums([terms[0] + 3, *terms[1:]])) == pytest.approx(sum(terms) + 3, rel=1e-9)
    assert frechet_error.variance(*sums([0.0, share])) == pytest.approx(share)
    assert frechet_error.variance(*sums([share])) == pytest.approx(share)
    assert frechet_error.variance(0.0, 0.0, 0.0) == 0.0


def test_error_of_a_log_determinant_is_known() -> None:
    """Var log det of the covariance of n Gaussian rows is 2 (y + y^2 / 2 + ...), y = d / n (Bartlett 1933); a distance
    holds the sum of roots instead, whose terms the same three numbers state: against the scatter of many distances."""
    generator, n, d = torch.Generator().manual_seed(3), 50, 20
    identity = Moments(10**9, torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64) * (10**9 - 1))
    draws = [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(400)]
    values = torch.tensor([frechet.exact_distance(Moments.of(draw), identity) for draw in draws])
    stated = torch.tensor([frechet_error.standard_error(draw, identity) for draw in draws[:10]])
    # At the noise floor the usual jackknife states 1.4 to 1.5 times the scatter.
    assert 0.85 < float(stated.mean() / values.std()) < 1.2


def test_constant_features_have_no_error() -> None:
    same = torch.ones(40, 6, dtype=torch.float64)
    assert frechet_error.standard_error(same, Moments.of(rows(0, 50, 6))) == 0.0
    assert frechet_error.standard_error(same, same) == 0.0
    partly = torch.cat([rows(0, 40, 5), torch.ones(40, 1, dtype=torch.float64)], dim=1)
    assert frechet_error.standard_error(partly, Moments.of(rows(0, 50, 6))) > 0


@pytest.mark.parametrize(
    ("n", "tails", "apart"),
    [(80, 0.0, True), (400, 0.0, True), (400, 0.5, True), (80, 0.0, False), (400, 0.0, False)],
)
def test_standard_errors_cover(n: int, tails: float, apart: bool) -> None:
    """Nominal 95 % around the mean estimate, far from the reference and at the noise floor: 12 stated errors, each
    tried at 500 estimates; coverage is then known to about 2 %."""
    generator, d = torch.Generator().manual_seed(5), 24
    scales = torch.logspace(0, -1, d, dtype=torch.float64)
    mean, scatter = (0.2 * scales, 1.8 * scales**2) if apart else (torch.zeros_like(scales), scales**2)
    reference = Moments(10**9, mean, torch.diag(scatter) * (10**9 - 1))
    values, stated = [], []
    for _ in range(500):
        features = torch.randn(n, d, generator=generator, dtype=torch.float64) * scales
        features *= torch.exp(tails * torch.randn(n, 1, generator=generator, dtype=torch.float64) - tails**2)
        values.append(frechet.exact_distance(Moments.of(features), reference))
        if len(stated) < 12:
            stated.append(frechet_error.standard_error(features, reference))
    value, error = torch.tensor(values), torch.tensor(stated)
    inside = float(((value - value.mean()).abs()[:, None] < 1.96 * error[None]).double().mean())
    assert 0.91 <= inside <= 0.98
    assert 0.85 < float(error.mean() / value.std()) < 1.2


def test_wide_estimates_use_it_and_pairs_count_once() -> None:
    x, reference = rows(0, 900), Moments.of(rows(1, 900, factor=1.2))
    estimate = frechet_estimate(x, reference)
    assert estimate.value == frechet.distance(Moments.of(x), reference)
    assert estimate.standard_error == frechet_error.standard_error(x, reference)
    noisy = x + 0.3 * rows(7, 900)
    paired = paired_frechet_estimate(noisy, x)
    apart = frechet_estimate(noisy, Moments.of(x))
    assert 0 < paired.standard_error < apart.standard_error
    with pytest.raises(ValueError, match="at least 25 images, not 10"):
        frechet_error.standard_error(x[:10], reference)


def test_curve_falls_to_its_limit() -> None:
    truth = Moments(10**9, torch.zeros(20, dtype=torch.float64), torch.eye(20, dtype=torch.float64) * (10**9 - 1))
    curve = frechet_curve(rows(0, 4_000, 20, orders=0), truth)
    assert curve.sizes[0] == 1_000 and curve.sizes[-1] == 4_000
    assert curve.values[0] > curve.values[-1] > abs(curve.limit)
    assert curve.slope > 0
    with pytest.raises(ValueError, match="allowed: at least two different ones from 2 to 50"):
        frechet_curve(rows(0, 50, 20), truth, [60, 70])
