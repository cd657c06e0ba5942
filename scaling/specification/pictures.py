"""A user's own pictures as a study names them: where they lie, what a run sees of them, and what identifies them.

The three are apart because they differ in what they are part of. `PicturesView` and the pinned facts of `PicturesSpec`
are a run's, so they are in its canonical text and its id. `PicturesLocation` is not: the same pictures moved to another
folder, or packed into shards, are the same runs. What joins them is the fingerprint of the contents: under it
scaling.data.sources.locations keeps the location, and gives it back to the process that trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from results.errors import SpecError

from .components import DataSpec, Frozen, NonNegativeInt, PositiveInt

Source = Literal["folder", "shards", "parquet", "huggingface", "imagenet", "stamps"]
"""Layouts that are read in place, and the pictures that are composed (stamps.py); `builtin` is the catalogue."""


class PicturesView(Frozen):
    """What a run sees of each picture: its side in pixels, its channels, which crop, and whether mirrored at random.

    crop: `center` is ADM's (halved by a box filter while the shorter side is at least twice image_size, then bicubic,
    then the middle); `random` is ADM's random crop; `ten` takes corners and middle, and their mirror images, of a
    central crop a tenth larger. Validation always sees the central crop, never mirrored.
    """

    image_size: Annotated[int, Field(gt=0, le=4096)] = 256
    channels: Literal[1, 3] = 3
    crop: Literal["center", "random", "ten"] = "center"
    flip: bool = False

    @property
    def fixed_views(self) -> int:
        """In how many ways each training picture is encoded: of ten crops all, else the middle and its mirror image."""
        return 10 if self.crop == "ten" else 2 if self.flip else 1

    @property
    def is_central(self) -> bool:
        """Whether training too sees the middle of each picture and nothing else."""
        return self.crop == "center" and not self.flip

    @property
    def central(self) -> PicturesView:
        """As metrics and validation see pictures: the central crop, never mirrored."""
        return PicturesView(image_size=self.image_size, channels=self.channels)


class PicturesSpec(PicturesView):
    """Pictures as part of a run's identity: the view, and what was there, pinned by content."""

    kind: Literal["pictures"] = "pictures"
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 over split, name, label and SHA-256 of every picture that is used; see sources.fingerprint."""
    classes: PositiveInt
    train_images: PositiveInt
    validation_images: PositiveInt

    @property
    def name(self) -> str:
        """For tables and protocols; pictures have no name of their own."""
        return f"pictures-{self.fingerprint[:12]}"

    @property
    def preprocessing(self) -> str:
        """What metrics see, for their protocol."""
        return f"center{self.image_size}" + ("-grey" if self.channels == 1 else "")


LEAST_VALIDATION = 40
"""Fewest validation pictures of a study: rFID's standard error needs twice 20 blocks."""

UNSEEN = "0" * 64
"""The fingerprint of pictures that were planned by their published counts, without being there: no SHA-256 is it."""


def imagenet_unseen(view: PicturesView) -> PicturesSpec:
    """ImageNet (ILSVRC 2012) by its published counts, for plans where it is not; ids are others once its content is
    known."""
    return PicturesSpec(
        **view.model_dump(), fingerprint=UNSEEN, classes=1000, train_images=1_281_167, validation_images=50_000
    )


ImagesSpec = DataSpec | PicturesSpec
"""Which images a run sees: a catalogue's, or a user's own."""


class PicturesLocation(Frozen):
    """Where pictures lie and how they are read: no part of a run's identity.

    train_split, validation_split: folders, or words in the names of shards and Parquet files; None: `train`, and the
    first of `validation`, `val`, `valid`, `test` that there is. Without a validation split, `validation_fraction` of
    each class is drawn by content, with `validation_seed`; a larger share, of every class alike and up to half, where
    that is fewer than LEAST_VALIDATION.
    image_column, label_column: of Parquet and Hugging Face tables; the latter is also the key in a shard's JSON.
    on_damaged: what happens with files that cannot be decoded, and with classes that are empty or missing from
    validation: the study is refused, or they are left out and counted. on_small: the same for pictures whose shorter
    side is below image_size, or `enlarge`, as ADM does without a word.
    """

    source: Source
    path: Annotated[str, Field(min_length=1)]
    train_split: str | None = None
    validation_split: str | None = None
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_seed: NonNegativeInt = 0
    image_column: str = "image"
    label_column: str = "label"
    on_damaged: Literal["refuse", "skip"] = "refuse"
    on_small: Literal["refuse", "skip", "enlarge"] = "refuse"

    @field_validator("path")
    @classmethod
    def _text(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError(f"data.path = {value!r} holds a zero byte; allowed: the path of a folder or file")
        return value

    @property
    def folder(self) -> Path:
        """The absolute path, `~` expanded."""
        return Path(self.path).expanduser().absolute()


def read_table(table: Mapping[str, Any]) -> tuple[PicturesLocation, PicturesView]:
    """Location and view from a study's [data] table. Raises SpecError that names field, value and what is allowed."""
    unknown = [name for name in table if name not in PicturesLocation.model_fields | PicturesView.model_fields]
    if unknown:
        allowed = ", ".join([*PicturesLocation.model_fields, *PicturesView.model_fields])
        raise SpecError(f"data.{unknown[0]} is not a field of pictures; allowed: {allowed}")
    # What is composed is named as `builtin`, never by its own layout.
    *others, last = (name for name in get_args(Source) if name != "stamps")
    if table.get("source", last) not in (*others, last):
        allowed = ", ".join(map(repr, others))
        raise SpecError(f"data.source = {table['source']!r}: Input should be {allowed} or {last!r}")
    try:
        location = PicturesLocation(**{k: v for k, v in table.items() if k in PicturesLocation.model_fields})
        return location, PicturesView(**{k: v for k, v in table.items() if k in PicturesView.model_fields})
    except ValidationError as error:
        raise SpecError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            lines.append(f"data.{name} is missing; pictures of one's own need data.source and data.path")
        elif item["type"] == "value_error":
            lines.append(message)
        else:
            lines.append(f"data.{name} = {item['input']!r}: {message}")
    return "; ".join(lines)


def too_few(location: PicturesLocation, validation_images: int) -> str:
    """Why a study on so few validation pictures is refused; empty where they are enough."""
    if validation_images >= LEAST_VALIDATION:
        return ""
    return (
        f"data.path = {location.path!r} gives {validation_images} validation pictures; allowed: at least "
        f"{LEAST_VALIDATION}, for a distance with its standard error; a split without them needs more pictures"
    )
