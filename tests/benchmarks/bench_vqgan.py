"""A training step of f16 (squared error and VQ) beside diffusers' VQModel and LlamaGen's tokenizer, by turns on one
thread.

python tests/benchmarks/bench_vqgan.py [SIDE] [REPEATS] [LAYOUT]

Needs `pip install diffusers`. Diffusers' has the same levels, blocks and attention and the same weights, read through
the map of names, with its own quantizer; LlamaGen's is llamagen_tokenizer_peer.py. All take a step on one image of SIDE
pixels, ours in the layout of its specification unless LAYOUT names another. A time is the least of REPEATS.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from llamagen_tokenizer_peer import LlamaGenTokenizer  # Beside this script.
from torch import Tensor

from scaling.specification.costs import flops
from scaling.specification.spec import PicturesSpec, TokenizerRun, VqganSpec
from scaling.tokenizer.importing import load_imported, read_diffusers


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Both steps, in turn."""
    from diffusers import VQModel

    side, repeats = (int(value) for value in (*sys.argv[1:3], *("256", "2")[len(sys.argv) - 1 :]))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    other = VQModel(
        block_out_channels=(128, 128, 256, 256, 512), layers_per_block=2, latent_channels=256, vq_embed_dim=8,
        num_vq_embeddings=16_384, down_block_types=("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
    ).train()  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        other.save_pretrained(folder)
        imported = read_diffusers(Path(folder))
    layout = sys.argv[3] if len(sys.argv) > 3 else VqganSpec().memory_layout
    autoencoder = imported.autoencoder.model_copy(update={"memory_layout": layout})
    data = PicturesSpec(
        fingerprint="0" * 64, image_size=side, channels=3, classes=2, train_images=2, validation_images=2
    )
    run = TokenizerRun(data=data, autoencoder=autoencoder, quantizer=imported.quantizer)
    model, images = load_imported(run, imported).train(), torch.rand(1, 3, side, side) * 2 - 1

    def step(forward: Callable[[], tuple[Tensor, Tensor]], optimiser: torch.optim.Optimizer) -> None:
        decoded, loss = forward()
        ((decoded - images).square().mean() + loss).backward()
        optimiser.step()
        optimiser.zero_grad()

    def ours() -> tuple[Tensor, Tensor]:
        quantised = model.encode(images).quantised
        return model.decode(quantised.codes), quantised.weighted

    def theirs() -> tuple[Tensor, Tensor]:
        result = other(images)
        return result.sample, result.commit_loss.mean()

    llamagen = LlamaGenTokenizer().train()
    optimisers = [torch.optim.AdamW(network.parameters(), lr=1e-6) for network in (model, other, llamagen)]
    calls = [
        lambda: step(ours, optimisers[0]), lambda: step(theirs, optimisers[1]),
        lambda: step(lambda: llamagen(images), optimisers[2]),
    ]  # fmt: skip
    times = [[seconds(call) for call in calls] for _ in range(repeats + 1)][1:]
    own, others, published = (min(column) for column in zip(*times, strict=True))
    costs = flops.tokenizer_costs(run)
    rate = (costs.autoencoder + costs.quantizer) / own / 1e9
    print(
        f"step at {side} pixels, {layout}: {own:.2f} s ({rate:.0f} GFLOP/s), diffusers {others:.2f} s: "
        f"{others / own:.2f} x, LlamaGen's {published:.2f} s: {published / own:.2f} x"
    )


if __name__ == "__main__":
    main()
