"""Opens pictures by their location: both splits, or one that is still to be divided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from results.errors import DataError
from scaling.specification.pictures import PicturesLocation, Source

from .builtin.stamps import composed
from .layouts.folder import open_folder
from .layouts.huggingface import open_arrows, split_arrows
from .layouts.imagenet import BELOW, open_imagenet
from .layouts.parquet import open_parquet
from .layouts.shards import COMPRESSED, open_shards
from .pictures import Pictures
from .splits import split_files, split_folders


@dataclass(frozen=True)
class Opened:
    """Pictures as they lie there: undivided if `validation` is None. Their classes have one numbering."""

    train: Pictures
    validation: Pictures | None


def open_pictures(location: PicturesLocation, cache: Path) -> Opened:
    """Lists the pictures and their labels; no picture is read. Raises DataError that names file and reason."""
    root, first, second = location.folder, location.train_split, location.validation_split
    if location.source == "huggingface":
        train_files, validation_files = split_arrows(root, location.path, first, second)
        return _tables(open_arrows, location, tuple(train_files), tuple(validation_files))
    if location.source == "stamps":
        root, first, second = composed(location.path, cache), "train", "validation"
    elif not root.exists():
        raise DataError(f"data.path = {location.path!r} does not exist")
    if location.source == "folder":
        if not root.is_dir():
            raise DataError(f"data.path = {location.path!r} is no folder, which data.source = 'folder' needs")
        train_folder, validation_folder = split_folders(root, first, second)
        train = open_folder(train_folder)
        return Opened(train, open_folder(validation_folder, train.class_names) if validation_folder else None)
    if location.source == "imagenet":
        return Opened(*open_imagenet(root, cache))
    if location.source == "parquet":
        return _tables(open_parquet, location, *split_files(root, ".parquet", first, second))
    paths, others = split_files(root, ".tar", first, second)
    shards = open_shards(root, paths, cache, location.label_column)
    # Words among labels are numbered by training; numbers may leave out the last class there.
    validation = open_shards(root, others, cache, location.label_column, shards.class_names) if others else None
    return Opened(shards, validation)


def _tables(
    opener: Callable[..., Pictures], location: PicturesLocation, train: tuple[Path, ...], validation: tuple[Path, ...]
) -> Opened:
    columns = location.image_column, location.label_column
    first: Pictures = opener(location.folder, train, *columns)
    second: Pictures | None = None
    if validation:
        second = opener(location.folder, validation, *columns, first.class_names)
    return Opened(first, second)


def guess_source(path: Path) -> Source:
    """The layout of what lies there, by its names. Raises DataError if it is none, or cannot be listed."""
    try:
        if path.is_file():
            by_ending: dict[str, Source] = {".tar": "shards", ".parquet": "parquet", ".zip": "imagenet"}
            if path.suffix in by_ending:
                return by_ending[path.suffix]
            raise DataError(f"{path} is no .tar, .parquet or .zip; allowed: one of these, or a folder")
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return "huggingface"
        names = sorted(entry.name for entry in path.iterdir())
        for folder in (path, *(path / name for name in names if (path / name).is_dir())):
            for name in sorted(entry.name for entry in folder.iterdir()):
                if name.endswith((".tar", *COMPRESSED)):
                    return "shards"
                if name.endswith(".parquet"):
                    return "parquet"
        train = next((path / below / "train" for below in BELOW if (path / below / "train").is_dir()), None)
        if train is not None and next((e for e in train.iterdir() if len(e.name) == 9 and e.name[1:].isdigit()), None):
            return "imagenet"
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read ({error.strerror})") from error
    return "folder"
