"""Pictures made for tests, and the same pictures in every layout."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from scaling.data.sources.pictures import Pictures

CLASSES = ("bird", "cat", "dog")
Contents = dict[str, bytes]
"""Encoded pictures by relative name, CLASS/NAME."""


def pixels(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    """A smooth picture with some noise, uint8 [h, w, c] or [h, w]."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (5 + random.uniform(0, 9)) + columns / (4 + random.uniform(0, 9))) for _ in range(channels)]
    values = np.stack(waves, axis=2) * 90 + 128 + random.normal(0, 6, (height, width, channels))
    values = values.clip(0, 255).astype(np.uint8)
    return values if channels > 1 else values[:, :, 0]


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def made(count: int, seed: int = 0, classes: tuple[str, ...] = CLASSES, side: int = 24) -> Contents:
    """JPEGs and PNGs of mixed sizes, `count` of each class."""
    contents = {}
    for number in range(count * len(classes)):
        name, kind = classes[number % len(classes)], ("JPEG", "PNG")[number % 2]
        random = np.random.default_rng(seed * 10_000 + number)
        width, height = (int(value) for value in random.integers(side, 3 * side, 2))
        picture = pixels(seed * 10_000 + number, width, height)
        contents[f"{name}/{number:05d}.{'jpg' if kind == 'JPEG' else 'png'}"] = encoded(picture, kind)
    return contents


def write_folder(root: Path, contents: Mapping[str, bytes]) -> Path:
    """As files."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file of a tar archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_shards(
    root: Path, contents: Mapping[str, bytes], prefix: str = "data", each: int = 7, label: str = "cls"
) -> Path:
    """As tar shards with labels: `cls` class names, `json` class names, `number` class numbers, `` none."""
    root.mkdir(parents=True, exist_ok=True)
    names = list(contents)
    order = np.random.default_rng(1).permutation(len(names))
    for shard, begin in enumerate(range(0, len(names), each)):
        with tarfile.open(root / f"{prefix}-{shard:04d}.tar", "w") as archive:
            for index in order[begin : begin + each]:
                name, key = names[index], names[index].rpartition(".")[0]
                class_name = name.partition("/")[0]
                add_member(archive, name, contents[name])
                if label == "json":
                    add_member(archive, f"{key}.json", json.dumps({"label": class_name, "size": 3}).encode())
                elif label:
                    text = class_name if label == "cls" else str(CLASSES.index(class_name))
                    add_member(archive, f"{key}.cls", text.encode() + b"\n")
    return root


def arrow_table(contents: Mapping[str, bytes], struct: bool = True, classes: tuple[str, ...] = CLASSES) -> pa.Table:
    """As Hugging Face stores it, rows in another order than the names."""
    names = [list(contents)[i] for i in np.random.default_rng(2).permutation(len(contents))]
    images = [{"bytes": contents[name], "path": name} if struct else contents[name] for name in names]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    labels = [classes.index(name.partition("/")[0]) for name in names]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"image": pa.array(images, kind), "label": labels}, schema=schema)


def write_parquet(path: Path, contents: Mapping[str, bytes], struct: bool = True, group: int = 4) -> Path:
    """As a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow_table(contents, struct), path, row_group_size=group)
    return path


def write_saved(root: Path, splits: Mapping[str, Mapping[str, bytes]]) -> Path:
    """As the folder that `DatasetDict.save_to_disk` writes."""
    for split, contents in splits.items():
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        table = arrow_table(contents)
        half = len(table) // 2
        for number, piece in enumerate((table[:half], table[half:])):
            path = folder / f"data-{number:05d}-of-00002.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(piece, max_chunksize=3)
        files = [{"filename": f"data-{number:05d}-of-00002.arrow"} for number in range(2)]
        (folder / "state.json").write_text(json.dumps({"_data_files": files, "_indices_data_files": None}))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return root


def write_zip(path: Path, contents: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """As a zip archive."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def check_same(pictures: Pictures, contents: dict[str, bytes]) -> None:
    names = sorted(contents)
    assert list(pictures.names) == names
    assert [pictures.read(i) for i in range(len(names))] == [contents[name] for name in names]
    assert [pictures.class_names[label] for label in pictures.labels] == [name.partition("/")[0] for name in names]
    assert sorted(pictures.storage_order().tolist()) == list(range(len(names)))
    assert len({pictures.stamp(i) for i in range(len(names))}) == len(names)
    assert all(name.rpartition("/")[2] in pictures.where(i) for i, name in enumerate(names))
