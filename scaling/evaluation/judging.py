"""All metrics of a set of images in one feature space, each with its protocol: one pass of features a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from results.errors import DataError, UsageError
from results.protocol import Protocol
from results.store import atomic

from .figures import Figure, Request
from .networks.extractors import Extractor, load_extractor
from .npz import MEAN, NpzStatistics, content_hash, npz_arrays, npz_statistics, write_statistics
from .reference import Features, ImageSource, extract, holds_images, open_images, reference_features
from .set_figures import SetFigure, compare, score
from .sets import fid_curve, frechet
from .sets.moments import Moments

ROWS_NEEDED = ("kid", "precision-recall", "mind")
"""Metrics that compare rows of features: statistics do not suffice as their reference."""


def judge(request: Request, name: str, cache: Path, report: Callable[[str], None]) -> list[Figure]:
    """The request's metrics under one extractor. Raises DataError, UsageError or ValueError in one line."""
    extractor = load_extractor(name, request.device)
    compared = [metric for metric in request.metrics if metric != "is"]
    if "is" in request.metrics and extractor.classify is None:
        raise UsageError(f"metrics = 'is' needs a classifier; extractor {name} is none")
    if compared and request.reference is None and request.write_statistics is None:
        raise UsageError(f"metrics {', '.join(compared)} need --reference; allowed without one: is")
    images = open_images(request.images, cache, request.image_size, request.workers)
    reference: tuple[Features, str, str] | tuple[NpzStatistics, str, str] | None = None
    if request.reference is not None:
        reference = _reference(request, extractor, cache, report)
        if isinstance(reference[0], NpzStatistics) and (lacking := [m for m in compared if m in ROWS_NEEDED]):
            raise UsageError(
                f"{request.reference} holds statistics alone, no images, which {', '.join(lacking)} need; "
                "allowed with it: --metrics fid"
            )
    report(f"{images.name}: {images.count:,} images under {extractor.name}")
    features = extract(images, extractor, request.batch)
    if request.write_statistics is not None:
        atomic.make_folder(request.write_statistics.parent)
        write_statistics(request.write_statistics, features.moments, extractor.name, extractor.sha256)
    return _figures(request, extractor, images, features, reference)


def _reference(
    request: Request, extractor: Extractor, cache: Path, report: Callable[[str], None]
) -> tuple[Features, str, str] | tuple[NpzStatistics, str, str]:
    """Features or statistics of the reference, its name, and the hash of its content."""
    text = request.reference or ""
    path = Path(text).expanduser()
    if path.suffix == ".npz" and path.exists() and (not holds_images(path) or _published(path, extractor)):
        statistics = npz_statistics(path)
        _check_statistics(path, statistics, extractor)
        return statistics, path.name, content_hash(path)
    source = open_images(text, cache, request.image_size, request.workers)
    report(f"{source.name}: {source.count:,} images under {extractor.name}, kept for the next time")
    return reference_features(source, extractor, cache, request.batch), source.name, f"{source.content}|{source.crop}"


def _published(path: Path, extractor: Extractor) -> bool:
    """Whether statistics in a file with images count: ADM's hold 10,000 images, and statistics of all, of Inception."""
    return extractor.name == "inception" and MEAN in npz_arrays(path)


def _check_statistics(path: Path, statistics: NpzStatistics, extractor: Extractor) -> None:
    """Raises DataError for statistics of another network."""
    width = len(statistics.moments.mean)
    known = statistics.extractor_sha256
    if known is not None and known != extractor.sha256:
        raise DataError(f"{path} holds statistics of {statistics.extractor} ({known[:12]}...), not of {extractor.name}")
    if width != extractor.dimensions or (known is None and extractor.name != "inception"):
        raise DataError(
            f"{path} holds statistics of {width} features of "
            f"{'a network it does not name (Inception, by habit)' if known is None else statistics.extractor}; "
            f"extractor {extractor.name} has {extractor.dimensions}: give images as its reference"
        )


def _figures(
    request: Request, extractor: Extractor, images: ImageSource, features: Features, reference: Any
) -> list[Figure]:
    n = len(features.rows)
    common: dict[str, Any] = {
        "crop": images.crop, "extractor": extractor.name, "extractor_hash": extractor.sha256[:16],
        "resize": extractor.resize, "quantisation": "uint8",
    }  # fmt: skip
    figures: list[Figure] = []

    def add(metric: str, label: str, value: float, error: float | None = None, **fields: Any) -> None:
        figures.append(Figure(label, value, error, Protocol(metric, n, **common, **fields)))

    tail = extractor.label.removeprefix("FD-")
    suffix = "" if extractor.label == "FID" else f"-{tail}"

    def add_of_set(figure: SetFigure, **fields: Any) -> None:
        seeds = {} if figure.seed is None else {"seed": figure.seed}
        label = f"{figure.stem}{suffix}"
        add(figure.metric, label, figure.value, figure.standard_error, settings=figure.settings, **seeds, **fields)

    if "is" in request.metrics and features.logits is not None:
        add_of_set(score(features.logits))
    if reference is None:
        return figures
    other, name, content = reference
    moments: Moments = other.moments
    rows = other.rows if isinstance(other, Features) else torch.empty(0)
    against = {"reference": name, "reference_hash": content[:16]}
    for metric in request.metrics:
        if metric == "fid":
            value = frechet.distance(features.moments, moments)
            error = frechet.standard_error(features.rows, moments, request.seed) if n >= 5 * frechet.FOLDS else None
            add("frechet_distance", extractor.label, value, error, **against)
        elif metric in ROWS_NEEDED:
            for figure in compare(metric, features.rows, rows, request.seed):
                add_of_set(figure, **against)
        elif metric == "fid-curve":
            curve = fid_curve.frechet_curve(features.rows, moments, seed=request.seed)
            for size, value in zip(curve.sizes, curve.values, strict=True):
                protocol = Protocol("frechet_distance", size, **common, **against, seed=request.seed)
                figures.append(Figure(f"{extractor.label} n={size}", value, None, protocol))
            add("frechet_distance", f"{extractor.label} n=inf", curve.limit, settings="limit", **against)
    return figures
