"""A trained pair of both stages as a folder for others: safetensors, one JSON, a model card; and its loader."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import DataError, UsageError
from results.store import atomic
from scaling.generator.stored import load_generator
from scaling.generator.transformer import Generator
from scaling.specification.costs import flops
from scaling.specification.costs.generator_counts import generator_parameters
from scaling.specification.pictures import UNSEEN
from scaling.specification.spec import GeneratorRun, parse_run
from scaling.tokenizer.model import Tokenizer

FORMAT = 1
GENERATOR, TOKENIZER, MODEL, CARD = "generator.safetensors", "tokenizer.safetensors", "model.json", "README.md"


@dataclass(frozen=True)
class Exported:
    """Both stages in evaluation mode on the CPU, and what they are: `generator(tokens, labels)` are logits
    (ValueError for tokens or labels that it has not), `tokenizer.pixels_of(tokens)` pictures."""

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
    check_out(out)
    load_generator(run, generator)
    Tokenizer.load(run.tokenizer, tokenizer)

    def copy(folder: Path) -> None:
        shutil.copyfile(generator, folder / GENERATOR)
        shutil.copyfile(tokenizer, folder / TOKENIZER)

    return write_folder(run, out, copy, provenance, evaluations)


def check_out(out: Path) -> None:
    """Raise UsageError if there is anything at `out`."""
    if out.exists():
        raise UsageError(f"out = {str(out)!r} is there; allowed: a folder that is not, which is created")


def write_folder(
    run: GeneratorRun,
    out: Path,
    save: Callable[[Path], None],
    provenance: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """As write_export, with weights that `save` puts into the folder, as GENERATOR and TOKENIZER, unchecked."""
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
        save(folder)
        about["files"] = {name: sha256_of(folder / name) for name in (GENERATOR, TOKENIZER)}
        (folder / MODEL).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(about), encoding="utf-8")

    atomic.make_folder(out.parent)
    atomic.new_folder(out, fill)
    return [out / name for name in (GENERATOR, TOKENIZER, MODEL, CARD)]


def load_exported(folder: Path | str) -> Exported:
    """Both stages from a folder that `write_export` made. Raises DataError for one that is none or damaged."""
    place = Path(folder)
    run, about = read_exported(place)
    tokenizer = Tokenizer.load(run.tokenizer, place / TOKENIZER)
    return Exported(run, load_generator(run, place / GENERATOR), tokenizer, about)


def read_exported(place: Path) -> tuple[GeneratorRun, dict[str, Any]]:
    """The run of such a folder and the content of its model.json, its files checked. Raises DataError as above."""
    try:
        about = json.loads((place / MODEL).read_bytes())
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DataError(f"{place / MODEL}: format = {about.get('format')!r}; allowed: {FORMAT}")
        for name, expected in about["files"].items():
            if sha256_of(place / name) != expected:
                raise DataError(f"{place / name} is damaged: its SHA-256 is not that of {MODEL}")
        run = parse_run(json.dumps(about["spec"]))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{place} is no exported model that can be read: {error}") from error
    if not isinstance(run, GeneratorRun):
        raise DataError(f"{place / MODEL}: stage = {run.stage!r}; allowed: 'generator'")
    return run, about


def card(about: Mapping[str, Any]) -> str:
    """The model card, Markdown: what it is, its size and cost, what was measured, where it is from, how to load it."""
    spec, parameters, cost = about["spec"], about["parameters"], about["flops"]
    shape, data = spec["transformer"], spec["tokenizer"]["data"]
    origin = f"run `{about['run_id']}` of tokenlaw"
    if spec.get("pretrained"):
        origin = f"of files of {spec['pretrained']['source']} that tokenlaw has read, as `{about['run_id']}`"
    measured = [
        f"| {row['metric']} | {row['value']:.6g} | {_error(row)} | {row['guidance'] or ''} | {row['split']} "
        f"| {row['n'] or ''} | {row['branch']} |"
        for row in about["evaluations"]
    ]
    lines = [
        f"# {about['label']}",
        "",
        f"A class-conditional image generator in two stages, {origin}: a tokenizer that "
        f"makes {cost['tokens_per_image']} tokens of an image, and a transformer of width {shape['width']} and "
        f"{shape['layers']} layers over them. Data: {_pictures(data)}.",
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


def _pictures(data: Mapping[str, Any]) -> str:
    if data["fingerprint"] == UNSEEN:
        return "ImageNet, by its published counts"
    return f"{data.get('name') or 'pictures ' + data['fingerprint'][:12]}, fingerprint `{data['fingerprint']}`"


def _error(row: Mapping[str, Any]) -> str:
    return "" if row["standard_error"] is None else f"{row['standard_error']:.2g}"


def _parameters(run: GeneratorRun) -> dict[str, int]:
    counts = generator_parameters(run)
    return {
        "generator": counts.total, "generator_without_vocabulary": counts.non_embedding,
        "generator_head": counts.head, "tokenizer": flops.tokenizer_parameters(run.tokenizer).total,
    }  # fmt: skip


def _flops(run: GeneratorRun) -> dict[str, float]:
    """What both stages cost; of one with pretrained weights nobody here knows on how many images it was trained."""
    tokenizer = run.tokenizer
    cost: dict[str, float] = {"tokens_per_image": tokenizer.tokens_per_image}
    if run.pretrained is not None:
        cost["generator_flops_per_image"] = flops.generator_training_flops(run, 1)
    else:
        images = run.train_images[-1]
        cost |= {"generator_images": images, "generator_flops": flops.generator_training_flops(run, images)}
    if tokenizer.pretrained is None:
        images = tokenizer.train_images
        cost |= {"tokenizer_images": images, "tokenizer_flops": flops.tokenizer_training_flops(tokenizer, images)}
    return cost


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
