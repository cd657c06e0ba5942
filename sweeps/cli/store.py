"""The commands on what was measured: store check, compact, export, import and prune, figures, report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import UsageError
from sweeps.text import size, table

from .options import (
    ExtractorOption,
    GeneratorsOption,
    GuidanceOption,
    JsonOption,
    MetricOption,
    RootOption,
    ServeOption,
    SetOption,
    SourceArgument,
    TotalOption,
)
from .sources import Judged, open_source, read_source

if TYPE_CHECKING:
    import pandas as pd

store = typer.Typer(
    name="store",
    no_args_is_help=True,
    add_completion=False,
    help="Check, compact, export, import, prune what was measured.",
)


SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="TEXT", help="Also, or without STUDY only, what was imported under this source."),
]


@store.command()
def check(root: RootOption = Path("runs")) -> None:
    """Verify every file; move damaged ones aside, with the reason, so that their runs can run again."""
    from results import Store
    from sweeps.record.artifacts import publish_left

    report = Store(root).check()
    for damage in report.damaged:
        print(f"damaged: {damage.reason}\n  moved to {damage.moved_to}")
        if damage.lost:
            shown = ", ".join(damage.lost[:8]) + (", ..." if len(damage.lost) > 8 else "")
            print(f"  lost: the rows of {len(damage.lost)} runs; submit runs them again (import, if imported): {shown}")
    for name in report.removed:
        print(f"removed what a dead writer left: {name}")
    for run_id in publish_left(root):
        print(f"published the artifacts of {run_id}, whose job ended before it could")
    print(f"{report.sets} sets checked, {len(report.damaged)} damaged")
    raise typer.Exit(int(bool(report.damaged)))


@store.command()
def compact(
    settle: Annotated[
        float,
        typer.Option(min=0, help="Seconds before small files are removed; on NFS more than clients cache, such as 60."),
    ] = 0.0,
    root: RootOption = Path("runs"),
) -> None:
    """Merge the files of all runs into a few large ones; jobs and readers may go on meanwhile."""
    from results import Store

    done = Store(root).compact(settle=settle)
    for name in done.damaged:
        print(f"left alone, it is damaged (tokenlaw store check): {name}")
    print(
        f"{done.merged} sets merged, {done.removed} folders removed; {done.sets} sets in {done.segments} segments, "
        f"{size(done.bytes)}"
    )


@store.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder for the three files, created; with --joined, the one file.")],
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study; default: all runs.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="parquet or csv; default: parquet, with --joined what --out ends in.")
    ] = None,
    joined: Annotated[
        bool, typer.Option("--joined", help="One file: a row a measurement, with its run's facts.")
    ] = False,
    sources: SourceOption = None,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Write the runs of a study, or all, as one file a table; a folder of Parquet files serves as a SOURCE."""
    from results import Store
    from results.importing.importer import imported
    from results.settings import joined as joined_table
    from results.store.store import check_format, write_table

    opened, run_ids, _ = open_source(study, root, sets) if study else (Store(root), None, None)
    if sources:
        run_ids = (run_ids or set()) | imported(opened, sources)
    if joined:
        kind = form or {".csv": "csv", ".parquet": "parquet"}.get(out.suffix)
        if kind is None or out.is_dir():
            raise UsageError(f"--out {out} with --joined is one file; allowed: a name that ends in .parquet or .csv")
        check_format(kind)
        out.parent.mkdir(parents=True, exist_ok=True)
        print(write_table(joined_table(opened, run_ids), out, kind))
        return
    for path in opened.export(out, run_ids, format=form or "parquet"):  # type: ignore[arg-type]
        print(path)


@store.command(name="import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV, TSV or Parquet; or a data root or folder of exported tables, for its runs."
        ),
    ],
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="Where the values come from; default: FILE's name.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", metavar="COLUMN=NAME", help="What a column of FILE is; repeatable.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="tokenizer, generator or run; default: as the columns say.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep-others", help="Store columns without a meaning here with the runs.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put changed values in the place of earlier ones.")
    ] = False,
    root: RootOption = Path("runs"),
) -> None:
    """Take rows that were measured elsewhere; the same file again adds nothing."""
    from results import Store
    from results.importing.importer import import_file

    if file.is_dir():
        _import_runs(
            file,
            root,
            {"--source": source, "--map": columns, "--stage": stage, "--keep-others": keep, "--replace": replace},
        )
        return
    mapping = {}
    for text in columns or ():
        name, sign, target = text.rpartition("=")
        if not (name and sign and target):
            raise UsageError(f"--map {text!r} is not allowed; allowed: COLUMN=NAME")
        mapping[name] = target
    done = import_file(Store(root), file, source=source, columns=mapping, stage=stage, replace=replace, keep=keep)
    if done.others:
        print(f"kept with the runs as they are: {', '.join(done.others)}")
    for column, number in done.rounded.items():
        print(f"column {column!r}: {number} values rounded to whole numbers")
    print(f"{done.added} runs added, {done.replaced} replaced, {done.present} there before; {done.rows} rows added")


def _import_runs(folder: Path, root: Path, options: Mapping[str, Any]) -> None:
    """Take the runs of a data root or a folder of exported tables, which need no options."""
    from results import Store
    from results.importing.stored_runs import import_runs

    for name, value in options.items():
        if value:
            raise UsageError(f"{name} is for a FILE; {folder} is a folder of runs, which are taken as they are")
    done = import_runs(Store(root), open_source(str(folder), root, None)[0])
    print(f"{done.added} runs added, {done.present} there before; {done.rows} rows added")


@store.command()
def prune(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study; default: all runs.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only shown.")] = False,
    as_json: JsonOption = False,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Show, and with --yes remove, checkpoints that no run needs any more; results and living jobs stay untouched."""
    from sweeps.record.pruning import removable, remove

    run_ids = open_source(study, root, sets)[1] if study else None
    items = removable(root, run_ids)
    if yes:
        items = remove(root, items)
    if as_json:
        folders = [
            {"path": str(i.path), "why": i.why, "run": i.run_id, "bytes": i.bytes, "inodes": i.inodes} for i in items
        ]
        print(json.dumps({"removed": yes, "folders": folders}))
        return
    reasons = sorted({item.why for item in items})
    rows = []
    for why in reasons + (["all"] if len(reasons) > 1 else []):
        chosen = [item for item in items if why in (item.why, "all")]
        runs, inodes = len({item.run_id for item in chosen}), sum(item.inodes for item in chosen)
        rows.append([why, str(runs), size(sum(item.bytes for item in chosen)), str(inodes)])
    if rows:
        print(table(["what", "runs", "size", "inodes"], rows))
    print("removed" if yes and items else "nothing was removed; --yes removes it" if items else "nothing to remove")


def figures(
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="Folder for the figures; created.")],
    style: Annotated[str, typer.Option(help="The look: neurips, cvpr, icml, talk or report.")] = "neurips",
    columns: Annotated[int, typer.Option(help="1: as wide as a column; 2: as the text.")] = 2,
    form: Annotated[str, typer.Option("--format", help="One or more formats, such as pdf,png,svg.")] = "pdf",
    names: Annotated[
        list[str] | None,
        typer.Option("--figure", metavar="NAME", help="One by name, or yours by FILE.py:FUNCTION; repeatable."),
    ] = None,
    as_json: JsonOption = False,
    metric: MetricOption = None,
    guidance: GuidanceOption = None,
    extractor: ExtractorOption = None,
    total: TotalOption = False,
    generators: GeneratorsOption = 1,
    serve: ServeOption = 0.0,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Draw the figures of a study, each with its rows (CSV), fit (JSON) and caption (txt, tex) beside it."""
    from analysis.reporting.figures.gallery import write_figures

    judged = Judged(metric, guidance, extractor, total, generators, serve)
    frames, artifacts = read_source(source, root, sets, judged)
    written = write_figures(
        frames,
        out,
        style=style,
        formats=[name.strip() for name in form.split(",")],
        names=names,
        columns=columns,
        pictures=_previews(artifacts, sorted(frames.runs["run_id"])) if artifacts else {},
        tables=_tables(Path(source) / "tables"),
    )
    if as_json:
        paths = {name: [str(path) for path in files] for name, files in written.paths.items()}
        troubles = {name: list(texts) for name, texts in written.troubles.items()}
        print(json.dumps({"drawn": paths, "not_drawn": written.not_drawn, "overlaps": troubles}, indent=1))
        return
    suffixes = ", ".join(dict.fromkeys(path.suffix[1:] for files in written.paths.values() for path in files))
    print(f"{len(written.paths)} figures in {out} ({suffixes})")
    for name in written.paths:
        print(f"  {name}")
    if written.not_drawn:
        print("not drawn:")
        for name, reason in written.not_drawn.items():
            print(f"  {name}: {reason}")
    for name, texts in written.troubles.items():
        print(f"warning: {name}: {'; '.join(texts)}", file=sys.stderr)


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables beside a source's rows, which figures may stand on, by name."""
    import pandas as pd

    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def report(
    source: SourceArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: ROOT/reports/SOURCE.")] = None,
    metric: MetricOption = None,
    guidance: GuidanceOption = None,
    extractor: ExtractorOption = None,
    total: TotalOption = False,
    generators: GeneratorsOption = 1,
    serve: ServeOption = 0.0,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Write the report of a study, one HTML page with its figures, and print its answer."""
    write_report(source, root, out, sets, Judged(metric, guidance, extractor, total, generators, serve))


def write_report(
    source: str, root: Path, out: Path | None, sets: list[str] | None, judged: Judged | None = None
) -> None:
    """Write the report of a source, and print its answer and where everything lies."""
    from analysis.reporting.report import write_report as write

    frames, artifacts = read_source(source, root, sets, judged)
    name = Path(source).stem
    pictures = _previews(artifacts, sorted(frames.runs["run_id"])) if artifacts else {}
    command = {"Command": f"tokenlaw report {source}{''.join(f' --set {text}' for text in sets or ())}"}
    folder = out or root / "reports" / name
    print(f"writing the report to {folder}", file=sys.stderr)
    written = write(frames, folder, title=f"Study {name}", previews=pictures, facts=command)
    print(f"\n{written.answer.headline}\n")
    for sentence in written.answer.sentences:
        print(f"- {sentence}")
    print(f"\nreport   {written.index}")
    print(f"figures  {written.index.parent / 'figures'} ({len(written.figures)})")
    print(f"tables   {written.index.parent / 'tables'} ({len(written.tables)})")


def _previews(artifacts: Path, run_ids: list[str]) -> dict[str, Path]:
    """The pictures that runs left: reconstructions or samples, and samples beside their nearest training images."""
    shown = (("", "preview.png"), ("/neighbours", "neighbours.png"))
    paths = {f"{run_id}{what}": artifacts / run_id / name for run_id in run_ids for what, name in shown}
    return {key: path for key, path in paths.items() if path.is_file()}
