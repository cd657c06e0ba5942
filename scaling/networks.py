"""How networks are run: a batch at a time, and convolutions in the layout in which CPUs and GPUs run them fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


class Recomputing:
    """A network that, while `recomputes` is true, keeps fewer activations and computes them again in backward."""

    recomputes = False


class RecomputedSequential(Recomputing, nn.Sequential):
    """A chain of layers that, while `recomputes` is true, keeps only what lies between them for the backward pass and
    computes the inside of each a second time there: less memory for one more forward pass, the same numbers.

    Layers must draw nothing at random.
    """

    def forward(self, x: Tensor) -> Tensor:
        """One layer after the other."""
        for layer in self:
            if self.recomputes and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x)
        return x


def recompute_activations(network: nn.Module, recomputes: bool = True) -> None:
    """Let all in a network that can do so hold fewer activations, such as chains and blocks; the numbers stay."""
    for module in network.modules():
        if isinstance(module, Recomputing):
            module.recomputes = recomputes
