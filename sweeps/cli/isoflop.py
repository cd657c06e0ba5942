"""The command isoflop: the minimum of a parabola at each budget, and power laws through the minima."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .fit_text import cell
from .options import JsonOption
from .request_options import takes_request

if TYPE_CHECKING:
    from analysis.fitting.request import FitRequest


@takes_request(
    "params", "tokens", "flops", "metric", "drop_worst", "where",
    fixed={"law": "chinchilla", "residual": "raw"},
    flops="Column of training FLOPs C; default 6ND. It gives the third of N, D and C = 6ND.",
)  # fmt: skip
def isoflop(
    request: FitRequest,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Rows whose FLOPs agree within this share are one budget.")
    ] = 0.01,
    as_json: JsonOption = False,
) -> None:
    """Optimal N and D by a parabola at each budget (approach 2): a baseline to compare a fitted law with."""
    from analysis.allocation.isoflop import isoflop_of

    params, tokens = isoflop_of(request, tolerance)
    warnings = list(dict.fromkeys(params.warnings + tokens.warnings))
    if as_json:
        document = {
            name: {"exponent": law.exponent, "coefficient": law.coefficient, "minima": [asdict(m) for m in law.minima]}
            for name, law in (("params", params), ("tokens", tokens))
        }
        print(json.dumps({**document, "warnings": warnings}, indent=1))
        return
    from sweeps.text import table

    by_budget = [{minimum.flops: minimum for minimum in law.minima} for law in (params, tokens)]
    rows = []
    for flops in sorted(by_budget[0].keys() | by_budget[1].keys()):
        minima = [of_budget.get(flops) for of_budget in by_budget]
        known = next(minimum for minimum in minima if minimum)
        sizes = ["-" if m is None else cell(m.size) + ("" if m.bracketed else " (edge)") for m in minima]
        rows.append([f"{flops:.4g}", str(known.rows), *sizes, cell(known.loss)])
    print(table(["FLOPs", "rows", "N*", "D*", "loss"], rows))
    for letter, law in (("N", params), ("D", tokens)):
        print(f"{letter}* = {law.coefficient:.6g} C^{law.exponent:.6g}")
    for warning in warnings:
        print(f"warning: {warning}")
