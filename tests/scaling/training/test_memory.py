"""Trainings that no memory here could hold are refused, naming what takes it."""

from __future__ import annotations

import pytest
import torch

from results.errors import UsageError
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, TransformerSpec, VectorQuantizerSpec
from scaling.training import memory
from scaling.training.memory import check_memory, device_memory

CPU = torch.device("cpu")


def test_a_codebook_larger_than_memory_is_one_error() -> None:
    run = TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=2**20, code_dim=4_000_000))
    with pytest.raises(UsageError, match=r"codebook_size = 1048576 x code_dim = 4000000 takes 67,117\.1 GB .* cpu has"):
        check_memory(run, CPU)
    check_memory(TokenizerRun(), CPU)


def test_a_generator_counts_with_the_processes_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = GeneratorRun(
        tokenizer=TokenizerRun(), transformer=TransformerSpec(width=1024, layers=8), train_images=(6400,),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
    )  # fmt: skip
    state = memory.BYTES * memory.flops.parameters(run).total
    monkeypatch.setattr(memory, "device_memory", lambda device: state - 1)
    with pytest.raises(UsageError, match=r"parameters, which takes 1\.\d GB .* allowed: less than that, or strategy"):
        check_memory(run, CPU)
    check_memory(run, CPU, shares=2)


def test_this_machine_tells_its_memory() -> None:
    known = device_memory(CPU)
    assert known is None or 2**28 < known < 2**50
    assert device_memory(torch.device("meta")) is None
