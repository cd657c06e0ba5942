"""`tokenlaw data inspect`: counts, damage, copies and leaks, for people and as JSON, and the contact sheet."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from scaling.data.contact_sheet import spread
from sweeps.cli.app import app

from .made_pictures import encoded, made, pixels, write_folder, write_shards

CONTENTS = made(30, 4)
"""Of 90 pictures, 42 validate: the least that a study takes, divided evenly."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def inspect(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "inspect", *map(str, arguments)])
    return result.exit_code, result.output


def test_good_pictures_and_their_sheet(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pictures", CONTENTS)
    code, text = inspect(root, "--image-size", 16, "--sheet", tmp_path / "sheets/sheet.png")
    assert code == 0
    assert "90 pictures in 3 classes" in text and "bird 30, cat 30, dog 30" in text
    assert "JPEG RGB 45, PNG RGB 45" in text
    assert "A study at 16 pixels would see 48 training and 42 validation pictures (0 left out)" in text
    sheet = np.asarray(Image.open(tmp_path / "sheets/sheet.png"))
    assert sheet.shape == (6 * 20 + 4, 8 * 20 + 4, 3)
    assert (sheet[:4] == 255).all() and sheet[4:20, 4:20].std() > 5


def test_names_that_stand_in_several_folders_are_told_and_all_are_used(tmp_path: Path) -> None:
    """img_0001.jpg of two cameras: two pictures, told apart by their folders."""
    same = {"bird/same.png": encoded(pixels(1, 20, 20)), "cat/same.png": encoded(pixels(2, 20, 20))}
    code, text = inspect(write_folder(tmp_path / "pictures", CONTENTS | same), "--image-size", 16)
    assert code == 0
    assert "92 pictures in 3 classes" in text
    assert "in several folders, such as" in text and "same.png" in text
    assert "(0 left out)" in text


@pytest.mark.parametrize("crop", ["center", "random", "ten"])
def test_grey_sheets_of_every_crop(tmp_path: Path, crop: str) -> None:
    root = write_shards(tmp_path / "shards", CONTENTS)
    sheets = [tmp_path / "a.png", tmp_path / "b.png"]
    for sheet in sheets:
        assert inspect(root, "--image-size", 8, "--channels", 1, "--crop", crop, "--sheet", sheet)[0] == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_bad_pictures_are_named_and_counted(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    write_folder(root / "train", CONTENTS | {"cat/bad.jpg": b"bad", "cat/small.png": encoded(pixels(1, 9, 9))})
    leak = next(name for name in CONTENTS if name.startswith("bird"))
    twins = {"bird/leak.jpg": CONTENTS[leak], "bird/twin.jpg": CONTENTS[leak]}
    write_folder(root / "val", made(13, 5) | twins)
    (root / "train/wolf").mkdir()
    code, text = inspect(root, "--image-size", 16)
    assert code == 1
    assert "train/cat/bad.jpg cannot be decoded (no picture of a known format" in text
    assert "1 below 16 pixels" in text and "empty         wolf" in text and "copies        1 of other pictures" in text
    assert "2 validation pictures are in training too, such as" in text
    assert "A study at 16 pixels would be refused: " in text
    code, text = inspect(root, "--image-size", 16, "--json", "--set", "on_damaged=skip", "--set", "on_small='skip'")
    assert code == 0
    facts = json.loads(text)
    assert (facts["train_images"], facts["validation_images"], facts["left_out"], facts["leaks"]) == (90, 41, 4, 2)
    assert facts["splits"]["train"]["classes"] == {"bird": 30, "cat": 32, "dog": 30, "wolf": 0}
    assert facts["splits"]["train"]["damaged"][0].endswith("AVIF, GIF, BMP, TIFF, PPM, JPEG2000)")


STUDY = """
[study]
name = "pictures"
[data]
source = "folder"
path = "pictures"
image_size = 16
[tokenizer]
train_images = 256
[generator]
size = "XS"
train_images = [256]
"""
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link to nothing": (lambda path: path.symlink_to("nowhere.jpg"), "No such file or directory"),
    "pipe": (os.mkfifo, "it is no regular file"),
    "device without end": (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
    "socket": (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), r"No such device or address"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_named_before_a_study_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write_folder(tmp_path / "pictures", CONTENTS)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    make, reason = UNREADABLE[kind]
    make(Path("pictures/cat/odd.jpg"))
    line = f"pictures/cat/odd.jpg cannot be read ({reason})"
    code, text = inspect("pictures", "--image-size", 16)
    assert code == 1 and line in text and "damaged       1" in text
    result = CliRunner().invoke(app, ["plan", "study.toml"])
    assert result.exit_code == 2
    assert line in result.output and "on_damaged = 'skip'" in result.output and result.output.count("\n") == 1
    code, text = inspect("pictures", "--image-size", 16, "--set", "on_damaged=skip")
    assert code == 0 and "(1 left out)" in text


def test_every_kind_of_picture_is_seen(tmp_path: Path) -> None:
    """Grey, CMYK, palette, 16 bits, alpha, turned by EXIF: none is damage, and the sheet shows them upright."""
    root = write_folder(tmp_path / "pictures", CONTENTS)
    colour = Image.fromarray(pixels(7, 24, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in {
        "grey.jpg": colour.convert("L"), "cmyk.jpg": colour.convert("CMYK"), "palette.png": colour.convert("P"),
        "alpha.png": colour.convert("RGBA"), "bits.png": colour.convert("1"),
        "deep.png": Image.fromarray(np.arange(480, dtype=np.uint16).reshape(24, 20) * 130),
    }.items():  # fmt: skip
        image.save(root / "cat" / name)
    colour.save(root / "cat/turned.jpg", exif=exif)
    code, text = inspect(root, "--image-size", 16, "--sheet", tmp_path / "sheet.png")
    assert code == 0 and "97 pictures in 3 classes" in text and "(0 left out)" in text and "damaged" not in text
    for kind in ("JPEG L 1", "JPEG CMYK 1", "PNG P 1", "PNG RGBA 1", "PNG I;16 1", "PNG 1 1"):
        assert kind in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/nowhere"], "data.path = '/nowhere' does not exist"),
        (["/nowhere", "--source", "tar"], "data.source = 'tar'"),
        (["/nowhere", "--set", "x"], "--set = 'x' is not allowed; allowed: NAME=VALUE"),
        (["/nowhere", "--set", "colour=1"], "data.colour is not a field of pictures"),
        ([__file__], "is no .tar, .parquet or .zip; allowed: one of these, or a folder"),
    ],
)
def test_wrong_usage(arguments: list[str], reason: str) -> None:
    code, text = inspect(*arguments)
    assert code == 2 and reason in text


def test_a_sheet_of_another_kind(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pictures", CONTENTS)
    code, text = inspect(root, "--image-size", 16, "--sheet", tmp_path / "sheet.exe")
    assert code == 2 and "allowed: a name that ends in .png, .jpg or .webp" in text


def test_spread_takes_of_every_class() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [100, 1, 30])
    chosen = spread(labels, 4, 9)
    assert np.bincount(labels[chosen]).tolist() == [3, 1, 3] and chosen[0] == 0 and chosen[2] == 99


def test_inspect_needs_no_torch(tmp_path: Path) -> None:
    import subprocess

    root = write_folder(tmp_path / "pictures", CONTENTS)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sweeps.cli.app import app\n"
        f"app(['data', 'inspect', {str(root)!r}, '--image-size', '16'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "48 training" in done.stdout, done.stderr
