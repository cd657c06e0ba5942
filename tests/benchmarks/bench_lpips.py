"""Holds our LPIPS to its package and to its formula, with the same generated weights: `bench_lpips.py`.

It needs lpips (a throwaway virtual environment will do). Trunks are AlexNet's and VGG-16's convolutions as torchvision
has them, with weights drawn from a seed in place of a download; the calibration is the package's file. Three values of
each pair of pictures: our `lpips` of uint8 pixels, the package's module called by hand, and eq. 1 of arXiv 1801.03924
written out in float64. Printed: the greatest differences over the pairs, and the values' range.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from scaling.evaluation.networks import lpips as ours

ALEX = [(64, 11, 4, 2), "pool", (192, 5, 1, 2), "pool", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
VGG = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512]
DEPTHS = {"alex": (2, 5, 8, 10, 12), "vgg": (4, 9, 16, 23, 30)}
"""Layers of the trunk after which features are compared."""


def alexnet() -> nn.Sequential:
    """Convolutions of AlexNet, with torch's drawn weights."""
    layers, channels = list[nn.Module](), 3
    for entry in ALEX:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(3, 2))
        else:
            width, kernel, stride, padding = entry
            layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def vgg16() -> nn.Sequential:
    """Convolutions of VGG-16, with torch's drawn weights."""
    layers, channels = list[nn.Module](), 3
    for entry in VGG:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers)


def in_place_of_torchvision() -> None:
    """The package's trunks, which it takes from torchvision, are those above."""
    models = ModuleType("torchvision.models")
    models.alexnet = lambda pretrained=True: SimpleNamespace(features=alexnet())  # type: ignore[attr-defined]
    models.vgg16 = lambda pretrained=True: SimpleNamespace(features=vgg16())  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": package, "torchvision.models": models}


def by_formula(trunk: str, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1 in float64: unit features over channels, squared differences weighted by channel, mean over positions."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    layers = (alexnet if trunk == "alex" else vgg16)().double()
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    weights = [tensor for name, tensor in state.items() if name.startswith("net.slice")]
    for layer, weight, bias in zip(convolutions, weights[::2], weights[1::2], strict=True):
        layer.weight.data, layer.bias.data = weight, bias  # type: ignore[union-attr]
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().reshape(1, 3, 1, 1)
    x, y = ((images.double() / 127.5 - 1 - shift) / scale for images in (a, b))
    total = torch.zeros(len(a), dtype=torch.float64)
    for depth, layer in enumerate(layers):
        x, y = layer(x), layer(y)
        if depth + 1 in DEPTHS[trunk]:
            unit = [features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10) for features in (x, y)]
            calibration = state[f"lin{DEPTHS[trunk].index(depth + 1)}.model.1.weight"]
            total += ((unit[0] - unit[1]).square() * calibration).sum(1).mean((1, 2))
    return total


if __name__ == "__main__":
    in_place_of_torchvision()
    torch.manual_seed(0)
    coarse = torch.rand(12, 3, 9, 9)
    images = nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic").clamp(0, 1).mul(255).round()
    noise = torch.randn(12, 3, 96, 96) * torch.linspace(2, 60, 12).reshape(-1, 1, 1, 1)
    a, b = (values.clamp(0, 255).round().to(torch.uint8) for values in (images + noise, images))
    for trunk in ("alex", "vgg"):
        network = ours._shared(trunk)
        with torch.inference_mode():
            direct = network(a.float() / 127.5 - 1, b.float() / 127.5 - 1).flatten().double()
            formula = by_formula(trunk, network, a, b)
        value = ours.lpips(a, b, trunk)
        print(
            f"LPIPS {trunk}: 12 pairs of 96 pixels, values {value.min():.4f} to {value.max():.4f}; greatest difference "
            f"from the package {(value - direct).abs().max():.1e}, from the formula {(value - formula).abs().max():.1e}"
        )
