"""The networks that judge a run, by what its specification names: features behind distances, and the perceptual loss.

The two shipped networks know grey images of 28 to 32 pixels. Of other pictures they are shown this, and no more:

    distances        the picture in grey (ITU-R 601: 0.299 R + 0.587 G + 0.114 B), resized to 32 pixels (bicubic,
                     antialiased), under the name `fid-grey32`: it sees no colour and no detail, and is never FID
    perceptual loss  each colour channel by itself as a grey image, at its own side; the mean over channels

The networks that `evaluation.extractors` names are shown what `tokenlaw evaluate` shows them: extractors.Extractor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from results.errors import DataError
from scaling.data.images import resize, to_pixels
from scaling.data.sources.kept import cache_folder
from scaling.specification.catalogue import EXTRACTOR_WEIGHTS, EXTRACTORS_BY_FILE
from scaling.specification.evaluation import ExtractorSpec
from scaling.specification.pictures import ImagesSpec, PicturesSpec
from scaling.specification.spec import EvaluationSpec, RunSpec, TokenizerRun

from .extractors import Extractor, load_extractor
from .features import PerceptualLoss, load_network
from .lpips import LPIPS_TRUNKS, lpips_sha256
from .perceptual import EfficientNetLoss, LpipsLoss

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R 601)."""
SIDE = 32
"""Pixels a side that the shipped feature network is shown."""


@dataclass(frozen=True, eq=False)
class Judge:
    """A feature space of a run's distances.

    network: float images [n, c, s, s] in [-1, 1] to features [n, d], frozen. sha256: of its weights. resize,
    quantisation: for the protocol; None for the shipped network, whose name says it. classify: logits [n, classes] of
    features, None where it is no classifier. dimensions: d; None for the shipped network.
    """

    name: str
    sha256: str
    network: nn.Module
    resize: str | None = None
    quantisation: str | None = None
    classify: Callable[[Tensor], Tensor] | None = None
    dimensions: int | None = None

    @property
    def protocol(self) -> dict[str, Any]:
        """The fields of a protocol that name it."""
        fields: dict[str, Any] = {"extractor": self.name, "extractor_hash": self.sha256[:16]}
        later = {"resize": self.resize, "quantisation": self.quantisation}
        return fields | {name: value for name, value in later.items() if value is not None}


def judges(data: ImagesSpec, evaluation: EvaluationSpec, device: torch.device) -> list[Judge]:
    """The feature spaces that a run names, on a device, the first of them the one that answers read.

    Raises DataError that names the network whose weights are missing or damaged.
    """
    named = evaluation.extractors or (ExtractorSpec(name="builtin", sha256=evaluation.fid_network),)
    return [_builtin(data, device) if spec.name == "builtin" else _general(spec, device) for spec in named]


def _builtin(data: ImagesSpec, device: torch.device) -> Judge:
    network: nn.Module = load_network("fid")
    # Whether images are other than the shipped network knows.
    adapted = isinstance(data, PicturesSpec) and (data.channels, data.image_size) != (1, SIDE)
    shown = (GreyOf32(network) if adapted else network).to(device)
    return Judge("fid-grey32" if adapted else "fid", EXTRACTOR_WEIGHTS["builtin"], shown)


def _general(spec: ExtractorSpec, device: torch.device) -> Judge:
    name = spec.name
    if name in EXTRACTORS_BY_FILE:
        folder = cache_folder() / "weights"
        files = [folder / f"{name}-{spec.sha256[:8]}{ending}" for ending in (".safetensors", ".pth")]
        file = next((path for path in files if path.exists()), None)
        if file is None:
            raise DataError(f"evaluation.extractors: {name} needs its weights as {files[0]} or {files[1].name}")
        name = f"{name}={file}"
    extractor = load_extractor(name, str(device))
    if extractor.sha256 != spec.sha256:
        raise DataError(
            f"evaluation.extractors: {spec.name} has weights of SHA-256 {extractor.sha256[:12]}..., the study names "
            f"{spec.sha256[:12]}..."
        )
    shown = OfPixels(extractor).to(device)
    return Judge(
        spec.name, spec.sha256, shown, extractor.resize, "uint8", extractor.classify, extractor.dimensions
    )  # fmt: skip


def perceptual_loss(run: TokenizerRun, device: torch.device) -> nn.Module:
    """The frozen loss network of a run: (reconstruction, target), both [n, c, s, s] in [-1, 1], to a scalar.

    Raises DataError where its weights are missing.
    """
    name = run.losses.network_name
    if name != "builtin":
        return (EfficientNetLoss() if name == "efficientnet-lite0" else LpipsLoss()).to(device)
    loss: nn.Module = PerceptualLoss()
    return (ByChannel(loss) if run.data.channels > 1 else loss).to(device)


def check_networks(run: RunSpec) -> None:
    """See that every network that a run will need can be loaded. Raises DataError that names the one that cannot."""
    if run.evaluation.extractors:
        judges(run.tokenizer.data, run.evaluation, torch.device("cpu"))
    if isinstance(run, TokenizerRun) and run.losses.perceptual_weight and run.losses.network_name != "builtin":
        perceptual_loss(run, torch.device("cpu"))
    if isinstance(run, TokenizerRun):
        for name in run.evaluation.metrics:
            if name in LPIPS_TRUNKS:
                lpips_sha256(LPIPS_TRUNKS[name])


class OfPixels(nn.Module):
    """An extractor as a network of float images: it is shown their uint8 pixels, as a folder of them would be."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.network, self.extractor = extractor.network, extractor

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, d] of images [n, c, s, s] in [-1, 1], c 1 or 3."""
        return self.extractor.features(to_pixels(images))


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
