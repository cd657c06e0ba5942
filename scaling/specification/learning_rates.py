"""Rules of peak learning rates: each has a name, says what it does and what checks it; a ladder has one by default."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from results.errors import SpecError

from .components import TransformerSpec
from .ladder import LATTICE_START, LLAMAGEN_SIZES, PAPER_SIZES, size_name

BASE_LEARNING_RATE = 7e-3
BASE_WIDTH = 64
WIDTH_EXPONENT = -1.5
"""The best rates at widths 32, 64 and 96 follow this line (docs/design.md; the study fashion-lr checks it)."""


@dataclass(frozen=True)
class LearningRateRule:
    """A peak learning rate for every shape, and what comes with it.

    rate            peak rate of a shape
    statement       what the rule says, for people
    checked_by      the runs that show it
    warmup_steps    length of the warm-up where a study gives none; None: the study must say
    schedule        the schedule where a study gives none; None: GeneratorRun's default
    mup_base_width  width at which muP's factors are 1; None: every weight has the same rate
    """

    name: str
    rate: Callable[[TransformerSpec], float]
    statement: str
    checked_by: str
    warmup_steps: int | None = None
    schedule: str | None = None
    mup_base_width: int | None = None

    def shaped(self, shape: TransformerSpec) -> TransformerSpec:
        """The shape with what the rule changes in it: muP's base width, unless it has one."""
        if self.mup_base_width is None or shape.mup_base_width is not None:
            return shape
        return TransformerSpec.model_validate(shape.model_dump() | {"mup_base_width": self.mup_base_width})

    def defaults(self, batch_size: int) -> dict[str, Any]:
        """Fields of a generator run, and its sugar `warmup_images`, where a study sets none."""
        fields: dict[str, Any] = {} if self.schedule is None else {"schedule": self.schedule}
        return fields if self.warmup_steps is None else fields | {"warmup_images": self.warmup_steps * batch_size}


def _measured(shape: TransformerSpec) -> float:
    return BASE_LEARNING_RATE * (shape.width / BASE_WIDTH) ** WIDTH_EXPONENT


RULES: dict[str, LearningRateRule] = {
    rule.name: rule
    for rule in (
        LearningRateRule(
            "measured",
            _measured,
            "0.007 (width / 64)^-1.5",
            "the built-in study fashion-lr, at widths 32, 64 and 96",
        ),
        LearningRateRule(
            "paper",
            lambda shape: 3e-3,
            "3e-3 at every width; warm-up over 5,000 iterations from 3e-4, then cosine to 0",
            "the paper's own runs (App. A.2), widths 576 to 1280 at a batch of 256",
            warmup_steps=5_000,
            schedule="cosine",
        ),
        LearningRateRule(
            "llamagen",
            lambda shape: 1e-4,
            "1e-4 at every width from the first step to the last",
            "LlamaGen's published runs (arXiv 2406.06525), widths 768 to 3200 at a batch of 256",
            warmup_steps=0,
            schedule="constant",
        ),
        LearningRateRule(
            "mup",
            lambda shape: BASE_LEARNING_RATE,
            "muP (arXiv 2203.03466): 0.007 at width 64; of hidden matrices 64 / width of it, their initial standard "
            "deviation scaled by (64 / width)^0.5, logits by 64 / width",
            "the built-in study fashion-mup, at widths 32, 64 and 96; a coordinate check in the tests",
            mup_base_width=BASE_WIDTH,
        ),
    )
}
"""The rules by name."""


def rule(name: Any) -> LearningRateRule:
    """The rule of that name. Raises SpecError that lists the names."""
    if not isinstance(name, str) or name not in RULES:
        raise SpecError(f"generator.learning_rate_rule = {name!r} is unknown; allowed: {', '.join(RULES)}")
    return RULES[name]


def default_rule(shape: TransformerSpec) -> LearningRateRule:
    """The rule of the ladder that a shape is on: LlamaGen's for its sizes, the paper's for its lattice, the measured
    one for small sizes and for shapes on no ladder; muP's for shapes with a base width."""
    if shape.mup_base_width is not None:
        return RULES["mup"]
    name = size_name(shape)
    if name in LLAMAGEN_SIZES:
        return RULES["llamagen"]
    on_lattice = name in PAPER_SIZES or name.startswith("h")
    return RULES["paper" if on_lattice and shape.width >= 64 * LATTICE_START else "measured"]


def learning_rate(shape: TransformerSpec) -> float:
    """Peak learning rate by the rule of the shape's ladder."""
    return default_rule(shape).rate(shape)


def followed_rule(shape: TransformerSpec, rate: float) -> str:
    """The rule that gives a shape this rate, its ladder's own before others; "none" if no rule does."""
    ladder = default_rule(shape)
    names = [rule.name for rule in (ladder, *RULES.values()) if math.isclose(rule.rate(shape), rate)]
    return next((name for name in names if name != "mup" or shape.mup_base_width is not None), "none")
