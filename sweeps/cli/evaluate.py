"""The command evaluate: metrics of images, or of a stored generator's, in place of pytorch-fid and ADM's evaluator."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import UsageError

from .options import JsonOption, RootOption, sampling_spec

if TYPE_CHECKING:
    from scaling.evaluate import StoredGenerator


def evaluate(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="A folder, shards, Parquet, an .npz of samples, a finished generator run, or an exported folder.",
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="A folder, an .npz (images or statistics, as ADM's), or fashion-mnist[/validation]; of a run also "
            "train (its default) or validation, the images of its study."
        ),
    ] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            help="inception, efficientnet-lite0, builtin, NAME=FILE, package.module:factory; repeat for more."
        ),
    ] = None,
    metrics: Annotated[str, typer.Option(help="Of fid, kid, is, precision-recall, mind, fid-curve.")] = "",
    image_size: Annotated[int | None, typer.Option(min=1, help="Cut all images by ADM's centre crop.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode (with --image-size).")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of MIND, folds and subsets of sizes.")] = 0,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Of a run: how many images; default as it did.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Of a run: scale of guidance; default 1, none.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of a run: constant, linear or cosine guidance.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of a run: divides the logits.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Of a run: so many likeliest codes; 0 for all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of a run: likeliest codes of this probability in all.")] = None,
    classes: Annotated[str | None, typer.Option(help="Of a run: balanced or proportional.")] = None,
    microbatch: Annotated[int | None, typer.Option(help="Of a run: images drawn at a time; rounding hangs on it.")] = (
        None
    ),
    image_seed: Annotated[
        int | None, typer.Option(min=0, help="Of a run: image i depends on it and i; default the study's.")
    ] = None,
    write_statistics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write mu and sigma of IMAGES as ADM does (.npz).")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Add the figures as rows to the store below --root.")] = (
        False
    ),
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure IMAGES, or those that a stored generator draws, against a reference; each figure with its protocol."""
    from scaling.evaluate import DEFAULT_METRICS, Request, StoredGenerator, in_words
    from scaling.evaluate import evaluate as measure

    sampling = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance_schedule": schedule,
        "classes": classes, "microbatch": microbatch,
    }  # fmt: skip
    given = {"n": n, "guidance": guidance, "image_seed": image_seed, **sampling}
    given = {name: value for name, value in given.items() if value is not None}
    judged: str | StoredGenerator = images
    if is_run(images):
        judged = _stored(root, images, given)
    elif given:
        raise UsageError(f"{next(iter(given))} is of the images of a run; {images!r} is none; leave it out")
    chosen = tuple(name.strip() for name in metrics.split(",") if name.strip())
    compared = reference is not None or judged is not images
    default = DEFAULT_METRICS if compared else () if write_statistics is not None else ("is",)
    request = Request(
        judged, reference, tuple(extractor or ("efficientnet-lite0",)), chosen or default, image_size, batch, workers,
        seed, device, write_statistics,
    )  # fmt: skip
    figures = measure(request, report=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps({"figures": [figure.as_json() for figure in figures]}, indent=1))
    else:
        print(in_words(figures))
    if record:
        from sweeps.record.evaluated import record as add_rows
        from sweeps.record.trained import is_exported

        # An exported folder need not be of a run of this store.
        generator = None
        if isinstance(judged, StoredGenerator) and not is_exported(Path(images).expanduser()):
            generator = judged.run.run_id
        added = add_rows(root, figures, images, generator)
        state = "added to" if added.new else "are already in"
        print(f"{len(figures)} figures {state} {root / 'store'}, as run {added.run_id}", file=sys.stderr)


def is_run(images: str) -> bool:
    """Whether a run is meant: the folder of its artifacts or of its export, or a name of hexadecimal digits that is no
    file."""
    from sweeps.record.trained import is_exported

    path = Path(images).expanduser()
    if path.exists():
        return (path / "model.safetensors").is_file() or is_exported(path)
    return re.fullmatch(r"[0-9a-f]{4,12}", images) is not None


def _stored(root: Path, name: str, given: dict[str, Any]) -> StoredGenerator:
    """The stored run that is judged, as its study samples where nothing else is given."""
    from scaling.data.sources.locations import FOLDER
    from scaling.evaluate import StoredGenerator
    from sweeps.record.trained import any_generator

    path = Path(name).expanduser()
    trained = any_generator(root, str(path.resolve()) if path.is_dir() else name)
    evaluation = trained.run.evaluation
    fields = evaluation.sampling.model_dump() if evaluation.sampling is not None else {}
    others: dict[str, Any] = {"n": evaluation.samples, "guidance": 1.0, "image_seed": evaluation.seed}
    others = {field: given.pop(field, value) for field, value in others.items()}
    return StoredGenerator(
        trained.run, trained.generator, trained.tokenizer, trained.root / FOLDER, others["n"], others["guidance"],
        others["image_seed"], sampling_spec(**(fields | given)),
    )  # fmt: skip
