"""The commands on images: data inspect, what lies at a path and what a run would see of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from results.errors import UsageError

from .options import JsonOption

data = typer.Typer(
    name="data",
    no_args_is_help=True,
    add_completion=False,
    help="Look at a user's own pictures before a study trains on them.",
)


@data.callback()
def _callback() -> None:
    # With it, a single command keeps its name.
    pass


@data.command()
def inspect(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder, a .tar, .parquet or .zip, or a data set's name.")
    ],
    source: Annotated[
        str | None,
        typer.Option(help="folder, shards, parquet, huggingface or imagenet; default: by what lies there."),
    ] = None,
    image_size: Annotated[int, typer.Option(min=1, help="Side in pixels that a study would use.")] = 256,
    channels: Annotated[int, typer.Option(help="3 for colour, 1 for grey.")] = 3,
    crop: Annotated[str, typer.Option(help="center, random or ten.")] = "center",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other field of [data], as in a study.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of what a run would see (.png).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count, check and show the pictures at PATH; exit 1 if a study of this size would refuse them."""
    from scaling.data.inspection import in_words
    from scaling.data.inspection import inspect as inspect_pictures
    from scaling.data.sources.opening import guess_source
    from scaling.specification.pictures import read_table
    from sweeps.study.own_pictures import on_terminal

    place = Path(path).expanduser()
    if source is None:
        source = guess_source(place) if place.exists() else "folder"
    table = {"source": source, "path": path, "image_size": image_size, "channels": channels, "crop": crop}
    location, view = read_table(table | dict(_assignment(text) for text in sets or ()))
    inspection, prepared = inspect_pictures(location, view, report=on_terminal)
    if as_json:
        print(json.dumps(inspection.as_json(), indent=1))
    else:
        print(in_words(inspection))
    if sheet is not None and prepared is not None:
        from scaling.data.contact_sheet import contact_sheet, save_sheet

        save_sheet(contact_sheet(prepared.train, view), sheet)
        print(f"contact sheet: {sheet}", file=sys.stderr)
    raise typer.Exit(int(bool(inspection.problem)))


def _assignment(text: str) -> tuple[str, object]:
    """Name and value of NAME=VALUE; a value that is no TOML is a text."""
    import tomllib

    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--set = {text!r} is not allowed; allowed: NAME=VALUE, such as on_damaged=skip")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
