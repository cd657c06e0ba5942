"""The patch discriminator of taming-transformers (NLayerDiscriminator; PatchGAN, arXiv 1611.07004), and its losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.specification.models.adversarial import AdversarialSpec

from .totals import Total

SLOPE = 0.2
EPSILON = 1e-5


class WholeBatchNorm(nn.Module):
    """Batch norm over the images of all processes, each of which holds a part of the batch; there are no running
    statistics, since a discriminator is never evaluated. `total` None: one process."""

    def __init__(self, channels: int, total: Total | None = None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.total = total

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same shape."""
        if self.total is None:
            return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPSILON)
        values, channels = x.float(), x.shape[1]
        count = values.new_full((1,), values.numel() / channels)
        # Two sums, not one of squares: differences of large numbers lose what small variances need.
        sums = self.total(torch.cat([values.sum((0, 2, 3)), count]))
        mean = (sums[:channels] / sums[channels])[:, None, None]
        variance = self.total((values - mean).square().sum((0, 2, 3))) / sums[channels]
        scale = (self.weight * torch.rsqrt(variance + EPSILON))[:, None, None]
        return ((values - mean) * scale + self.bias[:, None, None]).to(x.dtype)


class Discriminator(nn.Module):
    """Images [n, c, S, S] in [-1, 1] to one logit a patch, float32 [n, 1, s, s]; large means real.

    4x4 convolutions: `layers` of stride 2, one of stride 1, and one to a single channel; leaky ReLU after all but the
    last, norms after all but the first and the last. Weights start at a standard deviation of 0.02.
    """

    def __init__(self, spec: AdversarialSpec, channels: int, total: Total | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = channels
        for number, outgoing in enumerate(spec.widths):
            stride = 2 if number < spec.layers else 1
            layers.append(nn.Conv2d(incoming, outgoing, 4, stride, 1, bias=number == 0))
            if number:
                norm = nn.GroupNorm(outgoing // 16, outgoing) if spec.norm == "group" else None
                layers.append(norm or WholeBatchNorm(outgoing, total))
            layers.append(nn.LeakyReLU(SLOPE))
            incoming = outgoing
        self.layers = nn.Sequential(*layers, nn.Conv2d(incoming, 1, 4, 1, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WholeBatchNorm | nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.layers(images).float()


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator lowers, of logits of images and of reconstructions; the mean over patches.

    wasserstein  mean fake - mean real (arXiv 1701.07875, eq. 2)
    hinge        half of mean max(0, 1 - real) + mean max(0, 1 + fake) (arXiv 1705.02894; taming's factor)
    """
    if kind == "hinge":
        return (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()) / 2
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What the tokenizer lowers, for either loss: -mean of the logits of its reconstructions."""
    return -fake.mean()
