"""What the measurements mean: laws, fits, frontiers, optima, figures and the report. Never imports torch.

The names below are the public API; each is imported when it is first used, so that `import analysis` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Law": "fitting.law",
    "SeparableLaw": "fitting.law",
    "Parameter": "fitting.law",
    "Term": "fitting.law",
    "law_named": "fitting.known_laws",
    "register": "fitting.known_laws",
    "FitRequest": "fitting.request",
    "fit": "fitting.fit",
    "fit_groups": "fitting.fit",
    "FitResult": "fitting.result",
    "Loss": "fitting.losses",
    "read_fit": "fitting.fit_files",
    "fit_cost": "fitting.costs",
    "bootstrap": "inference.bootstrap",
    "predict": "inference.bootstrap",
    "with_intervals": "inference.bootstrap",
    "with_profile": "inference.profile",
    "compare_laws": "inference.comparison",
    "compare_groups": "inference.comparison",
    "holdout": "inference.validation",
    "validate": "inference.validation",
    "optimum": "allocation.optimum",
    "isoflop": "allocation.isoflop",
    "load": "tokenizers.frames",
    "best_pairs": "tokenizers.pairs",
    "report": "reporting.report",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), {"report": "write_report"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
