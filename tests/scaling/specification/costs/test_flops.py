"""FLOPs and parameters: closed forms against torch's counters and the paper's published sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling.generator.loss import linear_cross_entropy
from scaling.generator.transformer import build_generator
from scaling.specification.costs import flops
from scaling.specification.ladder import PAPER_SIZES, SIZES, transformer
from scaling.specification.learning_rates import learning_rate
from scaling.specification.spec import (
    AutoencoderSpec,
    CausalRegulariserSpec,
    FiniteScalarQuantizerSpec,
    GeneratorRun,
    OptimiserSpec,
    ReconstructionLossSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.tokenizer.causal import CausalRegulariser
from scaling.tokenizer.model import Tokenizer

OPTIMISER = OptimiserSpec(learning_rate=1e-3, warmup_images=0)


def generator_run(tokenizer: TokenizerRun, size: str, **changes: object) -> GeneratorRun:
    """A generator of a ladder size on a tokenizer."""
    return GeneratorRun(
        tokenizer=tokenizer, transformer=transformer(size), optimiser=OPTIMISER, train_images=(1280,), **changes
    )


def counted(call) -> int:
    """FLOPs that torch counts in a call, attention by its plain matrix products."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codebook_size", [256, 4096])
def test_generator_training_flops_are_what_torch_counts(size: str, codebook_size: int) -> None:
    tokenizer = TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=codebook_size))
    run = generator_run(tokenizer, size)
    model = build_generator(run)
    tokens = torch.randint(codebook_size, (3, 16))

    def step() -> None:
        hidden = model.hidden(tokens, torch.tensor([0, 1, 10]))
        linear_cross_entropy(hidden.flatten(0, 1), model.head.weight, tokens.flatten()).backward()

    assert counted(step) == flops.generator_training_flops(run, images=3)


def test_halved_causal_attention_leaves_out_half_of_the_scores() -> None:
    run = generator_run(TokenizerRun(), "S")
    full, halved = flops.generator_forward_flops(run), flops.generator_forward_flops(run, halve_causal=True)
    assert full - halved == 2 * 16**2 * 64 * 2  # half of 4 T^2 d, two layers


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [False, True])
def test_generator_parameters_are_the_modules(size: str, tied: bool) -> None:
    run = generator_run(TokenizerRun(), size)
    run = run.model_copy(update={"transformer": run.transformer.model_copy(update={"tied_embeddings": tied})})
    found = sum(p.numel() for p in build_generator(run).parameters())
    assert found == flops.generator_parameters(run).total


@pytest.mark.parametrize(
    "tokenizer",
    [
        TokenizerRun(),
        TokenizerRun(
            autoencoder=AutoencoderSpec(downsampling=4, channel_multipliers=(1, 2), residual_blocks=(0, 2)),
            quantizer=VectorQuantizerSpec(codebook_size=1024),
            regulariser=CausalRegulariserSpec(),
        ),
        TokenizerRun(quantizer=FiniteScalarQuantizerSpec(), regulariser=CausalRegulariserSpec(latents="encoder")),
        TokenizerRun(input_size=48, losses=ReconstructionLossSpec(perceptual_weight=0.0)),
    ],
    ids=["f8", "f4-crt", "fsq-crt-encoder", "48px-no-perceptual"],
)
def test_tokenizer_training_flops_and_parameters_are_what_torch_counts(tokenizer: TokenizerRun) -> None:
    from scaling.evaluation.networks.features import PerceptualLoss

    model, images = Tokenizer(tokenizer).train(), torch.rand(2, 1, tokenizer.encoded_size, tokenizer.encoded_size)
    perceptual = PerceptualLoss() if tokenizer.losses.perceptual_weight else None
    regulariser = None
    if tokenizer.regulariser:
        regulariser = CausalRegulariser(
            tokenizer.regulariser, flops.regulariser_latent_dim(tokenizer), tokenizer.grid_size
        )

    def step() -> None:
        encoded = model.encode(images)
        reconstruction = model.decode(encoded.quantised.codes)
        loss = (reconstruction - images).square().mean() + encoded.quantised.weighted
        if perceptual is not None:
            loss = loss + perceptual(reconstruction, images)
        if regulariser is not None:
            latents = encoded.encoder if tokenizer.regulariser.latents == "encoder" else encoded.projected
            loss = loss + regulariser(latents, 0.5)[0]
        loss.backward()

    assert counted(step) == flops.tokenizer_training_flops(tokenizer, images=2)
    parameters = flops.tokenizer_parameters(tokenizer)
    assert parameters.total == sum(p.numel() for p in model.parameters())
    helpers = [h for h in (perceptual, regulariser) if h is not None]
    assert parameters.frozen == sum(p.numel() for h in helpers for p in h.parameters())


@pytest.mark.parametrize(
    ("size", "with_16k", "without_vocabulary"),
    [
        ("31M", 31.40, 11.95),
        ("52M", 52.09, 30.5),
        ("81M", 80.56, 56.8),
        ("111M", 110.9, 85.0),
        ("212M", 212.0, 181.7),
        ("343M", 342.9, 308.3),
        ("517M", 516.7, 477.8),
        ("775M", 774.7, 731.5),
    ],
)
def test_the_papers_sizes(size: str, with_16k: float, without_vocabulary: float) -> None:
    """Table 2's parameters at a codebook of 16,384 (their 1,001 classes counted) and without vocabulary."""
    shape = PAPER_SIZES[size]
    run = generator_run(TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=16_384)), size)
    parameters = flops.generator_parameters(run)
    classes = (1001 - 11) * shape.width
    assert (parameters.total + classes) / 1e6 == pytest.approx(with_16k, rel=6e-4)
    blocks = parameters.other - 11 * shape.width
    assert blocks / 1e6 == pytest.approx(without_vocabulary, rel=2e-3)


def test_ladder_spans_the_promised_range() -> None:
    others = [flops.generator_parameters(generator_run(TokenizerRun(), size)).other for size in SIZES]
    assert len(others) >= 5
    assert others == sorted(others)
    assert others[0] < 25_000
    assert 4e6 < others[-1] < 6e6
    rates = [learning_rate(shape) for shape in SIZES.values()]
    assert rates == sorted(rates, reverse=True)
