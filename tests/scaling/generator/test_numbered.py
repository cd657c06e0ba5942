"""Images by number: the same for any number of images, of processes and of batches of one microbatch; truncation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scaling.evaluation.measuring.sampled import Sampler
from scaling.generator.numbered import NumberedImages, uniforms
from scaling.generator.sampling import guidance_at, sample, truncated
from scaling.ranks import Place
from scaling.specification.evaluation import EvaluationSpec
from scaling.specification.ladder import transformer
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun
from scaling.tokenizer.model import Tokenizer
from scaling.training.distributed import ALONE, Ranks

from .test_transformer import model

LABELS = torch.arange(3)


def images(microbatch: int = 4, seed: int = 0, **settings: object) -> NumberedImages:
    return NumberedImages(SamplingSpec(microbatch=microbatch, **settings), seed, LABELS)


def drawn(row: NumberedImages, n: int, rank: int = 0, ranks: int = 1, guidance: float = 1.5) -> dict[int, Tensor]:
    """Tokens of the images below n that a process draws, by number."""
    generator = model()
    tokens = {}
    for microbatch in row.microbatches(n, rank, ranks):
        tokens |= dict(zip(row.numbers(microbatch), row.tokens(generator, microbatch, guidance), strict=True))
    return {number: image for number, image in tokens.items() if number < n}


def test_an_image_depends_on_its_number_alone() -> None:
    """Not on how many images there are, nor on how many processes share them."""
    whole = drawn(images(), 22)
    assert sorted(whole) == list(range(22))
    for n, ranks in ((22, 2), (22, 3), (22, 9), (7, 1), (13, 2)):
        shared: dict[int, Tensor] = {}
        for rank in range(ranks):
            share = drawn(images(), n, rank, ranks)
            assert not shared.keys() & share.keys()
            shared |= share
        assert sorted(shared) == list(range(n))
        assert all(torch.equal(image, whole[number]) for number, image in shared.items())
    other = drawn(images(seed=1), 22)
    assert not any(torch.equal(other[number], whole[number]) for number in whole)


def test_draws_are_named_by_seed_purpose_and_number() -> None:
    rows = uniforms(5, "sampling", range(10, 14), 6)
    assert torch.equal(rows[1:3], uniforms(5, "sampling", range(11, 13), 6))
    assert len({tuple(row.tolist()) for row in (*rows, *uniforms(5, "guidance tuning", range(10, 14), 6))}) == 8


def test_classes_come_in_turn() -> None:
    assert images().labels_of(range(7, 11)).tolist() == [1, 2, 0, 1]


class _Identity(nn.Module):
    """Pixels as features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, ::97]


class _Share(Ranks):
    """A process of several whose sums are its own share."""

    def sum(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def told(self, value: object) -> object:
        return value


def test_shares_of_processes_add_up_to_one_process() -> None:
    tokenizer = TokenizerRun()
    run = GeneratorRun(
        tokenizer=tokenizer, transformer=transformer("XS"), train_images=(64,), schedule="cosine",
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
        evaluation=EvaluationSpec(samples=130, sampling=SamplingSpec(microbatch=16)),
    )  # fmt: skip
    generator = model(codebook_size=tokenizer.codebook_size, classes=10)
    decoder = Tokenizer(tokenizer).eval()

    def draw(ranks: Ranks) -> tuple[Tensor, Tensor]:
        sampler = Sampler(run, decoder, [_Identity()], torch.arange(10), ranks, lambda detail: None)
        drawn = sampler.draw(generator, 1.5, shown=40)
        return drawn.spaces[0], drawn.pixels

    whole = draw(ALONE)
    assert whole[0].shape[0] == 130 and whole[1].shape[0] == 40
    for size in (2, 11):
        shares = [draw(_Share(Place(rank, size), torch.device("cpu"))) for rank in range(size)]
        for parts, expected in zip(zip(*shares, strict=True), whole, strict=True):
            assert torch.equal(torch.stack(parts).sum(0).to(expected.dtype), expected)


@given(st.integers(2, 40), st.integers(0, 50), st.floats(0.05, 1), st.integers(0, 10**6))
def test_truncation_keeps_the_likeliest(size: int, top_k: int, top_p: float, seed: int) -> None:
    logits = 3 * torch.randn(4, size, generator=torch.Generator().manual_seed(seed))
    kept = truncated(logits.clone(), top_k, top_p)
    staying = kept > -math.inf
    assert torch.equal(kept[staying], logits[staying])
    for row, stays in zip(logits, staying, strict=True):
        assert stays.any()
        assert not top_k or int(stays.sum()) <= max(top_k, 1)
        likely = row.sort(descending=True).values
        assert row[stays].min() == likely[int(stays.sum()) - 1]  # a head of the order
        among = likely[: top_k or size].softmax(0)
        before = float(among[: int(stays.sum()) - 1].sum())
        assert before < top_p + 1e-5
        if int(stays.sum()) < len(among):
            assert float(among[: int(stays.sum())].sum()) >= top_p - 1e-5


def test_top_1_is_the_likeliest_code_whatever_is_drawn() -> None:
    generator, labels = model(), torch.tensor([0, 1, 2])
    low, high = (sample(generator, labels, torch.full((3, 16), u), top_k=1) for u in (0.0, 1 - 2**-24))
    assert torch.equal(low, high)
    cold = sample(generator, labels, torch.full((3, 16), 0.5), temperature=1e-4)
    assert torch.equal(cold, low)


def test_guidance_rises_over_the_tokens() -> None:
    for schedule in ("linear", "cosine"):
        scales = [guidance_at(schedule, 3.0, t, 9) for t in range(9)]
        assert scales[0] == 1 and scales[-1] == 3 and scales == sorted(scales)
        assert scales[4] == pytest.approx(2)
    assert guidance_at("cosine", 3.0, 2, 9) < guidance_at("linear", 3.0, 2, 9) == 1.5
    assert {guidance_at("constant", 3.0, t, 9) for t in range(9)} == {3.0}
    assert guidance_at("linear", 3.0, 0, 1) == 3.0


def test_a_schedule_of_guidance_acts_on_each_token() -> None:
    """At the first token it is that without guidance, at the last that of constant guidance."""
    generator, labels = model(), torch.arange(30) % 3
    numbers = torch.rand(30, 16, generator=torch.Generator().manual_seed(2))
    plain, constant, linear = (
        sample(generator, labels, numbers, guidance=scale, schedule=schedule)
        for scale, schedule in ((1.0, "constant"), (20.0, "constant"), (20.0, "linear"))
    )
    assert torch.equal(linear[:, 0], plain[:, 0]) and not torch.equal(constant[:, 0], plain[:, 0])
    assert not torch.equal(linear, plain) and not torch.equal(linear, constant)
