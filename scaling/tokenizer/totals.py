"""Means over the whole batch of a step, of which each process holds a part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over processes, through which gradients flow."""


def whole_mean(summed: Tensor, count: int, total: Total | None) -> Tensor:
    """The mean of what `summed` is the sum of, over all processes, of which this one has `count`; `total` None: one
    process."""
    if total is None:
        return summed / count
    sums = total(torch.cat([summed.flatten(), summed.new_full((1,), count)]))
    return (sums[:-1] / sums[-1]).view_as(summed)
