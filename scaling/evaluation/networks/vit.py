"""Vision transformers of published weights: DINOv2 (Meta's state dicts) and CLIP's image side (OpenAI's).

Both give the class token: DINOv2 after the last normalisation (arXiv 2304.07193), CLIP projected to the space shared by
text (arXiv 2103.00020). Names of parameters are those of the files: `dinov2_vits14_pretrain.pth` and its like, and
`model.safetensors` of Hugging Face's openai/clip-vit-..., whose other tensors are passed over.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 224


class _Scale(nn.Module):
    """DINOv2's learned factor of each channel of a branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


def _attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Of [n, t, w] by heads."""
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values)]
    return functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class _DinoAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self._heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        return self.proj(_attention(queries, keys, values, self._heads))


class _DinoBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.ls1, self.ls2 = _DinoAttention(width, heads), _Scale(width), _Scale(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        hidden = self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(tokens))))
        return tokens + self.ls2(hidden)


class DinoV2(nn.Module):
    """Images [n, 3, 224, 224], normalised as ImageNet's, to features [n, width]; patches of 14 pixels."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        # Trained at 518 pixels: 37 x 37 places.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 37 * 37, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 14, 14)})
        self.blocks = nn.ModuleList(_DinoBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, width]: the class token."""
        patches = self.patch_embed["proj"](images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self._places(patches.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]

    def _places(self, side: int) -> Tensor:
        """Embeddings of the class token and of side x side patches, [1, 1 + side^2, width]."""
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.unflatten(1, (37, 37)).permute(0, 3, 1, 2)
        # By a factor a little above the ratio of sides, as Meta's code does: it moves the sampled places slightly.
        factor = (side + 0.1) / 37
        grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([first, grid.flatten(2).mT], dim=1)


class _ClipLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self._heads = heads

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.layer_norm1(tokens)
        attention = self.self_attn
        queries, keys, values = (attention[name](hidden) for name in ("q_proj", "k_proj", "v_proj"))
        mixed = _attention(queries, keys, values, self._heads)
        tokens = tokens + attention["out_proj"](mixed)
        hidden = self.mlp["fc1"](self.layer_norm2(tokens))
        return tokens + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))


class ClipImages(nn.Module):
    """Images [n, 3, 224, 224], normalised as CLIP's, to embeddings [n, shared], not scaled to unit norm."""

    def __init__(self, width: int, layers: int, heads: int, patch: int, shared: int) -> None:
        super().__init__()
        places = (SIDE // patch) ** 2 + 1
        embeddings = nn.Module()
        embeddings.class_embedding = nn.Parameter(torch.zeros(width))
        embeddings.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        embeddings.position_embedding = nn.Embedding(places, width)
        model = nn.Module()
        model.embeddings, model.pre_layrnorm = embeddings, nn.LayerNorm(width)
        model.encoder = nn.ModuleDict({"layers": nn.ModuleList(_ClipLayer(width, heads) for _ in range(layers))})
        model.post_layernorm = nn.LayerNorm(width)
        self.vision_model = model
        self.visual_projection = nn.Linear(width, shared, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [n, shared]."""
        model = self.vision_model
        embeddings: nn.Module = model.embeddings  # type: ignore[assignment]
        patches = embeddings.patch_embedding(images).flatten(2).mT  # type: ignore[operator]
        first = embeddings.class_embedding.expand(len(images), 1, -1)  # type: ignore[operator]
        tokens = torch.cat([first, patches], dim=1) + embeddings.position_embedding.weight  # type: ignore[union-attr, operator]
        tokens = model.pre_layrnorm(tokens)  # type: ignore[operator]
        for layer in model.encoder["layers"]:  # type: ignore[index]
            tokens = layer(tokens)
        return self.visual_projection(model.post_layernorm(tokens[:, 0]))  # type: ignore[operator]
