"""The command validate: hide part of the data, predict it, and say how wrong that was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import DataError, UsageError

from .fit_text import cell, level
from .options import JsonOption
from .points import (
    BootstrapOption,
    ClusterOption,
    ColumnOption,
    DataArgument,
    DeltaOption,
    DropOption,
    FloorOption,
    FlopsOption,
    IntervalOption,
    LawOption,
    LossOption,
    MetricOption,
    ParamsOption,
    ResidualOption,
    SeedOption,
    TokensOption,
    WeightsOption,
    WhereOption,
    XOption,
    check_resampling,
    request_for,
)

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fitting.points import Points


def validate(
    data: DataArgument,
    law: LawOption,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    flops: FlopsOption = None,
    x: XOption = None,
    metric: MetricOption = None,
    column: ColumnOption = None,
    group: Annotated[str | None, typer.Option("--group", help="Leave one of these groups out at a time.")] = None,
    cluster: ClusterOption = None,
    weights: WeightsOption = None,
    residual: ResidualOption = "log",
    loss: LossOption = "huber",
    delta: DeltaOption = 1e-3,
    floor: FloorOption = "FREE",
    drop_worst: DropOption = 0,
    where: WhereOption = None,
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

    if sum(v is not None for v in (holdout_above, holdout_column, group)) > 1:
        raise UsageError("validate takes one of --holdout-above, --holdout-column and --group")
    check_resampling(bootstrap, interval, seed)
    request = request_for(
        data, where=where, residual=residual, loss=loss, delta=delta, floor=floor, drop=drop_worst, columns=column,
        params=params, tokens=tokens, flops=flops, x=x, metric=metric, weights=weights, cluster=cluster, group=group,
    )  # fmt: skip
    parts = []
    for name, one, fixed in request.laws(law):
        points = request.points(one)
        options: dict[str, Any] = {
            "residual": residual,
            "loss": loss,
            "delta": delta,
            "fixed": fixed,
            "replicates": bootstrap,
            "interval": interval,
            "seed": seed,
        }
        if holdout_above is not None:
            found = [validation.holdout_above(one, points, holdout_above, **options)]
        elif holdout_column is not None:
            found = [
                validation.holdout(
                    one, points, _truth(request.table, holdout_column, points), name=holdout_column, **options
                )
            ]
        elif group is not None:
            found = validation.leave_one_group_out(one, points, **options)
        else:
            found = validation.expanding_window(one, points, windows=windows, **options)
        parts += [replace(h, law=name) for h in found]
    if as_json:
        keys = ("name", "law", "trained", "held", "rmsle", "rmse", "bias", "coverage", "interval")
        print(
            json.dumps(
                {
                    "parts": [
                        {**{k: getattr(h, k) for k in keys}, "status": h.result.status.value, "warnings": h.warnings}
                        for h in parts
                    ]
                },
                indent=1,
            )
        )
        return
    from sweeps.text import table

    rows = [
        [
            h.law,
            h.name,
            str(h.trained),
            str(h.held),
            cell(h.rmsle),
            cell(h.bias),
            "-" if h.coverage is None else f"{h.coverage:.0%}",
            h.result.status.value,
        ]
        for h in parts
    ]
    print(table(["law", "held out", "fitted", "held", "RMSLE", "bias", f"in {level(interval)}", "status"], rows))
    print(
        "RMSLE: root mean square of log(prediction / metric). bias: its mean. in: share of held rows in the interval."
    )
    for h in parts:
        for warning in h.warnings:
            print(f"warning: {h.law}, {h.name}: {warning}")


def _truth(table: pd.DataFrame, column: str, points: Points) -> Any:
    """The rows of `points` where the column is true: 1, True, a number that is not 0."""
    from analysis.fitting.points import make_points

    if column not in table.columns:
        raise DataError(f"column {column!r} is missing; the data have: {', '.join(map(str, table.columns))}")
    chosen = table.loc[points.rows]
    checked = make_points(
        {column: chosen[column].to_numpy()}, roles=(), metric=column, rows=points.rows, positive_metric=False
    )
    return checked.metric != 0
