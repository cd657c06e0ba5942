"""Drawing token sequences from the generator: key-value cache, classifier-free guidance, inverse-CDF draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scaling.networks import device_of
from scaling.specification.sampling import GuidanceSchedule, Guided

from .transformer import Generator, KeyValueCache


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One index for each row of logits [n, K], by inverting the cumulative distribution at uniforms [n] in [0, 1).

    The logits are overwritten: a copy of many is memory that the system hands out anew, page by page, at each call.
    Several times faster than torch.multinomial on a CPU, and the result depends on the uniforms alone. The threshold
    is kept below the float32 total, so that rounding in the tail never selects a code of zero probability.
    """
    cumulative = logits.sub_(logits.amax(1, keepdim=True)).exp_().cumsum_(1)
    total = cumulative[:, -1:]
    threshold = torch.minimum(
        uniforms[:, None].to(total.dtype) * total, torch.nextafter(total, torch.zeros_like(total))
    )
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


def truncated(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits [n, K] with -inf for all codes but the `top_k` likeliest (0: all), and of these all but the fewest whose
    probabilities add up to at least `top_p` (nucleus, arXiv 1904.09751). One code always stays.

    Of codes that are equally likely at the edge of the k all stay.
    """
    if 0 < top_k < logits.shape[1]:
        edge = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < edge, -math.inf)
    if top_p < 1:
        ordered, codes = logits.sort(dim=1, descending=True, stable=True)
        weights = ordered.softmax(1)
        # A code stays while those before it have not reached top_p.
        dropped = weights.cumsum(1) - weights >= top_p
        dropped[:, 0] = False
        logits = ordered.masked_fill(dropped, -math.inf).gather(1, codes.argsort(dim=1))
    return logits


def guidance_at(schedule: GuidanceSchedule, guidance: float, position: int, length: int) -> float:
    """The scale at a token: `guidance` at the last; constant before it, or risen from 1 at the first token, in a line
    or as half a cosine."""
    if schedule == "constant" or position + 1 == length:
        return guidance
    share = position / (length - 1)
    return 1 + (guidance - 1) * (share if schedule == "linear" else (1 - math.cos(math.pi * share)) / 2)


@torch.inference_mode()
def sample(
    model: Generator,
    labels: Tensor,
    uniforms: Tensor,
    *,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    schedule: GuidanceSchedule = "constant",
    guided: Guided = "logits",
) -> Tensor:
    """Tokens [n, T] on the model's device for class labels [n], from uniform numbers [n, T] in [0, 1).

    With guidance a, logits are l_u + a (l_c - l_u), both streams in one batch (paper App. A.2); a = 1 is the plain
    conditional model and costs one stream. With `guided` states the same is done to the states before the head, whose
    product is then computed once; the head must be one matrix. `schedule` is how a comes about over the tokens
    (guidance_at); temperature, then top-k, then top-p are applied to the guided logits (the paper has none of these).
    Each image depends only on its own row of `uniforms`, up to the rounding of batched arithmetic.
    """
    n, length = uniforms.shape
    device = device_of(model)
    labels, uniforms = labels.to(device), uniforms.to(device)
    both = guidance != 1.0
    streams = torch.cat([labels, torch.full_like(labels, model.classes)]) if both else labels
    cache = KeyValueCache.empty(model.spec, len(streams), length, model.class_embedding.weight)
    x = model.class_embedding(streams)
    tokens = torch.empty(n, length, dtype=torch.int64, device=device)
    memory: Tensor | None = None
    for position in range(length):
        states = model.step(x[:, None], cache)
        if both:
            scale = guidance_at(schedule, guidance, position, length)
            if guided == "states":
                states = _guided(states.float(), scale).to(states.dtype)
        memory = model.head.logits_into(states, memory)
        logits = memory.float()
        if both and guided == "logits":
            logits = _guided(logits, scale)
        logits = truncated(logits / temperature if temperature != 1.0 else logits, top_k, top_p)
        chosen = draw(logits, uniforms[:, position])
        tokens[:, position] = chosen
        if position + 1 < length:
            x = model.token_embedding(torch.cat([chosen, chosen]) if both else chosen)
    return tokens


def _guided(streams: Tensor, scale: float) -> Tensor:
    """Of [2 n, ...], conditional rows first: u + scale (c - u), in the place of the others."""
    conditional, unconditional = streams.chunk(2)
    return unconditional.lerp_(conditional, scale)
