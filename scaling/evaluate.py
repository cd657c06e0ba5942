"""Judges images against a reference by several metrics in several feature spaces: what `tokenlaw evaluate` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.errors import TokenlawError, UsageError
from results.protocol import Protocol

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
class Request:
    """What to evaluate. reference: a folder, an .npz (images or statistics), or a built-in data set's name."""

    images: str
    reference: str | None = None
    extractors: tuple[str, ...] = ("efficientnet-lite0",)
    metrics: tuple[str, ...] = DEFAULT_METRICS
    image_size: int | None = None
    batch: int = 64
    workers: int = 0
    seed: int = 0
    device: str = "cpu"
    write_statistics: Path | None = None


def evaluate(request: Request, cache: Path | None = None, report: Callable[[str], None] = print) -> list[Figure]:
    """The figures of a request, by extractor. Raises TokenlawError in one line for anything that cannot be."""
    unknown = [name for name in request.metrics if name not in METRICS]
    if unknown:
        raise UsageError(f"metrics = {unknown[0]!r} is not allowed; allowed: {', '.join(METRICS)}")
    from scaling.data.kept import cache_folder
    from scaling.evaluation.judging import judge

    cache = cache_folder() if cache is None else cache
    figures: list[Figure] = []
    try:
        for name in request.extractors:
            figures += judge(request, name, cache, report)
    except TokenlawError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    return figures


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
