"""Specifications of autoencoders: the small one of the demonstration, and the VQGAN of the paper. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from ..components import LISTED, Frozen, NonNegativeInt, PositiveInt


class AutoencoderSpec(Frozen):
    """Convolutional encoder and decoder: log2(downsampling) levels of residual blocks, GroupNorm and SiLU.

    `width` channels times `channel_multipliers[i]`, and `residual_blocks[i]` blocks, at level i; the first entry is the
    finest level, at half the image's side.
    """

    kind: Literal["convolutional"] = "convolutional"
    downsampling: Literal[2, 4, 8, 16] = 8
    width: PositiveInt = 16
    channel_multipliers: Annotated[tuple[PositiveInt, ...], LISTED] = (1, 2, 4)
    residual_blocks: Annotated[tuple[NonNegativeInt, ...], LISTED] = (1, 1, 1)

    @model_validator(mode="after")
    def _levels(self) -> AutoencoderSpec:
        for field in ("channel_multipliers", "residual_blocks"):
            entries = getattr(self, field)
            if len(entries) != self.levels:
                raise ValueError(
                    f"autoencoder.{field} = {list(entries)} must have {self.levels} entries, one a level, for "
                    f"downsampling = {self.downsampling}"
                )
        return self

    @property
    def levels(self) -> int:
        """Number of times the side is halved."""
        return int(math.log2(self.downsampling))

    @property
    def widths(self) -> list[int]:
        """Channels at each level, finest first."""
        return [self.width * multiplier for multiplier in self.channel_multipliers]

    @property
    def latent_channels(self) -> int:
        """Channels of the encoder's output, before the projection to the code dimension."""
        return self.widths[-1]

    @property
    def memory_layout(self) -> str:
        """Of activations and kernels."""
        return "channels-last"


VQGAN_MULTIPLIERS: dict[int, tuple[int, ...]] = {4: (1, 2, 4), 8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}
"""Channel multipliers by downsampling: those of LlamaGen's f8 and f16, and of latent diffusion's f4."""


class VqganSpec(Frozen):
    """The encoder and decoder of taming-transformers, as LlamaGen has them (paper App. A.1: "exactly" that of VQGAN).

    A 3x3 convolution at full resolution, then one level for each entry of `channel_multipliers`, the finest first, with
    `residual_blocks` each and a halving between two levels; at the lowest level each block is followed by
    self-attention, and block, attention, block stand in the middle. The decoder mirrors it.
    """

    kind: Literal["vqgan"] = "vqgan"
    downsampling: Literal[2, 4, 8, 16, 32] = 16
    width: PositiveInt = 128
    channel_multipliers: Annotated[tuple[PositiveInt, ...], LISTED] = VQGAN_MULTIPLIERS[16]
    """Of `width`, one more than the times that the side is halved; left out, those of VQGAN_MULTIPLIERS."""
    residual_blocks: PositiveInt = 2
    latent_channels: PositiveInt = 256
    """Channels of the encoder's output, before the projection to the code dimension."""
    attention: Literal["lowest-and-middle", "middle"] = "lowest-and-middle"
    """Where self-attention is: also after each block of the lowest level, or in the middle alone."""
    norm_groups: PositiveInt = 32
    decoder_width: PositiveInt | None = None
    """`width` of the decoder; None takes the encoder's."""
    decoder_residual_blocks: PositiveInt | None = None
    """Blocks a level in the decoder; None takes one more than the encoder's, as VQGAN."""
    memory_layout: Literal["channels-last", "contiguous"] = "channels-last"
    """Of activations and kernels: other convolution kernels, hence other rounding."""

    @model_validator(mode="before")
    @classmethod
    def _multipliers_of_the_factor(cls, values: Any) -> Any:
        """Fill in the multipliers, so that they are part of the identity."""
        if isinstance(values, dict) and "channel_multipliers" not in values:
            factor = values.get("downsampling", 16)
            if factor in (2, 32):
                raise ValueError(
                    f"autoencoder.downsampling = {factor} needs channel_multipliers, {int(math.log2(factor)) + 1} "
                    f"entries; without them allowed: {', '.join(map(str, VQGAN_MULTIPLIERS))}"
                )
            if factor in VQGAN_MULTIPLIERS:
                return values | {"channel_multipliers": VQGAN_MULTIPLIERS[factor]}
        return values

    @model_validator(mode="after")
    def _levels(self) -> VqganSpec:
        entries, halvings = list(self.channel_multipliers), int(math.log2(self.downsampling))
        if len(entries) != halvings + 1:
            raise ValueError(
                f"autoencoder.channel_multipliers = {entries} must have {halvings + 1} entries, one a level, the full "
                f"resolution included, for downsampling = {self.downsampling}"
            )
        for field, widths in (("width", self.widths), ("decoder_width", self.decoder_widths)):
            if uneven := [width for width in widths if width % self.norm_groups]:
                value = self.width if field == "width" or self.decoder_width is None else self.decoder_width
                raise ValueError(
                    f"autoencoder.{field} = {value} gives levels of {uneven[0]} channels; allowed: multiples of "
                    f"norm_groups = {self.norm_groups} at every level"
                )
        return self

    @property
    def widths(self) -> list[int]:
        """Channels of the encoder at each level, finest first."""
        return [self.width * multiplier for multiplier in self.channel_multipliers]

    @property
    def decoder_widths(self) -> list[int]:
        """Channels of the decoder at each level, finest first."""
        return [(self.decoder_width or self.width) * multiplier for multiplier in self.channel_multipliers]

    @property
    def decoder_blocks(self) -> int:
        """Residual blocks a level in the decoder."""
        return self.decoder_residual_blocks or self.residual_blocks + 1


def _kind(value: Any) -> str:
    """The kind of an autoencoder; it was left out where there was only one."""
    kind = value.get("kind", "convolutional") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind)


AnyAutoencoderSpec = Annotated[
    Annotated[AutoencoderSpec, Tag("convolutional")] | Annotated[VqganSpec, Tag("vqgan")], Discriminator(_kind)
]
"""An autoencoder of either kind."""
AUTOENCODER_TAGS = ("convolutional", "vqgan")
"""Names of alternatives in the paths of pydantic's errors, which are no fields."""
