"""The networks that judge a run, by what its specification names: features behind distances, and the perceptual loss.

The two shipped networks know grey images of 28 to 32 pixels. Of other pictures they are shown this, and no more:

    distances        the picture in grey (ITU-R 601: 0.299 R + 0.587 G + 0.114 B), resized to 32 pixels (bicubic,
                     antialiased), under the name `fid-grey32`: it sees no colour and no detail, and is never FID
    perceptual loss  each colour channel by itself as a grey image, at its own side; the mean over channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scaling.data.images import resize
from scaling.specification.pictures import ImagesSpec, PicturesSpec
from scaling.specification.spec import EvaluationSpec, TokenizerRun

from .features import PerceptualLoss, load_network

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R 601)."""
SIDE = 32
"""Pixels a side that the shipped feature network is shown."""


@dataclass(frozen=True)
class Extractor:
    """A feature network as a protocol names it: its name, and the SHA-256 of its weights."""

    name: str
    sha256: str


def extractor(data: ImagesSpec, evaluation: EvaluationSpec) -> Extractor:
    """What the distances of a run are computed with."""
    return Extractor("fid-grey32" if _adapted(data) else "fid", evaluation.fid_network)


def feature_network(data: ImagesSpec, evaluation: EvaluationSpec, device: torch.device) -> nn.Module:
    """The network behind `extractor`: float images [n, c, s, s] in [-1, 1] to features [n, d]. Frozen."""
    # The only network that evaluation.fid_network can name yet; others join here.
    network = load_network("fid")
    return (GreyOf32(network) if _adapted(data) else network).to(device)


def perceptual_loss(run: TokenizerRun, device: torch.device) -> nn.Module:
    """The frozen loss network of a run: (reconstruction, target), both [n, c, s, s] in [-1, 1], to a scalar."""
    loss: nn.Module = PerceptualLoss()
    return (ByChannel(loss) if run.data.channels > 1 else loss).to(device)


def _adapted(data: ImagesSpec) -> bool:
    """Whether images are other than the shipped feature network knows."""
    return isinstance(data, PicturesSpec) and (data.channels, data.image_size) != (1, SIDE)


class GreyOf32(nn.Module):
    """A network of grey images of 32 pixels, shown such a version of any picture."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, d] of images [n, c, s, s] in [-1, 1], c 1 or 3."""
        return self.network(resize(grey(images), SIDE))


class ByChannel(nn.Module):
    """A loss of grey images, of each channel by itself."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """The mean over channels, both inputs [n, c, s, s]."""
        return self.loss(*(images.flatten(0, 1)[:, None] for images in (reconstruction, target)))


def grey(images: Tensor) -> Tensor:
    """Images [n, 3, s, s] in grey, [n, 1, s, s]; those of one channel as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, i : i + 1] * weight for i, weight in enumerate(GREY))
    return red + green + blue
