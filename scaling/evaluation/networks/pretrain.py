"""Trains both feature networks: `python -m scaling.evaluation.networks.pretrain [--out DIR] [--role ROLE]`.

Deterministic on one thread: the same versions on the same type of CPU give the same bytes. Writes each network as
safetensors, with batch normalisation folded into the convolutions, and its entry in networks.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from results.store import atomic
from scaling.data.images import Images, load_images, to_float
from scaling.networks import channels_last, in_batches
from scaling.specification import catalogue, feature_networks
from scaling.specification.spec import DataSpec

from .features import FidClassifier, PerceptualEncoder

BATCH = 128
FILES: dict[str, str] = {"fid": "fid_classifier.safetensors", "perceptual": "perceptual_autoencoder.safetensors"}


Facts = dict[str, Any]
"""What was measured of a network, as it is written to networks.json."""


def train_fid(train: Images, validation: Images, epochs: int = 18, seed: int = 0) -> tuple[FidClassifier, Facts]:
    """The classifier, by cross-entropy under flips, shifts and erased squares; the network and its measurements."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = channels_last(FidClassifier())
    _insert_batch_norm(network)

    def loss(index: Tensor) -> Tensor:
        images = _erase(_shift_and_flip(to_float(train.pixels[index]), generator), generator)
        return functional.cross_entropy(network.logits(images), train.labels[index])

    _minimise("fid", network, loss, len(train), epochs, generator)
    _fold_batch_norm(network)
    with torch.inference_mode():
        features = in_batches(lambda pixels: network.pooled(to_float(pixels)), train.pixels, batch=500)
        variance = features.double().var(dim=0).mean()
        network.feature_scale.copy_(variance.rsqrt())
        accuracies = {name: _accuracy(network, images) for name, images in (("test", validation), ("train", train))}
    return network, {
        "description": "residual classifier of the ten classes (ReLU, spatial mean); features scaled to unit variance",
        "dimensions": feature_networks.FID_DIMENSIONS,
        "test_accuracy": accuracies["test"],
        "train_accuracy": accuracies["train"],
    }


class _Autoencoder(nn.Module):
    """The encoder to be shipped and a decoder that mirrors it, without skips; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PerceptualEncoder()
        last = feature_networks.PERCEPTUAL_CONVOLUTIONS[-1]
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(last.outputs, 32, 4, 2, 1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(32, 32, 4, 2, 1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.1),
            nn.Conv2d(32, 4, 3, 1, 1),
            nn.PixelShuffle(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Clean images from corrupted ones, [n, 1, s, s] both."""
        return self.decoder(self.encoder(images)[-1])


def train_perceptual(
    train: Images, validation: Images, epochs: int = 10, seed: int = 1
) -> tuple[PerceptualEncoder, Facts]:
    """The encoder, by restoring images from noise and missing squares; the network and its measurements."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = channels_last(_Autoencoder())
    _insert_batch_norm(network.encoder)

    def loss(index: Tensor) -> Tensor:
        clean = _shift_and_flip(to_float(train.pixels[index]), generator)
        return functional.mse_loss(network(_corrupt(clean, generator)), clean)

    _minimise("perceptual", network, loss, len(train), epochs, generator)
    _fold_batch_norm(network.encoder)
    generator.manual_seed(seed)
    with torch.inference_mode():
        clean = to_float(validation.pixels)
        corrupted = _corrupt(clean, generator)
        restored = in_batches(network, corrupted, batch=500)
        before, after = (functional.mse_loss(images, clean).item() for images in (corrupted, restored))
    return network.encoder, {
        "description": "encoder of a denoising autoencoder (leaky ReLU), features at three depths",
        "test_squared_error_corrupted": round(before, 5),
        "test_squared_error_restored": round(after, 5),
    }


def _minimise(
    role: str,
    network: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    generator: torch.Generator,
) -> None:
    """AdamW on the loss of batches of indices below `count`, each epoch in its own order; ends in evaluation mode."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=0.05)
    step, total = 0, epochs * (count // BATCH)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for index in order[: count - count % BATCH].split(BATCH):
            optimiser.param_groups[0]["lr"] = _learning_rate(step, total, peak=4e-3)
            loss = loss_of(index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            if step % 500 == 0 or step == total:
                print(f"{role}: step {step}/{total}, loss {loss.item():.4f}", file=sys.stderr, flush=True)
    network.eval()


def _learning_rate(step: int, total: int, peak: float) -> float:
    """Linear warm-up over the first twentieth, then a cosine to zero."""
    warmup = total / 20
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _shift_and_flip(images: Tensor, generator: torch.Generator, reach: int = 2) -> Tensor:
    """Each image moved by up to `reach` pixels on both axes and mirrored with probability 1/2; the rest wraps around,

    which for images with a border of zeros as wide as `reach` is a plain move.
    """
    count, _, side, _ = images.shape
    moves = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    line = torch.arange(side)
    rows = (line - moves[0]) % side
    columns = (torch.where(mirrored, line.flip(0), line) - moves[1]) % side
    index = torch.arange(count)[:, None, None]
    return images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _erase(images: Tensor, generator: torch.Generator, side: int = 8) -> Tensor:
    """Half the images with a square of `side` pixels blackened at a random place."""
    count, _, size, _ = images.shape
    corner = torch.randint(0, size - side + 1, (2, count, 1), generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < 0.5
    line = torch.arange(size)
    inside = [(line >= start) & (line < start + side) for start in corner]
    square = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, :, None]
    return images.masked_fill(square[:, None], -1.0)


def _corrupt(images: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of a strength drawn for each image from [0, 0.6], and a quarter of the 4x4 squares set to mid-grey."""
    count, _, size, _ = images.shape
    strength = 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    noisy = images + strength * torch.randn(images.shape, generator=generator)
    missing = torch.rand(count, 1, size // 4, size // 4, generator=generator) < 0.25
    return noisy.masked_fill(missing.repeat_interleave(4, 2).repeat_interleave(4, 3), 0.0)


def _insert_batch_norm(network: nn.Module) -> None:
    """Puts a batch normalisation behind every convolution; `_fold_batch_norm` takes it out again."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))


def _fold_batch_norm(network: nn.Module) -> None:
    """Replaces each (convolution, batch normalisation) by the one convolution that computes the same."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            match list(child.children()) if isinstance(child, nn.Sequential) else []:
                case [nn.Conv2d() as convolution, nn.BatchNorm2d() as norm]:
                    setattr(parent, name, fuse_conv_bn_eval(convolution, norm))


def _accuracy(network: FidClassifier, images: Images) -> float:
    guesses = in_batches(lambda pixels: network.logits(to_float(pixels)).argmax(1), images.pixels, batch=500)
    return int((guesses == images.labels).sum()) / len(images)


def write_network(role: feature_networks.Role, network: nn.Module, facts: dict[str, Any], folder: Path) -> str:
    """Writes weights and the role's entry of networks.json into `folder`; the SHA-256 of the weights."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    content = save_safetensors(tensors)
    atomic.write(atomic.make_folder(folder) / FILES[role], content)
    index = folder / "networks.json"
    entries = json.loads(index.read_text()) if index.exists() else {}
    digest = hashlib.sha256(content).hexdigest()
    counted = feature_networks.parameter_count(role)
    entries[role] = {"file": FILES[role], "sha256": digest, "parameters": counted, **facts}
    atomic.write(index, json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    return digest


def main(arguments: list[str] | None = None) -> None:
    """Trains the networks asked for and prints what was measured."""
    parser = argparse.ArgumentParser(prog="python -m scaling.evaluation.networks.pretrain", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=catalogue.WEIGHTS, help="folder to write to (default: the installed one)"
    )
    parser.add_argument("--role", choices=get_args(feature_networks.Role), help="only this network (default: both)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, validation = (load_images(DataSpec(), split) for split in ("train", "validation"))
    builders: dict[feature_networks.Role, Callable[[Images, Images], tuple[nn.Module, Facts]]]
    builders = {"fid": train_fid, "perceptual": train_perceptual}
    for role, build in builders.items():
        if chosen.role in (None, role):
            started = time.perf_counter()
            network, facts = build(train, validation)
            digest = write_network(role, network, facts, chosen.out)
            print(f"{role}: {facts}, SHA-256 {digest}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
