"""The built-in colour pictures `stamps`: what they are composed of, by content, and what identifies a set. No torch.

Photographs of things, cut out, on crops of photographs of nature: 64 pixels, ten classes. The things are Tux Paint's
stamps (Debian's tuxpaint-stamps-default), the nature is MATE's (mate-backgrounds); both are GPL-2+, so neither is
shipped. Composition number i of a split depends on split and i alone: a larger set begins with the smaller ones. On
white, which is what a generator of minutes can learn, the things alone are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from results.errors import SpecError

from .components import Frozen
from .pictures import PicturesLocation, PicturesSpec, PicturesView

NAME = "stamps"
SIDE = 64
"""Pixels a side of a composed picture."""
VERSION = 1
"""Of the rules of composition."""
PACKAGES = ("tuxpaint-stamps-default", "mate-backgrounds")
STAMPS, NATURE = "tuxpaint/stamps", "backgrounds/mate/nature"
"""Folders of the packages, below /usr/share."""
CLASSES: dict[str, tuple[str, ...]] = {
    "bird": ("animals/birds",),
    "fish": ("animals/fish",),
    "flower": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "mammal": ("animals/mammals",),
    "planet": ("space/moon", "space/planets"),
    "sign": ("town/roadsigns",),
    "tool": ("household/tools",),
    "vegetable": ("food/vegetables",),
    "vehicle": ("vehicles",),
}
"""Classes, and the folders of STAMPS whose photographs they are made of."""
DRAWN = ("cartoon", "toys", "plastic")
"""Folders below them that hold no photographs of the class."""
VALIDATION_NATURE = ("Aqua", "Garden", "RainDrops")
"""Backgrounds of validation; the other nine are training's."""
CONTENT = "aa8416e9cec201b1b25f990dd2219d924f8565e32e258bf0a8b292fa975af18e"
"""SHA-256 over a line `name NUL sha256` for each of the files used, by name: of version 2022.06.04 and 1.26."""

Background = Literal["nature", "white"]


class StampsTable(Frozen):
    """What a study may say of these pictures in [data], besides `source = "builtin"` and `name = "stamps"`."""

    image_size: Annotated[int, Field(gt=0, le=SIDE)] = SIDE
    train_images: Annotated[int, Field(ge=len(CLASSES), le=10_000_000)] = 65_536
    validation_images: Annotated[int, Field(ge=len(CLASSES), le=1_000_000)] = 2_048
    background: Background = "nature"
    """nature: crops of photographs; white: none, the thing alone."""


def fingerprint(train_images: int, validation_images: int, background: Background = "nature") -> str:
    """What identifies a set: a hash of its content before composition, the rules, its size, and another background."""
    text = f"{NAME}|{VERSION}|{CONTENT}|{train_images}|{validation_images}"
    return hashlib.sha256((text if background == "nature" else f"{text}|{background}").encode()).hexdigest()


def pinned(table: Mapping[str, Any]) -> tuple[PicturesLocation, PicturesSpec]:
    """Where the pictures of a study's [data] table lie, and what its runs say of them; nothing is looked at.

    Raises SpecError that names field, value and what is allowed.
    """
    values = {key: value for key, value in table.items() if key not in ("source", "name")}
    if unknown := [key for key in values if key not in StampsTable.model_fields]:
        allowed = ", ".join(StampsTable.model_fields)
        raise SpecError(f"data.{unknown[0]} is not a field of data.name = {NAME!r}; allowed: {allowed}")
    try:
        wanted = StampsTable(**values)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise SpecError(f"data.{item['loc'][0]} = {item['input']!r}: {item['msg']}") from error
    view = PicturesView(image_size=wanted.image_size)
    train, validation, background = wanted.train_images, wanted.validation_images, wanted.background
    spec = PicturesSpec(
        **view.model_dump(), fingerprint=fingerprint(train, validation, background), classes=len(CLASSES),
        train_images=train, validation_images=validation,
    )  # fmt: skip
    path = f"{train}/{validation}" + ("" if background == "nature" else f"/{background}")
    return PicturesLocation(source="stamps", path=path), spec


def composition(path: str) -> tuple[int, int, Background]:
    """Pictures of training and validation, and their background, from the path of a location that `pinned` made."""
    train, validation, *rest = path.split("/")
    return int(train), int(validation), "white" if rest == ["white"] else "nature"
