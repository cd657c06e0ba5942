"""Stage 2's counts: published sizes to the printed digit, FLOPs as torch counts them, published axes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling.generator.transformer import Generator, build_generator
from scaling.specification.costs import flops
from scaling.specification.costs.generator_counts import (
    generator_parameters,
    papers_axis,
    plan_columns,
    six_nd,
    token_flops,
)
from scaling.specification.ladder import LLAMAGEN_SIZES, transformer
from scaling.specification.pictures import PicturesSpec
from scaling.specification.spec import (
    AutoencoderSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    TransformerSpec,
    VectorQuantizerSpec,
)

IMAGENET = PicturesSpec(
    image_size=256, crop="ten", fingerprint="0" * 64, classes=1000, train_images=1_281_167, validation_images=50_000
)
SIZES = ("31M", "52M", "81M", "111M", "212M", "343M", "517M", "775M")


def imagenet(codebook_size: int, size: str | TransformerSpec, iterations: int = 375_000) -> GeneratorRun:
    """A generator of the paper's at 256 tokens and its batch of 256."""
    tokenizer = TokenizerRun(
        data=IMAGENET,
        autoencoder=AutoencoderSpec(downsampling=16, channel_multipliers=(1, 1, 2, 4), residual_blocks=(1, 1, 1, 1)),
        quantizer=VectorQuantizerSpec(codebook_size=codebook_size),
    )
    return GeneratorRun(
        tokenizer=tokenizer, transformer=transformer(size) if isinstance(size, str) else size, batch_size=256,
        optimiser=OptimiserSpec(learning_rate=3e-3, warmup_images=0), train_images=(256 * iterations,),
        schedule="cosine",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("codebook_size", "printed"),
    [
        (1024, "13.70 32.4 58.9 87.3 184 311 481 735.4"),
        (16384, "31.40 52.09 80.56 110.9 212.0 342.9 516.7 774.7"),
        (131072, "163.5 199 242 287 417 578 781 1068.3"),
    ],
)
def test_the_papers_parameters_to_the_printed_digit(codebook_size: int, printed: str) -> None:
    """With 1,000 classes and the null class (Table 2, recomputed)."""
    for size, text in zip(SIZES, printed.split(), strict=True):
        digits = len(text.partition(".")[2])
        total = generator_parameters(imagenet(codebook_size, size)).total / 1e6
        assert abs(total - float(text)) <= 0.5 * 10**-digits + 1e-9, (size, total)


def test_parts_of_the_parameters_are_the_modules() -> None:
    tied = TransformerSpec(width=64, layers=1, tied_embeddings=True, qk_norm=False)
    factorised = TransformerSpec(width=64, layers=2, head="factorised")
    for shape in (transformer("S"), transformer("h3"), factorised, tied, LLAMAGEN_SIZES["GPT-B"]):
        counts = generator_parameters(imagenet(1000, shape))
        with torch.device("meta"):
            model = Generator(shape, codebook_size=1000, grid=16, classes=1000)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        assert counts.total == sum(sizes.values())
        assert counts.head == sum(n for name, n in sizes.items() if name.startswith("head."))
        assert counts.conditioning == sizes["class_embedding.weight"]
        assert counts.non_embedding == sum(n for name, n in sizes.items() if name.startswith("trunk."))


def counted(run: GeneratorRun, batch: int) -> tuple[int, int]:
    """FLOPs that torch counts in the forward pass and in a training step, on tensors without memory."""
    with torch.device("meta"):
        model = build_generator(run)
        tokens = torch.zeros(batch, run.tokenizer.tokens_per_image, dtype=torch.int64)
        labels = torch.zeros(batch, dtype=torch.int64)
    forward, step = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH):
        with forward, torch.no_grad():
            model.head(model.hidden(tokens, labels))
        with step:
            model.loss(model.hidden(tokens, labels), tokens).backward()
    return forward.get_total_flops(), step.get_total_flops()


@pytest.mark.parametrize("size", ["h4", "31M", "52M", "111M", "343M", "775M", "GPT-L"])
@pytest.mark.parametrize("codebook_size", [1024, 16384, 131072])
def test_flops_are_what_torch_counts(size: str, codebook_size: int) -> None:
    shape = transformer(size).model_dump()
    dropouts = dict.fromkeys(("token_dropout", "residual_dropout", "feed_forward_dropout"), 0.0)
    run = imagenet(codebook_size, TransformerSpec.model_validate(shape | dropouts))
    forward, step = counted(run, batch=2)
    assert flops.generator_forward_flops(run) * 2 == pytest.approx(forward, rel=1e-3)
    assert flops.generator_training_flops(run, images=2) == pytest.approx(step, rel=1e-3)
    token = token_flops(run)
    assert token.training * 256 * 2 == pytest.approx(step, rel=1e-3)
    assert token.head == 2 * run.transformer.width * codebook_size


def test_the_factorised_head_costs_what_torch_counts_in_training() -> None:
    run = imagenet(2**18, TransformerSpec(width=128, layers=2, head="factorised"))
    assert counted(run, batch=2)[1] == pytest.approx(flops.generator_training_flops(run, images=2), rel=1e-3)
    full = imagenet(2**18, TransformerSpec(width=128, layers=2))
    assert token_flops(run).head < token_flops(full).head / 200
    assert generator_parameters(run).head < generator_parameters(full).head / 100


def test_attention_is_told_apart_and_halved() -> None:
    run = imagenet(16384, "111M")
    whole, halved = token_flops(run), token_flops(run, halve_causal=True)
    assert whole.attention == 2 * halved.attention == 4 * 12 * 256 * 768
    assert whole.blocks == halved.blocks
    assert whole.forward - halved.forward == halved.attention


def test_the_vocabulary_is_most_of_a_small_model() -> None:
    """XS at K = 1024 has 13.8k other parameters beside 65.5k of vocabulary, with the 11 classes of Fashion-MNIST."""
    run = GeneratorRun(
        tokenizer=TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=1024)), transformer=transformer("XS"),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0), train_images=(640,),
    )  # fmt: skip
    counts = generator_parameters(run)
    assert (counts.embedding, round(counts.other, -2)) == (65_536, 13_800)
    assert token_flops(run).head_share > 0.65


def test_the_papers_axis_has_its_published_range() -> None:
    """1.2e15 for 52M at 15k iterations to 2.7e18 for 775M at 2.25M; times the batch it is 6ND."""
    first, last = imagenet(16384, "52M", 15_000), imagenet(16384, "775M", 2_250_000)
    assert papers_axis(first, first.train_images[-1]) == pytest.approx(1.2e15, rel=0.01)
    assert papers_axis(last, last.train_images[-1]) == pytest.approx(2.7e18, rel=0.01)
    assert 256 * papers_axis(last, 256) == six_nd(last, 256, embeddings=True)


def test_six_nd_with_the_head_is_near_the_matrices_flops() -> None:
    """6ND with all but the embeddings' look-ups counts every product but attention's."""
    run = imagenet(16384, "775M")
    counts, token = generator_parameters(run), token_flops(run)
    matrices = counts.non_embedding + counts.head
    assert 6 * matrices == pytest.approx(3 * (token.blocks + token.head), rel=1e-3)


def test_both_stages_are_shared_out_over_generators() -> None:
    run = imagenet(1024, "31M")
    images = 1000
    alone, shared = flops.amortised_flops(run, images, 1), flops.amortised_flops(run, images, 10)
    stage_1 = flops.tokenizer_training_flops(run.tokenizer, run.tokenizer.train_images)
    assert alone - shared == pytest.approx(0.9 * stage_1)
    with pytest.raises(ValueError, match="generators = 0"):
        flops.amortised_flops(run, images, 0)


def test_columns_of_a_plan_are_these_counts() -> None:
    run = imagenet(16384, "775M")
    columns = plan_columns(run)
    assert columns["flops_paper_axis"] * 256 == columns["flops_6nd"]
    assert columns["params_embedding"] == 2 * columns["params_head"] == 2 * 16384 * 1280
    assert columns["flops_per_token"] == 3 * columns["flops_per_token_forward"]
    assert columns["flops_per_token"] * 256 * run.train_images[-1] == pytest.approx(
        flops.generator_training_flops(run, run.train_images[-1])
    )
    assert columns["flops_halved_attention"] < flops.generator_training_flops(run, run.train_images[-1])
