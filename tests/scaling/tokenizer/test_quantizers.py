"""Quantisation: nearest code exactly, gradients through, tokens and codes both ways, dead codes revived."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from scaling.specification.spec import FiniteScalarQuantizerSpec, VectorQuantizerSpec
from scaling.tokenizer.quantizers import FiniteScalarQuantizer, VectorQuantizer, build_quantizer, nearest
from scaling.tokenizer.quantizers.nearest import largest


def latents(dim: int, images: int = 6, grid: int = 4) -> torch.Tensor:
    """Random latent grids."""
    return torch.randn(images, dim, grid, grid, generator=torch.Generator().manual_seed(1), requires_grad=True)


@given(st.integers(1, 50), st.sampled_from([2, 64, 100, 128, 4096]), st.integers(0, 1000))
def test_two_level_maximum_is_argmax(rows: int, size: int, seed: int) -> None:
    scores = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(largest(scores), scores.argmax(1))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("codes", [17, 256, 4096])
def test_tokens_are_the_nearest_codes(normalised: bool, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "LOOKUP_ELEMENTS", 5 * codes)  # several chunks
    quantizer = VectorQuantizer(VectorQuantizerSpec(codebook_size=codes, l2_normalised=normalised))
    torch.nn.init.normal_(quantizer.codebook)
    found = quantizer(quantizer.prepare(latents(8)))
    flat = quantizer.prepare(latents(8)).permute(0, 2, 3, 1).reshape(-1, 8)
    distances = torch.cdist(flat.double(), quantizer.codes().double())
    chosen = distances.gather(1, found.tokens.reshape(-1, 1))[:, 0]
    torch.testing.assert_close(chosen, distances.min(1).values, rtol=1e-4, atol=1e-5)
    if normalised:
        torch.testing.assert_close(found.codes.norm(dim=1), torch.ones(6, 4, 4))


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize("codes", [2**15, 2**18, 2**15 + 64])
def test_search_in_large_codebooks_is_exact_and_never_holds_the_matrix(codes: int, by_product: bool) -> None:
    generator = torch.Generator().manual_seed(codes)
    flat, book = torch.randn(64, 8, generator=generator), torch.randn(codes, 8, generator=generator)
    if by_product:
        flat, book = functional.normalize(flat, dim=1), functional.normalize(book, dim=1)
    with _Largest() as largest_tensor:
        tokens = nearest.nearest_codes(flat, book, by_product)
    assert largest_tensor.elements <= max(8 * codes, nearest.LOOKUP_ELEMENTS)  # the matrix has 64 x codes
    scores = flat.double() @ book.double().t() - (0 if by_product else book.double().square().sum(1) / 2)
    assert float((scores.amax(1) - scores.gather(1, tokens[:, None])[:, 0]).max()) < 1e-5
    assert float((tokens == scores.argmax(1)).double().mean()) > 0.96


def test_of_equal_codes_the_first_is_taken_in_large_codebooks() -> None:
    book = functional.normalize(torch.randn(2**15, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    book[30_000] = book[77]
    book[20_001] = book[20_000]
    assert nearest.nearest_codes(book[[77, 30_000, 20_001]], book, True).tolist() == [77, 77, 20_000]


def test_losses_and_straight_through_gradient() -> None:
    spec = VectorQuantizerSpec(codebook_size=32, commitment_weight=0.25, l2_normalised=False)
    quantizer, x = VectorQuantizer(spec), latents(8)
    torch.nn.init.normal_(quantizer.codebook)
    found = quantizer(quantizer.prepare(x))
    torch.testing.assert_close(found.losses["codebook"], functional.mse_loss(found.codes, x))
    torch.testing.assert_close(found.weighted, 1.25 * functional.mse_loss(found.codes, x))
    upstream = torch.randn_like(x)
    (through,) = torch.autograd.grad((found.codes * upstream).sum(), x, retain_graph=True)
    torch.testing.assert_close(through, upstream)
    by_latent, by_code = torch.autograd.grad(found.weighted, [x, quantizer.codebook])
    torch.testing.assert_close(by_latent, 0.25 * 2 * (x - found.codes.detach()) / x.numel())
    counts = torch.bincount(found.tokens.flatten(), minlength=32)
    assert torch.equal(by_code.abs().sum(1) > 0, counts > 0)


def test_decode_is_the_reverse_of_tokens() -> None:
    quantizer = VectorQuantizer(VectorQuantizerSpec(codebook_size=64))
    found = quantizer(quantizer.prepare(latents(8)))
    torch.testing.assert_close(quantizer.decode(found.tokens, 4), found.codes.detach(), rtol=1e-5, atol=1e-6)


def test_dead_codes_move_onto_latents_and_live_ones_stay() -> None:
    quantizer = VectorQuantizer(VectorQuantizerSpec(codebook_size=64)).train()
    prepared = quantizer.prepare(latents(8))
    found = quantizer(prepared)
    used = torch.zeros(64, dtype=torch.bool)
    used[found.tokens.flatten()] = True
    before = quantizer.codebook.detach().clone()
    dead = quantizer.revive(prepared, torch.Generator().manual_seed(0))
    assert torch.equal(dead, ~used)
    assert 0 < int(dead.sum()) < 64
    torch.testing.assert_close(quantizer.codebook[used], before[used], rtol=0, atol=0)
    flat = prepared.permute(0, 2, 3, 1).reshape(-1, 8)
    revived = quantizer.codebook[dead].detach()
    assert (revived[:, None] - flat[None]).abs().amax(2).min(1).values.max().item() < 1e-6
    assert int(quantizer.chosen.sum()) == 0


@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 100))
def test_finite_scalar_quantisation_reaches_every_code_and_inverts(levels: list[int], seed: int) -> None:
    spec = FiniteScalarQuantizerSpec(levels=tuple(levels))
    quantizer = FiniteScalarQuantizer(spec)
    every = torch.arange(spec.codebook_size)
    codes = quantizer.decode(every[:, None], 1)
    assert len({tuple(c.flatten().tolist()) for c in codes}) == spec.codebook_size
    assert float(codes.abs().max()) <= 1
    x = 3 * torch.randn(5, len(levels), 2, 2, generator=torch.Generator().manual_seed(seed))
    found = quantizer(quantizer.prepare(x))
    assert int(found.tokens.min()) >= 0
    assert int(found.tokens.max()) < spec.codebook_size
    torch.testing.assert_close(quantizer.decode(found.tokens, 2), found.codes, rtol=1e-5, atol=1e-5)


def test_finite_scalar_quantisation_passes_gradients_and_uses_all_levels() -> None:
    quantizer = build_quantizer(FiniteScalarQuantizerSpec(levels=(8, 5)))
    x = torch.linspace(-6, 6, 2000).view(-1, 1, 1, 1).expand(-1, 2, 1, 1).clone().requires_grad_()
    found = quantizer(quantizer.prepare(x))
    values = [set(found.codes[:, i].flatten().tolist()) for i in range(2)]
    assert [len(v) for v in values] == [8, 5]
    (gradient,) = torch.autograd.grad(found.codes.sum(), x)
    assert float(gradient.min()) > 0
