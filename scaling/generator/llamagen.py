"""LlamaGen's class-conditional weights (c2i_B, L, XL, XXL, 3B) in our Generator, by a documented map of keys.

    LlamaGen                                  here
    tok_embeddings.weight                     token_embedding.weight
    cls_embedding.embedding_table.weight      class_embedding.weight (the last row is the null class)
    layers.I.attention_norm.weight            trunk.blocks.I.attention_norm.weight
    layers.I.attention.wqkv.weight            trunk.blocks.I.attention.qkv.weight
    layers.I.attention.wo.weight              trunk.blocks.I.attention.out.weight
    layers.I.ffn_norm.weight                  trunk.blocks.I.feed_forward_norm.weight
    layers.I.feed_forward.w1.weight, w3       trunk.blocks.I.feed_forward.gate_up.weight, one above the other
    layers.I.feed_forward.w2.weight           trunk.blocks.I.feed_forward.down.weight
    norm.weight                               trunk.norm.weight
    output.weight                             head.weight

Rows and pairs of rotary positions are in the same order in both. Files are read with torch's safe loader, which
executes nothing, and mapped into memory.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from results.errors import DataError
from scaling.specification.ladder import LLAMAGEN_SIZES
from scaling.specification.spec import TransformerSpec

from .transformer import Generator

WRAPPERS = ("model", "module", "state_dict")
"""Keys under which checkpoints hold the weights: of one process, of DeepSpeed, of Lightning; FSDP's have none."""
SHOWN = 4
"""Names that an error lists at most."""


def key_map(layers: int) -> dict[str, tuple[str, ...]]:
    """Our names to LlamaGen's; where there are several, these are put one above the other."""
    names: dict[str, tuple[str, ...]] = {
        "token_embedding.weight": ("tok_embeddings.weight",),
        "class_embedding.weight": ("cls_embedding.embedding_table.weight",),
        "trunk.norm.weight": ("norm.weight",),
        "head.weight": ("output.weight",),
    }
    for number in range(layers):
        block, layer = f"trunk.blocks.{number}.", f"layers.{number}."
        names |= {
            f"{block}attention_norm.weight": (f"{layer}attention_norm.weight",),
            f"{block}attention.qkv.weight": (f"{layer}attention.wqkv.weight",),
            f"{block}attention.out.weight": (f"{layer}attention.wo.weight",),
            f"{block}feed_forward_norm.weight": (f"{layer}ffn_norm.weight",),
            f"{block}feed_forward.gate_up.weight": (
                f"{layer}feed_forward.w1.weight", f"{layer}feed_forward.w3.weight",
            ),
            f"{block}feed_forward.down.weight": (f"{layer}feed_forward.w2.weight",),
        }  # fmt: skip
    return names


def shapes(spec: TransformerSpec, codebook_size: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of LlamaGen's weights for a shape; without class dropout it has no null class."""
    width, hidden = spec.width, spec.hidden
    rows = classes + (1 if spec.class_dropout else 0)
    expected: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (codebook_size, width),
        "cls_embedding.embedding_table.weight": (rows, width),
        "norm.weight": (width,),
        "output.weight": (codebook_size, width),
    }
    for number in range(spec.layers):
        layer = f"layers.{number}."
        expected |= {
            f"{layer}attention_norm.weight": (width,),
            f"{layer}attention.wqkv.weight": (3 * width, width),
            f"{layer}attention.wo.weight": (width, width),
            f"{layer}ffn_norm.weight": (width,),
            f"{layer}feed_forward.w1.weight": (hidden, width),
            f"{layer}feed_forward.w3.weight": (hidden, width),
            f"{layer}feed_forward.w2.weight": (width, hidden),
        }
    return expected


def shape_of(state: Mapping[str, Tensor]) -> TransformerSpec:
    """The size that weights under LlamaGen's names have, by width and layers. Raises DataError where it has none."""
    if "tok_embeddings.weight" not in state:
        raise DataError("the checkpoint misses tok_embeddings.weight; allowed: LlamaGen's class-conditional weights")
    width = state["tok_embeddings.weight"].shape[-1]
    numbers = [int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name))]
    layers = max(numbers, default=-1) + 1
    for spec in LLAMAGEN_SIZES.values():
        if (spec.width, spec.layers) == (width, layers):
            return spec
    allowed = ", ".join(f"{name} ({spec.width}, {spec.layers})" for name, spec in LLAMAGEN_SIZES.items())
    raise DataError(
        f"the checkpoint's width and layers = ({width}, {layers}) are no size of LlamaGen's; allowed: {allowed}"
    )


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, tensor by tensor, so that 3B weights are not held twice."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def converted(
    state: Mapping[str, Tensor], spec: TransformerSpec, codebook_size: int, classes: int
) -> dict[str, Tensor]:
    """Our state dict from LlamaGen's. Without a null class in it (no class dropout) that row is 0.

    Raises DataError for a specification that LlamaGen cannot have, for missing or extra keys, and for shapes that are
    not the specification's.
    """
    allowed = {"qk_norm": False, "class_position": "zero", "head": "full", "tied_embeddings": False}
    for field, value in allowed.items():
        if getattr(spec, field) != value:
            raise DataError(f"transformer.{field} = {getattr(spec, field)!r} is not LlamaGen's; allowed: {value!r}")
    expected = shapes(spec, codebook_size, classes)
    missing, extra = [k for k in expected if k not in state], [k for k in state if k not in expected]
    for what, names in (("misses", missing), ("has, which no LlamaGen of this shape has,", extra)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise DataError(f"the checkpoint {what} {', '.join(names[:SHOWN])}{more}; allowed: the keys of "
                            f"{spec.layers} layers")  # fmt: skip
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise DataError(f"the checkpoint's {name} = {tuple(state[name].shape)}; allowed: {shape}")
    weights = {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in key_map(spec.layers).items()}
    if not spec.class_dropout:
        table = weights["class_embedding.weight"]
        weights["class_embedding.weight"] = torch.cat([table, table.new_zeros(1, spec.width)])
    return weights


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """LlamaGen's weights by name from a .pt file, nothing in it executed. Raises DataError for any other file."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is no checkpoint that can be read safely: {reason}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path} holds no weights by name; allowed: a dict of tensors, or one under {WRAPPERS}")
    return content


def load_llamagen(model: Generator, path: Path) -> Generator:
    """Put the weights of a checkpoint into a generator of its size; the same generator. Raises DataError."""
    weights = converted(read_checkpoint(path), model.spec, model.codebook_size, model.classes)
    model.load_state_dict(weights)
    return model
