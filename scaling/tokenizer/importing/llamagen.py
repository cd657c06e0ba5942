"""LlamaGen's tokenizers, `vq_ds16_c2i.pt` and `vq_ds8_c2i.pt`, and files of the same names of tensors.

| ours | theirs |
|---|---|
| encoder.layers.level{i}_block{j}, attention{j} | encoder.conv_blocks.{i}.res.{j}, attn.{j} |
| decoder.layers.level{i}_block{j}, attention{j} | decoder.conv_blocks.{lowest level - i}.res.{j}, attn.{j} |
| level{i}_down.conv, level{i}_up.conv | downsample.conv, upsample.conv of that level |
| middle_block0, middle_attention, middle_block1 | mid.0, mid.1, mid.2 |
| in a block: shortcut; in an attention: query, key, value, output | nin_shortcut; q, k, v, proj_out |
| project, expand, quantizer.codebook | quant_conv, post_quant_conv, quantize.embedding.weight |

A `.pt` file holds the tensors below `ema`, `model` or `state_dict`, the first that there is. Its usage buffer,
`quantize.codebook_used`, is left out.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from results.errors import DataError
from scaling.specification.explanation import explain
from scaling.specification.models.autoencoders import VqganSpec
from scaling.specification.models.quantizers import VectorQuantizerSpec

from .state import ImportedTokenizer, KeyMap, our_shapes, renamed

SECTIONS = ("ema", "model", "state_dict")
IGNORED = frozenset({"quantize.codebook_used"})
KEYS = KeyMap(
    block="{level}.res.{index}",
    attention="{level}.attn.{index}",
    down="{level}.downsample",
    up="{level}.upsample",
    middle=("mid.0", "mid.1", "mid.2"),
    norm_out="norm_out",
    parts={
        "block.shortcut": "nin_shortcut",
        "attention.query": "q",
        "attention.key": "k",
        "attention.value": "v",
        "attention.output": "proj_out",
    },
    encoder_levels="conv_blocks",
    decoder_levels="conv_blocks",
)


def read_llamagen(path: Path, l2_normalised: bool = True) -> ImportedTokenizer:
    """A tokenizer from LlamaGen's file, `.pt` (read without executing anything) or `.safetensors`.

    l2_normalised  whether latents and codes are compared on the sphere, which the file does not say; LlamaGen: yes

    Raises DataError for a file that cannot be read so, or whose tensors are not those of such a tokenizer.
    """
    return from_llamagen(str(path), _tensors(path), l2_normalised)


def from_llamagen(source: str, theirs: Mapping[str, Tensor], l2_normalised: bool = True) -> ImportedTokenizer:
    """A tokenizer from tensors under LlamaGen's names. Raises DataError where they are not those of one."""
    try:
        autoencoder, channels = _autoencoder(theirs)
        size, dim = theirs["quantize.embedding.weight"].shape
        quantizer = VectorQuantizerSpec(
            codebook_size=size, code_dim=dim, l2_normalised=l2_normalised, revive_every=0, initialisation="unit-norm"
        )
    except KeyError as error:
        raise DataError(f"{source} lacks {error.args[0]}, which LlamaGen's tokenizers have") from error
    except ValidationError as error:
        raise DataError(f"{source} is not a tokenizer of LlamaGen's kind: {explain(error)}") from error
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{source} is not a tokenizer of LlamaGen's kind: {error}") from error
    shapes = our_shapes(channels, autoencoder, quantizer)
    rename = KEYS.rename(len(autoencoder.channel_multipliers))
    return ImportedTokenizer(source, channels, autoencoder, quantizer, renamed(source, theirs, shapes, rename, IGNORED))


def _autoencoder(theirs: Mapping[str, Tensor]) -> tuple[VqganSpec, int]:
    """The shape that the tensors have, and the colour channels."""
    width, channels = theirs["encoder.conv_in.weight"].shape[:2]
    levels = _count(theirs, "encoder.conv_blocks.{}.res.0.conv1.weight")
    if not levels:
        raise KeyError("encoder.conv_blocks.0.res.0.conv1.weight")
    outgoing = [theirs[f"encoder.conv_blocks.{i}.res.0.conv1.weight"].shape[0] for i in range(levels)]
    finest = theirs["decoder.conv_out.weight"].shape[1]
    multipliers = tuple(size // width for size in outgoing)
    return VqganSpec.model_validate(
        {
            "downsampling": 2 ** (levels - 1),
            "width": width,
            "channel_multipliers": multipliers,
            "residual_blocks": _count(theirs, "encoder.conv_blocks.0.res.{}.conv1.weight"),
            "latent_channels": theirs["encoder.conv_out.weight"].shape[0],
            "decoder_width": None if finest == outgoing[0] else finest // max(multipliers[0], 1),
            "decoder_residual_blocks": _decoder_blocks(theirs),
        }
    ), channels


def _decoder_blocks(theirs: Mapping[str, Tensor]) -> int | None:
    """Blocks a level of the decoder; None where there is one more than in the encoder, as by default."""
    ours, others = (_count(theirs, side + ".conv_blocks.0.res.{}.conv1.weight") for side in ("decoder", "encoder"))
    return None if ours == others + 1 else ours


def _count(theirs: Mapping[str, Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in theirs:
        count += 1
    return count


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"tokenizer weights {path} cannot be read without executing code in them: {reason}; allowed: tensors alone"
        ) from error
    if isinstance(content, Mapping):
        content = next((content[name] for name in SECTIONS if name in content), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(
            f"tokenizer weights {path} hold no table of tensors; allowed: one below {', '.join(SECTIONS)}, or alone"
        )
    return dict(content)
