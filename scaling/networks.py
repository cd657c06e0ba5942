"""How networks are run: a batch at a time, and convolutions in the layout in which CPUs and GPUs run them fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def in_batches(
    function: Callable[..., Tensor], *rows: Tensor, batch: int, step: Callable[[], None] = lambda: None
) -> Tensor:
    """What `function` makes of at most `batch` rows of each tensor at a time, put together.

    `step` is called before each batch, and may raise to stop.
    """
    results = []
    for chunks in zip(*(tensor.split(batch) for tensor in rows), strict=True):
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
