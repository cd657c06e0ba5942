"""The metric protocol's part that a study may choose: samples, guidance, feature spaces, further metrics."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from .catalogue import CLASSIFIERS, EXTRACTOR_WEIGHTS, EXTRACTORS_BY_FILE
from .components import LISTED, Extended, Frozen, NonNegativeInt, pinned_weights
from .sampling import CHOSEN, GUIDANCE_CHOICES, SamplingSpec

OF_RECONSTRUCTIONS = {"ms-ssim": 161, "lpips-alex": 31, "lpips-vgg": 16}
"""Metrics of a tokenizer's reconstructions beside PSNR, SSIM and rFID, which are always there, by the least side in
pixels that they are defined for: five scales, each half of the one before, of a window of 11; strides of the trunk."""


class ExtractorSpec(Frozen):
    """A feature network by name and the SHA-256 of its weights; a study may give the name alone where it is known.

    `builtin` is the shipped one, shown what it knows of a picture; weights that are a file of the user's lie in the
    cache, as weights/NAME-<first 8 digits of the hash>.pth or .safetensors.
    """

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="before")
    @classmethod
    def _pin(cls, values: Any) -> Any:
        values = {"name": values} if isinstance(values, str) else values
        if not isinstance(values, dict):
            return values
        name = values.get("name")
        if name in EXTRACTORS_BY_FILE and "sha256" not in values:
            raise ValueError(
                f"evaluation.extractors = {name!r} needs the SHA-256 of its weights; allowed: "
                f"{{ name = {name!r}, sha256 = '...' }}"
            )
        if name not in EXTRACTOR_WEIGHTS and name not in EXTRACTORS_BY_FILE:
            allowed = ", ".join((*EXTRACTOR_WEIGHTS, *EXTRACTORS_BY_FILE))
            raise ValueError(f"evaluation.extractors = {name!r} is unknown; allowed: {allowed}")
        return {"sha256": EXTRACTOR_WEIGHTS.get(str(name)), **values}

    @model_validator(mode="after")
    def _check(self) -> ExtractorSpec:
        known = EXTRACTOR_WEIGHTS.get(self.name, self.sha256)
        if self.sha256 != known:
            raise ValueError(f"evaluation.extractors: {self.name} has weights {known!r}, not {self.sha256!r}")
        return self


class EvaluationSpec(Extended):
    """The metric protocol's part that a study may choose; feature networks are pinned by their hash."""

    later_fields: ClassVar[tuple[str, ...]] = ("extractors", "metrics", "sampling", "tuned_guidance")

    samples: Annotated[int, Field(ge=128)] = 10_000
    """Images generated for gFID, and images reconstructed for rfid_floor."""
    guidance: tuple[Annotated[float, Field(ge=1, allow_inf_nan=False)], ...] = (1.0,)
    """Classifier-free guidance scales at which gFID is measured; 1 is no guidance and always included."""
    fid_network: Annotated[str, pinned_weights("evaluation.fid_network", {"builtin": EXTRACTOR_WEIGHTS["builtin"]})] = (
        EXTRACTOR_WEIGHTS["builtin"]
    )
    seed: NonNegativeInt = 0
    extractors: Annotated[tuple[ExtractorSpec, ...], LISTED] = ()
    """Feature spaces of the distances, each with a protocol of its own; analysis reads the first. None: `builtin`."""
    metrics: Annotated[
        tuple[Literal["kid", "precision-recall", "mind", "is", "ms-ssim", "lpips-alex", "lpips-vgg"], ...], LISTED
    ] = ()
    """What is measured besides: of generated images in every feature space, or of reconstructions (ms-ssim, lpips-)."""
    sampling: SamplingSpec | None = None
    """None: all uniform numbers from one generator, batches of 500, classes in the proportions of training."""
    tuned_guidance: Annotated[tuple[Annotated[float, Field(gt=1, allow_inf_nan=False)], ...], LISTED] = ()
    """Scales of which the best against up to 50,000 training images is taken, by draws of its own, and measured as
    well. `guidance = "tuned"` is short for the paper's four; it needs, and brings, `sampling`."""

    @model_validator(mode="before")
    @classmethod
    def _tuned(cls, values: Any) -> Any:
        """What `guidance = "tuned"` stands for, alone or among scales."""
        if not isinstance(values, dict):
            return values
        scales = values.get("guidance")
        scales = list(scales) if isinstance(scales, list | tuple) else [scales]
        if CHOSEN in scales:
            others = tuple(scale for scale in scales if scale != CHOSEN)
            values = {"tuned_guidance": GUIDANCE_CHOICES, **values, "guidance": others}
        if values.get("tuned_guidance") and values.get("sampling") is None:
            values = {**values, "sampling": SamplingSpec()}
        return values

    @model_validator(mode="after")
    def _several(self) -> EvaluationSpec:
        if len(self.tuned_guidance) == 1 or len(set(self.tuned_guidance)) < len(self.tuned_guidance):
            raise ValueError(
                f"evaluation.tuned_guidance = {list(self.tuned_guidance)} leaves nothing to choose; allowed: two or "
                "more different scales above 1"
            )
        return self

    @field_validator("guidance", mode="before")
    @classmethod
    def _with_unguided(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if wrong := [v for v in value if isinstance(v, bool) or not isinstance(v, int | float)]:
                raise ValueError(f"evaluation.guidance = {wrong[0]!r} is not allowed; allowed: numbers from 1, 'tuned'")
            return tuple(sorted({1.0, *(float(v) for v in value)}))
        return value

    def check_side(self, side: int) -> None:
        """Raises ValueError for a metric that images of this side cannot have."""
        for name in self.metrics:
            if side < (least := OF_RECONSTRUCTIONS.get(name, 0)):
                raise ValueError(
                    f"evaluation.metrics = {name!r} is defined for images of at least {least} pixels a side; "
                    f"data.image_size = {side}. Allowed: without it (psnr, ssim and rfid are always measured)"
                )

    @model_validator(mode="after")
    def _named(self) -> EvaluationSpec:
        names = [extractor.name for extractor in self.extractors]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"evaluation.extractors names {twice[0]} twice; allowed: each once")
        if "is" in self.metrics and not set(names) & set(CLASSIFIERS):
            raise ValueError(
                f"evaluation.metrics = 'is' needs a classifier; allowed with evaluation.extractors that name one of "
                f"{', '.join(CLASSIFIERS)}"
            )
        return self
