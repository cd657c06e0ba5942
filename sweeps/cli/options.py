"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import UsageError

if TYPE_CHECKING:
    from scaling.specification.sampling import SamplingSpec

RootOption = Annotated[
    Path, typer.Option("--root", envvar="TOKENLAW_ROOT", help="Data root: everything that is measured lies below it.")
]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A TOML file, or the name of a built-in study.")]
StudiesArgument = Annotated[
    list[str], typer.Argument(metavar="STUDY...", help="TOML files, or names of built-in studies.")
]
SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A study, a folder that holds the three tables, or a data root.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Override a value of the study file (TOML); may be repeated."),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, help="Runs at a time; default: the number of cores (on SLURM, of each array: no cap)."
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option("--cluster", help="Where the runs happen: local, slurm, or debug (one by one in this process)."),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Stay until the end, show progress, and try again what failed.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the machine form.")]

# What a study is judged by, and what its compute includes.
MetricOption = Annotated[
    str | None, typer.Option("--metric", help="What ranks, lower being better: gfid (the default), own_x or another.")
]
GuidanceOption = Annotated[
    str | None,
    typer.Option(
        "--guidance", help="none, best, or a scale such as 1.5; default: none where it was measured, else best."
    ),
]
ExtractorOption = Annotated[
    str | None, typer.Option("--extractor", help="The feature network, where several were used.")
]
TotalOption = Annotated[bool, typer.Option("--total", help="Count the tokenizer's training as well.")]
GeneratorsOption = Annotated[
    int, typer.Option("--generators", min=1, help="How many generators share a tokenizer's training (--total).")
]
ServeOption = Annotated[
    float, typer.Option("--serve", min=0, help="Count the sampling of so many images, such as 1e8, as well.")
]


def sampling_spec(**fields: object) -> SamplingSpec:
    """How images are drawn, of what was given. Raises UsageError that names the field."""
    from pydantic import ValidationError

    from scaling.specification.explanation import explain
    from scaling.specification.sampling import SamplingSpec

    try:
        return SamplingSpec.model_validate(fields)
    except ValidationError as error:
        raise UsageError(explain(error)) from error
