"""Composes `stamps`: a cut-out photograph of a thing on a crop of one of nature, or on white, as shards in the cache.

Everything drawn of composition i of a split comes from a generator named by (split, i). Training and validation share
neither things (a mirrored file goes with its original) nor backgrounds.
"""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from results.errors import DataError
from scaling.specification.stamps import CLASSES, NAME, SIDE, VALIDATION_NATURE, Background, composition, fingerprint

from .catalogue_files import locked
from .stamps_files import Report, find, nature_files, stamp_files

Split = Literal["train", "validation"]
SHARD = 4_096
"""Pictures a shard: 51 MB."""
VALIDATION_EVERY = 5
"""One thing in so many validates, by a hash of its name."""
THING_SIDE, NATURE_SIDE = 128, 320
"""Longest side of things, and shortest of backgrounds, from which compositions are made."""
THING_SHARE = (0.55, 0.95)
"""The longest side of a thing, as a share of the picture's."""
CROP_SHARE = (0.3, 1.0)
"""The side of a crop, as a share of the background's shortest."""


def _silent(line: str) -> None:
    pass


def composed(path: str, cache: Path, report: Report = _silent) -> Path:
    """The folder with the shards of a set (a location's path), composed if it is not there.

    Whoever composes it puts it in place by one rename; others wait. Raises DataError where the photographs are not
    found or the cache cannot be written.
    """
    train, validation, background = composition(path)
    folder = cache / NAME / f"{train}-{validation}-{fingerprint(train, validation, background)[:12]}"
    if folder.is_dir():
        return folder
    root = find(cache, report)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock"), report):
            if not folder.is_dir():
                temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="composing-"))
                try:
                    for split, count in (("train", train), ("validation", validation)):
                        things = material(root, split, background)  # type: ignore[arg-type]
                        _write(temporary, split, count, things, report)  # type: ignore[arg-type]
                    temporary.rename(folder)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{NAME}: {folder} cannot be written ({error.strerror})") from error
    return folder


@dataclass(frozen=True, eq=False)
class Material:
    """What the pictures of a split are made of: things by class, in RGBA, and backgrounds; without any, it is white."""

    things: dict[str, list[Image.Image]]
    backgrounds: list[Image.Image]


def material(root: Path, split: Split, background: Background = "nature") -> Material:
    """The photographs of a split below `root`, at the sizes from which compositions are made."""
    things = {label: [_thing(path) for path in _of_split(stamp_files(root, label), split)] for label in CLASSES}
    if background == "white":
        return Material(things, [])
    validates = split == "validation"
    backgrounds = [_nature(path) for path in nature_files(root) if (path.stem in VALIDATION_NATURE) == validates]
    return Material(things, backgrounds)


def _of_split(paths: list[Path], split: Split) -> list[Path]:
    """One object in VALIDATION_EVERY validates; at least one."""

    def original(path: Path) -> str:
        return path.stem.removesuffix("_mirror")

    names = sorted({original(path) for path in paths}, key=lambda name: hashlib.sha256(name.encode()).digest())
    validating = set(names[::VALIDATION_EVERY])
    return [path for path in paths if (original(path) in validating) == (split == "validation")]


def _thing(path: Path) -> Image.Image:
    with Image.open(path) as file:
        image = file.convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    if max(image.size) <= THING_SIDE:
        return image
    return image.resize(_scaled(image, THING_SIDE), Image.Resampling.LANCZOS)


def _nature(path: Path) -> Image.Image:
    with Image.open(path) as file:
        image = file.convert("RGB")
    factor = NATURE_SIDE / min(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def _scaled(image: Image.Image, longest: int) -> tuple[int, int]:
    """Width and height of an image whose longest side becomes `longest`."""
    factor = longest / max(image.size)
    return max(round(image.width * factor), 1), max(round(image.height * factor), 1)


def label_of(index: int) -> str:
    """The class of composition `index`: the classes in turn."""
    return list(CLASSES)[index % len(CLASSES)]


def compose(things: Material, split: Split, index: int) -> Image.Image:
    """Composition `index` of a split, RGB of SIDE x SIDE pixels."""
    # Python keeps the stream of random() for ever, unlike that of numpy's distributions.
    draws = random.Random(f"{NAME}/{split}/{index}").random

    def between(low: float, high: float) -> float:
        return low + (high - low) * draws()

    label = label_of(index)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    if things.backgrounds:
        background = things.backgrounds[int(draws() * len(things.backgrounds))]
        side = round(between(*CROP_SHARE) * NATURE_SIDE)
        left, top = (int(draws() * (extent - side + 1)) for extent in background.size)
        picture = background.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if draws() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    candidates = things.things[label]
    thing = candidates[int(draws() * len(candidates))]
    thing = thing.resize(_scaled(thing, round(between(*THING_SHARE) * SIDE)), Image.Resampling.LANCZOS)
    # Writing on signs would be reversed.
    if draws() < 0.5 and label != "sign":
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    place = int(draws() * (SIDE - thing.width + 1)), int(draws() * (SIDE - thing.height + 1))
    picture.paste(thing, place, thing)
    return picture


def _write(folder: Path, split: Split, count: int, things: Material, report: Report) -> None:
    """The compositions of a split in shards; as bitmaps, whose bytes depend on no encoder's version."""
    for begin in range(0, count, SHARD):
        end = min(begin + SHARD, count)
        report(f"{NAME}: composing {split} pictures, {begin:,} of {count:,}")
        with tarfile.open(folder / f"{split}-{begin // SHARD:05d}.tar", "w") as shard:
            for index in range(begin, end):
                buffer = io.BytesIO()
                compose(things, split, index).save(buffer, "BMP")
                entry = tarfile.TarInfo(f"{label_of(index)}/{index:08d}.bmp")
                entry.size = buffer.tell()
                buffer.seek(0)
                shard.addfile(entry, buffer)
