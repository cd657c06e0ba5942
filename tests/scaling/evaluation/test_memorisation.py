"""Nearest neighbours against brute force; what copies, fresh draws and blends of copies look like."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scaling.data.images import load_images
from scaling.evaluation import memorisation as memorisation_module
from scaling.evaluation.memorisation import memorisation, nearest_neighbours
from scaling.evaluation.networks.features import extract_features, load_network
from scaling.specification.spec import DataSpec


def draw(seed: int, n: int, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 60), st.integers(1, 50), st.floats(-1e3, 1e3))
def test_neighbours_are_those_of_brute_force(seed: int, m: int, n: int, chunk: int, offset: float) -> None:
    queries, keys = draw(seed, m) + offset, draw(seed + 1, n) + offset
    found = nearest_neighbours(queries, keys, chunk)
    distances = torch.cdist(queries.double(), keys.double())
    torch.testing.assert_close(found.distances.double(), distances.min(dim=1).values, rtol=1e-4, atol=1e-3)
    chosen = distances[torch.arange(m), found.indices]
    torch.testing.assert_close(chosen, distances.min(dim=1).values, rtol=1e-4, atol=1e-3)


def test_blocks_of_keys_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = draw(0, 40), draw(1, 1_000)
    whole = nearest_neighbours(queries, keys)
    monkeypatch.setattr(memorisation_module, "KEYS_AT_ONCE", 8 * 37)
    in_blocks = nearest_neighbours(queries, keys, chunk=7)
    assert torch.equal(whole.indices, in_blocks.indices)
    torch.testing.assert_close(whole.distances, in_blocks.distances)


def test_exact_copies_have_distance_zero_far_from_the_origin() -> None:
    keys = draw(0, 500) + 1_000
    found = nearest_neighbours(keys[:50].clone(), keys)
    assert found.distances.eq(0).all() and torch.equal(found.indices, torch.arange(50))


def test_no_queries_and_no_keys() -> None:
    assert len(nearest_neighbours(torch.zeros(0, 3), torch.zeros(2, 3)).distances) == 0
    with pytest.raises(ValueError, match="must be matrices of one width"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="must be matrices of one width"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 4))


def test_fresh_draws_look_like_held_out_images() -> None:
    train, held_out, samples = draw(0, 4_000), draw(1, 3_000), draw(2, 3_000)
    result = memorisation(samples, train, held_out)
    assert result.memorisation_ratio == pytest.approx(1, abs=0.05)
    assert result.near_copy_fraction == pytest.approx(0.01, abs=0.007)
    again = memorisation(samples, train, result.held_out)
    assert again.memorisation_ratio == result.memorisation_ratio
    assert again.near_copy_fraction == result.near_copy_fraction


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_copies_are_counted(share: float) -> None:
    train, held_out, samples = draw(0, 4_000), draw(1, 2_000), draw(2, 2_000)
    copies = int(share * len(samples))
    samples[:copies] = train[100 : 100 + copies] + 1e-3 * draw(3, copies)
    result = memorisation(samples, train, held_out)
    assert result.near_copy_fraction == pytest.approx(share + 0.01 * (1 - share), abs=0.01)
    assert torch.equal(result.samples.indices[:copies], torch.arange(100, 100 + copies))
    assert result.memorisation_ratio < 1


def test_no_scale_is_an_error() -> None:
    train = draw(0, 10)
    with pytest.raises(ValueError, match="no scale"):
        memorisation(train, train, train)


def test_real_copies_are_found(fashion_mnist: dict[str, Path]) -> None:
    """Training images shifted in brightness by one step are near copies; held-out images are not."""
    network, data = load_network("fid"), DataSpec()
    pixels = load_images(data, "train").pixels[:6_000]
    train = extract_features(network, pixels)
    held_out = extract_features(network, load_images(data, "validation").pixels[:1_000])
    copies = extract_features(network, pixels[:500].clamp(max=254) + (pixels[:500] > 0).to(torch.uint8))
    result = memorisation(copies, train, held_out)
    assert result.near_copy_fraction > 0.95
    assert (result.samples.indices == torch.arange(500)).double().mean() > 0.95
    assert result.memorisation_ratio < 0.3
