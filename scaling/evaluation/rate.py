"""Rates: held-out cross-entropy a token, an image and a pixel, and the unigram cross-entropy to normalise it by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling.data.tokens import TokenRows, frequencies
from scaling.generator.transformer import Generator
from scaling.networks import device_of, in_batches, in_double


@dataclass(frozen=True)
class Rate:
    """Held-out rate of one generator on images of one size.

    nats_per_token, its standard error over images, the unigram cross-entropy of the same tokens in nats, and the nats
    at each position of the sequence, whose mean is nats_per_token. The four figures share units, not quality: they rank
    tokenizers only at matched rate or matched rFID.
    """

    nats_per_token: float
    standard_error: float
    unigram: float
    by_position: tuple[float, ...]
    pixels: int

    @property
    def tokens_per_image(self) -> int:
        """Positions of the sequence."""
        return len(self.by_position)

    @property
    def nats_per_image(self) -> float:
        """Nats per token times tokens per image."""
        return self.nats_per_token * self.tokens_per_image

    @property
    def bits_per_pixel(self) -> float:
        """Nats per image in bits, over the pixels of the image."""
        return self.nats_per_image / math.log(2) / self.pixels

    @property
    def unigram_normalised(self) -> float:
        """Nats per token less the unigram cross-entropy (arXiv 2407.13623): comparable across codebook sizes."""
        return self.nats_per_token - self.unigram


def unigram_cross_entropy(train: TokenRows, held_out: TokenRows, codebook_size: int) -> float:
    """Nats a token of `held_out` under the frequencies of `train`, one added to every count so that none is zero."""
    counts = frequencies(train, codebook_size).double() + 1
    log_probability = (counts / counts.sum()).log()
    return float(-log_probability[held_out[:].flatten().long()].mean())


@torch.inference_mode()
def measure(
    model: Generator,
    tokens: TokenRows,
    labels: Tensor,
    *,
    unigram: float,
    pixels: int,
    batch: int = 256,
    step: Callable[[], None] = lambda: None,
) -> Rate:
    """The rate of the class-conditional model on held-out tokens [n, T] and labels [n], without class dropout.

    `step` is called before each batch, and may raise to stop.
    """

    device = device_of(model)
    sums = in_double(torch.zeros(tokens.shape[1], device=device))

    def losses(tokens: Tensor, labels: Tensor) -> Tensor:
        wanted = tokens.to(device).long()
        hidden = model.hidden(wanted, labels.to(device)).flatten(0, 1)
        each = model.head.negative_log_likelihood(hidden, wanted.flatten())
        table = in_double(each.view(wanted.shape))
        sums.add_(table.sum(0))
        return table.mean(1)

    by_image = in_batches(losses, tokens, labels, batch=batch, step=step)
    error = float(by_image.std() / len(by_image) ** 0.5)
    by_position = tuple((sums / len(by_image)).tolist())
    return Rate(float(by_image.mean()), error, unigram, by_position, pixels)
