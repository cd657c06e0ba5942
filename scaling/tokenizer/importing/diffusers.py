"""diffusers' VQModel folders: config.json and diffusion_pytorch_model.safetensors.

| ours | theirs |
|---|---|
| encoder.layers.level{i}_block{j}, attention{j} | encoder.down_blocks.{i}.resnets.{j}, attentions.{j} |
| decoder.layers.level{i}_block{j}, attention{j} | decoder.up_blocks.{lowest level - i}.resnets.{j}, attentions.{j} |
| level{i}_down.conv, level{i}_up.conv | downsamplers.0.conv, upsamplers.0.conv of that level |
| middle_block0, middle_attention, middle_block1 | mid_block.resnets.0, mid_block.attentions.0, mid_block.resnets.1 |
| in a block: shortcut | conv_shortcut |
| in an attention: norm, query, key, value, output | group_norm, to_q, to_k, to_v, to_out.0 |
| norm_out | conv_norm_out |
| project, expand, quantizer.codebook | quant_conv, post_quant_conv, quantize.embedding.weight |

Its attention has linear layers where ours has 1x1 convolutions; folders of older versions call them query, key, value
and proj_attn. Its codes are compared by Euclidean distance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from results.errors import DataError
from scaling.specification.explanation import explain
from scaling.specification.models.autoencoders import VqganSpec
from scaling.specification.models.quantizers import VectorQuantizerSpec

from .state import ImportedTokenizer, KeyMap, our_shapes, renamed

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PLAIN, ATTENDING = ("DownEncoderBlock2D", "UpDecoderBlock2D"), ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")
FIXED = {"_class_name": "VQModel", "act_fn": "silu", "norm_type": "group", "mid_block_add_attention": True}
"""Settings that our tokenizer has no other value for, with diffusers' defaults."""
OLDER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
KEYS = KeyMap(
    block="{level}.resnets.{index}",
    attention="{level}.attentions.{index}",
    down="{level}.downsamplers.0",
    up="{level}.upsamplers.0",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm_out="conv_norm_out",
    parts={
        "block.shortcut": "conv_shortcut",
        "attention.norm": "group_norm",
        "attention.query": "to_q",
        "attention.key": "to_k",
        "attention.value": "to_v",
        "attention.output": "to_out.0",
    },
    encoder_levels="down_blocks",
    decoder_levels="up_blocks",
)


def read_diffusers(folder: Path) -> ImportedTokenizer:
    """A tokenizer from a VQModel's folder. Raises DataError for files that are missing or damaged, settings that our
    tokenizer cannot have, and tensors that do not fit them."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path} holds no table; allowed: the settings of a VQModel")
    try:
        autoencoder, quantizer = _specifications(path, config)
    except ValidationError as error:
        raise DataError(f"{path} is no tokenizer of ours: {explain(error)}") from error
    source, channels = str(folder), config.get("in_channels", 3)
    theirs = {_newer(name): tensor for name, tensor in _tensors(folder / WEIGHTS).items()}
    shapes = our_shapes(channels, autoencoder, quantizer)
    rename = KEYS.rename(len(autoencoder.channel_multipliers))
    weights = renamed(source, theirs, shapes, rename, frozenset())
    return ImportedTokenizer(source, channels, autoencoder, quantizer, weights)


def _specifications(path: Path, config: dict[str, Any]) -> tuple[VqganSpec, VectorQuantizerSpec]:
    """The shape that the settings ask for. Raises DataError for those that cannot be ours."""
    for name, allowed in FIXED.items():
        if config.get(name, allowed) != allowed:
            raise DataError(f"{path}: {name} = {config[name]!r} is not allowed; allowed: {allowed!r}")
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise DataError(
            f"{path}: out_channels = {config.get('out_channels', 3)} is not allowed; allowed: in_channels, "
            f"{config.get('in_channels', 3)}"
        )
    widths = config.get("block_out_channels", [64])
    uneven = not isinstance(widths, list) or not widths or any(w % widths[0] for w in widths)
    if uneven:
        raise DataError(f"{path}: block_out_channels = {widths} is not allowed; allowed: multiples of the first")
    latent = config.get("latent_channels", 3)
    autoencoder = VqganSpec.model_validate(
        {
            "downsampling": 2 ** (len(widths) - 1),
            "width": widths[0],
            "channel_multipliers": [w // widths[0] for w in widths],
            "residual_blocks": config.get("layers_per_block", 1),
            "latent_channels": latent,
            "attention": _attention(path, config, len(widths)),
            "norm_groups": config.get("norm_num_groups", 32),
        }
    )
    quantizer = VectorQuantizerSpec(
        codebook_size=config.get("num_vq_embeddings", 256),
        code_dim=config.get("vq_embed_dim") or latent,
        l2_normalised=False,
        revive_every=0,
    )
    return autoencoder, quantizer


def _attention(path: Path, config: dict[str, Any], levels: int) -> str:
    """Where attention is. Raises DataError for other places than ours."""
    down = config.get("down_block_types", [PLAIN[0]] * levels)
    up = config.get("up_block_types", [PLAIN[1]] * levels)
    lowest = [[*[PLAIN[0]] * (levels - 1), ATTENDING[0]], [ATTENDING[1], *[PLAIN[1]] * (levels - 1)]]
    if [down, up] == [[PLAIN[0]] * levels, [PLAIN[1]] * levels]:
        return "middle"
    if [down, up] == lowest:
        return "lowest-and-middle"
    raise DataError(
        f"{path}: down_block_types = {down}, up_block_types = {up} are not allowed; allowed: {PLAIN} at all of the "
        f"{levels} levels, or {ATTENDING} at the lowest"
    )


def _newer(name: str) -> str:
    if ".attentions." in name:
        for old, new in OLDER.items():
            name = name.replace(old, new)
    return name


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; allowed: weights as safetensors, which execute no code"
        ) from error
