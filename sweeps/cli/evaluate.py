"""The command evaluate: metrics of images against a reference, in place of pytorch-fid and ADM's evaluator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption


def evaluate(
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="A folder, shards, Parquet, or an .npz of samples.")],
    reference: Annotated[
        str | None,
        typer.Option(help="A folder, an .npz (images or statistics, as ADM's), or fashion-mnist[/validation]."),
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
    write_statistics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write mu and sigma of IMAGES as ADM does (.npz).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure IMAGES against a reference; prints each figure with its protocol."""
    from scaling.evaluate import DEFAULT_METRICS, Request, in_words
    from scaling.evaluate import evaluate as measure

    chosen = tuple(name.strip() for name in metrics.split(",") if name.strip())
    default = DEFAULT_METRICS if reference is not None else () if write_statistics is not None else ("is",)
    request = Request(
        images, reference, tuple(extractor or ("efficientnet-lite0",)), chosen or default, image_size, batch, workers,
        seed, device, write_statistics,
    )  # fmt: skip
    figures = measure(request, report=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps({"figures": [figure.as_json() for figure in figures]}, indent=1))
    else:
        print(in_words(figures))
