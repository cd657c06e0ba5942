"""What a run is: frozen, validated specifications of both stages, and their identity.

A run's id is a hash of the canonical JSON of its *full* specification: every field, defaults included, the data's
fingerprint and the metric protocol with the hashes of its feature networks. Paths and resources are not fields, so
they cannot change an id. A generator's specification contains its tokenizer's, so plans stay pure: parameters, FLOPs
and ids follow from the specification alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from results.errors import SpecError, UsageError

from .command_template import check_command
from .components import (
    LISTED,
    CausalRegulariserSpec,
    DataSpec,
    Extended,
    NonNegativeFloat,
    NonNegativeInt,
    OptimiserSpec,
    PositiveInt,
    Precision,
    ReconstructionLossSpec,
    TransformerSpec,
)
from .evaluation import EvaluationSpec
from .explanation import explain
from .ladder import size_name
from .models.adversarial import AdversarialSpec
from .models.autoencoders import AnyAutoencoderSpec, AutoencoderSpec, VqganSpec
from .models.pretrained import PretrainedSpec
from .models.quantizers import (
    BinarySphericalSpec,
    FiniteScalarQuantizerSpec,
    IndexBackpropagationSpec,
    LookupFreeQuantizerSpec,
    QuantizerSpec,
    SimVectorQuantizerSpec,
    VectorQuantizerSpec,
    entropy_weight,
)
from .models.regularisers import LinearPriorSpec, RegulariserSpec
from .pictures import PicturesSpec

__all__ = [
    "AdversarialSpec", "AutoencoderSpec", "BinarySphericalSpec", "CausalRegulariserSpec", "DataSpec",
    "EvaluationSpec", "FiniteScalarQuantizerSpec", "GeneratorRun", "IndexBackpropagationSpec", "LinearPriorSpec",
    "LookupFreeQuantizerSpec", "OptimiserSpec", "PicturesSpec", "QuantizerSpec", "ReconstructionLossSpec",
    "RunSpec", "SimVectorQuantizerSpec", "TokenizerRun", "TransformerSpec", "VectorQuantizerSpec", "VqganSpec",
    "canonical_json", "explain", "identity", "parse_run",
]  # fmt: skip


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(model: BaseModel) -> str:
    """One text a specification: sorted keys, no spaces, every field. Raises SpecError for NaN or infinity."""
    return model.canonical if isinstance(model, RunFields) else _text(model.model_dump(mode="json"))


def _text(values: dict[str, Any]) -> str:
    try:
        return _ENCODER.encode(values)
    except ValueError as error:
        raise SpecError(f"specification has a value with no stable text form: {error}") from error


def identity(text: str, length: int = 12) -> str:
    """First `length` hexadecimal digits of the SHA-256 of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class RunFields(Extended):
    """What both stages share: the command of a trainer of one's own."""

    later_fields: ClassVar[tuple[str, ...]] = ("trainer",)

    stage: str
    trainer: Annotated[tuple[str, ...] | None, LISTED] = None
    """Program and arguments, executed in place of this package's training; see `command_template` for placeholders."""

    @model_validator(mode="after")
    def _command(self) -> Self:
        if self.trainer is not None:
            check_command(self.trainer, self.stage)
        return self

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON of the whole specification."""
        return _text(self.model_dump(mode="json"))

    @cached_property
    def run_id(self) -> str:
        """Identity: hash of the canonical JSON of the whole specification, a generator's tokenizer included."""
        return identity(self.canonical)

    @cached_property
    def family(self) -> str:
        """Identity of the configuration without its seed: runs of one family are repetitions."""
        return identity(_text(self.model_dump(mode="json") | {"seed": 0}))

    def __hash__(self) -> int:
        """That of the identity, which is computed once."""
        return hash(self.run_id)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but what was computed from the fields before is computed anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("canonical", "run_id", "family", "_own"):
            copied.__dict__.pop(name, None)
        return copied


def _kind_of_data(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "catalogue" if kind is None else "pictures"


class TokenizerRun(RunFields):
    """Stage 1: one tokenizer, trained once and shared by all generators that name it."""

    later_fields: ClassVar[tuple[str, ...]] = ("trainer", "adversarial", "pretrained")

    stage: Literal["tokenizer"] = "tokenizer"
    data: Annotated[
        Annotated[DataSpec, Tag("catalogue")] | Annotated[PicturesSpec, Tag("pictures")],
        Discriminator(_kind_of_data),
    ] = DataSpec()
    input_size: PositiveInt | None = None
    """Side to which images are resized before encoding (decoded images are resized back); None: data.image_size.
    At a fixed downsampling this chooses the token count, the paper's own way (App. A.1)."""
    autoencoder: AnyAutoencoderSpec = AutoencoderSpec()
    quantizer: QuantizerSpec = VectorQuantizerSpec()
    regulariser: RegulariserSpec | None = None
    losses: ReconstructionLossSpec = ReconstructionLossSpec()
    adversarial: AdversarialSpec | None = None
    pretrained: PretrainedSpec | None = None
    optimiser: OptimiserSpec = OptimiserSpec(learning_rate=2e-3, warmup_images=4_000)
    decay_fraction: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Last share of training over which the learning rate falls to 0 (1 - sqrt); 0 keeps it constant, as the paper."""
    train_images: PositiveInt = 48_000
    batch_size: PositiveInt = 64
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay a step of the weight average that is evaluated and kept; 0 keeps the last weights."""
    precision: Precision = "float32"
    threads: PositiveInt = 1
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _grid(self) -> TokenizerRun:
        side, factor = self.encoded_size, self.autoencoder.downsampling
        if side % factor:
            raise ValueError(
                f"autoencoder.downsampling = {factor} does not divide the image side {side}; "
                f"no whole number of tokens results. Allowed sides are multiples of {factor}"
            )
        if self.adversarial is not None:
            self.adversarial.check(self.train_images, side)
        self.evaluation.check_side(self.data.image_size)
        return self

    def check_parts(self, processes: int, microbatch: int | None) -> None:
        """Raise UsageError where a loss term is of a whole batch, of which a process would hold several parts."""
        most = -(-self.batch_size // processes)
        parts = -(-most // (microbatch or most))
        needs: dict[str, tuple[Any, str]] = {}
        if weight := entropy_weight(self.quantizer):
            needs["quantizer.entropy_weight"] = (weight, "entropy_weight = 0")
        if self.adversarial is not None:
            instead = "adversarial.norm = 'group' and adaptive = false"
            for name, whole in (("norm", "batch"), ("adaptive", True)):
                if getattr(self.adversarial, name) == whole:
                    needs[f"adversarial.{name}"] = (whole, instead)
        for name, (value, instead) in needs.items() if parts > 1 else ():
            raise UsageError(
                f"{name} = {value!r} looks at a whole batch, but a microbatch of {microbatch} cuts the {most} images "
                f"of a process into {parts}; allowed: no microbatch, or {instead}"
            )

    @property
    def encoded_size(self) -> int:
        """Side of the image that the encoder sees, in pixels."""
        return self.input_size or self.data.image_size

    @property
    def grid_size(self) -> int:
        """Side of the token grid."""
        return self.encoded_size // self.autoencoder.downsampling

    @property
    def tokens_per_image(self) -> int:
        """Length of an image's token sequence."""
        return self.grid_size**2

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.quantizer.codebook_size

    @property
    def bits_per_pixel(self) -> float:
        """Rate: tokens x log2(codebook size) / pixels (paper Fig. 3)."""
        return self.tokens_per_image * math.log2(self.codebook_size) / self.data.image_size**2

    @property
    def tokenizer(self) -> TokenizerRun:
        """The run itself: what a generator's field of this name is to it."""
        return self

    @property
    def executed_images(self) -> int:
        """Images trained on in all; 0 with pretrained weights."""
        return 0 if self.pretrained is not None else self.train_images

    @property
    def configuration_label(self) -> str:
        """Label without seed, for people: `K4096-T16`, with `-crt0.5` for a regulariser and `-fsq` for FSQ."""
        label = f"K{self.codebook_size}-T{self.tokens_per_image}"
        if self.quantizer.kind != "vq":
            label += f"-{self.quantizer.kind}"
        if self.regulariser is not None:
            label += self.regulariser.label
        return label

    @property
    def label(self) -> str:
        """Label for people, with the seed; never parsed."""
        return f"{self.configuration_label}-s{self.seed}"


class GeneratorRun(RunFields):
    """Stage 2: one transformer trained on one tokenizer's tokens, evaluated at each budget.

    With the `warmup-stable-decay` schedule one run serves all `train_images`: at (1 - decay_fraction) of each a decay
    is forked and evaluated (arXiv 2405.18392). With `cosine` a run has exactly one budget. With `constant` the rate
    never falls (LlamaGen), and the trunk itself is evaluated at each budget.
    """

    later_fields: ClassVar[tuple[str, ...]] = ("trainer", "evaluate_images", "pretrained")

    stage: Literal["generator"] = "generator"
    tokenizer: TokenizerRun
    transformer: TransformerSpec
    optimiser: OptimiserSpec
    schedule: Literal["warmup-stable-decay", "cosine", "constant"] = "warmup-stable-decay"
    decay_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    train_images: tuple[PositiveInt, ...]
    """Training images, repeats counted, at which the run is evaluated."""
    evaluate_images: tuple[PositiveInt, ...] = ()
    """Images at which the trunk itself is evaluated besides, without a decay; flagged, and used by no law."""
    pretrained: PretrainedSpec | None = None
    """Weights of another program, which `tokenlaw import` writes; nothing is trained, and no study names them."""
    batch_size: PositiveInt = 64
    z_loss_weight: NonNegativeFloat = 0.0
    precision: Precision = "float32"
    threads: PositiveInt = 1
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: NonNegativeInt = 0

    @field_validator("train_images", "evaluate_images", mode="before")
    @classmethod
    def _sorted(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):  # one budget needs no brackets
            return (value,)
        return tuple(sorted(set(value))) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _check(self) -> GeneratorRun:
        if not self.train_images:
            raise ValueError("train_images = [] names no budget; give at least one number of training images")
        uneven = [b for b in self.train_images if b % self.batch_size]
        if uneven:
            raise ValueError(f"train_images = {uneven} are not multiples of batch_size = {self.batch_size}")
        self._check_places()
        guided = [scale for scale in (*self.evaluation.guidance, *self.evaluation.tuned_guidance) if scale != 1]
        if guided and not self.transformer.class_dropout:
            raise ValueError(
                f"evaluation.guidance = {guided} needs a null class, which transformer.class_dropout = 0.0 never "
                "trains; allowed: no guidance, or a class_dropout above 0"
            )
        if self.evaluation.sampling is not None:
            self.evaluation.sampling.check_head(self.transformer.head)
        if self.schedule == "cosine" and len(self.train_images) != 1:
            raise ValueError(
                f"train_images = {list(self.train_images)}: a cosine schedule ends at one budget; make a run a budget"
            )
        if self.schedule == "constant" and self.optimiser.warmup_images > self.train_images[0]:
            raise ValueError(
                f"optimiser.warmup_images = {self.optimiser.warmup_images} reaches past the smallest budget, "
                f"{self.train_images[0]}"
            )
        if self.schedule == "warmup-stable-decay":
            first_fork = self.train_images[0] - self.decay_images(self.train_images[0])
            if self.optimiser.warmup_images > first_fork:
                raise ValueError(
                    f"optimiser.warmup_images = {self.optimiser.warmup_images} reaches past {first_fork} images, where "
                    f"the decay of the smallest budget, {self.train_images[0]}, forks"
                )
        return self

    def _check_places(self) -> None:
        last = self.train_images[-1]
        end = last - self.decay_images(last) if self.schedule == "warmup-stable-decay" else last
        for images in self.evaluate_images:
            if images % self.batch_size or images > end or (end == last and images in self.train_images):
                raise ValueError(
                    f"evaluate_images = {images} is not allowed; allowed: multiples of batch_size = {self.batch_size} "
                    f"up to {end}, where the trunk ends, that are no budget"
                )

    def decay_images(self, budget: int) -> int:
        """Images of the decay that is forked for `budget`: decay_fraction of it, in whole steps."""
        return round(self.decay_fraction * budget / self.batch_size) * self.batch_size

    @property
    def executed_images(self) -> int:
        """Images trained on in all: the trunk up to the last fork, and every decay; 0 with pretrained weights."""
        if self.pretrained is not None:
            return 0
        if self.schedule != "warmup-stable-decay":
            return self.train_images[-1]
        trunk = self.train_images[-1] - self.decay_images(self.train_images[-1])
        return trunk + sum(self.decay_images(budget) for budget in self.train_images)

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON of the whole specification; the tokenizer's text, which many runs share, is made once."""
        text = _text(self._own | {"tokenizer": None})
        # Keys are sorted and no earlier part has a key of that name, so the first match is the field itself.
        return text.replace('"tokenizer":null', f'"tokenizer":{self.tokenizer.canonical}', 1)

    @cached_property
    def family(self) -> str:
        """Identity of the generator's own fields without seed and tokenizer."""
        return identity(_text({name: value for name, value in self._own.items() if name != "seed"}))

    @cached_property
    def _own(self) -> dict[str, Any]:
        """All fields but the tokenizer, as JSON values."""
        return self.model_dump(mode="json", exclude={"tokenizer"})

    @property
    def label(self) -> str:
        """Label for people; never parsed."""
        return f"{self.tokenizer.configuration_label}-{size_name(self.transformer)}-s{self.tokenizer.seed}.{self.seed}"


RunSpec = TokenizerRun | GeneratorRun
"""A run of either stage."""
_RUN_SPEC: TypeAdapter[RunSpec] = TypeAdapter(
    Annotated[RunSpec, Field(discriminator="stage")], config=ConfigDict(defer_build=True)
)


def parse_run(text: str | bytes) -> RunSpec:
    """A run from its JSON text. Raises SpecError that names each offending field, its value and what is allowed."""
    try:
        return _RUN_SPEC.validate_json(text)
    except ValidationError as error:
        raise SpecError(explain(error)) from error
