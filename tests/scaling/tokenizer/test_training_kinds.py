"""Every kind of autoencoder and quantizer trains through the one training of stage 1, and is stored and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scaling.data.run_images import RunImages
from scaling.specification.spec import (
    AutoencoderSpec,
    BinarySphericalSpec,
    IndexBackpropagationSpec,
    LookupFreeQuantizerSpec,
    OptimiserSpec,
    QuantizerSpec,
    ReconstructionLossSpec,
    SimVectorQuantizerSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    VqganSpec,
)
from scaling.tokenizer.model import Tokenizer
from scaling.training.schedule import segments
from scaling.training.tokenizer import TokenizerTraining

VQGAN = VqganSpec(downsampling=8, channel_multipliers=(1, 1, 1, 2), width=8, latent_channels=16, norm_groups=4)
SMALL = AutoencoderSpec(width=8, residual_blocks=(0, 0, 1))
KINDS: dict[str, tuple[VqganSpec | AutoencoderSpec, QuantizerSpec]] = {
    "vqgan-vq": (VQGAN, VectorQuantizerSpec(codebook_size=64, revive_every=0, initialisation="unit-norm")),
    "simvq": (SMALL, SimVectorQuantizerSpec(codebook_size=64)),
    "ibq": (SMALL, IndexBackpropagationSpec(codebook_size=64, entropy_weight=0.05)),
    "lfq": (SMALL, LookupFreeQuantizerSpec(bits=6)),
    "bsq": (SMALL, BinarySphericalSpec(bits=6)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_few_steps_lower_the_error_and_the_weights_come_back(
    name: str, fashion_mnist: dict[str, Path], tmp_path: Path
) -> None:
    autoencoder, quantizer = KINDS[name]
    run = TokenizerRun(
        autoencoder=autoencoder, quantizer=quantizer, train_images=480, batch_size=16, ema_decay=0.0,
        losses=ReconstructionLossSpec(perceptual_weight=0.0),
        optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=0),
    )  # fmt: skip
    training = TokenizerTraining(run, RunImages(run.data, None, 1).split("train"), lambda model, recorder: None)
    (segment,) = segments(run)
    terms = [training.step(segment, step * run.batch_size) for step in range(12)]
    training.stream.close()
    errors = [float(term["squared_error"]) for term in terms]
    assert errors[-1] < 0.8 * errors[0]
    assert all(term.isfinite().all() for step in terms for term in step.values())
    training.model.eval().save(tmp_path / "model.safetensors")
    again = Tokenizer.load(run, tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(again.encode(images).quantised.tokens, training.model.encode(images).quantised.tokens)
