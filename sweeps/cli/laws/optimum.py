"""What to train for a budget: optimum, from a law or a study's measured pairs, and isoflop, by parabolas."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import UsageError
from sweeps.text import table

from ..options import (
    ExtractorOption,
    GeneratorsOption,
    GuidanceOption,
    JsonOption,
    MetricOption,
    RootOption,
    ServeOption,
    SetOption,
    TotalOption,
)
from ..sources import Judged
from .fitting import OwnLawOption, assignments, cell, ends, note, one_thread, print_json, takes_request, values, warn

if TYPE_CHECKING:
    from analysis.allocation.optimum import Allocation
    from analysis.fitting.costs import Cost
    from analysis.fitting.request import FitRequest
    from analysis.fitting.result import FitResult

FITTED_COST = "column"
COST_SOURCES = {
    "given": "as asked for",
    "measured": "through the FLOPs of the fitted rows; --cost 6*N*D for another",
    "6ND": "the usual one; --cost for another",
}


def optimum(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="A study, a folder with the three tables, or a data root.")
    ] = None,
    fit_file: Annotated[Path | None, typer.Option("--fit", help="A two-variable law that fit --out wrote.")] = None,
    flops: Annotated[
        str | None, typer.Option("--flops", help="Budgets C, separated by commas; of a study: default three.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            "--cost",
            help="FLOPs as a formula of N and D, or 'column': as in the column that fit --flops named; default: column "
            "where the fit has one, else 6*N*D.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="ROLE=VALUE", help="Values of a law's further columns.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Which group of the file.")] = None,
    law: OwnLawOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws behind a study's probabilities.")] = 0,
    metric: MetricOption = None,
    guidance: GuidanceOption = None,
    extractor: ExtractorOption = None,
    floor: Annotated[
        str, typer.Option("--floor", help="E of the laws of a study's pairs: free, rfid_floor, or a number.")
    ] = "free",
    within_range: Annotated[
        bool, typer.Option("--within-range", help="Judge no pair of a study beyond its longest run.")
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="codes=K,tokens=T", help="A tokenizer not trained, to be predicted."),
    ] = None,
    total: TotalOption = False,
    generators: GeneratorsOption = 1,
    serve: ServeOption = 0.0,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What to train at a budget of FLOPs: parameters and tokens (--fit), or tokenizer and generator (SOURCE)."""
    if (source is None) == (fit_file is None):
        got = "both" if source is not None else "neither"
        raise UsageError(f"optimum takes SOURCE (a study) or --fit FIT.json (a two-variable law); it got {got}")
    one_thread()
    if source is not None:
        for option, given in (("--cost", cost), ("--column", column), ("--group", group), ("--law", law)):
            if given:
                raise UsageError(f"{option} belongs to --fit; a study's budgets are its measured FLOPs")
        from .study_optimum import from_study

        judged = Judged(metric, guidance, extractor, total, generators, serve)
        budgets = None if flops is None else values("flops", flops)
        from_study(source, root, sets, judged, budgets, seed, floor, within_range, candidate, as_json)
        return
    of_studies: tuple[tuple[str, Any], ...] = (
        ("--metric", metric), ("--guidance", guidance), ("--extractor", extractor), ("--total", total),
        ("--within-range", within_range), ("--serve", serve), ("--candidate", candidate),
    )  # fmt: skip
    for option, given in of_studies:
        if given:
            raise UsageError(f"{option} belongs to a study (SOURCE), not to --fit")
    assert fit_file is not None
    if flops is None:
        raise UsageError("optimum --fit needs --flops, one or more budgets")
    from analysis.fitting.result import read_fit

    result = read_fit(fit_file, group, law)
    extra = {role: float(values(role, text)[0]) for role, text in assignments(column, "ROLE=VALUE").items()}
    _from_fit(result, values("flops", flops), _cost(result, cost), extra, as_json)


def _cost(result: FitResult, text: str | None) -> Cost | None:
    if text is None:
        return None
    if text.strip().lower() == FITTED_COST:
        if result.cost is None:
            raise UsageError(
                f"--cost {text}: the fit has no law of cost; fit with --params, --tokens and --flops, "
                "where N and D vary independently"
            )
        return result.cost
    from analysis.fitting.costs import FormulaCost

    return FormulaCost(text)


def _from_fit(result: FitResult, budgets: Any, cost: Cost | None, extra: dict[str, float], as_json: bool) -> None:
    from analysis.allocation.optimum import optimum as allocate

    interval = result.interval or 0.95
    allocations = [allocate(result, float(c), cost=cost, fixed_columns=extra, interval=interval) for c in budgets]
    if as_json:
        optima = [_allocation(a) for a in allocations]
        print_json({"law": result.law.name, "interval": result.interval, "optima": optima})
        return
    rows = []
    for a in allocations:
        rows += [
            [f"{a.flops:.4g}", label, cell(e.value), cell(e.low), cell(e.high)]
            for label, e in (
                ("N*", a.params),
                *([] if a.vocabulary is None else [("Nv*", a.vocabulary)]),
                ("D*", a.tokens),
                ("loss", a.loss),
                ("d log N*/d log C", a.params_exponent),
            )
        ]
    print(table(["FLOPs", "quantity", "value", *ends(result.interval)], rows))
    first = allocations[0]
    how = "closed form" if first.closed_form else "searched"
    print(f"cost: {first.cost} ({COST_SOURCES[first.cost_source]}); {how}")
    warn(dict.fromkeys(w for a in allocations for w in a.warnings))


def _allocation(a: Allocation) -> dict[str, Any]:
    return {
        "flops": a.flops, "params": a.params.to_json(), "tokens": a.tokens.to_json(), "loss": a.loss.to_json(),
        "params_exponent": a.params_exponent.to_json(), "tokens_exponent": a.tokens_exponent.to_json(),
        "closed_form": a.closed_form, "cost": a.cost, "cost_source": a.cost_source, "warnings": list(a.warnings),
        **({} if a.vocabulary is None else {"params_vocabulary": a.vocabulary.to_json()}),
    }  # fmt: skip


@takes_request(
    "params", "tokens", "flops", "metric", "drop_worst", "where", "units", "skip_missing",
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
        print_json({**document, "notes": params.notes, "warnings": warnings})
        return
    note(params.notes)
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
    warn(warnings)
