"""How networks are run: in batches, in the layout in which convolutions are fastest, recomputed, compiled."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from results.errors import UsageError

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


class Compilable:
    """A network that training may run in compiled form; see compile_networks."""


def compile_networks(network: nn.Module, besides: Container[nn.Module] = ()) -> None:
    """Let torch compile all in a network that can be, but for those `besides`, at its first pass: fewer passes over
    memory, and numbers that differ by rounding.

    Under `torch.compiler.set_stance("force_eager")` they run as if they had not been compiled.
    """
    for module in network.modules():
        if isinstance(module, Compilable) and module not in besides:
            module.compile()


def check_compiles(device: torch.device) -> None:
    """Raise UsageError where torch cannot compile for a device, as without a C++ compiler for a CPU."""
    try:
        torch.compile(torch.sin)(torch.ones(64, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"resources.compile = true: torch.compile does not work here for the device {device.type} ({reason}); "
            "allowed: false, or a machine with a C++ compiler, and triton for a GPU"
        ) from error
