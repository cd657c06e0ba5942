"""What the measurements mean: laws, fits, frontiers, optima, figures and the report. Never imports torch.

    from pathlib import Path
    from analysis import bootstrap, fit, load, optimum, predict, report

    result = fit("chinchilla", {"params": n, "tokens": d, "metric": loss})
    drawn = bootstrap(result)
    predict(drawn, {"params": [1e9], "tokens": [2e10]})  # with intervals
    optimum(result, 1e21, draws=drawn.coordinates)  # which N and D a budget should buy

    report(load("runs/smoke"), Path("report"), title="Smoke")

Names are imported when they are first used, so that a study needs neither pandas nor scipy.
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
    from analysis.fitting.known_laws import law_named as law_named
    from analysis.fitting.known_laws import register as register
    from analysis.fitting.law import Law as Law
    from analysis.fitting.law import Parameter as Parameter
    from analysis.fitting.law import SeparableLaw as SeparableLaw
    from analysis.fitting.law import Term as Term
    from analysis.fitting.problem import Loss as Loss
    from analysis.fitting.request import FitRequest as FitRequest
    from analysis.fitting.result import FitResult as FitResult
    from analysis.fitting.result import read_fit as read_fit
    from analysis.inference.bootstrap import bootstrap as bootstrap
    from analysis.inference.bootstrap import predict as predict
    from analysis.inference.bootstrap import with_intervals as with_intervals
    from analysis.inference.comparison import compare_groups as compare_groups
    from analysis.inference.comparison import compare_laws as compare_laws
    from analysis.inference.profile import with_profile as with_profile
    from analysis.inference.validation import holdout as holdout
    from analysis.inference.validation import validate as validate
    from analysis.reporting.report import write_report as report
    from analysis.tokenizers.crossover import crossover as crossover
    from analysis.tokenizers.frames import load as load
    from analysis.tokenizers.pairs import best_pairs as best_pairs

_HOMES = {
    "Law": "fitting.law:Law",
    "law_named": "fitting.known_laws:law_named",
    "Loss": "fitting.problem:Loss",
    "FitRequest": "fitting.request:FitRequest",
    "read_fit": "fitting.result:read_fit",
    "fit_cost": "fitting.costs:fit_cost",
    "register": "fitting.known_laws:register",
    "Parameter": "fitting.law:Parameter",
    "SeparableLaw": "fitting.law:SeparableLaw",
    "Term": "fitting.law:Term",
    "fit": "fitting.fit:fit",
    "fit_groups": "fitting.fit:fit_groups",
    "FitResult": "fitting.result:FitResult",
    "bootstrap": "inference.bootstrap:bootstrap",
    "with_intervals": "inference.bootstrap:with_intervals",
    "with_profile": "inference.profile:with_profile",
    "predict": "inference.bootstrap:predict",
    "compare_laws": "inference.comparison:compare_laws",
    "compare_groups": "inference.comparison:compare_groups",
    "validate": "inference.validation:validate",
    "holdout": "inference.validation:holdout",
    "optimum": "allocation.optimum:optimum",
    "isoflop": "allocation.isoflop:isoflop",
    "load": "tokenizers.frames:load",
    "crossover": "tokenizers.crossover:crossover",
    "best_pairs": "tokenizers.pairs:best_pairs",
    "report": "reporting.report:write_report",
}
# fmt: off
__all__ = [
    "FitRequest", "FitResult", "Law", "Loss", "Parameter", "SeparableLaw", "Term", "best_pairs", "bootstrap",
    "compare_groups", "compare_laws", "crossover", "fit", "fit_cost", "fit_groups", "holdout", "isoflop", "law_named",
    "load", "optimum", "predict", "read_fit", "register", "report", "validate", "with_intervals", "with_profile",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}; it has: {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"analysis.{module}"), attribute)
