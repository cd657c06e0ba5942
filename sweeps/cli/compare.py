"""The command compare: laws by likelihood and held-out error, or whether groups share a law's exponents."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from results.errors import UsageError

from .fit_text import cell
from .options import JsonOption
from .points import (
    ClusterOption,
    ColumnOption,
    DataArgument,
    DeltaOption,
    DropOption,
    FloorOption,
    FlopsOption,
    MetricOption,
    ParamsOption,
    Request,
    ResidualOption,
    SeedOption,
    TokensOption,
    WeightsOption,
    WhereOption,
    XOption,
    check_resampling,
    request_for,
)


def compare(
    data: DataArgument,
    laws: Annotated[str, typer.Option("--laws", help="Laws, separated by commas; with --group, one law.")],
    params: ParamsOption = None,
    tokens: TokensOption = None,
    flops: FlopsOption = None,
    x: XOption = None,
    metric: MetricOption = None,
    column: ColumnOption = None,
    group: Annotated[str | None, typer.Option("--group", help="Test whether these groups share exponents.")] = None,
    shared: Annotated[str | None, typer.Option("--shared", help="Parameters to test; default: the exponents.")] = None,
    cluster: ClusterOption = None,
    weights: WeightsOption = None,
    residual: ResidualOption = "log",
    noise: Annotated[str, typer.Option("--noise", help="laplace or gaussian: the likelihood of laws.")] = "laplace",
    loss: Annotated[str, typer.Option("--loss", help="huber, lad, squares or envelope: of the group test.")] = "huber",
    delta: DeltaOption = 1e-3,
    floor: FloorOption = "FREE",
    drop_worst: DropOption = 0,
    where: WhereOption = None,
    replicates: Annotated[int, typer.Option("--bootstrap", help="Replicates of the group test.")] = 400,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare laws by likelihood and held-out error, or test whether groups share a law's exponents."""
    if replicates < 20:
        raise UsageError(f"--bootstrap {replicates} is not at least 20")
    check_resampling(replicates, 0.95, seed)
    request = request_for(
        data, where=where, residual=residual, loss=loss, delta=delta, floor=floor, drop=drop_worst, columns=column,
        params=params, tokens=tokens, flops=flops, x=x, metric=metric, weights=weights, cluster=cluster, group=group,
    )  # fmt: skip
    if group is not None:
        _compare_groups(request, laws, shared, replicates, seed, as_json)
        return
    if shared is not None:
        raise UsageError("--shared belongs to --group: it names the parameters that groups may have in common")
    _compare_laws(request, laws, noise, as_json)


def _compare_laws(request: Request, laws: str, noise: str, as_json: bool) -> None:
    from analysis.inference.comparison import NOISES, compare_laws
    from analysis.inference.validation import compute_of, holdout

    if noise not in NOISES:
        raise UsageError(f"--noise {noise!r} is not one of {', '.join(NOISES)}")
    rows: list[dict[str, Any]] = []
    missing = ""
    for name, law, fixed in request.laws(laws):
        points = request.points(law)
        [(result, one)] = compare_laws([law], points, noise=noise, residual=request.residual, fixed=fixed)
        held = None
        try:
            size = compute_of(points)
        except UsageError as problem:  # the likelihoods need no compute
            missing = str(problem)
        else:
            order = size > sorted(size)[int(0.8 * len(size))]
            if order.any() and not order.all():
                held = holdout(law, points, order, residual=request.residual, loss=NOISES[noise], fixed=fixed).rmsle
        rows.append(
            {
                "law": name, "status": result.status.value, "parameters": one.parameters, "units": one.units,
                "log_likelihood": one.log_likelihood, "aicc": one.aicc, "bic": one.bic, "holdout_rmsle": held,
            }
        )  # fmt: skip
    rows.sort(key=lambda row: (row["aicc"] is None, row["aicc"] if row["aicc"] is not None else 0.0))
    if as_json:
        print(json.dumps({"noise": noise, "residual": request.residual, "laws": rows}, indent=1))
        return
    from sweeps.text import table

    keys = ("law", "status", "parameters", "log_likelihood", "aicc", "bic", "holdout_rmsle")
    print(
        table(
            ["law", "status", "k", "log-likelihood", "AICc", "BIC", "held-out RMSLE"],
            [[cell(row[k]) for k in keys] for row in rows],
        )
    )
    print(
        f"{noise} likelihood of {request.residual} residuals with a free scale (counted in k); n = {rows[0]['units']}."
    )
    print("held-out RMSLE: the 20 % of rows with the most compute, predicted from the rest; prefer it to the criteria.")
    if missing:
        print(f"warning: no held-out error: {missing}")


def _compare_groups(request: Request, laws: str, shared: str | None, replicates: int, seed: int, as_json: bool) -> None:
    from analysis.inference.comparison import compare_groups

    found = request.laws(laws)
    if len(found) != 1:
        raise UsageError(f"compare --group takes one law, not {len(found)}")
    [(name, law, fixed)] = found
    if fixed:
        raise UsageError("compare --group fits the floor freely: leave --floor out")
    test = compare_groups(
        law,
        request.points(law),
        shared=None if shared is None else [s.strip() for s in shared.split(",")],
        replicates=replicates,
        seed=seed,
        residual=request.residual,
        loss=request.loss,
        delta=request.delta,
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
