"""The paper's 111M generator at 256 tokens takes a step: its size, FLOPs, and the loss that comes of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling.data.tokens import TokenSplit
from scaling.specification.costs import flops
from scaling.specification.ladder import transformer
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, VectorQuantizerSpec
from scaling.training.generator import GeneratorTraining
from scaling.training.schedule import segments

BATCH = 2


@pytest.mark.slow
def test_a_step_of_111m_at_256_tokens() -> None:
    tokenizer = TokenizerRun(input_size=128, quantizer=VectorQuantizerSpec(codebook_size=16384))
    run = GeneratorRun(
        tokenizer=tokenizer, transformer=transformer("111M"), batch_size=BATCH, train_images=(BATCH * 100,),
        optimiser=OptimiserSpec(learning_rate=3e-3, warmup_images=0, weight_decay=0.05),
    )  # fmt: skip
    assert tokenizer.tokens_per_image == 256
    tokens = torch.randint(16384, (BATCH, 256), generator=torch.Generator().manual_seed(0))
    training = GeneratorTraining(run, TokenSplit.of(tokens, torch.arange(BATCH)), None)
    # Of ten classes and the null class; the paper's 1000 bring it to 110.9 million.
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    assert parameters + (1000 - 10) * 768 == pytest.approx(110.9e6, rel=1e-3)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    # The fused kernel of CPUs is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        terms = training.step(segments(run)[0], 0)
    # The head starts at zero: every code is as likely as any other.
    assert float(terms["loss"]) == pytest.approx(math.log(16384), rel=1e-6)
    assert counter.get_total_flops() == pytest.approx(flops.generator_training_flops(run, BATCH), rel=1e-3)
    assert math.isfinite(float(terms["gradient_norm"])) and float(terms["gradient_norm"]) > 0
    moved = [name for name, value in training.model.state_dict().items() if not torch.equal(value, before[name])]
    assert "head.weight" in moved
    # At once all other gradients are 0, for they come through the head; decay moves the matrices.
    assert float(training.step(segments(run)[0], BATCH)["loss"]) < math.log(16384)
