"""The commands fit, a scaling law for any table in a file, and predict, the metric at new values from it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import DataError, FitError, TokenlawError, UsageError
from sweeps.text import table

from ..options import JsonOption
from .fitting import (
    BootstrapOption,
    IntervalOption,
    OwnLawOption,
    SeedOption,
    assignments,
    cell,
    ends,
    level,
    note,
    one_thread,
    print_json,
    takes_request,
    values,
    warn,
)

if TYPE_CHECKING:
    from analysis.fitting.laws.law import Array, Law
    from analysis.fitting.request import FitRequest
    from analysis.fitting.result import FitResult

ENDS = ("low", "high", "observation_low", "observation_high")


@takes_request()
def fit(
    request: FitRequest,
    bootstrap: BootstrapOption = 4000,
    wild: Annotated[
        bool | None,
        typer.Option(
            "--wild/--rows", help="Resample residuals, or rows; default: rows from 30 rows a parameter, else residuals."
        ),
    ] = None,
    interval: IntervalOption = 0.95,
    profile: Annotated[bool, typer.Option("--profile", help="Profile-likelihood intervals of the parameters.")] = False,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write the fit as JSON, for predict and optimum.")] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw data, law, band and residuals: pdf, png, svg.")
    ] = None,
    style: Annotated[str, typer.Option("--style", help="Of the figure: report, neurips, cvpr, icml, talk.")] = "report",
    width: Annotated[
        float | None, typer.Option("--width", help="Of the figure, in inches, such as 3.25 for a column; the style's.")
    ] = None,
    misses: Annotated[bool, typer.Option("--residuals/--no-residuals", help="Draw residuals below the curve.")] = True,
    beyond: Annotated[
        float, typer.Option("--beyond", metavar="TIMES", help="Draw curves up to TIMES the largest row, marked.")
    ] = 1.0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write what a paper has to say of the fit: .md.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a scaling law to a table, with intervals, and say how far to trust it."""
    _check_output(out, (".json",), "--out")
    _check_output(figure, (".pdf", ".png", ".svg"), "--figure")
    _check_output(report, (".md",), "--report")
    if width is not None and not 1 <= width <= 50:
        raise UsageError(f"--width {width:g} is not between 1 and 50 inches")
    if not 1 <= beyond <= 1e12:
        raise UsageError(f"--beyond {beyond:g} is not between 1 and 1e12")

    def with_uncertainty(result: FitResult) -> FitResult:
        from analysis.fitting.result import Status

        if bootstrap and result.status is not Status.MAX_ITERATIONS:
            from analysis.inference.bootstrap import uncertainty, with_intervals

            try:
                kind = None if wild is None else "wild" if wild else "rows" if request.cluster is None else "clusters"
                result = with_intervals(
                    result, uncertainty(result, replicates=bootstrap, kind=kind, seed=seed), interval
                )
            except FitError as problem:  # the fit stands; only its intervals are missing
                result = replace(result, warnings=(*result.warnings, f"no intervals: {problem}"))
        if profile:
            from analysis.inference.profile import with_profile

            result = with_profile(result, interval)
        return result

    if request.group is None:
        results = {"": with_uncertainty(request.fit())}
        document = results[""].to_json(keep_draws=400)
    else:
        try:
            results = request.fit_groups()
        except (DataError, FitError) as problem:
            raise type(problem)(f"{problem} (--where leaves groups out)") from None
        for name, result in results.items():
            try:
                results[name] = with_uncertainty(result)
            except TokenlawError as problem:
                raise type(problem)(f"group {name!r}: {problem} (--where leaves groups out)") from None
        document = {"groups": {name: result.to_json(keep_draws=400) for name, result in results.items()}}
    if out is not None:
        _write(out, json.dumps(document, indent=1) + "\n")
    drawings = []
    if figure is not None:
        from analysis.reporting.figures.drawing.style import save
        from analysis.reporting.figures.fit_figure import fit_figure, groups_figure

        for name, result in results.items():
            path = figure if not name else figure.with_name(f"{figure.stem}-{_slug(name)}{figure.suffix}")
            drawings.append(save(fit_figure(result, style, misses=misses, beyond=beyond, width=width), path))
        if len(results) > 1:
            drawings.append(save(groups_figure(results, style, beyond=beyond, width=width), figure))
    if report is not None:
        from analysis.reporting.fit_report import fit_report

        _write(report, fit_report(results, _in_words(request)), "--report")
        drawings.append(report)
    if as_json:
        print_json(_without_draws(document))
        return
    for name, result in results.items():
        if name:
            print(f"\n== {request.group} = {name}")
        _show(result)
    for written in (out, *drawings):
        if written is not None:
            print(f"wrote {written}")


def _check_output(path: Path | None, suffixes: tuple[str, ...], option: str) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {str(path)!r} does not end in {' or '.join(suffixes)}")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"{option} {str(path)!r}: the folder does not exist")
    if path.is_dir() or not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise UsageError(f"{option} {str(path)!r} cannot be written")


def _in_words(request: FitRequest) -> dict[str, str]:
    """What was asked for, where it is not what is asked for by default."""
    asked = {"data": str(request.data), "where": request.where, "group": request.group, "cluster": request.cluster}
    asked |= {"weights": request.weights, "drop-worst": str(request.drop_worst or "") or None}
    return {name: text for name, text in asked.items() if text}


def _write(path: Path, text: str, option: str = "--out") -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{option} {str(path)!r} cannot be written: {problem.strerror}") from None


def _without_draws(document: dict[str, Any]) -> dict[str, Any]:
    if "groups" in document:
        return {"groups": {name: _without_draws(group) for name, group in document["groups"].items()}}
    return {key: value for key, value in document.items() if key not in ("draws", "noise")}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _show(result: FitResult) -> None:
    """A fit for people: the table, the status in words, warnings that matter."""
    from analysis.fitting.result import STATUS_WORDS

    print(f"{result.law.formula}    {result.rows} rows, {result.residual} residuals, {result.loss.kind} loss")
    note(result.notes)
    rows = [
        [name, cell(e.value) if e.value is not None else "not identified", cell(e.se), cell(e.low), cell(e.high)]
        for name, e in {**result.parameters, **result.derived}.items()
    ]
    print(table(["parameter", "value", "se", *ends(result.interval)], rows))
    if result.interval_method:
        print(f"intervals: {result.interval_method}")
    print(f"status: {result.status.value.replace('_', ' ')}: {STATUS_WORDS[result.status]}")
    print(
        f"objective {result.objective:.12g} (mean {result.objective_mean:.6g}), gradient {result.gradient_norm:.1e}, "
        f"{result.starts_agreeing} of {result.starts} starts agree, {result.seconds:.2f} s"
    )
    dropped = [f for f in result.flagged if not f.used]
    kept = [f for f in result.flagged if f.used]
    if dropped:
        print(f"flagged and left out: {len(dropped)} rows ({dropped[0].reason})")
    if kept:
        listed = ", ".join(str(f.row) for f in kept[:6]) + (", ..." if len(kept) > 6 else "")
        print(f"flagged and kept: {len(kept)} rows far from the law (rows {listed}); fit again without them to compare")
    warn(result.warnings)


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
    bounds: dict[str, Any] = dict.fromkeys(ENDS, [None] * n)
    if result.draws is not None and not result.not_identified:
        interval = result.interval or 0.95
        curves = predict_with(result.law, result.scales, result.draws, at)
        tail = 50 * (1 - interval)
        bounds["low"], bounds["high"] = np.percentile(curves, [tail, 100 - tail], axis=0).tolist()
        if result.noise is not None:
            low, high = observation_interval(result, curves, interval)
            bounds["observation_low"], bounds["observation_high"] = low.tolist(), high.tolist()
    rows = [
        {
            **{role: float(at[role][i]) for role in at},
            "value": float(predicted[i]),
            **{end: bounds[end][i] for end in ENDS},
        }
        for i in range(n)
    ]
    warnings = _warnings(result, at)
    if as_json:
        document = {"law": result.law.name, "interval": result.interval, "predictions": rows, "warnings": warnings}
        print_json(document)
        return
    header = [*at, "predicted", *ends(result.interval), "new run low", "new run high"]
    print(table(header, [[cell(row[k]) for k in (*at, "value", *ENDS)] for row in rows]))
    if result.draws is not None:
        covers = level(result.interval)
        print(f"low, high: {covers} interval of the curve. new run: of a single new measurement, with its scatter.")
    warn(warnings)


def _columns(law: Law, given: dict[str, Array]) -> dict[str, Array]:
    """The law's columns from the options given, in its order: FLOPs give the third of N, D and C = 6ND.

    Raises UsageError for a column that is missing, that the law does not have, or that is not positive.
    """
    wanted = [c for c in law.columns if c not in law.constant_columns]
    columns = dict(given)
    for role, value in columns.items():
        if role not in (*law.metric_columns, *law.signed_columns) and not (value > 0).all():
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
