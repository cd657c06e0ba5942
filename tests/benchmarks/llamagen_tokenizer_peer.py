"""LlamaGen's VQ tokenizer (f16), written from its description, as a peer for timing training steps.

Its published form: convolutions in the usual layout, group norms of 32, x sigmoid(x), attention by batched products at
the lowest level and in the middle, and a lookup by the whole matrix of distances to codes of unit length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, MULTIPLIERS, BLOCKS, LATENT = 128, (1, 1, 2, 2, 4), 2, 256


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class _Residual(nn.Module):
    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(incoming), nn.Conv2d(incoming, outgoing, 3, padding=1)
        self.norm2, self.conv2 = _norm(outgoing), nn.Conv2d(outgoing, outgoing, 3, padding=1)
        self.shortcut = nn.Conv2d(incoming, outgoing, 1) if incoming != outgoing else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(_swish(self.norm1(x)))
        return self.shortcut(x) + self.conv2(_swish(self.norm2(h)))


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.bmm(q.transpose(1, 2), k).mul(c**-0.5).softmax(2)
        return x + self.out(torch.bmm(v, weights.transpose(1, 2)).view(n, c, h, w))


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


def _middle(channels: int) -> list[nn.Module]:
    return [_Residual(channels, channels), _Attention(channels), _Residual(channels, channels)]


def _level(level: int, incoming: int, outgoing: int, blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers.append(_Residual(incoming, outgoing))
        layers += [_Attention(outgoing)] if level == len(MULTIPLIERS) - 1 else []
        incoming = outgoing
    return layers


class LlamaGenTokenizer(nn.Module):
    """Images [n, 3, s, s] to reconstructions, and the loss of the codebook (commitment .25)."""

    def __init__(self, codes: int = 16384, dim: int = 8) -> None:
        super().__init__()
        widths = [WIDTH * factor for factor in MULTIPLIERS]
        encoder: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1)]
        incoming = WIDTH
        for level, outgoing in enumerate(widths):
            encoder += _level(level, incoming, outgoing, BLOCKS)
            encoder += [_Down(outgoing)] if level < len(widths) - 1 else []
            incoming = outgoing
        encoder += [*_middle(incoming), _norm(incoming), nn.SiLU(), nn.Conv2d(incoming, LATENT, 3, padding=1)]
        decoder: list[nn.Module] = [nn.Conv2d(LATENT, incoming, 3, padding=1), *_middle(incoming)]
        for level in reversed(range(len(widths))):
            decoder += _level(level, incoming, widths[level], BLOCKS + 1)
            decoder += [_Up(widths[level])] if level else []
            incoming = widths[level]
        decoder += [_norm(incoming), nn.SiLU(), nn.Conv2d(incoming, 3, 3, padding=1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.project, self.expand = nn.Conv2d(LATENT, dim, 1), nn.Conv2d(dim, LATENT, 1)
        self.codebook = nn.Parameter(functional.normalize(torch.randn(codes, dim), dim=1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        z = self.project(self.encoder(images)).permute(0, 2, 3, 1)
        flat = functional.normalize(z, dim=-1).flatten(0, 2)
        codes = functional.normalize(self.codebook, dim=-1)
        with torch.no_grad():
            distances = flat.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * flat @ codes.t()
        chosen = codes[distances.argmin(1)]
        loss = (chosen - flat.detach()).square().mean() + 0.25 * (chosen.detach() - flat).square().mean()
        through = (flat + (chosen - flat).detach()).view(z.shape).permute(0, 3, 1, 2).contiguous()
        return self.decoder(self.expand(through)), loss
