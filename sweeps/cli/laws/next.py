"""The command next: which runs to add to a study, or which rows to measure for any law."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import FitError, SpecError, UsageError
from sweeps.text import table

from ..options import (
    ExtractorOption,
    GeneratorsOption,
    GuidanceOption,
    JsonOption,
    MetricOption,
    RootOption,
    ServeOption,
    SetOption,
    TotalOption,
)
from ..sources import Judged, read_source
from .fitting import assignments, cell, one_thread, print_json, values

if TYPE_CHECKING:
    from analysis.tokenizers.frames import StudyFrames
    from analysis.tokenizers.next_runs import NextRuns

CRITERIA = {"regret": "regret", "rate": "variance"}


def next_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A study, a folder with the three tables, a data root; or a table.")
    ],
    budget: Annotated[str, typer.Option("--budget", help="FLOPs to spend on further runs; of a table, in its cost.")],
    flops: Annotated[str | None, typer.Option("--flops", help="The compute at which a study is to decide.")] = None,
    target: Annotated[
        str, typer.Option("--target", help="Of a study: regret or rate (R*). Of a table: a file of rows to predict.")
    ] = "regret",
    out: Annotated[
        Path | None, typer.Option("--out", help="The study file (of a table: the rows) to write; must not exist.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Runs at most.")] = 20,
    trained_only: Annotated[
        bool, typer.Option("--trained-only", help="No tokenizers that were not trained yet.")
    ] = False,
    law: Annotated[str | None, typer.Option("--law", help="Of a table: a law as fit takes it.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="ROLE=COL", help="Of a table: a column of the law.")
    ] = None,
    metric: MetricOption = None,
    candidate_rows: Annotated[
        Path | None, typer.Option("--candidates", help="Of a table: a file of rows that could be measured.")
    ] = None,
    cost: Annotated[
        str | None, typer.Option("--cost", help="Of a table: what a row costs, by arithmetic of its columns.")
    ] = None,
    guidance: GuidanceOption = None,
    extractor: ExtractorOption = None,
    total: TotalOption = False,
    generators: GeneratorsOption = 1,
    serve: ServeOption = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws, of a study.")] = 0,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Which runs to add for a budget: those from which a decision, or a prediction, gains most per FLOP."""
    one_thread()
    amount = float(values("budget", budget)[0])
    if out is not None and out.exists():
        raise UsageError(f"--out {out} exists; allowed: a name that does not")
    if law is not None:
        if candidate_rows is None or cost is None or target in CRITERIA:
            raise UsageError("next of a table needs --law, --candidates FILE, --cost FORMULA and --target FILE")
        columns = assignments([c if "=" in c else f"{c}={c}" for c in column or []], "ROLE=COL")
        _of_table(Path(source), law, columns, metric, candidate_rows, cost, Path(target), amount, out, as_json)
        return
    for option, given in (("--candidates", candidate_rows), ("--cost", cost), ("--column", column)):
        if given:
            raise UsageError(f"{option} belongs to a table, with --law")
    if flops is None:
        raise UsageError("next of a study needs --flops, the compute at which it is to decide")
    if target not in CRITERIA:
        raise UsageError(f"--target {target!r} is not allowed; allowed: {', '.join(CRITERIA)}")
    from analysis.tokenizers.comparisons.loss_ranking import refuse_loss
    from analysis.tokenizers.joint.answer import JointAnswer
    from analysis.tokenizers.next_runs import next_runs

    compute = float(values("flops", flops)[0])
    frames = read_source(source, root, sets, Judged(metric, guidance, extractor, total, generators, serve)).frames
    refuse_loss(frames)
    joint, reason = None, ""
    if not trained_only or target == "rate":
        try:
            joint = JointAnswer.of(frames, seed=seed)
        except FitError as problem:
            reason = f"no tokenizer that was not trained is looked at: {problem}"
    chosen = next_runs(
        frames.ranked, frames.curves_of_pairs, compute, amount, joint=joint, criterion=CRITERIA[target],  # type: ignore[arg-type]
        most=most, seed=seed,
    )  # fmt: skip
    written = _write(frames, chosen, out, root) if out is not None and chosen.runs else None
    if as_json:
        print_json({
            "source": source, "compute": frames.compute.to_dict(), **chosen.to_dict(), "joint_reason": reason or None,
            "file": written,
        })  # fmt: skip
        return
    _show(chosen, frames)
    for words in (*chosen.notes, *([reason] if reason else [])):
        print(f"note: {words}")
    if written:
        print(f"{written}: tokenlaw submit {written} --wait")


def _show(chosen: NextRuns, frames: StudyFrames) -> None:
    percent = chosen.criterion == "regret"

    def said(value: float) -> str:
        return f"{100 * value:.2g} %" if percent else f"{value**0.5:.2g}"

    rows = [
        [run.family, run.size, str(run.seed), str(run.images), f"{run.cost:.3g}", said(after), run.why]
        for run, after in zip(chosen.runs, chosen.after, strict=True)
    ]
    what = f"expected regret of the decision (of {frames.measure.name})" if percent else "standard deviation of ln R*"
    print(f"at {chosen.flops:.3g} FLOPs {frames.compute.words} the {what} is {said(chosen.now)}")
    if rows:
        header = ["tokenizer", "generator", "seed", "training images", "FLOPs", "after it", "why"]
        print(table(header, rows))
        print(f"{len(rows)} runs, {chosen.cost:.3g} of {chosen.budget:.3g} FLOPs; the first gives most per FLOP")


def _write(frames: StudyFrames, chosen: NextRuns, out: Path, root: Path) -> str:
    """Write the runs as a study file. Raises SpecError where they cannot be described, or where reading the file again
    would not find the tokenizers that are there."""
    from sweeps.study.study import load_study
    from sweeps.study.writing import Wanted, study_text

    runs = frames.runs[(frames.runs["stage"] == "generator") & (frames.runs["status"] == "done")]
    tokenizers = frames.runs[frames.runs["stage"] == "tokenizer"]
    wanted, trained = [], set()
    for run in chosen.runs:
        alike = runs[(runs["family"] == run.like) & (runs["size"] == run.size)]
        # A pair that was never run takes its tokenizer from one run and its generator from another.
        spec = json.loads((alike if len(alike) else runs[runs["size"] == run.size]).iloc[0]["spec"])
        if alike.empty:
            spec["tokenizer"] = json.loads(tokenizers[tokenizers["family"] == run.like].iloc[0]["spec"])
        changes: dict[str, Any] = {}
        if run.family != run.like:
            if spec["tokenizer"]["quantizer"].get("kind") != "vq":
                raise SpecError(f"{run.name}: only codebooks of vq have a size that can be set; --trained-only")
            changes["quantizer.codebook_size"] = int(run.codes)
            if run.weight:
                changes["regulariser.weight"] = run.weight
        if not run.trains_tokenizer:
            known = tokenizers[(tokenizers["family"] == run.like) & (tokenizers["tokenizer_seed"] == run.seed)]
            trained |= set(known["run_id"])
        batch = int(spec["batch_size"])
        wanted.append(Wanted(spec, run.seed, math.ceil(run.images / batch) * batch, changes))
    text = study_text(out.stem, f"What tokenlaw next chose for {chosen.budget:.3g} FLOPs", wanted)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    try:
        planned = {run.run_id for run in load_study(str(out), root=root).runs()}
    except SpecError as problem:
        out.unlink()
        raise SpecError(f"these runs cannot be written as a study: {problem}") from problem
    if not trained <= planned or planned & set(runs["run_id"]):
        out.unlink()
        raise SpecError("these runs cannot be written as a study: its tokenizers would not be those in the store")
    return str(out)


def _of_table(
    data: Path,
    law: str,
    columns: dict[str, str],
    metric: str | None,
    candidate_rows: Path,
    cost: str,
    target: Path,
    budget: float,
    out: Path | None,
    as_json: bool,
) -> None:
    from analysis.allocation.next_rows import next_rows
    from analysis.fitting.reading.tables import read_table
    from analysis.fitting.request import FitRequest

    request = FitRequest(data, law, columns=columns, metric=metric)
    others = [read_table(path).rows for path in (candidate_rows, target)]
    chosen = next_rows(request, others[0], others[1], cost, budget)
    rows = others[0].iloc[[c.option for c in chosen.choices]].assign(cost=[c.cost for c in chosen.choices])
    if out is not None and len(rows):
        rows.to_csv(out, index=False)
    if as_json:
        print_json({
            "law": request.one_law.name, "now": chosen.now, "after": [c.after for c in chosen.choices],
            "rows": rows.index.tolist(), "cost": float(rows["cost"].sum()), "notes": list(chosen.notes),
        })  # fmt: skip
        return
    print(f"expected error of ln prediction at the target, root mean square: {chosen.now:.3g}")
    shown = [str(name) for name in rows.columns][:8]
    body = [
        [str(index), *(cell(row[name]) for name in shown), f"{choice.after:.3g}"]
        for (index, row), choice in zip(rows.iterrows(), chosen.choices, strict=True)
    ]
    if body:
        print(table(["row", *shown, "after it"], body))
        print(f"{len(body)} rows, cost {rows['cost'].sum():.3g} of {budget:.3g}")
    for words in chosen.notes:
        print(f"note: {words}")
