"""Training with compiled networks: the losses of the written ones, measurements that are never compiled."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from results.recorder import Recorder
from scaling.data.images import to_float
from scaling.data.tokens import TokenSplit
from scaling.specification.models.autoencoders import AutoencoderSpec
from scaling.specification.models.regularisers import CausalRegulariserSpec
from scaling.specification.spec import (
    AdversarialSpec,
    GeneratorRun,
    OptimiserSpec,
    ReconstructionLossSpec,
    TokenizerRun,
    TransformerSpec,
    VectorQuantizerSpec,
)
from scaling.specification.workspace import Workspace
from scaling.tokenizer.model import Tokenizer
from scaling.training.generator import GeneratorTraining
from scaling.training.loop import TrainingLoop
from scaling.training.schedule import segments
from scaling.training.tokenizer import Evaluate, TokenizerTraining

BATCH = 8
RATE = OptimiserSpec(learning_rate=1e-3, warmup_images=0)


@pytest.fixture(autouse=True)
def path_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler puts its cache on it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


class _Noise:
    """The same images in every step."""

    def __init__(self) -> None:
        self.pixels = torch.randint(256, (BATCH, 1, 32, 32), generator=torch.Generator().manual_seed(0)).byte()

    def stream(self, *arguments: object) -> _Noise:
        return self

    def at(self, position: int) -> torch.Tensor:
        return self.pixels

    def close(self) -> None:
        pass


def generator() -> GeneratorTraining:
    run = GeneratorRun(
        tokenizer=TokenizerRun(), batch_size=BATCH, train_images=(BATCH * 100,), optimiser=RATE,
        transformer=TransformerSpec(
            width=32, layers=10, head_dim=16, hidden_multiple=32, residual_dropout=0.1, feed_forward_dropout=0.1,
            token_dropout=0.1, class_dropout=0.1,
        ),
    )  # fmt: skip
    tokens = torch.randint(256, (64, 16), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    return GeneratorTraining(run, TokenSplit.of(tokens, torch.arange(64) % 10), None)


def tokenizer(
    measure: Evaluate = lambda *arguments: None, adversarial: AdversarialSpec | None = None
) -> TokenizerTraining:
    run = TokenizerRun(
        autoencoder=AutoencoderSpec(downsampling=4, width=8, channel_multipliers=(1, 1), residual_blocks=(0, 0)),
        train_images=BATCH * 4, batch_size=BATCH,
        quantizer=VectorQuantizerSpec(codebook_size=64, revive_every=0), adversarial=adversarial, optimiser=RATE,
        regulariser=CausalRegulariserSpec(width=32), losses=ReconstructionLossSpec(perceptual_weight=0.0),
    )  # fmt: skip
    return TokenizerTraining(run, _Noise(), measure)  # type: ignore[arg-type]


def losses(training: GeneratorTraining, steps: int = 4) -> list[float]:
    segment = segments(training.spec)[0]
    return [float(training.step(segment, step * BATCH)["loss"]) for step in range(steps)]


def graphs() -> int:
    """How many graphs were compiled in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
def test_a_generator_learns_as_it_does_without() -> None:
    """Dropout draws the same masks; one compiled block serves for all, whatever their number."""
    expected = losses(generator())
    training = generator()
    training.compile()
    before = graphs()
    assert losses(training) == pytest.approx(expected, rel=1e-5)
    assert graphs() - before == 1


@pytest.mark.slow
def test_a_tokenizer_learns_as_it_does_without_and_is_measured_as_it_is_written(tmp_path: Path) -> None:
    """Encoder, decoder and the regulariser's blocks are compiled; no graph comes with the measurement."""
    at_end: list[tuple[int, bool]] = []
    compiled_then: list[int] = []

    def measure(model: Tokenizer, recorder: Recorder) -> None:
        before = graphs()
        latents = [each.encode(to_float(_Noise().pixels)).projected for each in (model, copy.deepcopy(model))]
        at_end.append((graphs() - before, torch.equal(*latents)))

    def rows(compiled: bool) -> list[float]:
        training = tokenizer(measure)
        if compiled:
            training.compile()
            compiled_then.append(graphs())
        folder = tmp_path / str(compiled)
        folder.mkdir()
        recorder = Recorder(training.spec.run_id, 1)
        workspace = Workspace(folder, (), None, folder)
        schedule = segments(training.spec)
        TrainingLoop(training, schedule, workspace, recorder, lambda p: None, lambda: False, 0.1).run()
        return [row["value"] for row in recorder.rows["curves"] if row["term"] in ("loss", "causal")]

    expected = rows(False)
    assert rows(True) == pytest.approx(expected, rel=1e-4)
    assert graphs() - compiled_then[0] == 3
    assert at_end == [(0, True)] * 2


def test_an_adaptive_weight_leaves_the_decoder_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is that of the last layer, which a compiled decoder would only give with all others."""
    compiled: list[nn.Module] = []
    monkeypatch.setattr("scaling.training.stage.check_compiles", lambda device: None)
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    for adaptive in (False, True):
        training = tokenizer(adversarial=AdversarialSpec(start_images=0, ramp_images=0, adaptive=adaptive))
        training.compile()
        assert (training.model.decoder in compiled, training.model.encoder in compiled) == (not adaptive, True)
        compiled.clear()


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_told_before_training(tmp_path: Path) -> None:
    code = "import torch; from scaling.networks import check_compiles; check_compiles(torch.device('cpu'))"
    place = {"CXX": str(tmp_path / "absent"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = subprocess.run([sys.executable, "-c", code], env=os.environ | place, capture_output=True, text=True)
    assert result.returncode == 1
    assert "UsageError: resources.compile = true: torch.compile does not work here for the device cpu" in result.stderr
    assert "allowed: false, or a machine with a C++ compiler" in result.stderr
