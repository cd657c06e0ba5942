"""What a metric's value depends on besides the run: values under two protocols are never compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from .errors import UsageError
from .schema import metric_name
from .values import canonical_json, real, whole

TUNED = "best"
"""The guidance schedule of a value at the scale that was the best of several, tuned for this very row."""
_LATER = ("resize", "quantisation", "settings", "temperature", "top_k", "top_p", "guidance_schedule")
_TEXTS = (
    "reference", "reference_hash", "crop", "extractor", "extractor_hash", "resize", "quantisation", "settings",
    "guidance_schedule",
)  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """How a metric was measured. Fields that do not apply to the metric are None.

    metric          a name of schema.METRICS, or one of one's own: own_...
    n               images (or samples) it was measured on; None only where that is not known (rows measured elsewhere)
    reference       what it is compared with, such as "fashion-mnist/train"
    reference_hash  hash of that reference: images, preprocessing and their statistics
    crop            preprocessing before the metric, such as "pad32"
    extractor       name of the feature network;  extractor_hash: SHA-256 of its weights
    guidance        classifier-free guidance scale, 1 for none
    microbatch      images a forward pass, where the value depends on it
    seed            seed of the draws (samples, subsets)
    resize          how images come to the extractor's side, such as "bicubic-antialias-224", or "none"
    quantisation    of the images before the extractor, such as "uint8"
    settings        other parameters of the metric, such as "subsets=100 size=1000"
    temperature, top_k, top_p, guidance_schedule    of the sampling of generated images

    The last three lines came later than the others: they enter text and id only where they are not None, so that older
    protocols keep theirs.

    Raises UsageError, naming the field, for an unknown metric, a value that is not finite or one of another type.
    """

    metric: str
    n: int | None
    reference: str | None = None
    reference_hash: str | None = None
    crop: str | None = None
    extractor: str | None = None
    extractor_hash: str | None = None
    guidance: float | None = None
    microbatch: int | None = None
    seed: int | None = None
    resize: str | None = None
    quantisation: str | None = None
    settings: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_schedule: str | None = None

    def __post_init__(self) -> None:
        try:
            metric_name(self.metric)
        except UsageError as error:
            raise UsageError(f"protocol.{error}") from None
        for name, least in (("n", 1), ("microbatch", 1), ("seed", 0), ("top_k", 0)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(f"protocol.{name}", value, least))
        for name in _TEXTS:
            if not isinstance(value := getattr(self, name), str | None):
                raise UsageError(f"protocol.{name} = {value!r} is not allowed; allowed: text or none")
        for name in ("guidance", "temperature", "top_p"):
            if (number := getattr(self, name)) is not None:
                # 1 and 1.0 are one protocol, so they must have one text.
                object.__setattr__(self, name, real(f"protocol.{name}", number))

    @property
    def json(self) -> str:
        """Canonical text: sorted keys, no spaces; later fields only where they are not None."""
        return canonical_json({k: v for k, v in asdict(self).items() if v is not None or k not in _LATER})

    @property
    def id(self) -> str:
        """Short name: the first 8 hexadecimal digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:8]

    @classmethod
    def from_json(cls, text: str) -> Protocol:
        """The protocol whose `json` this is. Raises UsageError for a text that is no protocol."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UsageError(f"protocol = {text[:80]!r} is not JSON: {error}") from error
        allowed = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or not {"metric", "n"} <= set(values) <= set(allowed):
            raise UsageError(f"protocol = {text[:80]!r} needs metric and n; allowed fields: {', '.join(allowed)}")
        return cls(**values)
