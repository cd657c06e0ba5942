"""What the measurements mean: laws, fits, frontiers, optima, figures and the report. Never imports torch.

The names below are the public API; each is imported when it is first used, so that `import analysis` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.allocation.isoflop import isoflop as isoflop
    from analysis.allocation.optimum import optimum as optimum
    from analysis.fitting.costs import fit_cost as fit_cost
    from analysis.fitting.fit import fit as fit
    from analysis.fitting.fit import fit_groups as fit_groups
    from analysis.fitting.fit_files import read_fit as read_fit
    from analysis.fitting.known_laws import law_named as law_named
    from analysis.fitting.known_laws import register as register
    from analysis.fitting.law import Law as Law
    from analysis.fitting.law import Parameter as Parameter
    from analysis.fitting.law import SeparableLaw as SeparableLaw
    from analysis.fitting.law import Term as Term
    from analysis.fitting.losses import Loss as Loss
    from analysis.fitting.request import FitRequest as FitRequest
    from analysis.fitting.result import FitResult as FitResult
    from analysis.inference.bootstrap import bootstrap as bootstrap
    from analysis.inference.bootstrap import predict as predict
    from analysis.inference.bootstrap import with_intervals as with_intervals
    from analysis.inference.comparison import compare_groups as compare_groups
    from analysis.inference.comparison import compare_laws as compare_laws
    from analysis.inference.profile import with_profile as with_profile
    from analysis.inference.validation import holdout as holdout
    from analysis.inference.validation import validate as validate
    from analysis.reporting.report import write_report as report  # noqa: F401 - in __all__, which is computed
    from analysis.tokenizers.frames import load as load
    from analysis.tokenizers.pairs import best_pairs as best_pairs

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
