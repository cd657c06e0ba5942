"""Others' tensors under our names: one map of names a source, and one check that says what does not fit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import save
from torch import Tensor, nn

from results.errors import DataError
from scaling.specification.models.autoencoders import VqganSpec
from scaling.specification.models.quantizers import VectorQuantizerSpec
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.quantizers import VectorQuantizer
from scaling.tokenizer.vqgan import VqganDecoder, VqganEncoder

SHOWN = 3
"""Names that an error lists at most."""

Rename = Callable[[str], str]
"""Our name of a tensor to the other's."""


@dataclass(frozen=True)
class ImportedTokenizer:
    """A tokenizer of another program: its shape as our specifications, and its tensors under our names."""

    source: str
    channels: int
    autoencoder: VqganSpec
    quantizer: VectorQuantizerSpec
    weights: Mapping[str, Tensor]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes, types and values: the same from a file of either kind."""
        tensors = {name: self.weights[name].contiguous() for name in sorted(self.weights)}
        return hashlib.sha256(save(tensors)).hexdigest()

    def check(self, spec: TokenizerRun) -> None:
        """Raise DataError unless a run's tokenizer has this shape."""
        shapes = {
            "data.channels": (spec.data.channels, self.channels),
            **_shape_fields("autoencoder", spec.autoencoder, self.autoencoder),
            **_shape_fields("quantizer", spec.quantizer, self.quantizer),
        }
        for field, (asked, given) in shapes.items():
            if asked != given:
                raise DataError(f"{field} = {asked!r} is not that of {self.source}; allowed: {given!r}")


def _shape_fields(
    table: str, asked: object, given: VqganSpec | VectorQuantizerSpec
) -> dict[str, tuple[object, object]]:
    """Fields that decide what weights compute; how they are trained and laid out is left to the run."""
    free = {"memory_layout", "codebook_weight", "commitment_weight", "revive_every", "revive_until", "initialisation"}
    names = [name for name in type(given).model_fields if name not in free]
    return {f"{table}.{name}": (getattr(asked, name, None), getattr(given, name)) for name in names}


def our_shapes(channels: int, autoencoder: VqganSpec, quantizer: VectorQuantizerSpec) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of our tokenizer that others have as well."""
    latent, dim = autoencoder.latent_channels, quantizer.code_dim
    with torch.device("meta"):
        modules = nn.ModuleDict(
            {
                "encoder": VqganEncoder(autoencoder, channels),
                "project": nn.Conv2d(latent, dim, 1),
                "quantizer": VectorQuantizer(quantizer),
                "expand": nn.Conv2d(dim, latent, 1),
                "decoder": VqganDecoder(autoencoder, channels),
            }
        )
    return {name: t.shape for name, t in modules.state_dict().items() if name != "quantizer.chosen"}


def renamed(
    source: str, theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], rename: Rename, ignored: frozenset[str]
) -> dict[str, Tensor]:
    """The tensors under our names, in float32. Names that are missing or have no counterpart, and shapes that differ
    by more than trailing ones, raise DataError."""
    names = {rename(ours): ours for ours in shapes}
    if missing := sorted(names.keys() - theirs.keys()):
        raise DataError(f"{source} lacks {_listed(missing)}")
    if extra := sorted(theirs.keys() - names.keys() - ignored):
        raise DataError(f"{source} holds {_listed(extra)}, which this tokenizer has no place for")
    weights: dict[str, Tensor] = {}
    for name, ours in names.items():
        tensor, shape = theirs[name], shapes[ours]
        # A linear layer over channels is a 1x1 convolution.
        if tensor.shape != shape and not (len(shape) == 4 and shape[2:] == (1, 1) and tensor.shape == shape[:2]):
            raise DataError(f"{source}: {name} has the shape {list(tensor.shape)}; allowed: {list(shape)}")
        if not tensor.is_floating_point():
            raise DataError(f"{source}: {name} is of {tensor.dtype}; allowed: a floating-point type")
        weights[ours] = tensor.detach().float().reshape(shape)
    return weights


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@dataclass(frozen=True)
class KeyMap:
    """How a program names the layers of VQGAN: patterns with `{level}` (counted as it counts them) and `{index}`.

    `parts` are its names of tensors within a layer, where they differ from ours.
    """

    block: str
    attention: str
    down: str
    up: str
    middle: tuple[str, str, str]
    norm_out: str
    parts: Mapping[str, str]
    encoder_levels: str = ""
    """What its levels are called in the encoder, and in the decoder, which it counts from the lowest."""
    decoder_levels: str = ""

    def rename(self, levels: int) -> Rename:
        """Our name of a tensor to this program's, for an autoencoder of so many levels."""
        whole = {
            "quantizer.codebook": "quantize.embedding.weight",
            **{f"project.{p}": f"quant_conv.{p}" for p in ("weight", "bias")},
            **{f"expand.{p}": f"post_quant_conv.{p}" for p in ("weight", "bias")},
        }

        def theirs(ours: str) -> str:
            if ours in whole:
                return whole[ours]
            side, _, layer, *inner = ours.split(".")
            decodes = side == "decoder"
            tensor = [self.parts.get(f"{_kind(layer)}.{inner[0]}", inner[0]), *inner[1:]]
            return ".".join([side, self._layer(layer, levels, decodes), *tensor])

        return theirs

    def _layer(self, layer: str, levels: int, decodes: bool) -> str:
        if layer in ("conv_in", "conv_out"):
            return layer
        fixed = dict(zip(("middle_block0", "middle_attention", "middle_block1"), self.middle, strict=True))
        fixed["norm_out"] = self.norm_out
        if layer in fixed:
            return fixed[layer]
        match = re.fullmatch(r"level(\d+)_([a-z]+)(\d*)", layer)
        assert match is not None, layer
        level, kind, index = int(match[1]), match[2], match[3]
        patterns = {"block": self.block, "attention": self.attention, "down": self.down, "up": self.up}
        name = patterns[kind].format(level=levels - 1 - level if decodes else level, index=index)
        return f"{self.decoder_levels if decodes else self.encoder_levels}.{name}"


def _kind(layer: str) -> str:
    """block, attention, or the layer itself."""
    return next((kind for kind in ("block", "attention") if kind in layer), layer)
