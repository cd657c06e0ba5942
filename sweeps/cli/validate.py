"""The command validate: hide part of the data, predict it, and say how wrong that was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .fit_text import cell, level
from .options import JsonOption
from .request_options import BootstrapOption, IntervalOption, SeedOption, takes_request

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
    if as_json:
        keys = ("name", "law", "trained", "held", "rmsle", "rmse", "bias", "coverage", "interval")
        rows = [
            {**{key: getattr(held, key) for key in keys}, "status": held.result.status, "warnings": held.warnings}
            for held in parts
        ]
        print(json.dumps({"parts": rows}, indent=1))
        return
    from sweeps.text import table

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
