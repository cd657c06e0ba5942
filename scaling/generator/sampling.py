"""Drawing token sequences from the generator: key-value cache, classifier-free guidance, inverse-CDF draws."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling.networks import device_of

from .transformer import Generator, KeyValueCache


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One index for each row of logits [n, K], by inverting the cumulative distribution at uniforms [n] in [0, 1).

    Several times faster than torch.multinomial on a CPU, and the result depends on the uniforms alone. The threshold
    is kept below the float32 total, so that rounding in the tail never selects a code of zero probability.
    """
    weights = (logits - logits.amax(1, keepdim=True)).exp_()
    cumulative = weights.cumsum_(1)
    total = cumulative[:, -1:]
    threshold = torch.minimum(
        uniforms[:, None].to(total.dtype) * total, torch.nextafter(total, torch.zeros_like(total))
    )
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


@torch.inference_mode()
def sample(
    model: Generator, labels: Tensor, uniforms: Tensor, *, guidance: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Tokens [n, T] on the model's device for class labels [n], from uniform numbers [n, T] in [0, 1).

    With guidance a, logits are l_u + a (l_c - l_u), both streams in one batch (paper App. A.2); a = 1 is the plain
    conditional model and costs one stream. No top-k or top-p (paper). Each image depends only on its own row of
    `uniforms`, up to the rounding of batched arithmetic.
    """
    n, length = uniforms.shape
    device = device_of(model)
    labels, uniforms = labels.to(device), uniforms.to(device)
    guided = guidance != 1.0
    streams = torch.cat([labels, torch.full_like(labels, model.classes)]) if guided else labels
    cache = KeyValueCache.empty(model.spec, len(streams), length, model.class_embedding.weight)
    x = model.class_embedding(streams)
    tokens = torch.empty(n, length, dtype=torch.int64, device=device)
    for position in range(length):
        logits = model.step(x[:, None], cache).float()
        if guided:
            conditional, unconditional = logits.chunk(2)
            logits = torch.lerp(unconditional, conditional, guidance)
        chosen = draw(logits / temperature if temperature != 1.0 else logits, uniforms[:, position])
        tokens[:, position] = chosen
        if position + 1 < length:
            x = model.token_embedding(torch.cat([chosen, chosen]) if guided else chosen)
    return tokens
