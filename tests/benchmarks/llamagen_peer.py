"""LlamaGen's GPT as a peer of the benchmarks: its architecture, written from its published description.

RMSNorm with statistics in float32, one matrix for queries, keys and values, SwiGLU of three matrices, 2-D rotary
positions by cosines and sines in float32, scaled_dot_product_attention, an untied head whose logits of all positions
are turned into float32 for the cross-entropy. Dropout is 0 here, as on the other sides of a comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RmsNorm(nn.Module):
    """Normalised in float32, cast back, times the gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        exact = x.float()
        return (exact * torch.rsqrt((exact * exact).mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


def rotary_2d(grid: int, head_dim: int) -> Tensor:
    """Cosines and sines [1 + grid^2, head_dim / 2, 2]; the class token's are 0."""
    frequencies = 10_000.0 ** (-torch.arange(0, head_dim // 2, 2)[: head_dim // 4].float() / (head_dim // 2))
    angles = torch.outer(torch.arange(grid).float(), frequencies)
    plane = torch.cat([
        angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    ], -1).flatten(0, 1)  # fmt: skip
    table = torch.stack([plane.cos(), plane.sin()], -1)
    return torch.cat([torch.zeros(1, head_dim // 2, 2), table])


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """x [n, t, heads, head_dim] turned by table [t, head_dim / 2, 2]."""
    pairs = x.float().unflatten(-1, (-1, 2))
    cosine, sine = table[None, :, None].unbind(-1)
    turned = torch.stack([
        pairs[..., 0] * cosine - pairs[..., 1] * sine, pairs[..., 1] * cosine + pairs[..., 0] * sine
    ], -1)  # fmt: skip
    return turned.flatten(3).type_as(x)


class Block(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv, self.wo = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.attention_norm, self.ffn_norm = RmsNorm(width), RmsNorm(width)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """x [n, t, width] to the same shape."""
        n, t, width = x.shape
        heads = [part.view(n, t, self.heads, -1) for part in self.wqkv(self.attention_norm(x)).split(width, -1)]
        q, k, v = (part.transpose(1, 2) for part in (rotated(heads[0], table), rotated(heads[1], table), heads[2]))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(y.transpose(1, 2).contiguous().view(n, t, width))
        z = self.ffn_norm(x)
        return x + self.w2(functional.silu(self.w1(z)) * self.w3(z))


class LlamaGen(nn.Module):
    """Loss of tokens [n, grid^2] given labels [n]; the class that follows the last is the null class."""

    def __init__(
        self, *, width: int, layers: int, heads: int, hidden: int, codes: int, grid: int, classes: int
    ) -> None:
        super().__init__()
        self.token, self.label = nn.Embedding(codes, width), nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm, self.output = RmsNorm(width), nn.Linear(width, codes, bias=False)
        self.register_buffer("table", rotary_2d(grid, width // heads), persistent=False)
        self.table: Tensor
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.output.weight)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        x = torch.cat([self.label(labels)[:, None], self.token(tokens[:, :-1])], 1)
        table = self.table[: x.shape[1]]
        for block in self.blocks:
            x = block(x, table)
        logits = self.output(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
