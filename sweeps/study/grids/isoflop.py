"""IsoFLOP grids: for each FLOP budget and each combination of a block, the training images that spend it.

FLOPs are those of scaling.specification; images are rounded to whole batches, and a point is left out, with a note,
where that rounding, the warm-up or the limits of the study do not allow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from scaling.specification.costs import flops
from scaling.specification.spec import GeneratorRun

from ..fields import Section

_ENDLESS_BATCHES = 2**40

Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class IsoFlop(Section):
    """The table `isoflop` of a [[grid]] block.

    With the warm-up/stable/decay schedule one run serves all budgets of a combination, each as a forked decay, unless
    `separate` asks for a run a budget, and with the constant one each as a point of its trunk; with the cosine schedule
    each budget is a run of its own.
    """

    flops: Annotated[list[Budget], Field(min_length=1)]
    """Budgets in FLOPs: of the generator's training, or of both stages' with `count = "both"`."""
    count: Literal["generator", "both"] = "generator"
    min_images: Annotated[int, Field(gt=0)] = 1
    max_images: Annotated[int, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Largest relative difference between a budget and what whole batches spend."""
    separate: bool = False

    @field_validator("flops")
    @classmethod
    def _sorted(cls, value: list[float]) -> list[float]:
        return sorted(set(value))

    @model_validator(mode="after")
    def _range(self) -> IsoFlop:
        if self.max_images is not None and self.max_images < self.min_images:
            raise ValueError(f"max_images = {self.max_images} is below min_images = {self.min_images}")
        return self

    def endless(self, values: Mapping[str, Any]) -> int:
        """A budget in images that is always long enough, a multiple of the batch of these generator fields."""
        batch = values.get("batch_size", GeneratorRun.model_fields["batch_size"].default)
        return _ENDLESS_BATCHES * (batch if isinstance(batch, int) and batch > 0 else 1)

    def fit(self, probe: GeneratorRun) -> tuple[list[list[int]], list[str]]:
        """The `train_images` of each run of the probe's tokenizer, shape, batch and schedule; and what was left out."""
        points = {budget: self._images(budget, probe) for budget in self.flops}
        configuration = probe.label.rpartition("-s")[0]
        notes = [f"isoflop: {budget:.4g} FLOPs left out for {configuration}: {problem}"
                 for budget, (_, problem) in points.items() if problem]  # fmt: skip
        budgets = list(dict.fromkeys(images for images, problem in points.values() if not problem))
        together = probe.schedule != "cosine" and not self.separate
        return [budgets] * bool(budgets) if together else [[images] for images in budgets], notes

    def _images(self, budget: float, run: GeneratorRun) -> tuple[int, str]:
        """Training images that spend a budget, and why they cannot be trained on ("" if they can)."""
        each = flops.generator_training_flops(run)
        before = 0.0
        if self.count == "both":
            before = flops.tokenizer_training_flops(run.tokenizer, run.tokenizer.train_images)
        images = round((budget - before) / each / run.batch_size) * run.batch_size
        if budget <= before:
            return images, f"its tokenizer alone costs {before:.4g}"
        least = max(run.batch_size, self.min_images)
        if images < least:
            name = "min_images" if least > run.batch_size else "a batch"
            return images, f"{images:,} images are below {name}, {least:,}"
        if self.max_images is not None and images > self.max_images:
            return images, f"{images:,} images are above max_images, {self.max_images:,}"
        error = abs((before + images * each) / budget - 1)
        if error > self.tolerance:
            return images, f"whole batches miss it by {100 * error:.1f} %, more than the tolerance"
        constant = images if run.schedule != "warmup-stable-decay" else images - run.decay_images(images)
        if constant < run.optimiser.warmup_images:
            return images, f"the warm-up of {run.optimiser.warmup_images:,} images does not fit into {images:,}"
        return images, ""
