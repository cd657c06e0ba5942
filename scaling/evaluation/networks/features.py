"""The two frozen feature networks: a classifier behind Frechet distances, an autoencoder behind the tokenizer's loss.

They share neither architecture nor objective: a tokenizer trained against the features that judge it would be judged
too kindly. Both are shipped as safetensors whose SHA-256 is part of every protocol; `pretrain.py` reproduces them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal, overload

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn import functional

from results.errors import DataError
from scaling.data.images import LabelledImages, to_float
from scaling.networks import channels_last, device_of, in_batches
from scaling.specification import catalogue, feature_networks

BATCH = 100
"""Images whose features are computed at a time."""


def _convolution(shape: feature_networks.Convolution) -> nn.Conv2d:
    return nn.Conv2d(shape.inputs, shape.outputs, shape.kernel, shape.stride, shape.padding)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity, ReLU after each; [n, c, s, s] -> [n, c, s, s]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(feature_networks.Convolution(channels, channels))
        self.second = _convolution(feature_networks.Convolution(channels, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images of features to images of features."""
        hidden = functional.relu(self.first(inputs))
        return functional.relu(inputs + self.second(hidden))


class FidClassifier(nn.Module):
    """A small residual classifier; its features are the spatial mean of the last stage, times one fixed scale.

    The scale makes the features' variance over the training images 1 on average over dimensions, so that distances
    have a unit: the mean variance of a feature.
    """

    feature_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleDict({"down": _convolution(down), "block": ResidualBlock(down.outputs)})
            for down in feature_networks.FID_DOWN
        )
        self.head = nn.Linear(feature_networks.FID_DIMENSIONS, feature_networks.FID_CLASSES)
        self.register_buffer("feature_scale", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, 96] of images [n, 1, s, s] in [-1, 1]."""
        return self.pooled(images) * self.feature_scale

    def pooled(self, images: Tensor) -> Tensor:
        """Unscaled features [n, 96]: what the head classifies."""
        hidden = images
        for stage in self.stages:
            hidden = stage["block"](functional.relu(stage["down"](hidden)))  # type: ignore[index]
        return hidden.mean(dim=(2, 3))

    def logits(self, images: Tensor) -> Tensor:
        """Class scores [n, 10] of images [n, 1, s, s] in [-1, 1]."""
        return self.head(self.pooled(images))


class PerceptualEncoder(nn.Module):
    """The encoder of a denoising autoencoder: a chain of convolutions with leaky ReLU."""

    slope = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_convolution(shape) for shape in feature_networks.PERCEPTUAL_CONVOLUTIONS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features at PERCEPTUAL_DEPTHS, finest first, of images [n, 1, s, s] in [-1, 1]."""
        features = []
        hidden = images
        for depth, layer in enumerate(self.layers):
            hidden = functional.leaky_relu(layer(hidden), self.slope)
            if depth in feature_networks.PERCEPTUAL_DEPTHS:
                features.append(hidden)
        return features


_CLASSES: dict[str, type[nn.Module]] = {"fid": FidClassifier, "perceptual": PerceptualEncoder}


@overload
def load_network(role: Literal["fid"]) -> FidClassifier: ...
@overload
def load_network(role: Literal["perceptual"]) -> PerceptualEncoder: ...
def load_network(role: feature_networks.Role) -> nn.Module:
    """The shipped network of a role: evaluation mode, frozen, a copy of its own for each caller.

    Raises DataError if the file is missing, or is not the one whose SHA-256 the catalogue pins.
    """
    network = _CLASSES[role]()
    network.load_state_dict(load_safetensors(_verified_bytes(role)))
    return channels_last(network.eval().requires_grad_(False))


@cache
def _verified_bytes(role: feature_networks.Role) -> bytes:
    entry = catalogue.FEATURE_NETWORKS[role]
    try:
        content = entry.path.read_bytes()
    except OSError as error:
        raise DataError(f"feature network {entry.path} cannot be read: {error.strerror}; reinstall tokenlaw") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise DataError(
            f"feature network {entry.path} is damaged: SHA-256 {digest}, expected {entry.sha256}; reinstall tokenlaw"
        )
    return content


def extract_features(
    network: nn.Module, pixels: Tensor, batch: int = BATCH, step: Callable[[], None] = lambda: None
) -> Tensor:
    """Features float32 [n, d] of uint8 images [n, c, s, s] under the FID network, `batch` images at a time.

    `step` is called before each batch, and may raise to stop.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise ValueError(f"pixels must be uint8 [n, c, s, s], not {pixels.dtype} {list(pixels.shape)}")
    device = device_of(network)
    with torch.inference_mode():
        features = in_batches(lambda p: network(to_float(p.to(device))).float().cpu(), pixels, batch=batch, step=step)
    # Cloned outside inference mode, so that callers may use the result in autograd.
    return features.clone()


def features_in_order(
    network: nn.Module, images: LabelledImages, rows: int = 5_000, step: Callable[[], None] = lambda: None
) -> Iterator[Tensor]:
    """Features float32 [rows, d] at a time (the last may be fewer) of images in their order, of which no more than a
    batch is held. See extract_features."""
    gathered: list[Tensor] = []
    for pixels in images.in_order(BATCH):
        gathered.append(extract_features(network, pixels, BATCH, step))
        if len(gathered) * BATCH >= rows:
            yield torch.cat(gathered)
            gathered = []
    if gathered:
        yield torch.cat(gathered)


class PerceptualLoss(nn.Module):
    """Distance of two batches of images in the features of the perceptual network.

    As LPIPS (arXiv 1801.03924, eq. 1) with all channel weights equal: features are scaled to unit norm over channels
    at every position; their squared differences are summed over channels, averaged over positions and images, and
    averaged over the depths. 0 for equal images, at most 4.
    """

    epsilon = 1e-6
    """Under the root of the norm: keeps the gradient finite where all features vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_network("perceptual")

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; both inputs are float [n, c, s, s] in [-1, 1]; gradients flow to `reconstruction` alone."""
        with torch.no_grad():
            wanted = [self._unit(features) for features in self.network(target)]
        reconstructed = [self._unit(features) for features in self.network(reconstruction)]
        # Unit vectors a, b: |a - b|^2 = sum over channels.
        distances = [(a - b).square().sum(dim=1).mean() for a, b in zip(reconstructed, wanted, strict=True)]
        return torch.stack(distances).mean()

    def _unit(self, features: Tensor) -> Tensor:
        return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + self.epsilon)

    def train(self, mode: bool = True) -> PerceptualLoss:
        """The network stays frozen in evaluation mode whatever its owner does."""
        super().train(mode)
        self.network.eval()
        return self
