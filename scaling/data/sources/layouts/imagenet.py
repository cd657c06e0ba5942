"""ImageNet's own layouts: train/WNID folders and a flat validation folder with its list, unpacked or in Kaggle's zip.

Classes are numbered by sorted WNID, as the field does. The list of validation labels is LOC_val_solution.csv (Kaggle),
imagenet_2012_validation_synset_labels.txt (TensorFlow), or ILSVRC2012_validation_ground_truth.txt of the development
kit together with its meta.mat: the kit's numbers are not those of sorted WNIDs, so they need its own table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError
from scaling.data.decode import SUFFIXES

from ..labels import listed
from ..names import Names
from ..pictures import Pictures, file_stamp, read_file
from .folder import list_pictures
from .zipped import ZipArchive, open_zip

BELOW = ("", "ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/", "CLS-LOC/")
"""Where in an archive or folder `train` and `val` may lie."""
VALIDATION_FOLDERS = ("val", "validation")
KAGGLE, SYNSETS, KIT, KIT_TABLE = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "meta.mat",
)
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, eq=False)
class ImageNetPictures:
    """Pictures of one split, in a folder `base` or an archive; see Pictures. `members` are numbers in the archive."""

    base: Path
    names: Names
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    archive: ZipArchive | None = None
    members: NDArray[np.int64] | None = None

    @property
    def origin(self) -> str:
        return str(self.base)

    def read(self, index: int) -> bytes:
        if self.archive is not None and self.members is not None:
            return self.archive.read(int(self.members[index]))
        return read_file(f"{self.base}/{self.names[index]}")

    def where(self, index: int) -> str:
        if self.archive is not None and self.members is not None:
            return self.archive.where(int(self.members[index]))
        return f"{self.base}/{self.names[index]}"

    def stamp(self, index: int) -> bytes:
        if self.archive is not None and self.members is not None:
            return self.archive.stamp + f"\0{self.archive.offsets[self.members[index]]}".encode()
        return file_stamp(f"{self.base}/{self.names[index]}")

    def storage_order(self) -> NDArray[np.int64]:
        if self.archive is not None and self.members is not None:
            return np.argsort(self.archive.offsets[self.members], kind="stable")
        return np.arange(len(self.names))


def open_imagenet(root: Path, cache: Path) -> tuple[Pictures, Pictures | None]:
    """Training and validation. The second is None where there is no validation folder.

    Raises DataError: no folder train with folders of WNIDs, a validation picture that its list lacks, no list.
    """
    if root.is_file():
        return _from_zip(open_zip(root, cache), root)
    base = next((root / below for below in BELOW if (root / below / "train").is_dir()), None)
    if base is None:
        raise DataError(f"{root} has no folder train; allowed: ImageNet's folder with train and val, or Kaggle's zip")
    train_names = Names.of(list_pictures(base / "train"))
    labels, wnids = _training_labels(train_names, base / "train")
    train = ImageNetPictures(base / "train", train_names, labels, wnids)
    folder = next((base / name for name in VALIDATION_FOLDERS if (base / name).is_dir()), None)
    if folder is None:
        return train, None
    names = Names.of(list_pictures(folder))

    def text(name: str) -> bytes | None:
        places = (folder, base, root, *base.parents[:3], base / "ILSVRC2012_devkit_t12/data")
        path = next((place / name for place in places if (place / name).is_file()), None)
        return read_file(path) if path else None

    values = _validation_labels(names, wnids, text, str(folder))
    return train, ImageNetPictures(folder, names, values, wnids)


def _from_zip(archive: ZipArchive, root: Path) -> tuple[Pictures, Pictures | None]:
    raws = list(archive.names.raws())
    below = next((b for b in BELOW if any(raw.startswith(f"{b}train/".encode()) for raw in raws)), None)
    if below is None:
        raise DataError(f"{root} has no folder train; allowed: Kaggle's imagenet-object-localization-challenge.zip")

    def split(folder: str) -> tuple[Names, NDArray[np.int64]]:
        prefix = f"{below}{folder}/".encode()
        numbers = [i for i, raw in enumerate(raws) if raw.startswith(prefix) and _is_picture(raw)]
        names = Names.of(raws[i][len(prefix) :] for i in numbers)
        order = names.order()
        return names.take(order), np.array(numbers, np.int64)[order]

    names, members = split("train")
    labels, wnids = _training_labels(names, root)
    train = ImageNetPictures(root, names, labels, wnids, archive, members)
    for folder in VALIDATION_FOLDERS:
        names, members = split(folder)
        if not len(names):
            continue

        def text(name: str) -> bytes | None:
            number = next((i for i, raw in enumerate(raws) if raw.rpartition(b"/")[2] == name.encode()), None)
            beside = root.parent / name
            return archive.read(number) if number is not None else read_file(beside) if beside.is_file() else None

        values = _validation_labels(names, wnids, text, f"{root}: {below}{folder}")
        return train, ImageNetPictures(root, names, values, wnids, archive, members)
    return train, None


def _is_picture(raw: bytes) -> bool:
    name = raw.rpartition(b"/")[2]
    ending = name.rpartition(b".")[2].lower().decode("ascii", "replace")
    return not name.startswith(b".") and f".{ending}" in SUFFIXES


def _training_labels(names: Names, where: Path) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    firsts = [name.partition("/")[0] for name in names]
    strange = next((index for index, first in enumerate(firsts) if not _WNID.fullmatch(first)), None)
    if not firsts or strange is not None:
        name = names[strange] if strange is not None else "nothing"
        raise DataError(f"{where}: {name} is in no folder of a WNID; allowed: train/n01440764/NAME.JPEG and the like")
    wnids = tuple(sorted(set(firsts)))
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    return np.fromiter((numbers[first] for first in firsts), np.int32, len(firsts)), wnids


def _validation_labels(
    names: Names, wnids: tuple[str, ...], text: Callable[[str], bytes | None], where: str
) -> NDArray[np.int32]:
    """Class numbers of validation pictures, by their folders or by the list. Raises DataError, naming the picture."""
    if all(_WNID.match(name) and "/" in name for name in names):
        labels = {name: name.partition("/")[0] for name in names}
    else:
        labels = _list(text, where)
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    values = np.zeros(len(names), np.int32)
    for index, name in enumerate(names):
        wnid = labels.get(name) or labels.get(name.rpartition("/")[2].partition(".")[0])
        if wnid is None:
            raise DataError(f"{where}/{name} is not in the list of validation labels ({len(labels):,} entries)")
        if wnid not in numbers:
            raise DataError(f"{where}/{name}: class {wnid} is not in train; allowed: {listed(wnids)}")
        values[index] = numbers[wnid]
    return values


def _list(text: Callable[[str], bytes | None], where: str) -> dict[str, str]:
    """WNIDs by picture without its ending. Raises DataError without a list, or for one that is damaged."""
    try:
        if (content := text(KAGGLE)) is not None:
            lines = [line.split(",") for line in content.decode().splitlines()[1:] if line.strip()]
            return {line[0].strip(): line[1].split()[0] for line in lines}
        if (content := text(SYNSETS)) is not None:
            return _by_number(content.decode().split())
        if (content := text(KIT)) is not None:
            table = text(KIT_TABLE)
            if table is None:
                raise DataError(
                    f"{where}: {KIT} needs the kit's {KIT_TABLE} beside it: its numbers are not sorted WNIDs"
                )
            wnids = _kit_wnids(table)
            return _by_number([wnids[int(number)] for number in content.decode().split()])
    except (UnicodeDecodeError, IndexError, KeyError, ValueError) as error:
        raise DataError(f"{where}: the list of validation labels is damaged ({error})") from error
    raise DataError(f"{where} is flat, and its list is neither in nor beside it; allowed: {KAGGLE}, {SYNSETS}, {KIT}")


def _by_number(wnids: list[str]) -> dict[str, str]:
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(wnids, 1)}


def _kit_wnids(table: bytes) -> dict[int, str]:
    """WNIDs by the kit's number."""
    import io

    from scipy.io import loadmat

    tables = loadmat(io.BytesIO(table), squeeze_me=True)  # type: ignore[arg-type]
    rows = tables["synsets"]
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(rows)}
