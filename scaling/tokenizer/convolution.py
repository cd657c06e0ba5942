"""Convolutions whose weights' gradients are computed in the layout in which a CPU is fast at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolution(nn.Conv2d):
    """nn.Conv2d in float32 on a CPU with activations (batch, height, width, channels) in memory: forward and gradient
    of the input are fast there, but the gradient of a 3x3 kernel takes up to five times as long as in the usual layout
    (128 channels at 128 x 128: 382 ms against 78 ms), into which it is therefore brought for that alone."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, h, w] to [n, out, h', w']."""
        slow = (
            x.device.type == "cpu"
            and self.kernel_size != (1, 1)
            and x.is_contiguous(memory_format=torch.channels_last)
            and self.weight.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
        if not slow:
            return super().forward(x)
        return _Convolve.apply(x, self.weight, self.bias, self.stride, self.padding)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = (stride, padding)
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        stride, padding = ctx.steps

        def of(gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
            result: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                gradient, x, weight, [len(weight)], stride, padding, (1, 1), False, (0, 0), 1, wanted
            )
            return result

        of_input = of(gradient, x, weight, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        usual = gradient.contiguous(), x.contiguous(), weight.contiguous()
        _, of_weight, of_bias = of(*usual, [False, True, True])
        return of_input, of_weight, of_bias, None, None
