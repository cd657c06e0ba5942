"""The specifications of all regularisers of the latents, one class a kind, and their cost. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from ..components import CausalRegulariserSpec, Frozen, NonNegativeFloat, NonNegativeInt, PositiveFloat


class LinearPriorSpec(Frozen):
    """The smallest prior: each latent is predicted as a learnt linear map of the one before it, in l2.

    What it changes needs no transformer; what the causal regulariser changes beyond it does.
    """

    kind: Literal["linear"] = "linear"
    weight: PositiveFloat = 4.0
    anneal_images: NonNegativeInt = 4000
    latents: Literal["projected", "encoder", "quantised"] = "projected"
    normalised: bool = True
    learning_rate: PositiveFloat | None = None
    """Of the map's own AdamW; None takes the tokenizer's."""
    weight_decay: NonNegativeFloat = 0.1

    @property
    def label(self) -> str:
        """What it adds to a tokenizer's label."""
        return f"-linear{self.weight:g}" + ("" if self.latents == "projected" else f"-{self.latents}")

    @property
    def can_shrink(self) -> bool:
        """Whether shorter latents alone lower the loss."""
        return not self.normalised


def _kind(value: Any) -> str:
    """The kind of a regulariser; it was left out where there was only one."""
    kind = value.get("kind", "causal") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind)


RegulariserSpec = Annotated[
    Annotated[CausalRegulariserSpec, Tag("causal")] | Annotated[LinearPriorSpec, Tag("linear")], Discriminator(_kind)
]
"""A regulariser of any kind."""
REGULARISER_TAGS = ("causal", "linear")
"""Names of alternatives in the paths of pydantic's errors, which are no fields."""
