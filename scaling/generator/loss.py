"""Cross-entropy of a linear head in chunks of rows, without ever holding all logits.

Logits and their gradient for 2,048 positions and 4,096 codes are 32 MiB each; written to fresh memory and read back
they cost more than the arithmetic. Here each chunk of rows stays in the cache, and its gradients are computed at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from scaling.networks import in_batches

CHUNK_ELEMENTS = 2**18
"""Logits computed at once: 1 MiB in float32, about a core's second-level cache."""


def _rows(codebook_size: int) -> int:
    return max(16, CHUNK_ELEMENTS // codebook_size)


class _LinearCrossEntropy(Function):
    """Mean over rows of cross-entropy + z_weight log(Z)^2, with its gradients computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_weight: float) -> Tensor:
        m = hidden.shape[0]
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        rows = _rows(weight.shape[0])
        buffer = hidden.new_empty(min(rows, m), weight.shape[0])
        for start in range(0, m, rows):
            x, target = hidden[start : start + rows], targets[start : start + rows, None]
            logits = torch.mm(x, weight.t(), out=buffer[: len(x)])
            log_z = torch.logsumexp(logits, 1, keepdim=True)
            total += (log_z - logits.gather(1, target)).sum(dtype=torch.float64)
            total += z_weight * log_z.square().sum(dtype=torch.float64)
            gradient = logits.sub_(log_z).exp_()
            if z_weight:
                gradient.mul_(1 + 2 * z_weight * log_z)
            gradient.scatter_add_(1, target, gradient.new_full((1, 1), -1.0).expand_as(target))
            torch.mm(gradient, weight, out=d_hidden[start : start + rows])
            torch.addmm(d_weight, gradient.t(), x, out=d_weight)
        ctx.save_for_backward(d_hidden.div_(m), d_weight.div_(m))
        return (total / m).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradients[0], d_weight * gradients[0], None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, z_weight: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits hidden @ weight.T against targets, plus z_weight times mean log(Z)^2.

    hidden [m, d], weight [K, d], targets [m]. The z-loss keeps the softmax's normaliser near 1 (paper App. A.2).
    """
    return _LinearCrossEntropy.apply(hidden.float(), weight.float(), targets, z_weight)


@torch.no_grad()
def negative_log_likelihood(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each row: [m]. Shapes as linear_cross_entropy."""

    def losses(x: Tensor, target: Tensor) -> Tensor:
        logits = x.float() @ weight.float().t()
        return torch.logsumexp(logits, 1) - logits.gather(1, target[:, None])[:, 0]

    return in_batches(losses, hidden, targets, batch=_rows(weight.shape[0]))
