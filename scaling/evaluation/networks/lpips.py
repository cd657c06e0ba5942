"""LPIPS (arXiv 1801.03924): calibrated distance of features, from its authors' package (extra `lpips`)."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from results.errors import DataError
from scaling.data.images import to_float
from scaling.networks import in_batches
from scaling.sealed_tensors import checksum

Trunk = Literal["alex", "vgg"]
"""`alex` is the metric that papers report; `vgg` is the loss that tokenizers are trained with: two scales, not one."""
LPIPS_TRUNKS: dict[str, Trunk] = {"lpips-alex": "alex", "lpips-vgg": "vgg"}
"""As studies name them, among `evaluation.metrics`."""


def lpips(images: Tensor, references: Tensor, trunk: Trunk = "alex", batch: int = 50) -> Tensor:
    """Distance float64 [n] of each image of uint8 or float [-1, 1] pixels [n, c, h, w]; grey is repeated for colour.

    Version 0.1 with calibrated weights, at the images' own side, mean over positions. Raises DataError where the
    package or its weights are missing, ValueError for shapes that differ.
    """
    if images.shape != references.shape or images.ndim != 4:
        raise ValueError(
            f"images {list(images.shape)} and references {list(references.shape)} must be equal [n, c, h, w]"
        )
    network = _shared(trunk).to(images.device)

    def compare(a: Tensor, b: Tensor) -> Tensor:
        pair = [to_float(x) if x.dtype == torch.uint8 else x.float() for x in (a, b)]
        with torch.inference_mode():
            return network(*(x.expand(-1, 3, -1, -1) for x in pair)).flatten().double()

    return in_batches(compare, images, references, batch=batch)


def lpips_sha256(trunk: Trunk) -> str:
    """Of the weights in use, trunk and calibration, for protocols. Raises DataError as `lpips`."""
    return checksum({name: tensor.detach().cpu() for name, tensor in _shared(trunk).state_dict().items()})


@cache
def _shared(trunk: Trunk) -> nn.Module:
    return load_lpips(trunk)


def load_lpips(trunk: Trunk) -> nn.Module:
    """The network of LPIPS v0.1, frozen. Raises DataError where the package or its weights are missing."""
    try:
        package = importlib.import_module("lpips")
        return package.LPIPS(net=trunk, verbose=False).eval().requires_grad_(False)  # type: ignore[no-any-return]
    except ImportError as error:
        raise DataError(f"LPIPS needs its package: pip install 'tokenlaw[lpips]' ({error})") from error
    except OSError as error:
        raise DataError(f"LPIPS: the weights of its trunk {trunk} cannot be fetched ({error})") from error
