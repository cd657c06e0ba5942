"""Weights, gradients and moments cut over the processes of a training: torch's FSDP2, and whole tensors of its parts.

Each process keeps a part of every weight; those of a block are gathered for its forward and backward pass, and their
gradients summed and cut again as they come. What is computed is what one process computes, up to the order of
additions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device, size: int, method: str) -> None:
    """Cut a model over `size` processes in place: each of the blocks by itself, the rest together.

    Training calls its method of that name; gradients are sums over processes.
    """
    mesh = init_device_mesh(device.type, (size,))
    for module in (*blocks, model):
        sharded = fully_shard(module, mesh=mesh)
        # Losses are weighted by each process's share of the batch, so gradients add up.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, method)


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from its parts, by all processes together; one that is whole, as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(tensors: dict[str, Tensor], kept: bool) -> dict[str, Tensor]:
    """All tensors gathered one by one, and held on the CPU where `kept`; elsewhere nothing. By all processes."""
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if kept:
            gathered[name] = value.cpu()
    return gathered


def laid_out(value: Tensor, like: Tensor | None) -> Tensor:
    """A tensor cut as another one is, from parts or from the same whole tensor in every process."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
