"""The gate of SwiGLU with its gradient in closed form: it keeps its input and silu(gate), and writes both halves in
place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        # An exponential of every element costs a CPU more than half as much memory again.
        opened = functional.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(gradients[0], opened, out=d_up)
        torch.ops.aten.silu_backward.grad_input(gradients[0] * up, gate, grad_input=d_gate)
        return d_gate_up


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) x up for [..., 2 h], the gate's half first: [..., h]."""
    if torch.compiler.is_compiling():  # Which fuses the plain form, both ways.
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate) * up
    return _Gated.apply(gate_up)
