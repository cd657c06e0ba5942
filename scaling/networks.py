"""How networks are run: a batch at a time, and convolutions in the layout in which CPUs and GPUs run them fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Rows(Protocol):
    """Rows in memory or in files."""

    def split(self, rows: int, /) -> Iterable[Tensor]:
        """All rows in order, at most so many at a time."""


def in_batches(
    function: Callable[..., Tensor], *rows: Rows, batch: int, step: Callable[[], None] = lambda: None
) -> Tensor:
    """What `function` makes of at most `batch` rows of each at a time, put together.

    `step` is called before each batch, and may raise to stop.
    """
    results = []
    for chunks in zip(*(each.split(batch) for each in rows), strict=True):
        step()
        results.append(function(*chunks))
    return torch.cat(results)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are, and its inputs have to be."""
    return next(network.parameters()).device


def in_double(values: Tensor) -> Tensor:
    """The same values in float64: on their device, or on the CPU where that has no such type (Apple's)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def channels_last(network: Network) -> Network:
    """The same network with every 4-d parameter and buffer laid out (batch, height, width, channels) in memory."""
    # Not `Module.to(memory_format=...)`: where two layouts are the same in memory, it names another one.
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network
