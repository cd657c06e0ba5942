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
    from .allocation.isoflop import isoflop
    from .allocation.optimum import optimum
    from .fitting.costs import fit_cost
    from .fitting.fit import fit, fit_groups
    from .fitting.laws.formulas.equation import law
    from .fitting.laws.known_laws import law_named, register
    from .fitting.laws.law import Law, Parameter, SeparableLaw, Term
    from .fitting.problem import Loss
    from .fitting.request import FitRequest
    from .fitting.result import FitResult, read_fit
    from .inference.bootstrap import bootstrap, predict, with_intervals
    from .inference.comparison import compare_groups, compare_laws
    from .inference.profile import with_profile
    from .inference.validation import holdout, validate
    from .reporting.report import report
    from .tokenizers.comparisons.crossover import crossover
    from .tokenizers.frames import load
    from .tokenizers.pairs import best_pairs

_HOMES = {
    "allocation.isoflop": ("isoflop",),
    "allocation.optimum": ("optimum",),
    "fitting.costs": ("fit_cost",),
    "fitting.fit": ("fit", "fit_groups"),
    "fitting.laws.formulas.equation": ("law",),
    "fitting.laws.known_laws": ("law_named", "register"),
    "fitting.laws.law": ("Law", "Parameter", "SeparableLaw", "Term"),
    "fitting.request": ("FitRequest",),
    "fitting.problem": ("Loss",),
    "fitting.result": ("FitResult", "read_fit"),
    "inference.bootstrap": ("bootstrap", "predict", "with_intervals"),
    "inference.comparison": ("compare_groups", "compare_laws"),
    "inference.profile": ("with_profile",),
    "inference.validation": ("holdout", "validate"),
    "reporting.report": ("report",),
    "tokenizers.comparisons.crossover": ("crossover",),
    "tokenizers.frames": ("load",),
    "tokenizers.pairs": ("best_pairs",),
}
__all__ = [
    "FitRequest", "FitResult", "Law", "Loss", "Parameter", "SeparableLaw", "Term", "best_pairs", "bootstrap",
    "compare_groups", "compare_laws", "crossover", "fit", "fit_cost", "fit_groups", "holdout", "isoflop", "law",
    "law_named", "load", "optimum", "predict", "read_fit", "register", "report", "validate", "with_intervals",
    "with_profile",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
