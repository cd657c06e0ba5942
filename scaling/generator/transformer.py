"""The Llama-style transformer of stage 2, and the causal blocks that the regulariser shares with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from scaling.networks import Compilable, Recomputing
from scaling.specification.spec import GeneratorRun, TransformerSpec

from .dropout import Dropout
from .gating import gated
from .head import FactorisedHead, FullHead
from .normalisation import RmsNorm

ROTARY_BASE = 10_000.0
INITIAL_STD = 0.02


def rotary_table(grid: int, head_dim: int, prefix: int, *, zero_prefix: bool = False) -> Tensor:
    """Unit complex numbers [prefix + grid^2, head_dim / 2] of 2-D rotary positions in raster order (LlamaGen).

    The first half of the frequencies turns with the row, the second with the column; the `prefix` positions before
    the image (the class token) are not turned, or with `zero_prefix` multiplied by 0 (LlamaGen).
    """
    pairs = head_dim // 4
    frequencies = ROTARY_BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    position = torch.arange(grid, dtype=torch.float64)
    angles = position[:, None] * frequencies
    rows = angles[:, None, :].expand(grid, grid, pairs)
    columns = angles[None, :, :].expand(grid, grid, pairs)
    table = torch.cat([rows, columns], dim=-1).reshape(grid * grid, 2 * pairs)
    table = torch.cat([table.new_zeros(prefix, 2 * pairs), table])
    lengths = torch.ones_like(table)
    lengths[:prefix] = 0.0 if zero_prefix else 1.0
    return torch.polar(lengths, table).to(torch.complex64)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn neighbouring pairs of x [n, t, ..., head_dim] by the angles of its positions, whose cosines and sines are
    `rotary` [t, pairs, 2].

    One complex multiplication: on a CPU three times faster than the usual cosines, sines and concatenations. Compilers
    know no complex numbers, and fuse the usual form.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    table = rotary.view(rotary.shape[0], *[1] * (pairs.ndim - 4), *rotary.shape[1:])
    if torch.compiler.is_compiling():
        (a, b), (cosine, sine) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x.dtype)


@dataclass
class KeyValueCache:
    """Keys and values of the positions already seen, one tensor [n, heads, length, head_dim] a layer and kind."""

    keys: list[Tensor]
    values: list[Tensor]
    filled: int = 0

    @classmethod
    def empty(cls, spec: TransformerSpec, batch: int, length: int, like: Tensor) -> KeyValueCache:
        """Room for `length` positions of `batch` sequences."""
        shape = (batch, spec.heads, length, spec.head_dim)
        return cls(
            [like.new_empty(shape) for _ in range(spec.layers)], [like.new_empty(shape) for _ in range(spec.layers)]
        )


class Attention(nn.Module):
    """Causal multi-head attention; queries and keys pass a layer norm (QK-norm, paper App. A.2) unless the
    specification has none, then are rotated.

    muP's attention scale 1 / head_dim is the usual 1 / sqrt(head_dim) up to a constant, since heads keep their size
    where the width grows.
    """

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.heads, self.head_dim, self.qk_norm = spec.heads, spec.head_dim, spec.qk_norm
        self.qkv = nn.Linear(spec.width, 3 * spec.width, bias=False)
        self.out = nn.Linear(spec.width, spec.width, bias=False)
        self.qk_gain = spec.qk_norm and spec.qk_gain
        if self.qk_gain:
            self.query_key_gain = nn.Parameter(torch.ones(2, 1, spec.head_dim))

    def forward(self, x: Tensor, rotary: Tensor, cache: KeyValueCache | None, layer: int) -> Tensor:
        """x [n, t, width]; with a cache, x holds only the positions after cache.filled."""
        n, t, width = x.shape
        projected = self.qkv(x).view(n, t, 3, self.heads, self.head_dim)
        query_key, value = projected.split([2, 1], dim=2)
        if self.qk_norm:
            query_key = functional.layer_norm(query_key, (self.head_dim,), eps=1e-5)
        if self.qk_gain:
            query_key = query_key * self.query_key_gain.to(query_key.dtype)
        q, k = rotate(query_key, rotary).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), value.squeeze(2).transpose(1, 2)
        if cache is None:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            end = cache.filled + t
            cache.keys[layer][:, :, cache.filled : end] = k
            cache.values[layer][:, :, cache.filled : end] = v
            keys, values = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
            # One new position sees all that is cached; a longer prompt is only ever the first one.
            y = functional.scaled_dot_product_attention(q, keys, values, is_causal=t > 1)
        return self.out(y.transpose(1, 2).reshape(n, t, width))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.gate_up = nn.Linear(spec.width, 2 * spec.hidden, bias=False)
        self.down = nn.Linear(spec.hidden, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        return self.down(gated(self.gate_up(x)))


class TransformerBlock(Compilable, nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, spec: TransformerSpec, number: int) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(spec.width)
        self.attention = Attention(spec)
        self.feed_forward_norm = RmsNorm(spec.width)
        self.feed_forward = FeedForward(spec)
        self.residual_dropout = Dropout(spec.residual_dropout, 2 * number + 1)
        self.feed_forward_dropout = Dropout(spec.feed_forward_dropout, 2 * number + 2)

    def forward(
        self, x: Tensor, rotary: Tensor, cache: KeyValueCache | None, layer: int, keys: Tensor | None = None
    ) -> Tensor:
        """x [n, t, width] to the same shape; `keys` [n] are those of its images, for dropout."""
        x = x + self.residual_dropout(self.attention(self.attention_norm(x), rotary, cache, layer), keys)
        return x + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x)), keys)


class CausalBlocks(Recomputing, nn.Module):
    """The stack of causal blocks with its final norm and rotary table: what stage 2 and the regulariser share.

    With `recomputes` set, backward computes each block's inside again in place of keeping it: memory of one block,
    a third more FLOPs, the same numbers.
    """

    def __init__(self, spec: TransformerSpec, grid: int, prefix: int) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(TransformerBlock(spec, number) for number in range(spec.layers))
        self.norm = RmsNorm(spec.width)
        table = rotary_table(grid, spec.head_dim, prefix, zero_prefix=spec.class_position == "zero")
        self.register_buffer("rotary", table, persistent=False)
        self.rotary: Tensor

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, keys: Tensor | None = None) -> Tensor:
        """x [n, t, width], positions from cache.filled (or 0) on, to normalised hidden states of the same shape."""
        start = cache.filled if cache is not None else 0
        rotary = torch.view_as_real(self.rotary[start : start + x.shape[1]])
        for layer, block in enumerate(self.blocks):
            if self.recomputes and torch.is_grad_enabled() and cache is None:
                x = checkpoint(block, x, rotary, None, layer, keys, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, rotary, cache, layer, keys)
        if cache is not None:
            cache.filled += x.shape[1]
        return self.norm(x)


def initialise(module: nn.Module, layers: int, width_ratio: float = 1.0) -> None:
    """Normal weights of std 0.02; those that write to the residual stream are scaled by 1 / sqrt(2 layers), and with
    muP all hidden matrices by 1 / sqrt(width_ratio) (arXiv 2203.03466, Table 8)."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2:
            scale = (2 * layers) ** -0.5 if name.endswith(("attention.out.weight", "feed_forward.down.weight")) else 1.0
            if is_hidden(name):
                scale *= width_ratio**-0.5
            nn.init.normal_(parameter, std=INITIAL_STD * scale)


def is_hidden(name: str) -> bool:
    """Whether both sides of the matrix of that name grow with the width: the blocks', and the factorised head's."""
    return name.endswith(("qkv.weight", "out.weight", "gate_up.weight", "down.weight", "mix.weight"))


class Generator(nn.Module):
    """Class token, then image tokens in raster order; predicts each token from the class and those before it.

    The class after the last one is the learnable null class of classifier-free guidance. The head starts at zero, so
    that the first loss is ln K exactly. With muP the states are divided by the width's ratio before the head.
    """

    def __init__(self, spec: TransformerSpec, *, codebook_size: int, grid: int, classes: int) -> None:
        super().__init__()
        self.spec, self.codebook_size, self.tokens_per_image, self.classes = spec, codebook_size, grid * grid, classes
        self.token_embedding = nn.Embedding(codebook_size, spec.width)
        self.class_embedding = nn.Embedding(classes + 1, spec.width)
        self.token_dropout = Dropout(spec.token_dropout, 0)
        self.trunk = CausalBlocks(spec, grid, prefix=1)
        head = FactorisedHead if spec.head == "factorised" else FullHead
        self.head: FullHead | FactorisedHead = head(spec.width, codebook_size)
        initialise(self, spec.layers, spec.width_ratio)
        if spec.tied_embeddings:
            self.head.weight = self.token_embedding.weight
        else:
            self.head.start_at_zero()

    def hidden(self, tokens: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """States [n, T, width] for tokens [n, T] and labels [n]; position t sees the class and tokens before t.

        `keys` [n] name the images' dropout masks; needed in training where the specification has dropout. T may be less
        than an image has. Raises ValueError for other shapes; values are not checked, which a GPU would be waited for.
        """
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.tokens_per_image:
            raise ValueError(
                f"tokens have the shape {list(tokens.shape)}; allowed: [n, T] with T from 1 to {self.tokens_per_image}"
            )
        if labels.shape != tokens.shape[:1]:
            raise ValueError(f"labels have the shape {list(labels.shape)}; allowed: [{len(tokens)}], one an image")
        prefix = self.class_embedding(labels)[:, None]
        x = torch.cat([prefix, self.token_embedding(tokens[:, :-1])], dim=1)
        return self._scaled(self.trunk(self.token_dropout(x, keys), keys=keys))

    def loss(self, hidden: Tensor, tokens: Tensor, z_weight: float = 0.0) -> Tensor:
        """Mean cross-entropy in nats, plus the z-loss, of states [n, T, width] against tokens [n, T]; in training it
        never holds all logits, and computes in the autocast's precision."""
        return self.head.cross_entropy(hidden.flatten(0, 1), tokens.flatten(), z_weight)

    def training_loss(
        self, tokens: Tensor, labels: Tensor, keys: Tensor | None = None, z_weight: float = 0.0
    ) -> Tensor:
        """What training lowers: `loss` of the tokens' own states, in one call."""
        return self.loss(self.hidden(tokens, labels, keys), tokens, z_weight)

    def forward(self, tokens: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Logits [n, T, K] for tokens [n, T] from 0 to K - 1 and labels [n] from 0 to `classes`, which is the null
        class. Raises ValueError for other shapes and values."""
        _check_values("token", tokens, self.codebook_size - 1)
        _check_values("label", labels, self.classes)
        return self.head(self.hidden(tokens, labels, keys))

    def step(self, x: Tensor, cache: KeyValueCache) -> Tensor:
        """States [n, width] after one more position, given as its embedding x [n, 1, width]; the head's logits of them
        are those of the next token."""
        return self._scaled(self.trunk(x, cache)[:, -1])

    def rate_factors(self) -> dict[str, float]:
        """By what the learning rate of each parameter is multiplied, by name: 1, for hidden matrices under muP
        1 / width_ratio (arXiv 2203.03466, Table 8: Adam)."""
        ratio = self.spec.width_ratio
        return {name: 1 / ratio if is_hidden(name) else 1.0 for name, _ in self.named_parameters()}

    def _scaled(self, hidden: Tensor) -> Tensor:
        ratio = self.spec.width_ratio
        return hidden if ratio == 1 else hidden / ratio


def _check_values(what: str, values: Tensor, largest: int) -> None:
    wrong = values[(values < 0) | (values > largest)]
    if len(wrong):
        raise ValueError(f"{what} {int(wrong[0])} is not allowed; allowed: 0 to {largest}")


def build_generator(spec: GeneratorRun) -> Generator:
    """A generator of the specification's shape, its weights drawn from torch's global generator."""
    tokenizer = spec.tokenizer
    return Generator(
        spec.transformer,
        codebook_size=tokenizer.codebook_size,
        grid=tokenizer.grid_size,
        classes=tokenizer.data.classes,
    )
