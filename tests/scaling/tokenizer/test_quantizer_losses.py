"""Every quantizer's loss terms: by finite differences, against plain definitions, and what each of them moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from results.errors import UsageError
from scaling.data.run_images import RunImages
from scaling.specification.costs.quantizer_flops import quantizer_parameters, quantizer_training_flops
from scaling.specification.spec import (
    BinarySphericalSpec,
    FiniteScalarQuantizerSpec,
    IndexBackpropagationSpec,
    LookupFreeQuantizerSpec,
    QuantizerSpec,
    SimVectorQuantizerSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.tokenizer.quantizers import Quantised, Quantizer, build_quantizer, entropy, ibq
from scaling.training.tokenizer import TokenizerTraining

CODES, DIM = 12, 4
SPECS: dict[str, QuantizerSpec] = {
    "vq": VectorQuantizerSpec(codebook_size=CODES, code_dim=DIM),
    "vq-euclidean": VectorQuantizerSpec(codebook_size=CODES, code_dim=DIM, l2_normalised=False),
    "vq-entropy": VectorQuantizerSpec(codebook_size=CODES, code_dim=DIM, l2_normalised=False, entropy_weight=0.1),
    "simvq": SimVectorQuantizerSpec(codebook_size=CODES, code_dim=DIM),
    "ibq": IndexBackpropagationSpec(codebook_size=CODES, code_dim=DIM, entropy_weight=0.0),
    "ibq-entropy": IndexBackpropagationSpec(codebook_size=CODES, code_dim=DIM, entropy_weight=0.05),
    "fsq": FiniteScalarQuantizerSpec(levels=(3, 5, 4)),
    "lfq": LookupFreeQuantizerSpec(bits=DIM),
    "bsq": BinarySphericalSpec(bits=DIM),
}
WITH_CODEBOOK = [name for name in SPECS if name not in ("fsq", "lfq", "bsq")]


def built(name: str) -> Quantizer:
    """A quantizer in float64 whose codes are spread."""
    torch.manual_seed(0)
    quantizer = build_quantizer(SPECS[name]).double()
    if hasattr(quantizer, "codebook"):
        torch.nn.init.normal_(quantizer.codebook)
    return quantizer


def latents(name: str, images: int = 3, grid: int = 3) -> Tensor:
    """Random latent grids in float64."""
    generator = torch.Generator().manual_seed(1)
    shape = (images, SPECS[name].code_dim, grid, grid)
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


def quantise(quantizer: Quantizer, x: Tensor) -> Quantised:
    return quantizer(quantizer.prepare(x))


def differences(function: Callable[[], Tensor], where: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar by each entry of a tensor."""
    result = torch.zeros_like(where)
    flat, values = result.view(-1), where.detach().view(-1)
    for i in range(len(flat)):
        before = values[i].item()
        results = []
        for shift in (step, -step):
            values[i] = before + shift
            results.append(function().item())
        values[i] = before
        flat[i] = (results[0] - results[1]) / (2 * step)
    return result


@pytest.mark.parametrize("name", WITH_CODEBOOK)
def test_codebook_loss_moves_the_codebook_alone_and_commitment_the_latents_alone(name: str) -> None:
    quantizer, x = built(name), latents(name)
    losses, weights = quantise(quantizer, x).losses, list(quantizer.parameters())
    for term, moved, left in (("codebook", weights, [x]), ("commitment", [x], weights)):
        gradients = torch.autograd.grad(losses[term], [*moved, *left], retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in gradients[len(moved) :])
        for tensor, gradient in zip(moved, gradients, strict=False):
            # The other side is held fixed by its value, so that the term itself may be differenced.
            expected = differences(lambda term=term: quantise(quantizer, x).losses[term], tensor)
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
            assert gradient.any()


@pytest.mark.parametrize("name", ["lfq", "bsq"])
@pytest.mark.parametrize("term", ["commitment", "sample_entropy", "batch_entropy"])
def test_terms_of_binary_quantizers_by_finite_differences(name: str, term: str) -> None:
    quantizer, x = built(name), latents(name)
    (gradient,) = torch.autograd.grad(quantise(quantizer, x).losses[term], x)
    expected = differences(lambda: quantise(quantizer, x).losses[term], x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


def test_entropies_of_a_codebook_by_finite_differences_and_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, x = built("ibq-entropy"), latents("ibq-entropy")
    flat, codes = x.permute(0, 2, 3, 1).reshape(-1, DIM), quantizer.codebook
    shares = (flat @ codes.t() / 0.7).softmax(1)
    expected = -(shares * shares.log()).sum(1).mean(), -(shares.mean(0) * shares.mean(0).log()).sum()
    for elements in (entropy.ELEMENTS, 5 * CODES):  # at once, and in chunks
        monkeypatch.setattr(entropy, "ELEMENTS", elements)
        torch.testing.assert_close(entropy.codebook_entropies(flat, codes, 0.7), expected)
    for index in (0, 1):
        gradients = torch.autograd.grad(entropy.codebook_entropies(flat, codes, 0.7)[index], [flat, codes])
        for tensor, gradient in zip((flat, codes), gradients, strict=True):
            by_hand = differences(lambda i=index: entropy.codebook_entropies(flat, codes, 0.7)[i], tensor)
            torch.testing.assert_close(gradient, by_hand, rtol=1e-5, atol=1e-8)


def test_the_entropies_of_vq_are_those_of_its_distances() -> None:
    quantizer, x = built("vq-entropy"), latents("vq-entropy")
    losses = quantise(quantizer, x).losses
    flat = x.permute(0, 2, 3, 1).reshape(-1, DIM)
    shares = (-torch.cdist(flat, quantizer.codes()).square() / SPECS["vq-entropy"].entropy_temperature).softmax(1)
    mean = shares.mean(0)
    expected = {"sample_entropy": -torch.special.xlogy(shares, shares).sum(1).mean(),
                "batch_entropy": -torch.special.xlogy(mean, mean).sum()}  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("chunk", [2**22, 8])
def test_entropy_of_whole_binary_codes_is_that_over_the_written_out_codebook(
    bits: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAGVIT-v2's definition, softmax of negative squared distances over all 2^bits codes."""
    monkeypatch.setattr(entropy, "ELEMENTS", chunk)
    flat = torch.randn(20, bits, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    codes = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) % 2 * 2.0 - 1
    shares = (-torch.cdist(flat, codes.double()).square() / 0.8).softmax(1)
    expected = -(shares * shares.log()).sum(1).mean(), -(shares.mean(0) * shares.mean(0).log()).sum()
    torch.testing.assert_close(entropy.bit_entropies(flat, 4 / 0.8, joint=True), expected)
    bitwise = entropy.bit_entropies(flat, 4 / 0.8, joint=False)
    torch.testing.assert_close(bitwise[0], expected[0])
    assert bitwise[1] >= expected[1] - 1e-12
    assert bitwise[1] <= bits * math.log(2) + 1e-12


def test_a_choices_gradient_is_that_of_the_softmax_over_all_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x, codes, values = (
        torch.randn(rows, DIM, dtype=torch.float64, generator=generator, requires_grad=True)
        for rows in (7, CODES, CODES)
    )
    mixture = ibq._SoftChoice.apply
    assert torch.autograd.gradcheck(lambda a, b: mixture(a, b, values.detach()), (x, codes))
    whole = torch.autograd.grad(mixture(x, codes, values.detach()).sin().sum(), [x, codes])
    monkeypatch.setattr(ibq, "ELEMENTS", 2 * CODES)
    chunked = torch.autograd.grad(mixture(x, codes, values.detach()).sin().sum(), [x, codes])
    torch.testing.assert_close(chunked, whole)


def test_index_backpropagation_is_the_published_estimator() -> None:
    """Against the one-hot matrix written out, hard - sg(soft) + soft, times the codebook (2412.02692, Sec. 3.1)."""
    quantizer, x = built("ibq"), latents("ibq")
    codebook, result = quantizer.codebook, quantise(quantizer, x)
    flat = x.permute(0, 2, 3, 1).reshape(-1, DIM)
    soft = (flat @ codebook.t()).softmax(1)
    hard = functional.one_hot(soft.argmax(1), CODES).double()
    codes = (hard - soft.detach() + soft) @ codebook
    joint = (codes - flat).square().mean()
    committed = (hard @ codebook.detach() - flat).square().mean()
    moved = (hard @ codebook - flat.detach()).square().mean()
    torch.testing.assert_close(result.codes.permute(0, 2, 3, 1).reshape(-1, DIM), codes)
    upstream = torch.randn(codes.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    through = (result.codes.permute(0, 2, 3, 1).reshape(-1, DIM) * upstream).sum()
    for ours, plain in (
        (result.weighted, joint + committed + 0.25 * moved),
        (through, (codes * upstream).sum()),
    ):
        torch.testing.assert_close(ours, plain)
        ours_by, plain_by = (torch.autograd.grad(s, [x, codebook], retain_graph=True) for s in (ours, plain))
        torch.testing.assert_close(ours_by, plain_by)
        assert (ours_by[1].abs().sum(1) > 0).all()  # every code, chosen or not


@pytest.mark.parametrize("name", [name for name in SPECS if name not in ("ibq", "ibq-entropy")])
def test_codes_pass_gradients_straight_through(name: str) -> None:
    quantizer, x = built(name), latents(name)
    prepared = quantizer.prepare(x)
    codes = quantizer(prepared).codes
    upstream = torch.randn_like(codes)
    (through,) = torch.autograd.grad((codes * upstream).sum(), prepared)
    scale = quantizer.levels // 2 if name == "fsq" else torch.ones(codes.shape[1])  # FSQ's codes are scaled
    torch.testing.assert_close(through, upstream / scale[:, None, None])


@pytest.mark.parametrize("name", SPECS)
def test_tokens_are_within_the_codebook_and_give_their_codes_back(name: str) -> None:
    quantizer, x = built(name), latents(name, images=40)
    result = quantise(quantizer, x)
    assert result.tokens.shape == (40, 9)
    assert int(result.tokens.min()) >= 0
    assert int(result.tokens.max()) < quantizer.size == SPECS[name].codebook_size
    assert len(result.tokens.unique()) > quantizer.size / 3
    torch.testing.assert_close(quantizer.decode(result.tokens, 3).double(), result.codes.detach(), rtol=1e-6, atol=1e-6)


def test_one_step_of_simvq_moves_every_code_and_its_codebook_stays() -> None:
    quantizer, x = built("simvq"), latents("simvq", images=1, grid=1)
    before, frozen = quantizer.codes().detach(), quantizer.codebook.clone()
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    quantise(quantizer, x).weighted.backward()
    optimiser.step()
    assert ((quantizer.codes() - before).abs().amax(1) > 0).all()
    assert torch.equal(quantizer.codebook, frozen)


def test_codes_of_binary_spherical_quantisation_have_unit_norm_and_are_the_nearest_corners() -> None:
    quantizer, x = built("bsq"), latents("bsq")
    prepared = quantizer.prepare(x)
    corners = quantizer.decode(torch.arange(2**DIM)[:, None], 1)[:, :, 0, 0].double()
    torch.testing.assert_close(corners.norm(dim=1), torch.ones(2**DIM, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    flat = prepared.permute(0, 2, 3, 1).reshape(-1, DIM)
    assert torch.equal(torch.cdist(flat, corners).argmin(1), quantizer(prepared).tokens.flatten())


@pytest.mark.parametrize("name", SPECS)
def test_cost_and_parameters_are_what_torch_counts(name: str) -> None:
    spec, images, tokens = SPECS[name], 3, 9
    quantizer, x = built(name), latents(name).detach()
    projection = torch.nn.Conv2d(spec.code_dim, spec.code_dim, 1).double()
    counter = FlopCounterMode(display=False)
    with counter:
        result = quantise(quantizer, projection(x))
        (result.codes.sum() + result.weighted).backward()
    linear = 4 * images * tokens * spec.code_dim**2  # forward, and its weight's gradient
    assert counter.get_total_flops() - linear == quantizer_training_flops(spec, tokens, images) * images
    counted = quantizer_parameters(spec)
    assert counted.codebook + counted.other == sum(p.numel() for p in quantizer.parameters())
    assert counted.frozen == (quantizer.codebook.numel() if name == "simvq" else 0)


def test_an_entropy_of_the_batch_refuses_parts_of_it(fashion_mnist: object) -> None:
    run = TokenizerRun(quantizer=LookupFreeQuantizerSpec(bits=8))
    images = RunImages(run.data, None, 1).split("train")
    with pytest.raises(UsageError, match=r"quantizer\.entropy_weight = 0\.1 .* microbatch of 16 cuts the 64 images"):
        TokenizerTraining(run, images, lambda model, recorder: None, microbatch=16)
