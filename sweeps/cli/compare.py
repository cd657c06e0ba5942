"""The command compare: laws by likelihood and held-out error, or whether groups share a law's exponents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import UsageError

from .fit_text import cell
from .options import JsonOption
from .request_options import SeedOption, takes_request

if TYPE_CHECKING:
    from analysis.fitting.request import FitRequest


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
    if as_json:
        print(json.dumps({"noise": noise, "residual": request.residual, "laws": rows}, indent=1))
        return
    from sweeps.text import table

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
        print(json.dumps(document, indent=1))
        return
    from sweeps.text import table

    names = list(next(iter(test.separate.values())).parameters)
    rows = [[g, *(cell(r.parameters[k].value) for k in names), r.status.value] for g, r in test.separate.items()]
    print(table(["group", *names, "status"], rows))
    together = ", ".join(f"{k} = {v:.5g}" for k, v in test.shared.items())
    print(f"shared: {together}")
    print(
        f"statistic {test.statistic:.4g} on {test.freedom} degrees of freedom: p = {test.p_value:.3g}, "
        f"bootstrap p = {test.bootstrap_p_value:.3g}"
    )
    for warning in test.warnings:
        print(f"warning: {warning}")
