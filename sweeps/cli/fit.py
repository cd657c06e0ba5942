"""The command fit: a scaling law for any CSV, TSV or Parquet file; and the registration of all fitting commands."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import DataError, FitError, TokenlawError, UsageError

from . import compare, optimum, predict, validate
from .fit_text import show
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
    GroupOption,
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
    from analysis.fitting.result import FitResult


def add_commands(app: typer.Typer) -> None:
    """Register fit, predict, optimum, validate and compare."""
    app.command()(fit)
    app.command()(predict.predict)
    app.command()(optimum.optimum)
    app.command()(validate.validate)
    app.command()(compare.compare)


def fit(
    data: DataArgument,
    law: LawOption,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    flops: FlopsOption = None,
    x: XOption = None,
    metric: MetricOption = None,
    column: ColumnOption = None,
    group: GroupOption = None,
    cluster: ClusterOption = None,
    weights: WeightsOption = None,
    residual: ResidualOption = "log",
    loss: LossOption = "huber",
    delta: DeltaOption = 1e-3,
    floor: FloorOption = "FREE",
    drop_worst: DropOption = 0,
    where: WhereOption = None,
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
    as_json: JsonOption = False,
) -> None:
    """Fit a scaling law to a table, with intervals, and say how far to trust it."""
    _check_output(out, (".json",), "--out")
    _check_output(figure, (".pdf", ".png", ".svg"), "--figure")
    check_resampling(bootstrap, interval, seed)
    request = request_for(
        data, where=where, residual=residual, loss=loss, delta=delta, floor=floor, drop=drop_worst, columns=column,
        params=params, tokens=tokens, flops=flops, x=x, metric=metric, weights=weights, cluster=cluster, group=group,
    )  # fmt: skip

    def with_uncertainty(found: FitResult) -> FitResult:
        from analysis.fitting.result import Status

        if bootstrap and found.status is not Status.MAX_ITERATIONS:
            from analysis.inference.bootstrap import uncertainty, with_intervals

            try:
                drawn = uncertainty(found, replicates=bootstrap, kind=_kind(wild, cluster), seed=seed)
                found = with_intervals(found, drawn, interval)
            except FitError as problem:  # the fit stands; only its intervals are missing
                found = replace(found, warnings=(*found.warnings, f"no intervals: {problem}"))
        if profile:
            from analysis.inference.profile import with_profile

            found = with_profile(found, interval)
        return found

    if group is None:
        result = with_uncertainty(request.fit(law))
        document = result.to_json(keep_draws=400)
        results = {"": result}
    else:
        try:
            results = request.fit_groups(law, group)
        except (DataError, FitError) as error:
            raise type(error)(f"{error} (--where leaves groups out)") from None
        for name, found in results.items():
            try:
                results[name] = with_uncertainty(found)
            except TokenlawError as error:
                raise type(error)(f"group {name!r}: {error} (--where leaves groups out)") from None
        document = {"groups": {name: r.to_json(keep_draws=400) for name, r in results.items()}}
    if out is not None:
        _write(out, json.dumps(document, indent=1) + "\n")
    drawings = []
    if figure is not None:
        from analysis.reporting.figures import style
        from analysis.reporting.figures.fit_figure import fit_figure

        for name, r in results.items():
            path = figure if not name else figure.with_name(f"{figure.stem}-{_slug(name)}{figure.suffix}")
            drawings.append(style.save(fit_figure(r), path))
    if as_json:
        print(json.dumps(_without_draws(document), indent=1))
        return
    for name, r in results.items():
        if name:
            print(f"\n== {group} = {name}")
        show(r)
    for written in (out, *drawings):
        if written is not None:
            print(f"wrote {written}")


def _kind(wild: bool | None, cluster: str | None) -> str | None:
    """The bootstrap asked for; None leaves the choice to the points."""
    if wild is None:
        return None
    return "wild" if wild else "rows" if cluster is None else "clusters"


def _check_output(path: Path | None, suffixes: tuple[str, ...], option: str) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {str(path)!r} does not end in {' or '.join(suffixes)}")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"{option} {str(path)!r}: the folder does not exist")
    if path.is_dir() or not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise UsageError(f"{option} {str(path)!r} cannot be written")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"--out {str(path)!r} cannot be written: {problem.strerror}") from None


def _without_draws(document: dict[str, Any]) -> dict[str, Any]:
    if "groups" in document:
        return {"groups": {name: _without_draws(one) for name, one in document["groups"].items()}}
    return {key: value for key, value in document.items() if key not in ("draws", "noise")}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
