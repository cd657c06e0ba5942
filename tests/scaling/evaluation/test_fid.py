"""Frechet distance against closed forms and scipy's square root; moments; standard error; reference cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from results.errors import DataError
from scaling.data import run_images
from scaling.data.images import Images, load_images
from scaling.data.run_images import RunImages
from scaling.evaluation import fid
from scaling.evaluation.fid import Moments, frechet_distance, frechet_estimate, paired_frechet_estimate
from scaling.evaluation.networks.features import extract_features, load_network
from scaling.sealed_tensors import cached, seal, unseal
from scaling.specification.spec import DataSpec

seeds = st.integers(0, 2**32 - 1)


def gaussian(seed: int, n: int, d: int, spread: float = 1.0) -> Tensor:
    """Correlated features [n, d] in float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    shift = torch.randn(d, generator=generator, dtype=torch.float64)
    return spread * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift


def moments(mean: list[float] | Tensor, covariance: Tensor) -> Moments:
    """With exactly these values."""
    return Moments(11, torch.as_tensor(mean, dtype=torch.float64), covariance.to(torch.float64) * 10)


def by_square_root(a: Moments, b: Moments) -> float:
    """The usual formula, by scipy's square root of the product."""
    product = linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    means = ((a.mean - b.mean) ** 2).sum().item()
    return means + (torch.trace(a.covariance) + torch.trace(b.covariance)).item() - 2 * np.trace(product).real.item()


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 12), st.floats(0.01, 100))
def test_agrees_with_the_square_root_of_the_product(seed: int, d: int, spread: float) -> None:
    a, b = Moments.of(gaussian(seed, 40, d)), Moments.of(gaussian(seed + 1, 50, d, spread))
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 10))
def test_diagonal_covariances(seed: int, d: int) -> None:
    """Commuting covariances: |m|^2 + sum (sigma_a - sigma_b)^2."""
    generator = torch.Generator().manual_seed(seed)
    sigma_a, sigma_b, mean = torch.rand(3, d, generator=generator, dtype=torch.float64) * 3
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    a = moments(mean, rotation @ torch.diag(sigma_a**2) @ rotation.T)
    b = moments(torch.zeros(d), rotation @ torch.diag(sigma_b**2) @ rotation.T)
    expected = (mean.square().sum() + (sigma_a - sigma_b).square().sum()).item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_dimension_by_hand() -> None:
    a, b = moments([1.0], torch.tensor([[4.0]])), moments([3.0], torch.tensor([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx(4 + 1, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 10), st.integers(2, 30))
def test_symmetric_zero_for_equal_shift_invariant(seed: int, d: int, n: int) -> None:
    x, y = gaussian(seed, n, d), gaussian(seed + 1, n + 3, d)
    a, b = Moments.of(x), Moments.of(y)
    size = float(torch.trace(a.covariance))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-11 * max(size, 1))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10, abs=1e-11)
    assert frechet_distance(Moments.of(x + 5), Moments.of(y + 5)) == pytest.approx(frechet_distance(a, b), rel=1e-7)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rank_deficient(rank: int) -> None:
    """Covariances whose supports are orthogonal: the cross term is 0; with a constant set it is the other's trace."""
    d = 8
    basis = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    low = basis[:, :rank] @ basis[:, :rank].T
    rest = basis[:, rank:] @ basis[:, rank:].T
    a, b = moments(torch.zeros(d), 4 * low), moments(torch.zeros(d), 9 * rest)
    assert frechet_distance(a, b) == pytest.approx(4 * rank + 9 * (d - rank), rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, moments(torch.zeros(d), 9 * low)) == pytest.approx(rank, abs=1e-12)


def test_fewer_rows_than_dimensions() -> None:
    """Five rows in 64 dimensions, where the square root of the product fails or turns complex; truth by projection."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 64, generator=generator, dtype=torch.float64)
    # Both sets live in one 10-dimensional space: rotate into it and add independent jitter-free coordinates there.
    basis = torch.linalg.qr(torch.cat([x, y]).T).Q
    inside = frechet_distance(Moments.of(x @ basis), Moments.of(y @ basis))
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(inside, rel=1e-9)
    # And in general: tr sqrt(AB) = nuclear norm of the product of the centred data matrices over sqrt((n-1)(m-1)).
    cross = (x - x.mean(0)) @ (y - y.mean(0)).T / 4
    expected = (x.mean(0) - y.mean(0)).square().sum() + x.var(0).sum() + y.var(0).sum()
    expected = expected - 2 * torch.linalg.svdvals(cross).sum()
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected.item(), rel=1e-9)


def test_ill_conditioned() -> None:
    """Standard deviations over eight decades, in a shared rotation: truth is sum (sigma_a - sigma_b)^2."""
    d = 24
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    sigma = torch.logspace(-6, 2, d, dtype=torch.float64)
    a = moments(torch.zeros(d), rotation @ torch.diag(sigma**2) @ rotation.T)
    b = moments(torch.zeros(d), rotation @ torch.diag((1.01 * sigma) ** 2) @ rotation.T)
    assert frechet_distance(a, b) == pytest.approx((0.01 * sigma).square().sum().item(), rel=1e-6)


def test_dimensions_must_agree() -> None:
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        frechet_distance(Moments.of(gaussian(0, 9, 3)), Moments.of(gaussian(0, 9, 4)))


# --- moments


@settings(max_examples=40, deadline=None)
@given(seeds, st.lists(st.integers(1, 9), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_merged_parts_are_the_whole(seed: int, sizes: list[int], offset: float) -> None:
    features = gaussian(seed, sum(sizes), 5) + offset
    whole, parts = Moments.of(features), Moments.total(Moments.of(part) for part in features.split(sizes))
    assert parts.count == whole.count
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(parts.scatter, whole.scatter, rtol=1e-9, atol=1e-6)


def test_moments_are_numpys() -> None:
    features = gaussian(0, 30, 4)
    found = Moments.of(features.float())
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    np.testing.assert_allclose(found.covariance, np.cov(features.float().double().numpy(), rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.zeros(3), torch.tensor([[1.0, float("nan")]])])
def test_unusable_features(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="features"):
        Moments.of(bad)


def test_one_row_has_no_covariance() -> None:
    one = Moments.of(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least 2 rows"):
        _ = one.covariance
    with pytest.raises(ValueError, match="no parts"):
        Moments.total([])


def test_sealed_tensors_round_trip_and_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {"mean": gaussian(0, 1, 4)[0], "scatter": gaussian(0, 30, 4)}
    content = seal(tensors)
    again, _ = unseal(content)
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], value) for name, value in tensors.items())
    flipped = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in (3, 40, -2)]
    for damaged in (*flipped, content[: len(content) // 2]):
        with pytest.raises(DataError):
            unseal(damaged)
        path = tmp_path / "cache" / "file"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged)
        assert cached(path, lambda: tensors) is tensors and f"{path} is damaged" in caplog.text
        assert path.read_bytes() == content
    assert torch.equal(cached(path, lambda: pytest.fail("the cache was not used"))["mean"], tensors["mean"])


# --- standard error


def test_standard_error_is_the_scatter_of_repetitions() -> None:
    """Over 120 independent draws: the mean of the stated errors against the standard deviation of the values."""
    reference = Moments.of(gaussian(7, 20_000, 6))
    mixing = torch.linalg.cholesky(reference.covariance).T
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(120):
        draw = torch.randn(400, 6, generator=generator, dtype=torch.float64) @ (1.1 * mixing) + reference.mean + 0.2
        estimates.append(frechet_estimate(draw, reference))
    spread = float(np.std([estimate.value for estimate in estimates], ddof=1))
    stated = float(np.mean([estimate.standard_error for estimate in estimates]))
    # 120 draws know their standard deviation to 6.5 %; the jackknife is slightly conservative.
    assert 0.8 < stated / spread < 1.25


def test_paired_standard_error_is_the_scatter_of_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(120):
        originals = torch.randn(400, 6, generator=generator, dtype=torch.float64)
        noise = 0.5 * torch.randn(400, 6, generator=generator, dtype=torch.float64)
        estimates.append(paired_frechet_estimate(0.8 * originals + noise, originals))
    spread = float(np.std([estimate.value for estimate in estimates], ddof=1))
    stated = float(np.mean([estimate.standard_error for estimate in estimates]))
    assert 0.8 < stated / spread < 1.3


def test_estimate_is_the_distance_of_all() -> None:
    features, reference = gaussian(0, 100, 5), Moments.of(gaussian(1, 200, 5))
    estimate = frechet_estimate(features, reference)
    assert estimate.value == pytest.approx(frechet_distance(Moments.of(features), reference), rel=1e-9)
    assert estimate.n == 100 and estimate.standard_error > 0
    assert frechet_estimate(features, reference) == estimate
    pair = paired_frechet_estimate(features, gaussian(3, 100, 5))
    expected = frechet_distance(Moments.of(features), Moments.of(gaussian(3, 100, 5)))
    assert pair.value == pytest.approx(expected, rel=1e-9)


def test_estimates_need_enough_and_matching_rows() -> None:
    with pytest.raises(ValueError, match="at least 40 images, not 39"):
        frechet_estimate(gaussian(0, 39, 2), Moments.of(gaussian(0, 39, 2)))
    with pytest.raises(ValueError, match="do not match"):
        paired_frechet_estimate(gaussian(0, 50, 2), gaussian(0, 60, 2))


def test_held_out_images_are_the_same_for_one_protocol() -> None:
    chosen = fid.held_out_indices(100, 30, seed=1)
    assert len(set(chosen.tolist())) == 30 and torch.equal(chosen, fid.held_out_indices(100, 30, seed=1))
    assert not torch.equal(chosen, fid.held_out_indices(100, 30, seed=2))
    assert torch.equal(fid.held_out_indices(100, 100), torch.arange(100))
    assert torch.equal(fid.held_out_indices(100, 5_000), torch.arange(100))


# --- reference moments of the real images


def test_reference_cache(fashion_mnist: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = load_network("fid"), RunImages(DataSpec())
    whole = load_images(images.data, "validation")
    few = Images(whole.pixels[:1_000], whole.labels[:1_000])
    monkeypatch.setattr(run_images, "load_images", lambda *_: few)
    first = fid.reference_moments(images, "validation", network, tmp_path)
    assert first.count == 1_000
    (path,) = tmp_path.glob("moments-*")
    with monkeypatch.context() as patched:
        patched.setattr(run_images, "load_images", lambda *_: pytest.fail("the cache was not used"))
        again = fid.reference_moments(images, "validation", network, tmp_path)
    assert torch.equal(first.scatter, again.scatter)
    # Another network is another entry; a damaged entry is computed again.
    network.feature_scale.mul_(2)
    doubled = fid.reference_moments(images, "validation", network, tmp_path)
    torch.testing.assert_close(doubled.mean, 2 * first.mean)
    assert len(list(tmp_path.glob("moments-*"))) == 2
    path.write_bytes(path.read_bytes()[:-1])
    network.feature_scale.div_(2)
    repaired = fid.reference_moments(images, "validation", network, tmp_path)
    torch.testing.assert_close(repaired.scatter, first.scatter)
    assert unseal(path.read_bytes())[0]["count"] == 1_000


def test_reference_hash_names_content_split_and_side() -> None:
    specs = [(DataSpec(), "train"), (DataSpec(), "validation"), (DataSpec(image_size=40), "train")]
    hashes = [fid.reference_hash(data, split) for data, split in specs]  # type: ignore[arg-type]
    assert len(set(hashes)) == 3 and hashes[0] == fid.reference_hash(DataSpec(), "train")


@pytest.mark.slow
def test_noise_floor_falls_with_n(fashion_mnist: dict[str, Path], tmp_path: Path) -> None:
    network = load_network("fid")
    features = extract_features(network, load_images(DataSpec(), "validation").pixels)
    reference = fid.reference_moments(RunImages(DataSpec()), "train", network, tmp_path)
    chosen = [fid.held_out_indices(len(features), n) for n in (1_000, 3_000, 10_000)]
    floors = [fid.frechet_estimate(features[indices], reference) for indices in chosen]
    assert [floor.n for floor in floors] == [1_000, 3_000, 10_000]
    assert floors[0].value > floors[1].value > floors[2].value > 0
    assert floors[2].value < 0.05


@pytest.mark.slow
def test_processes_may_share_a_cache(fashion_mnist: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from scaling.evaluation import fid; from scaling.evaluation.networks.features import load_network\n"
        "from scaling.data.run_images import RunImages; from scaling.specification.spec import DataSpec\n"
        "torch.set_num_threads(1)\n"
        "moments = fid.reference_moments(RunImages(DataSpec()), 'validation', load_network('fid'), Path(sys.argv[1]))\n"
        "assert moments.count == 10_000\n"
    )
    root = Path(fid.__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0] * 3
    (path,) = tmp_path.glob("moments-*")
    assert unseal(path.read_bytes())[0]["count"] == 10_000
