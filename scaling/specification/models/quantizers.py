"""Specifications of quantizers, one class a kind: what a study may choose, and what follows from it. No torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..components import LISTED, Extended, Frozen, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

CodebookSize = Annotated[int, Field(ge=2, le=2**20)]
RevivalShare = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=1, le=20)]


class VectorQuantizerSpec(Extended):
    """Nearest-code quantisation in a low-dimensional, optionally l2-normalised space (ViT-VQGAN; paper App. A.1).

    At the paper's scale: revive_every = 0 (dead codes are left alone) and initialisation = "unit-norm".
    """

    later_fields: ClassVar[tuple[str, ...]] = ("initialisation", "entropy_weight", "entropy_temperature")

    kind: Literal["vq"] = "vq"
    codebook_size: CodebookSize = 256
    code_dim: PositiveInt = 8
    l2_normalised: bool = True
    codebook_weight: NonNegativeFloat = 1.0
    commitment_weight: NonNegativeFloat = 0.25
    revive_every: NonNegativeInt = 50
    """Steps between revivals of codes that no latent chose since the last one; 0 never revives."""
    revive_until: RevivalShare = 0.6
    """Share of training after which dead codes are left alone, so that the codebook settles."""
    initialisation: Literal["uniform", "unit-norm"] = "uniform"
    """uniform: within +-1 / codebook_size, as VQ-VAE; unit-norm: these scaled to length 1, as LlamaGen. A step of Adam
    turns a short code by a larger angle."""
    entropy_weight: NonNegativeFloat = 0.0
    """Of `sample_entropy` less `batch_entropy`, both of softmax(-squared distance / entropy_temperature): LlamaGen's
    `entropy_loss_ratio`, which is 0 in all its published tokenizers."""
    entropy_temperature: PositiveFloat = 0.01


class SimVectorQuantizerSpec(Frozen):
    """SimVQ (arXiv 2411.02038): codes are a learnt linear map of a frozen Gaussian codebook, so that each step moves
    all of them. Weights are those of VQ; the defaults are the published ones (Euclidean distance)."""

    kind: Literal["simvq"] = "simvq"
    codebook_size: CodebookSize = 1024
    code_dim: PositiveInt = 8
    l2_normalised: bool = False
    codebook_weight: NonNegativeFloat = 1.0
    commitment_weight: NonNegativeFloat = 0.25


class IndexBackpropagationSpec(Frozen):
    """IBQ (arXiv 2412.02692): the choice is made by inner products, and its gradient reaches every code through the
    softmax over all of them (straight-through on the one-hot choice).

    Loss terms: `joint`, squared distance of latent and code with gradients to both through the choice; `commitment`,
    which moves the latent alone; `codebook`, which moves the code alone; `sample_entropy` less `batch_entropy`
    (Sec. 3.2), both of softmax(inner products / entropy_temperature).
    """

    kind: Literal["ibq"] = "ibq"
    codebook_size: CodebookSize = 1024
    code_dim: PositiveInt = 256
    """As published. Of codes in few dimensions many lie inside the hull of the others, where no inner product chooses
    them (docs/quantizers.md)."""
    l2_normalised: bool = False
    """Cosine similarity in place of inner products."""
    joint_weight: NonNegativeFloat = 1.0
    commitment_weight: NonNegativeFloat = 1.0
    codebook_weight: NonNegativeFloat = 0.25
    entropy_weight: NonNegativeFloat = 0.05
    """Of the entropy terms together, as published."""
    entropy_temperature: PositiveFloat = 0.01


class FiniteScalarQuantizerSpec(Frozen):
    """Finite scalar quantisation (arXiv 2309.15505): each latent dimension is rounded to one of levels[i] values."""

    kind: Literal["fsq"] = "fsq"
    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=64)], ...], LISTED] = (8, 6, 5)

    @model_validator(mode="after")
    def _size(self) -> FiniteScalarQuantizerSpec:
        if not 2 <= self.codebook_size <= 2**20:
            raise ValueError(
                f"quantizer.levels = {list(self.levels)} give {self.codebook_size} codes; allowed: 2 to 2^20"
            )
        return self

    @property
    def codebook_size(self) -> int:
        """Product of the levels."""
        return math.prod(self.levels)

    @property
    def code_dim(self) -> int:
        """One dimension a level."""
        return len(self.levels)


class _BinarySpec(Frozen):
    """Fields that both quantizers to signs share."""

    bits: Bits = 10
    """Dimensions, each of which is one bit of the token."""

    @property
    def codebook_size(self) -> int:
        """Two to the bits."""
        return 2**self.bits

    @property
    def code_dim(self) -> int:
        """One dimension a bit."""
        return self.bits


class LookupFreeQuantizerSpec(_BinarySpec):
    """LFQ (MAGVIT-v2, arXiv 2310.05737): each latent dimension becomes its sign. `sample_entropy` less
    diversity_weight x `batch_entropy`, the latter over the whole codebook, are weighted by entropy_weight."""

    kind: Literal["lfq"] = "lfq"
    commitment_weight: NonNegativeFloat = 0.25
    entropy_weight: NonNegativeFloat = 0.1
    diversity_weight: NonNegativeFloat = 1.0
    entropy_temperature: PositiveFloat = 0.01
    """Of softmax(-squared distance / temperature) over the codes; 0.01 as published."""


class BinarySphericalSpec(_BinarySpec):
    """BSQ (arXiv 2406.07548): latents on the unit sphere, codes at corners +-1 / sqrt(bits). Entropies are sums over
    bits, exact for a sample and an upper bound for the batch (Sec. 3.2); no commitment loss by default, since the
    error is bounded."""

    kind: Literal["bsq"] = "bsq"
    commitment_weight: NonNegativeFloat = 0.0
    entropy_weight: NonNegativeFloat = 0.1
    diversity_weight: NonNegativeFloat = 1.0
    entropy_temperature: PositiveFloat = 1.0
    """Of softmax(inner product / temperature) over the codes."""


QuantizerSpec = Annotated[
    VectorQuantizerSpec
    | FiniteScalarQuantizerSpec
    | SimVectorQuantizerSpec
    | IndexBackpropagationSpec
    | LookupFreeQuantizerSpec
    | BinarySphericalSpec,
    Field(discriminator="kind"),
]
"""A quantizer of any kind."""


def entropy_weight(spec: Any) -> float:
    """Weight of the term that is an entropy over the batch, which the parts of a batch do not add up to; 0 without."""
    return float(getattr(spec, "entropy_weight", 0.0))
