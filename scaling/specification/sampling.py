"""How images are drawn where each depends on its number alone: temperature, truncation, guidance, batches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .components import Extended, NonNegativeInt, PositiveFloat, PositiveInt

GuidanceSchedule = Literal["constant", "linear", "cosine"]
"""How the scale of classifier-free guidance comes about over the tokens of an image."""
Guided = Literal["logits", "states"]
"""What guidance is applied to: the head's logits, or the states before it. With a head of one matrix the same but for
rounding, since it is linear; and of states the head is computed once."""
GUIDANCE_CHOICES = (1.5, 1.75, 2.0, 2.25)
"""The scales among which the paper chooses (App. A.2)."""
CHOSEN = "tuned"
"""In place of scales of guidance: the best of several."""


class SamplingSpec(Extended):
    """How images are drawn so that image i depends on (evaluation.seed, i) alone: not on how many there are, nor on
    how many processes draw them."""

    later_fields: ClassVar[tuple[str, ...]] = ("guided",)

    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    """Codes among which is drawn at each token; 0: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of these the likeliest that together have this probability; 1: all."""
    guidance_schedule: GuidanceSchedule = "constant"
    microbatch: PositiveInt = 50
    """Images of a forward pass, always so many: rounding differs between batch sizes, and with it the images."""
    classes: Literal["balanced", "proportional"] = "balanced"
    """The classes in turn, or each as often as among the training images."""
    guided: Guided = "logits"

    def check_head(self, head: str) -> None:
        """Raises ValueError for guided states before a head that is not linear."""
        if self.guided == "states" and head != "full":
            raise ValueError(
                f"evaluation.sampling.guided = 'states' needs a head of one matrix; transformer.head = {head!r}. "
                "Allowed: 'logits'"
            )
