"""How well laws predict: validate, on data that was hidden, and compare, between laws or between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import UsageError
from sweeps.text import table

from ..options import JsonOption
from .fitting import BootstrapOption, IntervalOption, SeedOption, cell, level, note, print_json, takes_request, warn

if TYPE_CHECKING:
    from analysis.fitting.request import FitRequest


@takes_request(group="Leave one of these groups out at a time.")
def validate(
    request: FitRequest,
    holdout_above: Annotated[
        float | None, typer.Option("--holdout-above", help="Hide rows with more compute than this.")
    ] = None,
    holdout_column: Annotated[
        str | None, typer.Option("--holdout-column", help="Hide rows where this column is true (not 0).")
    ] = None,
    windows: Annotated[int, typer.Option("--windows", help="Expanding windows, where nothing else is asked for.")] = 4,
    bootstrap: BootstrapOption = 400,
    interval: IntervalOption = 0.95,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Hide part of the data, predict it from the rest: error and interval coverage. Several laws: --law a,b,c."""
    from analysis.inference import validation

    parts = validation.validate(
        request, above=holdout_above, column=holdout_column, windows=windows,
        replicates=bootstrap, interval=interval, seed=seed,
    )  # fmt: skip
    notes = list(dict.fromkeys(words for held in parts for words in held.result.notes))
    if as_json:
        keys = ("name", "law", "trained", "held", "rmsle", "rmse", "bias", "coverage", "interval")
        rows = [
            {**{key: getattr(held, key) for key in keys}, "status": held.result.status, "warnings": held.warnings}
            for held in parts
        ]
        print_json({"parts": rows, "notes": notes})
        return
    note(notes)
    cells = [
        [
            held.law, held.name, str(held.trained), str(held.held), cell(held.rmsle), cell(held.bias),
            "-" if held.coverage is None else f"{held.coverage:.0%}", held.result.status.value,
        ]
        for held in parts
    ]  # fmt: skip
    print(table(["law", "held out", "fitted", "held", "RMSLE", "bias", f"in {level(interval)}", "status"], cells))
    print(
        "RMSLE: root mean square of log(prediction / metric). bias: its mean. in: share of held rows in the interval."
    )
    for held in parts:
        for warning in held.warnings:
            print(f"warning: {held.law}, {held.name}: {warning}")


@takes_request(
    law_flag="--laws",
    law="Laws, separated by commas; with --group, one law.",
    group="Test whether these groups share exponents.",
    loss="huber, lad, squares or envelope: of the group test.",
)
def compare(
    request: FitRequest,
    shared: Annotated[str | None, typer.Option("--shared", help="Parameters to test; default: the exponents.")] = None,
    noise: Annotated[str, typer.Option("--noise", help="laplace or gaussian: the likelihood of laws.")] = "laplace",
    replicates: Annotated[int, typer.Option("--bootstrap", help="Replicates of the group test.")] = 400,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare laws by likelihood and held-out error, or test whether groups share a law's exponents."""
    if replicates < 20:
        raise UsageError(f"--bootstrap {replicates} is not at least 20")
    if request.group is not None:
        _compare_groups(request, shared, replicates, seed, as_json)
        return
    if shared is not None:
        raise UsageError("--shared belongs to --group: it names the parameters that groups may have in common")
    _compare_laws(request, noise, as_json)


def _compare_laws(request: FitRequest, noise: str, as_json: bool) -> None:
    from analysis.inference.comparison import rank_laws

    ranked, missing = rank_laws(request, noise)
    rows = [
        {
            "law": law.name, "status": law.result.status.value, "parameters": law.likelihood.parameters,
            "units": law.likelihood.units, "log_likelihood": law.likelihood.log_likelihood,
            "aicc": law.likelihood.aicc, "bic": law.likelihood.bic, "holdout_rmsle": law.holdout_rmsle,
        }
        for law in ranked
    ]  # fmt: skip
    notes = list(dict.fromkeys(words for law in ranked for words in law.result.notes))
    if as_json:
        print_json({"noise": noise, "residual": request.residual, "laws": rows, "notes": notes})
        return
    note(notes)
    header = ["law", "status", "k", "log-likelihood", "AICc", "BIC", "held-out RMSLE"]
    print(table(header, [[cell(value) for key, value in row.items() if key != "units"] for row in rows]))
    print(
        f"{noise} likelihood of {request.residual} residuals with a free scale (counted in k); n = {rows[0]['units']}."
    )
    print("held-out RMSLE: the 20 % of rows with the most compute, predicted from the rest; prefer it to the criteria.")
    if missing:
        print(f"warning: no held-out error: {missing}")


def _compare_groups(request: FitRequest, shared: str | None, replicates: int, seed: int, as_json: bool) -> None:
    from analysis.inference.comparison import compare_groups

    if len(request.laws) != 1:
        raise UsageError(f"compare --group takes one law, not {len(request.laws)}")
    [(name, law, fixed)] = request.laws
    if fixed:
        raise UsageError("compare --group fits the floor freely: leave --floor out")
    test = compare_groups(
        law,
        request.points(law),
        shared=None if shared is None else [s.strip() for s in shared.split(",")],
        replicates=replicates,
        seed=seed,
        **request.fit_options,  # type: ignore[arg-type]
    )
    if as_json:
        document = {
            "law": name, "shared": list(test.shared_names), "statistic": test.statistic, "freedom": test.freedom,
            "p_value": test.p_value, "bootstrap_p_value": test.bootstrap_p_value, "shared_values": test.shared,
            "groups": {g: r.to_json() for g, r in test.separate.items()}, "warnings": list(test.warnings),
        }  # fmt: skip
        print_json(document)
        return
    note(words for r in test.separate.values() for words in r.notes)
    names = list(next(iter(test.separate.values())).parameters)
    rows = [[g, *(cell(r.parameters[k].value) for k in names), r.status.value] for g, r in test.separate.items()]
    print(table(["group", *names, "status"], rows))
    together = ", ".join(f"{k} = {v:.5g}" for k, v in test.shared.items())
    print(f"shared: {together}")
    print(
        f"statistic {test.statistic:.4g} on {test.freedom} degrees of freedom: p = {test.p_value:.3g}, "
        f"bootstrap p = {test.bootstrap_p_value:.3g}"
    )
    warn(test.warnings)
