"""All metrics of a set of images in one feature space, each with its protocol: one pass of features a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from results.errors import DataError, UsageError
from results.protocol import Protocol
from results.store import atomic

from .figures import Figure, Request, StoredGenerator
from .generated import TRAIN, VALIDATION, drawn_images, study_images
from .measuring.measurements import sampling_fields
from .networks.extractors import Extractor, load_extractor
from .npz import MEAN, NpzStatistics, content_hash, npz_arrays, npz_statistics, write_statistics
from .reference import Features, ImageSource, extract, holds_images, open_images, reference_features
from .set_figures import SetFigure, compare, score
from .sets import fid_curve, frechet
from .sets.frechet_error import LEAST_ROWS, standard_error
from .sets.moments import Moments

ROWS_NEEDED = ("kid", "precision-recall", "mind")
"""Metrics that compare rows of features: statistics do not suffice as their reference."""


Reference = tuple[Features | NpzStatistics, str, str]
"""Features or statistics of the reference, its name, and the hash of its content."""


def judge(request: Request, cache: Path, report: Callable[[str], None]) -> list[Figure]:
    """The request's metrics under each extractor, of one pass over the images. Raises DataError, UsageError or
    ValueError in one line."""
    if request.write_statistics is not None and len(request.extractors) > 1:
        raise UsageError(f"--write-statistics takes one extractor, not {', '.join(request.extractors)}")
    extractors = [load_extractor(name, request.device) for name in request.extractors]
    compared = [metric for metric in request.metrics if metric != "is"]
    for extractor in extractors:
        if "is" in request.metrics and extractor.classify is None:
            raise UsageError(f"metrics = 'is' needs a classifier; extractor {extractor.name} is none")
    stored = request.images if isinstance(request.images, StoredGenerator) else None
    wanted = request.reference or (TRAIN if stored and compared else None)
    if compared and wanted is None and request.write_statistics is None:
        raise UsageError(f"metrics {', '.join(compared)} need --reference; allowed without one: is")
    if stored is not None and request.image_size is not None:
        raise UsageError("images of a stored run are judged as it makes them; leave --image-size out")
    images = drawn_images(stored, request.device) if stored else _open(request, str(request.images), cache)
    references: list[Reference | None] = [None for _ in extractors]
    if wanted is not None:
        references = [_reference(request, wanted, extractor, cache, report) for extractor in extractors]
    for reference in references:
        lacking = [metric for metric in compared if metric in ROWS_NEEDED]
        if lacking and reference and isinstance(reference[0], NpzStatistics):
            raise UsageError(
                f"{wanted} holds statistics alone, no images, which {', '.join(lacking)} need; "
                "allowed with it: --metrics fid"
            )
    names = ", ".join(extractor.name for extractor in extractors)
    report(f"{images.name}: {images.count:,} images under {names}")
    features = extract(images, extractors, cache, request.batch)
    if request.write_statistics is not None:
        atomic.make_folder(request.write_statistics.parent)
        extractor = extractors[0]
        write_statistics(request.write_statistics, features[0].moments, extractor.name, extractor.sha256)
    return [
        figure
        for space in zip(extractors, features, references, strict=True)
        for figure in _figures(request, images, *space)
    ]


def _open(request: Request, text: str, cache: Path) -> ImageSource:
    return open_images(text, cache, request.image_size, request.workers)


def _reference(
    request: Request, text: str, extractor: Extractor, cache: Path, report: Callable[[str], None]
) -> Reference:
    path = Path(text).expanduser()
    if path.suffix == ".npz" and path.exists() and (not holds_images(path) or _published(path, extractor)):
        statistics = npz_statistics(path)
        _check_statistics(path, statistics, extractor)
        return statistics, path.name, content_hash(path)
    own = isinstance(request.images, StoredGenerator) and text in (TRAIN, VALIDATION) and not path.exists()
    source = study_images(request.images, text) if own else _open(request, text, cache)  # type: ignore[arg-type]
    report(f"{source.name}: {source.count:,} images under {extractor.name}, kept for the next time")
    content = source.content if own else f"{source.content}|{source.crop}"
    return reference_features(source, extractor, cache, request.batch), source.name, content


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
    request: Request, images: ImageSource, extractor: Extractor, features: Features, reference: Reference | None
) -> list[Figure]:
    n = len(features.rows)
    common: dict[str, Any] = {
        "crop": images.crop, "extractor": extractor.name, "extractor_hash": extractor.sha256[:16],
        "resize": extractor.resize, "quantisation": "uint8",
    }  # fmt: skip
    stored = request.images if isinstance(request.images, StoredGenerator) else None
    if stored is not None:
        common |= {"guidance": stored.guidance, **sampling_fields(stored.sampling)}
    of_images = common.pop("settings", None)
    figures: list[Figure] = []

    def add(metric: str, label: str, value: float, error: float | None = None, **fields: Any) -> None:
        settings = [fields.pop("settings", None), of_images]
        if stored is not None and fields.setdefault("seed", stored.seed) != stored.seed:
            # The metric's own draws have the field.
            settings.append(f"image-seed={stored.seed}")
        text = " ".join(filter(None, settings)) or None
        size = fields.pop("n", n)
        figures.append(Figure(label, value, error, Protocol(metric, size, **common, settings=text, **fields)))

    tail = extractor.label.removeprefix("FD-")
    suffix = "" if extractor.label == "FID" else f"-{tail}"

    def add_of_set(figure: SetFigure, **fields: Any) -> None:
        seeds: dict[str, Any] = {} if figure.seed is None else {"seed": figure.seed}
        label = f"{figure.stem}{suffix}"
        add(figure.metric, label, figure.value, figure.standard_error, settings=figure.settings, **seeds, **fields)

    if "is" in request.metrics and features.logits is not None:
        add_of_set(score(features.logits))
    if reference is None:
        return figures
    other, name, content = reference
    moments: Moments = other.moments
    rows = other.rows if isinstance(other, Features) else torch.empty(0)
    against: dict[str, Any] = {"reference": name, "reference_hash": content[:16]}
    for metric in request.metrics:
        if metric == "fid":
            value = frechet.distance(features.moments, moments)
            error = standard_error(features.rows, moments, request.seed) if n >= LEAST_ROWS else None
            add("frechet_distance", extractor.label, value, error, **against)
        elif metric in ROWS_NEEDED:
            for figure in compare(metric, features.rows, rows, request.seed):
                add_of_set(figure, **against)
        elif metric == "fid-curve":
            curve = fid_curve.frechet_curve(features.rows, moments, seed=request.seed)
            for size, value in zip(curve.sizes, curve.values, strict=True):
                label = f"{extractor.label} n={size}"
                add("frechet_distance", label, value, n=size, seed=request.seed, **against)
            add("frechet_distance", f"{extractor.label} n=inf", curve.limit, settings="limit", **against)
    return figures
