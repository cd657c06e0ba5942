"""Dropout whose masks depend on (run seed, image, place) alone: not on batches, devices, processes or replays.

A mask's bits are a hash of the image's key, the place in the network and the element's number (the 32-bit mixer
"lowbias32", two multiplications). So no state has to be saved, a layer that is computed again (activation
checkpointing) sees the same mask, and microbatches and ranks share out one and the same draw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scaling import randomness

_MASK = 0xFFFFFFFF


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers, held in int64, that spreads every bit over all; in place."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x.bitwise_xor_(x >> shift).mul_(factor).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 16)


def image_keys(seed: int, first: int, count: int) -> Tensor:
    """Keys [count] of the images first .. first + count of a run's stream, each named by (seed, purpose, position)."""
    seeds = [randomness.generator(seed, "dropout", first + row).initial_seed() & _MASK for row in range(count)]
    return torch.tensor(seeds, dtype=torch.int64)


class Dropout(nn.Module):
    """Sets a share `rate` of elements to 0 in training and scales the rest by 1 / (1 - rate); `place` tells apart the
    masks of one image. Without parameters and buffers."""

    def __init__(self, rate: float, place: int) -> None:
        super().__init__()
        self.rate = rate
        # A tensor: compiled code is then one for all places.
        self.place = _mixed(torch.tensor(place + 1))

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """x [n, ...] with the keys [n] of its images. Raises ValueError if a mask is needed and there are no keys."""
        if not self.rate or not self.training:
            return x
        if keys is None:
            raise ValueError(f"dropout = {self.rate} in training needs the keys of the images; allowed: `image_keys`")
        rows = _mixed(keys.to(x.device) ^ self.place.to(x.device))
        elements = torch.arange(x[0].numel(), device=x.device)
        bits = _mixed(_mixed(elements.expand(len(x), -1) + rows[:, None] & _MASK) ^ rows[:, None])
        kept = bits >= round(self.rate * 2**32)
        return x * kept.view(x.shape).to(x.dtype).mul_(1 / (1 - self.rate))
