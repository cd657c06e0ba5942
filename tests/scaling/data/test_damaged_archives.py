"""Shards, tables and archives that are damaged, cut short or not what they seem: one line each."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pyarrow_parquet

from results.errors import DataError
from scaling.data.sources.fingerprint import Prepared, prepare
from scaling.data.sources.layouts import parquet as parquet_source
from scaling.data.sources.layouts.imagenet import open_imagenet
from scaling.data.sources.layouts.shards import open_shards
from scaling.data.sources.layouts.zipped import open_zip
from scaling.data.sources.opening import open_pictures
from scaling.specification.pictures import PicturesLocation, PicturesView

from .made_pictures import add_member, check_same, made, write_parquet, write_shards, write_zip

VIEW = PicturesView(image_size=16)
TRAIN, VALIDATION = made(6, 1), made(2, 2)


def prepared(tmp_path: Path, source: str, root: Path, **fields: Any) -> Prepared:
    return prepare(PicturesLocation(source=source, path=str(root), **fields), VIEW, tmp_path / "cache")


# --- shards --------------------------------------------------------------------------------------------------------


def shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            add_member(archive, name, content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


BAD_SHARDS: dict[str, tuple[Any, str]] = {
    "within a picture": (lambda path: cut(path, 512 * 5), r"s\.tar is no tar file, damaged or cut short"),
    "within a label": (lambda path: cut(path, 512 + 4096 + 512 + 1), r"s\.tar is (cut short within a\.cls|no tar)"),
    "between members": (lambda path: cut(path, 512 + 4096 + 1024), r"s\.tar is cut short: an archive's closing blocks"),
    "empty": (lambda path: cut(path, 0), r"s\.tar is no tar file, damaged or cut short"),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 1000), r"s\.tar is no tar file, damaged"),
    "no picture": (lambda path: shard(path, [("a.txt", b"")]), "has no picture in 1 shards"),
    "two pictures": (
        lambda path: shard(path, [("a.jpg", b"1"), ("a.png", b"2")]),
        r"s\.tar: a\.jpg and a\.png are two pictures of one sample",
    ),
    "twice": (lambda path: shard(path, [("a.jpg", b"1"), ("a.jpg", b"2")]), "are two pictures of one sample"),
    "some labels": (
        lambda path: shard(path, [("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"2")]),
        r"s\.tar: b\.jpg has no label \(\.cls or \.json\), unlike others",
    ),
    "huge label": (
        lambda path: shard(path, [("a.jpg", b"1"), ("a.cls", b"1000000")]),
        r"a\.jpg: label 1000000 is not allowed; allowed: 0 to 999,999",
    ),
    "no JSON": (lambda path: shard(path, [("a.jpg", b"1"), ("a.json", b"{")]), r"a\.json is no JSON"),
    "no field": (
        lambda path: shard(path, [("a.jpg", b"1"), ("a.json", b'{"class": 1}')]),
        r"a\.json has no field 'label'",
    ),
    "some folders": (
        lambda path: shard(path, [("a/a.jpg", b"1"), ("b.jpg", b"2")]),
        r"b\.jpg lies beside folders of classes",
    ),
}


@pytest.mark.parametrize("kind", BAD_SHARDS)
def test_bad_shards(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.tar"
    shard(path, [("a.jpg", bytes(4096)), ("a.cls", b"7")])
    make, reason = BAD_SHARDS[kind]
    make(path)
    with pytest.raises(DataError, match=reason) as raised:
        open_pictures(PicturesLocation(source="shards", path=str(tmp_path)), tmp_path / "cache")
    assert "\n" not in str(raised.value)


def test_compressed_shards_and_words_of_both_splits(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tar\.gz is compressed and cannot be read in place"):
        open_pictures(PicturesLocation(source="shards", path=str(tmp_path / "a.tar.gz")), tmp_path)
    write_shards(tmp_path / "train-val", TRAIN)
    with pytest.raises(DataError, match="bears the names of both splits, train, val"):
        open_pictures(PicturesLocation(source="shards", path=str(tmp_path)), tmp_path)


def test_a_shard_cut_short_afterwards(tmp_path: Path) -> None:
    write_shards(tmp_path, TRAIN, each=100)
    (path,) = tmp_path.glob("*.tar")
    opened = open_shards(tmp_path, [path], tmp_path / "cache")
    cut(path, 600)
    with pytest.raises(DataError, match=r"data-0000\.tar is cut short: \d+ bytes from \d+ are not all there"):
        opened.read(int(opened.storage_order()[-1]))


# --- tables and archives -------------------------------------------------------------------------------------------


def table(**columns: Any) -> pa.Table:
    return pa.table({"image": pa.array([b"1", b"2"]), "label": pa.array([0, 1])} | columns)


BAD_TABLES: dict[str, tuple[pa.Table, str]] = {
    "no column": (table().rename_columns(["photo", "label"]), "has no column 'image'; data.image_column allows: photo"),
    "type": (table(image=pa.array([1, 2])), "column 'image' is of type int64; allowed: binary, or struct"),
    "type of label": (table(label=pa.array([0.5, 1])), "labels are of type double; allowed: whole numbers or texts"),
    "no label": (table(label=pa.array([0, None])), "row 1 of row group 0 has no label"),
    "negative": (table(label=pa.array([0, -1])), "label -1 is not allowed; allowed: 0 to 999,999"),
    "no rows": (table()[:0], "has no row in 1 Parquet files"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables(tmp_path: Path, kind: str) -> None:
    content, reason = BAD_TABLES[kind]
    pyarrow_parquet.write_table(content, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=reason) as raised:
        open_pictures(PicturesLocation(source="parquet", path=str(tmp_path)), tmp_path)
    assert "\n" not in str(raised.value) and ("t.parquet" in str(raised.value) or kind == "no rows")


def test_damaged_and_large_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "t.parquet", TRAIN)
    location = PicturesLocation(source="parquet", path=str(path))
    monkeypatch.setattr(parquet_source, "LARGEST_GROUP", 100)
    with pytest.raises(DataError, match=r"row group 0 holds .* of pictures; allowed: .* row_group_size=100"):
        open_pictures(location, tmp_path)
    cut(path, path.stat().st_size - 9)
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        open_pictures(location, tmp_path)


def test_few_row_groups_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_source, "KEPT_BYTES", 1)
    write_parquet(tmp_path / "t.parquet", TRAIN)
    opened = open_pictures(PicturesLocation(source="parquet", path=str(tmp_path)), tmp_path).train
    check_same(opened, TRAIN)
    assert len(opened.groups_of._kept) == 1  # type: ignore[attr-defined]


def test_rows_without_bytes(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": "x.jpg"}], kind)
    pyarrow_parquet.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    opened = open_pictures(PicturesLocation(source="parquet", path=str(tmp_path)), tmp_path)
    with pytest.raises(DataError, match=r"t\.parquet: x\.jpg \(row 0 of row group 0\) holds no bytes"):
        opened.train.read(0)


def test_bad_archives(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"train/n00000001/a.jpg": b"abc" * 99})
    whole = path.read_bytes()
    for content, reason in (
        (whole[:-30], "no zip archive, or cut short"),
        (b"", "no zip archive"),
        (whole[:-22], "no zip"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"z\.zip is {reason}"):
            open_zip(path, tmp_path / "cache")
    path.write_bytes(whole.replace(b"abc", b"abd", 1))
    with pytest.raises(DataError, match=r"z\.zip: train/n00000001/a\.jpg is damaged \(its checksum differs\)"):
        open_zip(path, tmp_path / "cache").read(0)
    write_zip(path, {"train/n00000001/a.jpg": b"abc" * 99}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="is packed by method 12; allowed: stored, deflated"):
        open_zip(path, tmp_path / "cache").read(0)
    write_zip(path, {"train/cat/a.jpg": b""})
    with pytest.raises(DataError, match=r"cat/a\.jpg is in no folder of a WNID"):
        open_imagenet(path, tmp_path / "cache")
    write_zip(path, {"train/n00000001/a.jpg": b"", "val/b.jpg": b""})
    with pytest.raises(DataError, match="is flat, and its list is neither in nor beside it"):
        open_imagenet(path, tmp_path / "cache")
    write_zip(
        path, {"train/n00000001/a.jpg": b"", "val/b.jpg": b"", "LOC_val_solution.csv": b"ImageId,P\nc,n00000001 1\n"}
    )
    with pytest.raises(DataError, match=r"val/b\.jpg is not in the list of validation labels \(1 entries\)"):
        open_imagenet(path, tmp_path / "cache")
