"""Root-mean-square normalisation with its gradient in closed form: half the passes over memory on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normalised = x * scale
        ctx.save_for_backward(normalised, scale, gain)
        return normalised * gain

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        normalised, scale, gain = ctx.saved_tensors
        d_gain = (gradients[0] * normalised).flatten(0, -2).sum(0)
        inner = gradients[0] * gain
        mean = torch.linalg.vecdot(inner, normalised).unsqueeze(-1).div_(normalised.shape[-1])
        return inner.addcmul_(normalised, mean, value=-1).mul_(scale), d_gain, None


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) x gain over the last dimension (arXiv 1910.07467); statistics in float32."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            return _RmsNorm.apply(x, self.weight, self.epsilon)
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)
