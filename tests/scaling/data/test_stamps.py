"""The built-in colour pictures: found or refused by name, composed from named draws, one set a fingerprint."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from results.errors import DataError, SpecError
from scaling.data.sources.builtin import stamps, stamps_files
from scaling.data.sources.fingerprint import prepare, prepare_again
from scaling.specification import stamps as pins
from scaling.specification.pictures import PicturesSpec, read_table
from scaling.specification.spec import GeneratorRun
from sweeps import load_study
from sweeps.study.own_pictures import OwnPictures

TABLE = {"source": "builtin", "name": "stamps", "train_images": 40, "validation_images": 20}


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven made things a class, cut out, and twelve made backgrounds, pinned as if they were the packages'."""
    root = tmp_path / "data" / "stamps"
    random = np.random.default_rng(0)
    for label, folders in pins.CLASSES.items():
        for number in range(7):
            folder = root / pins.STAMPS / folders[number % len(folders)]
            folder.mkdir(parents=True, exist_ok=True)
            thing = Image.new("RGBA", (150, 90))
            colour = (*random.integers(0, 256, 3).tolist(), 255)
            thing.paste(colour, (10, 10, 140, 80))
            thing.save(folder / f"{label}{number}.png")
    (root / pins.STAMPS / "animals/birds/cartoon").mkdir()
    Image.new("RGBA", (50, 50), (1, 2, 3, 255)).save(root / pins.STAMPS / "animals/birds/cartoon/drawn.png")
    (root / pins.NATURE).mkdir(parents=True)
    for name in (*pins.VALIDATION_NATURE, *(f"Other{i}" for i in range(9))):
        noise = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((600, 400)).save(root / pins.NATURE / f"{name}.jpg")
    for module in (pins, stamps_files):
        monkeypatch.setattr(module, "CONTENT", stamps_files.content(root))
    monkeypatch.setenv("TOKENLAW_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return root


def test_a_set_is_pinned_before_it_is_composed_and_read_as_own_pictures_are(photographs: Path, tmp_path: Path) -> None:
    own = OwnPictures()
    spec = own.pinned(TABLE)
    assert isinstance(spec, PicturesSpec) and (spec.image_size, spec.channels, spec.classes) == (64, 3, 10)
    assert not (tmp_path / "xdg").exists(), "a plan composes nothing"
    prepared = prepare_again(spec, own.locations[spec.fingerprint], tmp_path / "xdg" / "tokenlaw")
    assert prepared.train.class_names == tuple(pins.CLASSES)
    assert np.bincount(prepared.train.labels).tolist() == [4] * 10
    assert len(prepared.validation.names) == 20 and not prepared.left_out
    material = stamps.material(photographs, "train")
    for index in (0, 13):
        (place,) = [i for i, name in enumerate(prepared.train.names) if name.endswith(f"{index:08d}.bmp")]
        with Image.open(io.BytesIO(prepared.train.read(place))) as image:
            assert image.tobytes() == stamps.compose(material, "train", index).tobytes()
    assert own.pinned(TABLE | {"train_images": 50}).fingerprint != spec.fingerprint


def test_splits_share_neither_things_nor_backgrounds_and_compositions_differ(photographs: Path) -> None:
    for label in pins.CLASSES:
        files = stamps_files.stamp_files(photographs, label)
        assert len(files) == 7, "what is drawn is left out"
        train, validation = (stamps._of_split(files, split) for split in ("train", "validation"))
        assert not set(train) & set(validation) and len(train) + len(validation) == 7 and validation
    pair = [Path("dumper.png"), Path("dumper_mirror.png"), Path("truck.png"), Path("van.png")]
    sides = {path.stem: "train" for path in stamps._of_split(pair, "train")}
    assert ("dumper" in sides) == ("dumper_mirror" in sides)
    train = stamps.material(photographs, "train")
    assert len(train.backgrounds) == 9 and len(stamps.material(photographs, "validation").backgrounds) == 3
    pictures = {stamps.compose(train, "train", index).tobytes() for index in range(200)}
    assert len(pictures) == 200
    assert stamps.label_of(13) == list(pins.CLASSES)[3]


def test_on_white_the_thing_alone_is_drawn_and_the_set_is_another(photographs: Path, tmp_path: Path) -> None:
    own = OwnPictures()
    nature, white = own.pinned(TABLE), own.pinned(TABLE | {"background": "white"})
    assert own.pinned(TABLE | {"background": "nature"}) == nature and white.fingerprint != nature.fingerprint
    prepared = prepare_again(white, own.locations[white.fingerprint], tmp_path / "xdg" / "tokenlaw")
    assert len(prepared.train.names) == 40
    with Image.open(io.BytesIO(prepared.train.read(0))) as image:
        pixels = np.asarray(image).reshape(-1, 3)
    colours = np.unique(pixels, axis=0)
    share = (pixels == 255).all(axis=1).mean()
    assert 0.2 < share < 0.9 and len(colours) > 1, "a thing, and white around it"
    assert stamps.material(photographs, "validation", "white").backgrounds == []


def test_photographs_of_another_version_are_refused_with_what_was_tried_and_what_to_do(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next((photographs / pins.NATURE).iterdir()).write_bytes(b"other")
    monkeypatch.setattr(stamps_files, "lacking_tools", lambda: "apt-get")
    location, view = pins.pinned(TABLE)
    with pytest.raises(DataError) as caught:
        prepare(location, view, tmp_path / "xdg" / "tokenlaw")
    text = str(caught.value)
    assert "$TOKENLAW_DATA: " in text and "holds another version, or is damaged" in text
    assert "Debian packages: apt-get not found" in text and "set TOKENLAW_DATA to the folder above it" in text
    assert not list((tmp_path / "xdg" / "tokenlaw" / "stamps").glob("40-20*")), "nothing half made is left"


def test_wrong_fields_are_named() -> None:
    for values, text in (
        ({"image_size": 128}, r"data.image_size = 128: .*less than or equal to 64"),
        ({"train_images": 3}, r"data.train_images = 3: .*greater than or equal to 10"),
        ({"background": "black"}, r"data.background = 'black': Input should be 'nature' or 'white'"),
        ({"crop": "random"}, r"data.crop is not a field of data.name = 'stamps'; allowed: image_size, train_images"),
    ):
        with pytest.raises(SpecError, match=text):
            pins.pinned(TABLE | values)
    with pytest.raises(SpecError, match=r"data\.source = 'stamps': Input should be 'folder'"):
        read_table({"source": "stamps", "path": "40/20"})


@pytest.mark.parametrize("name", ["pictures", "pictures-smoke"])
def test_the_built_in_studies_plan_without_the_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = load_study(name).runs()
    assert {run.evaluation.extractors[0].name for run in runs} == {"efficientnet-lite0"}
    if name == "pictures":
        largest = max(max(run.train_images) for run in runs if isinstance(run, GeneratorRun))
        assert largest <= runs[0].tokenizer.data.train_images, "the data axis would repeat"
    assert not list(tmp_path.iterdir())
