"""Cross-entropy of a linear head in slices of rows, without ever holding all logits.

Logits and their gradient for 2,048 positions and 4,096 codes are 32 MiB each; written to fresh memory and read back
they cost more than the arithmetic. Here each slice of rows stays in the cache, and its gradients are computed at once.
Beyond 4,096 codes a slice that fits into the cache would be a few rows, and reading the head's weights once for each
slice would bind: there, and on accelerators, slices are larger.

Under autocast the three matrix products of a slice are in its type; logits are turned into float32 before the softmax,
the loss is summed in float64 and the weight's gradient over slices in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from scaling.networks import in_batches

CHUNK_ELEMENTS = 2**18
"""Logits of a slice on a CPU: 1 MiB in float32, about a core's second-level cache."""
LEAST_ROWS = 256
"""Of a slice at large codebooks on a CPU, unless MOST_ELEMENTS allows fewer."""
CACHED_CODES = 4096
"""Largest codebook of which slices are sized to the cache alone."""
MOST_ELEMENTS = 2**24
"""Logits of a slice at most on a CPU: 64 MiB in float32, 128 rows at a codebook of 131,072."""
ACCELERATOR_ELEMENTS = 2**27
"""Logits of a slice on an accelerator: 512 MiB in float32, enough to fill it with one product."""


def slice_rows(codebook_size: int, device: torch.device) -> int:
    """Rows of a slice for a codebook on a device."""
    if device.type != "cpu":
        return max(16, ACCELERATOR_ELEMENTS // codebook_size)
    rows = max(16, CHUNK_ELEMENTS // codebook_size)
    if codebook_size > CACHED_CODES:
        rows = max(rows, min(LEAST_ROWS, MOST_ELEMENTS // codebook_size))
    return rows


def product_type(device: torch.device) -> torch.dtype:
    """The type of matrix products at this place: that of autocast where it is on, else float32."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else torch.float32


class _LinearCrossEntropy(Function):
    """Mean over rows of cross-entropy + z_weight log(Z)^2, with its gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_weight: float, dtype: torch.dtype
    ) -> Tensor:
        m, exact = hidden.shape[0], dtype == torch.float32
        states, matrix = hidden.to(dtype), weight.to(dtype)
        d_hidden = torch.empty_like(states)
        d_weight = torch.zeros_like(weight, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        rows = slice_rows(weight.shape[0], hidden.device)
        buffer = torch.empty(min(rows, m), weight.shape[0], device=hidden.device)
        for start in range(0, m, rows):
            x, target = states[start : start + rows], targets[start : start + rows, None]
            logits = buffer[: len(x)]
            if exact:
                torch.mm(x, matrix.t(), out=logits)
            else:
                logits.copy_(torch.mm(x, matrix.t()))
            log_z = torch.logsumexp(logits, 1, keepdim=True)
            total += (log_z - logits.gather(1, target)).sum(dtype=torch.float64)
            total += z_weight * log_z.square().sum(dtype=torch.float64)
            gradient = logits.sub_(log_z).exp_()
            if z_weight:
                gradient.mul_(1 + 2 * z_weight * log_z)
            gradient.scatter_add_(1, target, gradient.new_full((1, 1), -1.0).expand_as(target))
            if exact:
                torch.mm(gradient, matrix, out=d_hidden[start : start + rows])
                torch.addmm(d_weight, gradient.t(), x, out=d_weight)
            else:
                rounded = gradient.to(dtype)
                torch.mm(rounded, matrix, out=d_hidden[start : start + rows])
                d_weight += torch.mm(rounded.t(), x)
        ctx.save_for_backward(d_hidden.div_(m), d_weight.div_(m))
        ctx.types = hidden.dtype, weight.dtype
        return (total / m).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        types = ctx.types
        # In place: the weight's gradient may be the largest tensor of all. A second backward is refused by torch.
        return d_hidden.mul_(gradients[0]).to(types[0]), d_weight.mul_(gradients[0]).to(types[1]), None, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, z_weight: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits hidden @ weight.T against targets, plus z_weight times mean log(Z)^2.

    hidden [m, d], weight [K, d], targets [m]. The z-loss keeps the softmax's normaliser near 1 (paper App. A.2).
    """
    dtype = product_type(hidden.device)
    if dtype == torch.float32:
        hidden, weight = hidden.float(), weight.float()
    return _LinearCrossEntropy.apply(hidden, weight, targets, z_weight, dtype)


@torch.no_grad()
def negative_log_likelihood(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each row, in float32: [m]. Shapes as linear_cross_entropy."""

    def losses(x: Tensor, target: Tensor) -> Tensor:
        logits = x.float() @ weight.float().t()
        return torch.logsumexp(logits, 1) - logits.gather(1, target[:, None])[:, 0]

    return in_batches(losses, hidden, targets, batch=slice_rows(weight.shape[0], hidden.device))
