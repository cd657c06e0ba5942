"""What is asked of an evaluation and what it answers: a request, and figures with their protocols. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from results.protocol import Protocol
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import GeneratorRun

METRICS = ("fid", "kid", "is", "precision-recall", "mind", "fid-curve")
DEFAULT_METRICS = ("fid", "kid", "precision-recall", "mind")


@dataclass(frozen=True)
class Figure:
    """A value with its standard error (None where none is known), what it is called, and its protocol."""

    label: str
    value: float
    standard_error: float | None
    protocol: Protocol

    def as_json(self) -> dict[str, Any]:
        """The machine form: the protocol with its id, fields that do not apply left out."""
        fields = {name: value for name, value in asdict(self.protocol).items() if value is not None}
        return {
            "metric": self.protocol.metric, "label": self.label, "value": self.value,
            "standard_error": self.standard_error, "protocol": {"id": self.protocol.id, **fields},
        }  # fmt: skip


@dataclass(frozen=True)
class StoredGenerator:
    """A stored generator whose images 0 .. n - 1 are judged: image i is drawn by (seed, i) alone.

    generator, tokenizer   files of weights; the tokenizer's tokens lie beside its own
    pictures               the folder that tells where a user's own pictures lie, by their fingerprint
    """

    run: GeneratorRun
    generator: Path
    tokenizer: Path
    pictures: Path
    n: int
    guidance: float = 1.0
    seed: int = 0
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


@dataclass(frozen=True)
class Request:
    """What to evaluate. reference: a folder, an .npz (images or statistics), or a built-in data set's name.

    images may be a stored generator, whose reference may also be `train` or `validation`, the images of its study;
    without one it is `train`.
    """

    images: str | StoredGenerator
    reference: str | None = None
    extractors: tuple[str, ...] = ("efficientnet-lite0",)
    metrics: tuple[str, ...] = DEFAULT_METRICS
    image_size: int | None = None
    batch: int = 64
    workers: int = 0
    seed: int = 0
    device: str = "cpu"
    write_statistics: Path | None = None


def in_words(figures: Iterable[Figure]) -> str:
    """One line a figure, then the protocols they were measured by."""
    listed = list(figures)
    width = max((len(figure.label) for figure in listed), default=0)
    lines = []
    for figure in listed:
        error = "" if figure.standard_error is None else f" +- {figure.standard_error:.2g}"
        lines.append(f"{figure.label:<{width}}  {figure.value:.6g}{error}   [protocol {figure.protocol.id}]")
    lines.append("")
    for figure in listed:
        fields = {name: value for name, value in asdict(figure.protocol).items() if value is not None}
        lines.append(f"{figure.protocol.id}: {', '.join(f'{name} {value}' for name, value in fields.items())}")
    return "\n".join(lines)
