"""Judges images against a reference by several metrics in several feature spaces: what `tokenlaw evaluate` prints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from results.errors import TokenlawError, UsageError
from scaling.evaluation.figures import DEFAULT_METRICS, METRICS, Figure, Request, StoredGenerator, in_words

__all__ = ["DEFAULT_METRICS", "METRICS", "Figure", "Request", "StoredGenerator", "evaluate", "in_words"]


def evaluate(request: Request, cache: Path | None = None, report: Callable[[str], None] = print) -> list[Figure]:
    """The figures of a request, by extractor. Raises TokenlawError in one line for anything that cannot be."""
    unknown = [name for name in request.metrics if name not in METRICS]
    if unknown:
        raise UsageError(f"metrics = {unknown[0]!r} is not allowed; allowed: {', '.join(METRICS)}")
    if isinstance(request.images, StoredGenerator):
        from scaling.evaluation.generated import check_stored

        check_stored(request.images)
    from scaling.data.sources.kept import cache_folder
    from scaling.evaluation.judging import judge

    cache = cache_folder() if cache is None else cache
    try:
        with _as_trained(request):
            return judge(request, cache, report)
    except TokenlawError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _as_trained(request: Request) -> AbstractContextManager[object]:
    """The threads and the arithmetic of a stored run, so that its images are those that it was judged by."""
    if not isinstance(request.images, StoredGenerator):
        return nullcontext()
    from scaling.training.distributed import connected

    return connected(None, request.images.run.threads)
