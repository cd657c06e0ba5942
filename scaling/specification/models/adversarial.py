"""Specification of the discriminator beside the tokenizer, and of its weight in the course of training. No torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ..components import Frozen, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

PAPERS_BATCH = 128
"""Images a step of the paper's tokenizers, which counts in steps."""


class AdversarialSpec(Frozen):
    """A patch discriminator (taming-transformers' NLayerDiscriminator) and its loss (paper App. A.1).

    The tokenizer's loss gains weight x -mean D(reconstruction). The weight is 0 for `start_images`, in which the
    discriminator is not trained either, then rises to `weight` by half a cosine over `ramp_images`; defaults are the
    paper's 20k and 2k steps of 128 images. The discriminator has an AdamW of its own with the tokenizer's settings and
    schedule, and its gradient norm is clipped like the tokenizer's.
    """

    kind: Literal["patchgan"] = "patchgan"
    loss: Literal["wasserstein", "hinge"] = "wasserstein"
    """wasserstein: D's loss is mean D(reconstruction) - mean D(image), the paper's; hinge: the mean of both
    max(0, 1 -+ D), LlamaGen's."""
    weight: PositiveFloat = 0.5
    start_images: NonNegativeInt = 20_000 * PAPERS_BATCH
    ramp_images: NonNegativeInt = 2_000 * PAPERS_BATCH
    """0 is LlamaGen's hard switch."""
    adaptive: bool = False
    """Multiply by |gradient of the reconstruction loss| / |gradient of -mean D| at the decoder's last layer, at most
    1e4 (VQGAN, arXiv 2012.09841, eq. 7)."""
    width: PositiveInt = 64
    layers: Annotated[int, Field(ge=1, le=8)] = 3
    """Times that it halves the side."""
    norm: Literal["batch", "group"] = "batch"
    """batch: over all images of a step, as published; group: over each image, in groups of 16 channels."""
    weight_clip: NonNegativeFloat = 0.0
    """Largest absolute weight of the discriminator (arXiv 1701.07875, Sec. 3); 0 leaves them free: the paper names no
    constraint."""
    learning_rate: PositiveFloat | None = None
    """Peak of the discriminator's own rate; None takes the tokenizer's."""

    @property
    def widths(self) -> list[int]:
        """Channels after each convolution but the last, which has one."""
        return [self.width * min(2**level, 8) for level in range(self.layers + 1)]

    def weight_after(self, images: int) -> float:
        """The weight after `images` training images, without the adaptive factor."""
        if images < self.start_images:
            return 0.0
        if images >= self.start_images + self.ramp_images:
            return self.weight
        return self.weight * (1 - math.cos(math.pi * (images - self.start_images) / self.ramp_images)) / 2

    def active_share(self, train_images: int, batch_size: int) -> float:
        """Share of a training's steps in which the discriminator takes part."""
        steps, start = (-(-images // batch_size) for images in (train_images, self.start_images))
        return (steps - start) / steps

    def check(self, train_images: int, side: int) -> None:
        """Raise ValueError for a ramp that training does not reach the end of, and for images too small for patches."""
        if self.start_images + self.ramp_images > train_images:
            raise ValueError(
                f"adversarial.start_images = {self.start_images} and ramp_images = {self.ramp_images} reach past "
                f"train_images = {train_images}; allowed: together at most that"
            )
        if side // 2**self.layers < 3:
            raise ValueError(
                f"adversarial.layers = {self.layers} leave no patch of {side} pixels; allowed: layers that halve the "
                "side to 3 or more"
            )
        if self.norm == "group" and (uneven := [width for width in self.widths if width % 16]):
            raise ValueError(
                f"adversarial.width = {self.width} gives {uneven[0]} channels; allowed: multiples of 16 for "
                "adversarial.norm = 'group'"
            )
