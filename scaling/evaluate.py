"""Judges images against a reference by several metrics in several feature spaces: what `tokenlaw evaluate` prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from results.errors import TokenlawError, UsageError
from scaling.evaluation.figures import DEFAULT_METRICS, METRICS, Figure, Request, in_words

__all__ = ["DEFAULT_METRICS", "METRICS", "Figure", "Request", "evaluate", "in_words"]


def evaluate(request: Request, cache: Path | None = None, report: Callable[[str], None] = print) -> list[Figure]:
    """The figures of a request, by extractor. Raises TokenlawError in one line for anything that cannot be."""
    unknown = [name for name in request.metrics if name not in METRICS]
    if unknown:
        raise UsageError(f"metrics = {unknown[0]!r} is not allowed; allowed: {', '.join(METRICS)}")
    from scaling.data.sources.kept import cache_folder
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
