"""Inception as in the FID papers (TensorFlow's graph of 2015-12-05), for the converted weights that the field shares.

Differs from torchvision's: 1,008 classes, average pools that leave padding out of their mean, a max pool in the last
block, images resized as TensorFlow 1 did (corner-aligned samples without antialiasing), values (x - 128) / 128. Names
of parameters are those of the weights file of torch-fidelity and pytorch-fid (one content, Apache-2.0), which loads as
it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299
DIMENSIONS = 2_048
CLASSES = 1_008
EPSILON = 1e-3


class Unit(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h', w']."""
        return functional.relu(self.bn(self.conv(images)))


def _average(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """At 35 x 35: 1x1, 5x5 and double 3x3 branches beside a pool."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = Unit(inputs, 48), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, 35, 35] to [n, 224 + pooled, 35, 35]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))]
        return torch.cat(parts, 1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, 35, 35] to [n, inputs + 480, 17, 17]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """At 17 x 17: 7x7 kernels as pairs of 1x7 and 7x1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        wide, high = (1, 7), (7, 1)
        self.branch1x1 = Unit(inputs, 192)
        self.branch7x7_1 = Unit(inputs, width)
        self.branch7x7_2 = Unit(width, width, wide, padding=(0, 3))
        self.branch7x7_3 = Unit(width, 192, high, padding=(3, 0))
        self.branch7x7dbl_1 = Unit(inputs, width)
        self.branch7x7dbl_2 = Unit(width, width, high, padding=(3, 0))
        self.branch7x7dbl_3 = Unit(width, width, wide, padding=(0, 3))
        self.branch7x7dbl_4 = Unit(width, width, high, padding=(3, 0))
        self.branch7x7dbl_5 = Unit(width, 192, wide, padding=(0, 3))
        self.branch_pool = Unit(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, 17, 17] to [n, 768, 17, 17]."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(inputs, 192), Unit(192, 320, 3, 2)
        self.branch7x7x3_1 = Unit(inputs, 192)
        self.branch7x7x3_2 = Unit(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Unit(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Unit(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, 17, 17] to [n, inputs + 512, 8, 8]."""
        single = self.branch3x3_2(self.branch3x3_1(x))
        double = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([single, double, functional.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """At 8 x 8: 3x3 kernels spread into 1x3 beside 3x1; the last block of the network pools by the maximum."""

    def __init__(self, inputs: int, last: bool) -> None:
        super().__init__()
        self.branch1x1, self.branch3x3_1 = Unit(inputs, 320), Unit(inputs, 384)
        self.branch3x3_2a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 448), Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Unit(inputs, 192)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, 8, 8] to [n, 2048, 8, 8]."""
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        spread = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        spread += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self._last else _average(x)
        return torch.cat([self.branch1x1(x), *spread, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Images [n, 3, 299, 299] as (x - 128) / 128 to features [n, 2048], the last pool."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Unit(3, 32, 3, 2), Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Unit(64, 80), Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1_280, last=False), BlockE(2_048, last=True)
        self.fc = nn.Linear(DIMENSIONS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, 2048]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [n, 1008] of features, without the bias: those of the Inception Score in the field's code."""
        return features @ self.fc.weight.T


def resize_as_tensorflow(images: Tensor, side: int) -> Tensor:
    """Float images [n, c, h, w] at [n, c, side, side], bilinear as TensorFlow 1: pixel i reads at i * h / side.

    No half-pixel offset and no antialiasing: pictures above 299 pixels are subsampled, as in every published FID.
    """
    for dimension in (3, 2):
        size = images.shape[dimension]
        # float32, as TensorFlow and torch-fidelity do, so that pixels fall to the same side of a whole number.
        places = torch.arange(side, dtype=torch.float32, device=images.device) * torch.tensor(
            size / side, device=images.device
        )
        low = places.long()
        high = (low + 1).clamp(max=size - 1)
        shape = (side, 1) if dimension == 2 else (side,)
        weight = (places - low).to(images.dtype).reshape(shape)
        first = images.index_select(dimension, low)
        images = first + (images.index_select(dimension, high) - first) * weight
    return images
