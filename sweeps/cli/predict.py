"""The command predict: the metric at new values, from a fit that was written to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import UsageError

from .fit_text import cell, level
from .options import JsonOption
from .request_options import OwnLawOption, assignments, one_thread, values

if TYPE_CHECKING:
    from analysis.fitting.law import Array, Law
    from analysis.fitting.result import FitResult

ENDS = ("low", "high", "observation_low", "observation_high")


def predict(
    fit_file: Annotated[Path, typer.Argument(metavar="FIT.json", help="A file that fit --out wrote.")],
    params: Annotated[str | None, typer.Option(help="Values of N, separated by commas.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Values of D.")] = None,
    flops: Annotated[str | None, typer.Option(help="Values of C: x of a one-variable law, or D = C/(6N).")] = None,
    x: Annotated[str | None, typer.Option(help="Values of x.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="ROLE=VALUES", help="Further columns.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Which group of the file.")] = None,
    law: OwnLawOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the metric at new values, from a fit that was written to a file."""
    one_thread()
    import numpy as np

    from analysis.fitting.result import predict_with, read_fit
    from analysis.inference.bootstrap import observation_interval

    result = read_fit(fit_file, group, law)
    given = {"params": params, "tokens": tokens, "flops": flops, "x": x, **assignments(column, "ROLE=VALUES")}
    columns = _columns(result.law, {role: values(role, text) for role, text in given.items() if text is not None})
    sizes = {len(v) for v in columns.values()} - {1}
    if len(sizes) > 1:
        raise UsageError(f"predict: the options have {sorted(sizes)} values; one each, or equally many")
    n = max(sizes, default=1)
    at = {role: np.broadcast_to(column, (n,)) for role, column in columns.items()}
    predicted = result.predict(at)
    ends: dict[str, Any] = dict.fromkeys(ENDS, [None] * n)
    if result.draws is not None and not result.not_identified:
        interval = result.interval or 0.95
        curves = predict_with(result.law, result.scales, result.draws, at)
        tail = 50 * (1 - interval)
        ends["low"], ends["high"] = np.percentile(curves, [tail, 100 - tail], axis=0).tolist()
        if result.noise is not None:
            low, high = observation_interval(result, curves, interval)
            ends["observation_low"], ends["observation_high"] = low.tolist(), high.tolist()
    rows = [
        {
            **{role: float(at[role][i]) for role in at},
            "value": float(predicted[i]),
            **{end: ends[end][i] for end in ENDS},
        }
        for i in range(n)
    ]
    warnings = _warnings(result, at)
    if as_json:
        document = {"law": result.law.name, "interval": result.interval, "predictions": rows, "warnings": warnings}
        print(json.dumps(document, indent=1))
        return
    from sweeps.text import table

    covers = level(result.interval)
    header = [*at, "predicted", f"{covers} low".strip(), f"{covers} high".strip(), "new run low", "new run high"]
    print(table(header, [[cell(row[k]) for k in (*at, "value", *ENDS)] for row in rows]))
    if result.draws is not None:
        print(f"low, high: {covers} interval of the curve. new run: of a single new measurement, with its scatter.")
    for warning in warnings:
        print(f"warning: {warning}")


def _columns(law: Law, given: dict[str, Array]) -> dict[str, Array]:
    """The law's columns from the options given, in its order: FLOPs give the third of N, D and C = 6ND.

    Raises UsageError for a column that is missing, that the law does not have, or that is not positive.
    """
    wanted = [c for c in law.columns if c not in law.constant_columns]
    columns = dict(given)
    for role, value in columns.items():
        if role not in law.metric_columns and not (value > 0).all():
            raise UsageError(f"{_option(role)} {value[value <= 0][0]:g} is not a positive number")
    if "x" in wanted and "x" not in columns:
        stands_for_x = [r for r in ("flops", "tokens", "params") if r in columns and r not in wanted]
        if stands_for_x:
            columns["x"] = columns.pop(stands_for_x[0])
    if "flops" in columns and "flops" not in wanted and {"params", "tokens"} <= set(wanted):
        if {"params", "tokens"} <= set(columns):
            raise UsageError("predict takes two of --params, --tokens and --flops: C = 6 N D gives the third")
        if "params" in columns:
            columns["tokens"] = columns.pop("flops") / (6.0 * columns["params"])
        elif "tokens" in columns:
            columns["params"] = columns.pop("flops") / (6.0 * columns["tokens"])
    for role in wanted:
        if role not in columns:
            raise UsageError(f"law {law.name} needs {_option(role)}; its columns are {', '.join(wanted)}")
    unknown = [role for role in columns if role not in wanted]
    if unknown:
        raise UsageError(f"law {law.name} has no column {unknown[0]!r}; its columns are {', '.join(wanted)}")
    return {role: columns[role] for role in wanted}


def _option(role: str) -> str:
    return f"--{role}" if role in ("params", "tokens", "flops", "x") else f"--column {role}=VALUES"


def _warnings(result: FitResult, at: dict[str, Array]) -> list[str]:
    """What makes these predictions doubtful."""
    from analysis.fitting.result import STATUS_WORDS, Status

    out = []
    if result.status is Status.MAX_ITERATIONS:
        out.append(f"the fit ended at its {result.status.value.replace('_', ' ')}: {STATUS_WORDS[result.status]}")
    if result.not_identified:
        out.append(
            f"the fit does not identify {', '.join(result.not_identified)}: "
            "only predictions at values as in the data can be trusted"
        )
    for role, column in at.items():
        low, high = result.ranges.get(role, (0.0, float("inf")))
        outside = column[(column < low / 1.0001) | (column > high * 1.0001)]
        if len(outside):
            out.append(
                f"{role} {outside[0]:.6g} lies outside the fitted rows ({low:.3g} to {high:.3g}): an extrapolation"
            )
    return out
