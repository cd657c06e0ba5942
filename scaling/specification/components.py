"""The parts of a specification: data, regulariser, losses, optimiser, transformer.

Each is frozen and validated on its own, as are autoencoders and quantizers, which have files of their own;
scaling.specification.spec puts them together into runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from .catalogue import DATASETS, PERCEPTUAL_WEIGHTS

PositiveInt = Annotated[int, Field(gt=0, le=10**15)]
"""Counts and sizes: more than any machine holds is a slip, and would not fit into a column of the store."""
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Precision = Literal["float32", "bfloat16"]
LISTED = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Study files and JSON have lists where a specification has tuples."""


def pinned_weights(field: str, networks: Mapping[str, str]) -> AfterValidator:
    """Takes a network's name or the SHA-256 of its weights, and gives the hash. Refuses any other text."""

    def check(value: str) -> str:
        if value in networks.values():
            return value
        if value not in networks:
            allowed = ", ".join(f"{name!r} ({sha256[:12]}...)" for name, sha256 in networks.items())
            raise ValueError(f"{field} = {value!r} is not a known network; allowed: {allowed}")
        return networks[value]

    return AfterValidator(check)


class Frozen(BaseModel):
    """Base of all specifications: immutable, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Extended(Frozen):
    """A specification that gained fields after runs had been stored.

    A field of `later_fields` is left out of the text while it has its default, so that the ids of runs without it do
    not depend on its existence. The default must therefore mean what was done before the field existed.
    """

    later_fields: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        for name in self.later_fields:
            if name in values and getattr(self, name) == type(self).model_fields[name].default:
                del values[name]
        return values


class DataSpec(Frozen):
    """Which images: a catalogue name, pinned by the SHA-256 of its contents, and the side that metrics see."""

    name: str = "fashion-mnist"
    image_size: PositiveInt = 32
    fingerprint: str = ""

    @model_validator(mode="before")
    @classmethod
    def _pin(cls, values: Any) -> Any:
        """Fill in the fingerprint of the catalogue, so that it is part of the identity."""
        if isinstance(values, dict):
            name = values.get("name", "fashion-mnist")
            if name not in DATASETS:
                raise ValueError(f"data.name = {name!r} is unknown; allowed: {', '.join(sorted(DATASETS))}")
            values = {"fingerprint": DATASETS[name].fingerprint, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> DataSpec:
        entry = DATASETS[self.name]
        if self.fingerprint != entry.fingerprint:
            raise ValueError(f"data.fingerprint = {self.fingerprint!r} is not {self.name}'s {entry.fingerprint!r}")
        if self.image_size < entry.native_size:
            raise ValueError(
                f"data.image_size = {self.image_size} is below the {entry.native_size} pixels of {self.name}; "
                "images are padded to image_size, never cropped"
            )
        return self

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return DATASETS[self.name].channels

    @property
    def classes(self) -> int:
        """Number of class labels."""
        return DATASETS[self.name].classes

    @property
    def train_images(self) -> int:
        """Images to train on."""
        return DATASETS[self.name].train_images

    @property
    def validation_images(self) -> int:
        """Images held out."""
        return DATASETS[self.name].validation_images

    @property
    def fixed_views(self) -> int:
        """In how many ways each training image is encoded."""
        return 1

    @property
    def preprocessing(self) -> str:
        """What metrics see, for their protocol."""
        return f"pad{self.image_size}"


class CausalRegulariserSpec(Extended):
    """The causal regulariser CRT (paper Sec. 3.6, App. A.1): next-token prediction by a small causal transformer.

    The paper leaves open which latents, whether normalised, whether targets are detached and whether dimensions are
    summed or averaged; each is a field here. `weight` is annealed linearly from 0 over `anneal_images`.
    """

    later_fields: ClassVar[tuple[str, ...]] = ("objective", "first_position")

    kind: Literal["causal"] = "causal"
    weight: PositiveFloat = 4.0
    anneal_images: NonNegativeInt = 4000
    latents: Literal["projected", "encoder", "quantised"] = "projected"
    """projected: pre-quantised, after the projection to code_dim; encoder: before it; quantised: after the lookup."""
    normalised: bool = True
    """Apply the loss to unit-norm latents, so that shrinking them cannot lower it."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over dimensions; over positions and images it is always the mean."""
    detach_targets: bool = False
    layers: PositiveInt = 2
    width: PositiveInt = 64
    head_dim: PositiveInt = 32
    learning_rate: PositiveFloat | None = None
    """Of the causal model's own AdamW; None takes the tokenizer's."""
    weight_decay: NonNegativeFloat = 0.1
    objective: Literal["l2", "cross-entropy"] = "l2"
    """l2: on latents; cross-entropy: on tokens, from the quantised latents (paper Table 4, there with weight 0.03)."""
    first_position: Literal["start", "skipped"] = "start"
    """start: position 0 is predicted, from a learnable vector; skipped: it is not."""

    @model_validator(mode="after")
    def _heads(self) -> CausalRegulariserSpec:
        _check_heads("regulariser", self.width, self.head_dim)
        if self.objective == "cross-entropy" and self.latents != "quantised":
            raise ValueError(
                f"regulariser.latents = {self.latents!r} have no tokens to predict; allowed: 'quantised' for "
                "regulariser.objective = 'cross-entropy'"
            )
        return self

    @property
    def label(self) -> str:
        """What it adds to a tokenizer's label."""
        label = f"-crt{self.weight:g}" + ("" if self.latents == "projected" else f"-{self.latents}")
        return label + ("-ce" if self.objective == "cross-entropy" else "")

    @property
    def can_shrink(self) -> bool:
        """Whether shorter latents alone lower the loss."""
        return self.objective == "l2" and not self.normalised

    @property
    def transformer(self) -> TransformerSpec:
        """The shape of the causal model."""
        return TransformerSpec(width=self.width, layers=self.layers, head_dim=self.head_dim)


class ReconstructionLossSpec(Frozen):
    """Weights of squared error and perceptual loss, and the hash of the frozen network behind the latter.

    Named in a study: `builtin`, `efficientnet-lite0` (its features at three depths) or `lpips-vgg`.
    """

    squared_error_weight: NonNegativeFloat = 1.0
    perceptual_weight: NonNegativeFloat = 1.0
    perceptual_network: Annotated[str, pinned_weights("losses.perceptual_network", PERCEPTUAL_WEIGHTS)] = (
        PERCEPTUAL_WEIGHTS["builtin"]
    )

    @property
    def network_name(self) -> str:
        """The perceptual network by name."""
        return next(name for name, sha256 in PERCEPTUAL_WEIGHTS.items() if sha256 == self.perceptual_network)


class OptimiserSpec(Frozen):
    """AdamW with linear warm-up; after it the stage's schedule."""

    learning_rate: PositiveFloat
    warmup_images: NonNegativeInt
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 does not clip."""


Share = Annotated[float, Field(ge=0, lt=1)]
"""A probability of leaving something out."""


class TransformerSpec(Extended):
    """Llama-style class-conditional transformer: RMSNorm, SwiGLU, 2-D rotary positions, QK-norm (paper App. A.2)."""

    later_fields: ClassVar[tuple[str, ...]] = (
        "qk_norm", "class_position", "token_dropout", "residual_dropout", "feed_forward_dropout", "head",
        "mup_base_width", "qk_gain",
    )  # fmt: skip

    width: PositiveInt
    layers: PositiveInt
    head_dim: PositiveInt = 32
    hidden_multiple: PositiveInt = 32
    """The SwiGLU width is 8/3 of the width, rounded up to a multiple of this."""
    class_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    tied_embeddings: bool = False
    qk_norm: bool = True
    """Layer norm of queries and keys; LlamaGen has none."""
    qk_gain: bool = True
    """Whether QK-norm has a learned gain, one an element of queries and one of keys, shared by all heads. The paper's
    printed parameters have no room for them, so its sizes are without."""
    class_position: Literal["unturned", "zero"] = "unturned"
    """What rotary positions do to the class token's queries and keys: leave them as they are, or make them 0
    (LlamaGen's table has zeros there: every token then sees the class with a score of 0)."""
    token_dropout: Share = 0.0
    """Of elements of the embeddings, class included."""
    residual_dropout: Share = 0.0
    """Of elements that attention adds to the residual stream."""
    feed_forward_dropout: Share = 0.0
    """Of elements that the feed-forward adds to the residual stream."""
    head: Literal["full", "factorised"] = "full"
    """full: one matrix of all codes; factorised: code = high x ceil(sqrt(K)) + low, log p(high) + log p(low | high)."""
    mup_base_width: PositiveInt | None = None
    """Width at which all factors of muP (arXiv 2203.03466) are 1; None: no muP, one learning rate for all weights."""

    @model_validator(mode="after")
    def _heads(self) -> TransformerSpec:
        _check_heads("transformer", self.width, self.head_dim)
        if self.head == "factorised" and self.tied_embeddings:
            raise ValueError(
                "transformer.tied_embeddings = True has no matrix to share with transformer.head = 'factorised'; "
                "allowed: one of the two"
            )
        return self

    @property
    def width_ratio(self) -> float:
        """Width over muP's base width: what hidden matrices' learning rates are divided by; 1 without muP."""
        return 1.0 if self.mup_base_width is None else self.width / self.mup_base_width

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_dim

    @property
    def hidden(self) -> int:
        """Width of the SwiGLU."""
        return -(-(8 * self.width) // (3 * self.hidden_multiple)) * self.hidden_multiple


def _check_heads(owner: str, width: int, head_dim: int) -> None:
    """Rotary positions in 2-D rotate pairs of half a head for each axis, so a head's dimension is a multiple of 4."""
    if head_dim % 4 or width % head_dim:
        raise ValueError(f"{owner}.head_dim = {head_dim} must be a multiple of 4 that divides {owner}.width = {width}")
