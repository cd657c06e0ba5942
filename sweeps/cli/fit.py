"""The command fit: a scaling law for any CSV, TSV or Parquet file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import DataError, FitError, TokenlawError, UsageError

from .fit_text import show
from .options import JsonOption
from .request_options import BootstrapOption, IntervalOption, SeedOption, takes_request

if TYPE_CHECKING:
    from analysis.fitting.request import FitRequest
    from analysis.fitting.result import FitResult


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
    as_json: JsonOption = False,
) -> None:
    """Fit a scaling law to a table, with intervals, and say how far to trust it."""
    _check_output(out, (".json",), "--out")
    _check_output(figure, (".pdf", ".png", ".svg"), "--figure")

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
        from analysis.reporting.figures import style
        from analysis.reporting.figures.fit_figure import fit_figure

        for name, result in results.items():
            path = figure if not name else figure.with_name(f"{figure.stem}-{_slug(name)}{figure.suffix}")
            drawings.append(style.save(fit_figure(result), path))
    if as_json:
        print(json.dumps(_without_draws(document), indent=1))
        return
    for name, result in results.items():
        if name:
            print(f"\n== {request.group} = {name}")
        show(result)
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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"--out {str(path)!r} cannot be written: {problem.strerror}") from None


def _without_draws(document: dict[str, Any]) -> dict[str, Any]:
    if "groups" in document:
        return {"groups": {name: _without_draws(group) for name, group in document["groups"].items()}}
    return {key: value for key, value in document.items() if key not in ("draws", "noise")}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
