"""The commands on trained models: sample, pictures of a generator; export, both stages as files for others; import, the
same files from weights of others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from results.errors import UsageError

from .options import RootOption, sampling_spec

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A finished generator run: its id, the start of it, or its folder.")
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A finished generator run: its id, the start of it, or its folder; or a folder of export or import.",
    ),
]


def sample(
    run: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and their sheet, created.")],
    classes: Annotated[str, typer.Option(help="Classes by number, such as 3,7; default: all in turn.")] = "",
    n: Annotated[int, typer.Option("--n", "-n", help="How many pictures.")] = 64,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1 for none.")] = 1.0,
    schedule: Annotated[
        str, typer.Option(help="How guidance comes about over the tokens: constant, linear or cosine.")
    ] = "constant",
    temperature: Annotated[float, typer.Option(help="Divides the logits.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw among so many likeliest codes; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest codes of this probability in all.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Picture i depends on seed and i alone.")] = 0,
    root: RootOption = Path("runs"),
) -> None:
    """Write pictures of a trained generator, and a sheet of them; the same command gives the same pictures."""
    from sweeps.record.trained import any_generator

    sampling = sampling_spec(temperature=temperature, top_k=top_k, top_p=top_p, guidance_schedule=schedule)
    trained = any_generator(root, run)
    from scaling.sample import Request, write_samples

    request = Request(
        trained.run, trained.generator, trained.tokenizer, out, _numbers(classes), n, guidance, seed, sampling
    )
    paths = write_samples(request, report=lambda line: print(line, file=sys.stderr))
    print(f"{len(paths) - 1} pictures of run {trained.run.run_id} ({trained.run.label}); sheet: {paths[-1]}")


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder for weights, model.json and the model card; must not be there.")],
    root: RootOption = Path("runs"),
) -> None:
    """Write both stages of a finished run for others: safetensors, one JSON, a model card."""
    import json

    from results import Store
    from sweeps.record.trained import trained_generator

    trained = trained_generator(root, run)
    from scaling.export import write_export

    rows = Store(trained.root).read("evaluations", run_ids=[trained.run.run_id]).to_pylist()
    paths = write_export(trained.run, trained.generator, trained.tokenizer, out, json.loads(trained.provenance), rows)
    print("\n".join(map(str, paths)))


def import_(
    tokenizer: Annotated[
        Path, typer.Option(help="LlamaGen's file, such as vq_ds16_c2i.pt, or a VQModel folder of diffusers.")
    ],
    generator: Annotated[Path, typer.Option(help="LlamaGen's file, such as c2i_B_256.pt; its tensors tell the size.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, model.json and the model card; must not be there.")],
    image_size: Annotated[int, typer.Option(min=1, help="Side of the pictures, in pixels.")],
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side that the tokenizer encodes, such as 384; default: --image-size.")
    ] = None,
) -> None:
    """Write LlamaGen's weights of both stages as `export` writes a run's; nothing in its files is executed."""
    from scaling.importing import import_pair

    print("\n".join(map(str, import_pair(tokenizer, generator, out, image_size, input_size))))


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if wrong := [word for word in words if not word.isdecimal()]:
        raise UsageError(f"classes = {wrong[0]!r} is not allowed; allowed: numbers, separated by commas, such as 3,7")
    return tuple(map(int, words))
