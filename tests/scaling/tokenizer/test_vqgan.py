"""VQGAN's encoder and decoder: published sizes and costs, any resolution, options that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from results.errors import SpecError
from scaling.networks import RecomputedSequential, recompute_activations
from scaling.specification.costs import autoencoder_flops, flops
from scaling.specification.spec import (
    PicturesSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    VqganSpec,
    canonical_json,
    parse_run,
)
from scaling.tokenizer.convolution import Convolution
from scaling.tokenizer.model import Tokenizer
from scaling.tokenizer.vqgan import GridAttention

PICTURES = PicturesSpec(
    fingerprint="0" * 64, image_size=256, channels=3, classes=10, train_images=1000, validation_images=100
)  # fmt: skip
TINY = VqganSpec(downsampling=4, width=8, latent_channels=16, norm_groups=4, residual_blocks=1)


def run(spec: VqganSpec, codes: int = 16_384, **changes: object) -> TokenizerRun:
    """A tokenizer of photographs."""
    quantizer = VectorQuantizerSpec(codebook_size=codes, revive_every=0, initialisation="unit-norm")
    return TokenizerRun(data=PICTURES, autoencoder=spec, quantizer=quantizer, **changes)


def tiny(seed: int = 0, **changes: object) -> Tokenizer:
    """A tiny tokenizer."""
    torch.manual_seed(seed)
    return Tokenizer(run(TINY.model_copy(update=changes), codes=64)).train()


def pictures(side: int = 32, seed: int = 1) -> Tensor:
    """Two images in [-1, 1]."""
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("factor", "millions"), [(16, 71.88), (8, 70.11)])
def test_parameters_are_llamagens(factor: int, millions: float) -> None:
    spec = run(VqganSpec(downsampling=factor))
    with torch.device("meta"):
        model = Tokenizer(spec)
    count = sum(p.numel() for p in model.parameters())
    assert flops.tokenizer_parameters(spec).total == count
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize(("factor", "side", "billions"), [(16, 256, 391.1), (8, 256, 703.3), (16, 384, None)])
def test_forward_cost_is_what_torch_counts(factor: int, side: int, billions: float | None) -> None:
    spec = run(VqganSpec(downsampling=factor), input_size=side)
    with torch.device("meta"):
        model, counter = Tokenizer(spec), FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            model.decode(model.project(model.encoder(torch.zeros(1, 3, side, side))))
    assert autoencoder_flops.forward_flops(spec) == counter.get_total_flops()
    if billions is not None:
        assert counter.get_total_flops() / 1e9 == pytest.approx(billions, abs=0.05)


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention": "middle"}, {"decoder_width": 16, "decoder_residual_blocks": 3}],
    ids=["vqgan", "middle", "doubled"],
)
def test_training_cost_and_parameters_are_what_torch_counts(changes: dict[str, object]) -> None:
    model = tiny(**changes)
    spec = model.spec.model_copy(update={"input_size": 32})

    def step() -> None:
        encoded = model.encode(pictures())
        (model.decode(encoded.quantised.codes).square().mean() + encoded.quantised.weighted).backward()

    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        step()
    costs = flops.tokenizer_costs(spec)
    assert counter.get_total_flops() == 2 * (costs.autoencoder + costs.quantizer)
    assert flops.tokenizer_parameters(spec).total == sum(p.numel() for p in model.parameters())
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("side", [4, 20, 36])
def test_any_side_that_the_factor_divides(side: int) -> None:
    encoded = (model := tiny()).encode(pictures(side))
    assert encoded.encoder.shape == (2, 16, side // 4, side // 4)
    assert model.decode(encoded.quantised.codes).shape == (2, 3, side, side)


def test_recomputing_activations_changes_no_number_and_no_id() -> None:
    results = []
    for recomputes in (False, True):
        model = tiny()
        recompute_activations(model, recomputes)
        encoded = model.encode(pictures())
        loss = model.decode(encoded.quantised.codes).square().mean() + encoded.quantised.weighted
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert sum(isinstance(m, RecomputedSequential) for m in tiny().modules()) == 2


def test_gradients_of_a_convolution_are_those_of_torch_and_of_finite_differences() -> None:
    for stride, padding in ((1, 1), (2, 0)):
        torch.manual_seed(0)
        layer = Convolution(3, 5, 3, stride, padding).double()
        plain = torch.nn.Conv2d(3, 5, 3, stride, padding).double()
        plain.load_state_dict(layer.state_dict())
        x = torch.rand(2, 3, 6, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
        y = layer(x)
        assert "Convolve" in type(y.grad_fn).__name__
        expected = plain(x)
        assert torch.equal(y, expected)
        inputs = [x, layer.weight, layer.bias]
        ours = torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)
        for a, b in zip(ours, torch.autograd.grad(expected.square().sum(), [x, *plain.parameters()]), strict=True):
            torch.testing.assert_close(a, b)
        assert torch.autograd.gradcheck(layer, (x,))


def test_layouts_agree_and_are_different_runs() -> None:
    last, first = tiny(), tiny(memory_layout="contiguous")
    assert last.encoder.layers.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert first.encoder.layers.conv_in.weight.is_contiguous()
    torch.testing.assert_close(last.encode(pictures()).projected, first.encode(pictures()).projected)
    assert last.spec.run_id != first.spec.run_id


def test_attention_sees_the_whole_grid_and_starts_from_the_definition() -> None:
    layer, x = GridAttention(8, 4), torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    normed = layer.norm(x)
    query, key, value = (f(normed).flatten(2) for f in (layer.query, layer.key, layer.value))
    weights = (query.transpose(1, 2) @ key / 8**0.5).softmax(-1)
    expected = x + layer.output((value @ weights.transpose(1, 2)).view_as(x))
    torch.testing.assert_close(layer(x), expected)


def test_search_is_in_float32_whatever_the_precision_of_training() -> None:
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model.encode(pictures())
    again = model.quantizer(encoded.prepared)
    assert torch.equal(encoded.quantised.tokens, again.tokens)
    assert torch.equal(encoded.quantised.codes, again.codes)


def test_specification_round_trips_and_old_text_without_a_kind_is_the_small_one() -> None:
    spec = run(VqganSpec(downsampling=8))
    assert parse_run(canonical_json(spec)) == spec
    assert VqganSpec(downsampling=8).channel_multipliers == (1, 2, 2, 4)
    old = parse_run('{"stage": "tokenizer", "autoencoder": {"width": 8}}')
    assert isinstance(old, TokenizerRun)
    assert old.autoencoder.kind == "convolutional"


@pytest.mark.parametrize(
    ("autoencoder", "words"),
    [
        ('"width": 40', ["autoencoder.width = 40", "40 channels", "norm_groups = 32"]),
        ('"decoder_width": 40', ["autoencoder.decoder_width = 40", "norm_groups = 32"]),
        ('"channel_multipliers": [1, 2]', ["autoencoder.channel_multipliers = [1, 2]", "5 entries"]),
        ('"downsampling": 32', ["autoencoder.downsampling = 32", "6 entries", "4, 8, 16"]),
        ('"downsampling": 3', ["autoencoder.downsampling = 3"]),
        ('"residual_blocks": 0', ["autoencoder.residual_blocks = 0", "greater than 0"]),
        ('"latents": 4', ["autoencoder.latents", "not a field", "latent_channels"]),
    ],
)
def test_bad_fields_are_named(autoencoder: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        parse_run('{"stage": "tokenizer", "autoencoder": {"kind": "vqgan", %s}}' % autoencoder)  # noqa: UP031
    assert all(word in str(error.value) for word in words), str(error.value)


def test_unknown_kinds_and_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="titok"):
        parse_run('{"stage": "tokenizer", "autoencoder": {"kind": "titok"}}')
    with pytest.raises(ValueError, match="does not divide the image side 250"):
        run(VqganSpec(), input_size=250)
