"""A trained pair of both stages as a folder for others: safetensors, one JSON, a model card; and its loader."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import DataError, UsageError
from results.store import atomic
from scaling.generator.stored import load_generator
from scaling.generator.transformer import Generator
from scaling.specification.costs import flops
from scaling.specification.costs.generator_counts import generator_parameters
from scaling.specification.spec import GeneratorRun, parse_run
from scaling.tokenizer.model import Tokenizer

FORMAT = 1
GENERATOR, TOKENIZER, MODEL, CARD = "generator.safetensors", "tokenizer.safetensors", "model.json", "README.md"


@dataclass(frozen=True)
class Exported:
    """Both stages in evaluation mode on the CPU, and what they are: `generator(tokens, labels)` are logits,
    `tokenizer.pixels_of(tokens)` pictures."""

    run: GeneratorRun
    generator: Generator
    tokenizer: Tokenizer
    about: Mapping[str, Any]
    """The whole content of model.json."""


def write_export(
    run: GeneratorRun,
    generator: Path,
    tokenizer: Path,
    out: Path,
    provenance: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write the folder `out`, whole or not at all; its files.

    generator, tokenizer  files of weights, which are read once to see that they are the run's
    provenance            code and packages that trained it
    evaluations           rows of the store, of which metric, value, standard_error, guidance, split, n, branch and
                          protocol_json are kept

    Raises UsageError if `out` is there, DataError for weights that are not the run's, StoreError.
    """
    if out.exists():
        raise UsageError(f"out = {str(out)!r} is there; allowed: a folder that is not, which is created")
    load_generator(run, generator)
    Tokenizer.load(run.tokenizer, tokenizer)
    kept = ("metric", "value", "standard_error", "guidance", "split", "n", "branch", "protocol_json")
    about: dict[str, Any] = {
        "format": FORMAT,
        "run_id": run.run_id,
        "label": run.label,
        "spec": json.loads(run.canonical),
        "parameters": _parameters(run),
        "flops": _flops(run),
        "provenance": dict(provenance),
        "evaluations": [{name: row.get(name) for name in kept} for row in evaluations],
    }

    def fill(folder: Path) -> None:
        shutil.copyfile(generator, folder / GENERATOR)
        shutil.copyfile(tokenizer, folder / TOKENIZER)
        about["files"] = {name: _sha256(folder / name) for name in (GENERATOR, TOKENIZER)}
        (folder / MODEL).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(about), encoding="utf-8")

    atomic.make_folder(out.parent)
    atomic.new_folder(out, fill)
    return [out / name for name in (GENERATOR, TOKENIZER, MODEL, CARD)]


def load_exported(folder: Path | str) -> Exported:
    """Both stages from a folder that `write_export` made. Raises DataError for one that is none or damaged."""
    place = Path(folder)
    try:
        about = json.loads((place / MODEL).read_bytes())
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DataError(f"{place / MODEL}: format = {about.get('format')!r}; allowed: {FORMAT}")
        for name, expected in about["files"].items():
            if _sha256(place / name) != expected:
                raise DataError(f"{place / name} is damaged: its SHA-256 is not that of {MODEL}")
        run = parse_run(json.dumps(about["spec"]))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{place} is no exported model that can be read: {error}") from error
    if not isinstance(run, GeneratorRun):
        raise DataError(f"{place / MODEL}: stage = {run.stage!r}; allowed: 'generator'")
    tokenizer = Tokenizer.load(run.tokenizer, place / TOKENIZER)
    return Exported(run, load_generator(run, place / GENERATOR), tokenizer, about)


def card(about: Mapping[str, Any]) -> str:
    """The model card, Markdown: what it is, its size and cost, what was measured, where it is from, how to load it."""
    spec, parameters, cost = about["spec"], about["parameters"], about["flops"]
    shape, data = spec["transformer"], spec["tokenizer"]["data"]
    measured = [
        f"| {row['metric']} | {row['value']:.6g} | {_error(row)} | {row['guidance'] or ''} | {row['split']} "
        f"| {row['n'] or ''} | {row['branch']} |"
        for row in about["evaluations"]
    ]
    lines = [
        f"# {about['label']}",
        "",
        f"A class-conditional image generator in two stages, run `{about['run_id']}` of tokenlaw: a tokenizer that "
        f"makes {cost['tokens_per_image']} tokens of an image, and a transformer of width {shape['width']} and "
        f"{shape['layers']} layers over them. Data: {data.get('name') or 'pictures ' + data['fingerprint'][:12]}, "
        f"fingerprint `{data['fingerprint']}`.",
        "",
        "## Size and cost",
        "",
        "| | |",
        "|---|---|",
        *(f"| parameters, {name.replace('_', ' ')} | {value:,} |" for name, value in parameters.items()),
        *(f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in cost.items()),
        "",
        "FLOPs are training FLOPs in closed form: a multiply-add is 2, attention in full.",
        "",
        "## Measured",
        "",
        *(["| metric | value | standard error | guidance | split | n | branch |", "|---|---|---|---|---|---|---|",
           *measured] if measured else ["Nothing was stored beside it."]),
        "",
        "## Provenance",
        "",
        "```json",
        json.dumps(about["provenance"], indent=1, sort_keys=True),
        "```",
        "",
        "## Loading",
        "",
        "```python",
        "from scaling import load_exported",
        "",
        'model = load_exported("FOLDER")',
        "logits = model.generator(tokens, labels)  # [n, T, K] of tokens [n, T] and labels [n]",
        "pixels = model.tokenizer.pixels_of(tokens)  # uint8 [n, c, S, S]",
        "```",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _error(row: Mapping[str, Any]) -> str:
    return "" if row["standard_error"] is None else f"{row['standard_error']:.2g}"


def _parameters(run: GeneratorRun) -> dict[str, int]:
    counts = generator_parameters(run)
    return {
        "generator": counts.total, "generator_without_vocabulary": counts.non_embedding,
        "generator_head": counts.head, "tokenizer": flops.tokenizer_parameters(run.tokenizer).total,
    }  # fmt: skip


def _flops(run: GeneratorRun) -> dict[str, float]:
    tokenizer = run.tokenizer
    return {
        "tokens_per_image": tokenizer.tokens_per_image,
        "generator_images": run.train_images[-1],
        "generator_flops": flops.generator_training_flops(run, run.train_images[-1]),
        "tokenizer_images": tokenizer.train_images,
        "tokenizer_flops": flops.tokenizer_training_flops(tokenizer, tokenizer.train_images),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
