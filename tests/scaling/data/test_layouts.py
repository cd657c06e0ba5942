"""Every layout gives the same pictures, labels and fingerprint; what is wrong with one is told in one line."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pyarrow_parquet

from results.errors import DataError
from scaling.data.sources.fingerprint import Prepared, prepare
from scaling.data.sources.layouts.folder import open_folder
from scaling.data.sources.layouts.imagenet import open_imagenet
from scaling.data.sources.layouts.shards import open_shards
from scaling.data.sources.layouts.zipped import open_zip
from scaling.data.sources.opening import guess_source, open_pictures
from scaling.data.sources.pictures import RangeReader
from scaling.specification.pictures import PicturesLocation, PicturesView

from .made_pictures import (
    CLASSES,
    add_member,
    arrow_table,
    check_same,
    made,
    write_folder,
    write_parquet,
    write_saved,
    write_shards,
    write_zip,
)

VIEW = PicturesView(image_size=16)
TRAIN, VALIDATION = made(6, 1), made(2, 2)


def prepared(tmp_path: Path, source: str, root: Path, **fields: Any) -> Prepared:
    return prepare(PicturesLocation(source=source, path=str(root), **fields), VIEW, tmp_path / "cache")


def layouts(root: Path) -> dict[str, tuple[str, Path]]:
    """Both splits in every layout."""
    both = {"train": TRAIN, "val": VALIDATION}
    for split, contents in both.items():
        write_folder(root / "folder" / split, contents)
        write_shards(root / "shards", contents, split)
        write_shards(root / "json" / split, contents, label="json")
        write_shards(root / "numbers" / split, contents, label="number")
        write_shards(root / "unlabelled" / split, contents, label="")
        write_parquet(root / "parquet" / "data" / f"{split}-00000-of-00001.parquet", contents)
    write_saved(root / "saved", both)
    sources = dict.fromkeys(("shards", "json", "numbers", "unlabelled"), "shards")
    sources |= {"folder": "folder", "parquet": "parquet", "saved": "huggingface"}
    return {name: (source, root / name) for name, source in sources.items()}


def test_the_same_pictures_in_every_layout(tmp_path: Path) -> None:
    results = {}
    for name, (source, root) in layouts(tmp_path).items():
        assert guess_source(root) == source, name
        result = results[name] = prepared(tmp_path, source, root)
        if name == "numbers":
            assert result.train.class_names == ("0", "1", "2")
        else:
            check_same(result.train, TRAIN)
            check_same(result.validation, VALIDATION)
            assert result.train.class_names == result.validation.class_names == CLASSES
    assert len({result.fingerprint for result in results.values()}) == 1
    spec = results["folder"].pinned(VIEW)
    assert (spec.train_images, spec.validation_images, spec.classes) == (len(TRAIN), len(VALIDATION), 3)


def test_one_split_is_divided_by_content_alike_in_every_layout(tmp_path: Path) -> None:
    contents = TRAIN | {f"{name[:-4]}-copy{name[-4:]}": content for name, content in list(TRAIN.items())[:5]}
    write_folder(tmp_path / "folder", contents)
    write_shards(tmp_path / "shards", contents)
    write_parquet(tmp_path / "pictures.parquet", contents)
    roots = {"folder": "folder", "shards": "shards", "parquet": "pictures.parquet"}
    results = [
        prepared(tmp_path, source, tmp_path / root, validation_fraction=0.3) for source, root in roots.items()
    ]  # fmt: skip
    assert len({result.fingerprint for result in results}) == 1
    for result in results:
        train = {result.train.read(i) for i in range(len(result.train.names))}
        validation = {result.validation.read(i) for i in range(len(result.validation.names))}
        assert not train & validation and len(train | validation) == len(TRAIN)
        assert set(result.validation.labels.tolist()) == {0, 1, 2}
    other = prepared(tmp_path, "folder", tmp_path / "folder", validation_fraction=0.3, validation_seed=1)
    assert other.fingerprint != results[0].fingerprint


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_imagenet_folders_and_zip(tmp_path: Path, method: int) -> None:
    wnids = ("n01440764", "n01443537")
    train = {f"{wnid}/{wnid}_{i}.JPEG": content for wnid in wnids for i, content in enumerate(made(2, 3).values())}
    flat = {f"ILSVRC2012_val_{i:08d}.JPEG": content for i, content in enumerate(list(VALIDATION.values())[:3], 1)}
    order = [wnids[1], wnids[0], wnids[1]]
    listing = "ImageId,PredictionString\n" + "".join(
        f"{name[:-5]},{wnid} 1 2 3 4 \n" for name, wnid in zip(flat, order, strict=True)
    )
    below = {f"ILSVRC/Data/CLS-LOC/train/{name}": content for name, content in train.items()}
    below |= {f"ILSVRC/Data/CLS-LOC/val/{name}": content for name, content in flat.items()}
    below |= {"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": b"x", "LOC_val_solution.csv": listing.encode()}
    write_folder(tmp_path / "unpacked", below)
    write_zip(tmp_path / "imagenet.zip", below, method)
    fingerprints = set()
    for root in (tmp_path / "unpacked", tmp_path / "imagenet.zip"):
        assert guess_source(root) == "imagenet"
        result = prepared(tmp_path, "imagenet", root)
        check_same(result.train, train)
        assert [result.validation.class_names[label] for label in result.validation.labels] == order
        assert [result.validation.read(i) for i in range(3)] == list(flat.values())
        fingerprints.add(result.fingerprint)
    assert len(fingerprints) == 1
    # The list of TensorFlow's tools says the same; the kit's own numbers need its table.
    (tmp_path / "unpacked/LOC_val_solution.csv").unlink()
    base = tmp_path / "unpacked/ILSVRC/Data/CLS-LOC"
    (base / "ILSVRC2012_validation_ground_truth.txt").write_text("7\n3\n7\n")
    with pytest.raises(DataError, match=r"needs the kit's meta\.mat beside it: its numbers are not sorted WNIDs"):
        open_imagenet(tmp_path / "unpacked", tmp_path / "cache")
    from scipy.io import savemat

    rows = np.array([(3, wnids[0]), (7, wnids[1])], dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    savemat(base / "meta.mat", {"synsets": rows})
    assert prepared(tmp_path, "imagenet", tmp_path / "unpacked").fingerprint in fingerprints
    (base / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(order))
    assert prepared(tmp_path, "imagenet", tmp_path / "unpacked").fingerprint in fingerprints


def test_zip_of_zipfile_with_large_fields(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(zipfile.ZipInfo("a/b.png"), "w", force_zip64=True) as member,
    ):
        member.write(b"abc" * 1000)
    opened = open_zip(tmp_path / "large.zip", tmp_path / "cache")
    assert opened.read(0) == b"abc" * 1000 and list(opened.names) == ["a/b.png"]
    again = open_zip(tmp_path / "large.zip", tmp_path / "cache")
    assert again.read(0) == b"abc" * 1000


def test_binary_columns_and_texts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "binary.parquet", TRAIN, struct=False)
    opened = open_pictures(PicturesLocation(source="parquet", path=str(tmp_path / "binary.parquet")), tmp_path)
    assert sorted(opened.train.read(i) for i in range(len(TRAIN))) == sorted(TRAIN.values())
    assert opened.train.names[0] == "000000000"
    table = arrow_table(TRAIN).replace_schema_metadata(None)
    words = [CLASSES[label] for label in table.column("label").to_pylist()]
    table = table.drop_columns("label").append_column("kind", pa.array(words))
    pyarrow_parquet.write_table(table, tmp_path / "words.parquet", row_group_size=5)
    location = PicturesLocation(source="parquet", path=str(tmp_path / "words.parquet"), label_column="kind")
    check_same(open_pictures(location, tmp_path).train, TRAIN)


def test_keys_that_begin_anew_in_each_shard(tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"s{shard}.tar", "w") as archive:
            for key in range(3):
                add_member(archive, f"{key}.jpg", b"%d%d" % (shard, key))
                add_member(archive, f"{key}.cls", b"0")
    opened = open_shards(tmp_path, sorted(tmp_path.glob("*.tar")), tmp_path / "cache")
    assert list(opened.names)[:2] == ["s0/0.jpg", "s0/1.jpg"] and opened.read(5) == b"12"


def test_an_index_is_made_once_and_anew_for_a_changed_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, TRAIN, each=100)
    (path,) = tmp_path.glob("*.tar")
    first = open_shards(tmp_path, [path], tmp_path / "cache")
    (index,) = (tmp_path / "cache/shards").iterdir()
    before = index.stat().st_mtime_ns
    assert list(open_shards(tmp_path, [path], tmp_path / "cache").names) == list(first.names)
    assert index.stat().st_mtime_ns == before
    index.write_bytes(b"damaged")
    assert list(open_shards(tmp_path, [path], tmp_path / "cache").names) == list(first.names)
    write_shards(tmp_path, VALIDATION, each=100)
    os.utime(path, ns=(1, 1))
    check_same(open_shards(tmp_path, [path], tmp_path / "cache"), VALIDATION)


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RangeReader, "KEPT", 2)
    write_shards(tmp_path, TRAIN, each=2)
    check_same(open_shards(tmp_path, sorted(tmp_path.glob("*.tar")), tmp_path / "cache"), TRAIN)


# --- folders -------------------------------------------------------------------------------------------------------


def test_flat_and_nested_folders(tmp_path: Path) -> None:
    flat = write_folder(tmp_path / "flat", {"b.jpg": b"1", "a.PNG": b"2", "notes.txt": b"", ".hidden.jpg": b""})
    opened = open_folder(flat)
    assert list(opened.names) == ["a.PNG", "b.jpg"] and opened.class_names == ("all",)
    nested = {"a.b/x.jpg": b"1", "a/z/y/x.jpg": b"2", "a/x.jpg": b"3", "a/z.jpg": b"4", "c/__MACOSX/x.jpg": b""}
    opened = open_folder(write_folder(tmp_path / "nested", nested))
    assert list(opened.names) == sorted(name for name in nested if "MACOSX" not in name)
    assert opened.class_names == ("a", "a.b", "c") and opened.labels.tolist() == [1, 0, 0, 0]


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a.jpg": b"1", "plane/a.jpg": b"2"})
    opened = open_pictures(PicturesLocation(source="folder", path=str(tmp_path)), tmp_path)
    assert opened.validation is None and opened.train.class_names == ("plane", "train")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open(os.fsencode(tmp_path / "a") + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"content")
    assert open_folder(tmp_path).read(0) == b"content"


BAD_FOLDERS: dict[str, tuple[Any, str]] = {
    "empty": (lambda root: None, r"has no picture; files of these kinds count: \.avif"),
    "beside": (
        lambda root: write_folder(root, {"a/x.jpg": b"", "y.jpg": b""}),
        r"y\.jpg lies beside folders of classes",
    ),
    "loop": (
        lambda root: [write_folder(root, {"a/x.jpg": b""}), (root / "a/loop").symlink_to(root)],
        r"a/loop is a loop of links: it leads back to a folder above it",
    ),
    "self": (
        lambda root: [write_folder(root, {"a/x.jpg": b""}), (root / "a/self").symlink_to(root / "a/self")],
        r"self cannot be listed \(Too many levels of symbolic links\)",
    ),
    "class of validation": (
        lambda root: write_folder(root, {"train/a/x.jpg": b"", "val/b/x.jpg": b""}),
        r"val/b/x\.jpg: class 'b' is not allowed; allowed: a",
    ),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_folders(tmp_path: Path, kind: str) -> None:
    (tmp_path / "root").mkdir()
    make, reason = BAD_FOLDERS[kind]
    make(tmp_path / "root")
    with pytest.raises(DataError, match=reason) as raised:
        open_pictures(PicturesLocation(source="folder", path=str(tmp_path / "root")), tmp_path)
    assert "\n" not in str(raised.value)


def test_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a/x.jpg": b"", "b/x.jpg": b""})
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"/b cannot be listed \(Permission denied\)"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"path": "/nowhere"}, r"data\.path = '/nowhere' does not exist"),
        ({"source": "shards"}, r"has no file \*\.tar"),
        ({"source": "parquet"}, r"has no file \*\.parquet"),
        ({"source": "imagenet"}, "has no folder train"),
        ({"source": "huggingface"}, "is no data set of save_to_disk"),
        ({"train_split": "big"}, r"data\.train_split = 'big' is no folder of .*; allowed: a"),
        ({"source": "huggingface", "path": "someone/pictures"}, r"needs the extra: pip install 'tokenlaw\[datasets\]'"),
    ],
)
def test_paths_that_hold_something_else(tmp_path: Path, fields: dict[str, str], reason: str) -> None:
    write_folder(tmp_path / "root", {"a/x.jpg": b""})
    with pytest.raises(DataError, match=reason):
        open_pictures(PicturesLocation(**({"source": "folder", "path": str(tmp_path / "root")} | fields)), tmp_path)
