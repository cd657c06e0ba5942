"""Survey, division and fingerprint: by content alone, read once, and a refusal or a counted skip for what is bad."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.errors import DataError
from scaling.data.sources import kept, locations
from scaling.data.sources import survey as survey_module
from scaling.data.sources.fingerprint import prepare, prepare_again
from scaling.data.sources.layouts.folder import FolderPictures, open_folder
from scaling.data.sources.splits import draw_validation
from scaling.data.sources.survey import survey
from scaling.specification.pictures import PicturesLocation, PicturesView

from .made_pictures import encoded, made, pixels, write_folder

VIEW = PicturesView(image_size=16)
CONTENTS = made(5, 4)


def location(root: Path, **fields: Any) -> PicturesLocation:
    return PicturesLocation(source="folder", path=str(root), **fields)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", CONTENTS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# --- survey --------------------------------------------------------------------------------------------------------


def test_a_survey_reads_each_picture_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = FolderPictures.read
    monkeypatch.setattr(FolderPictures, "read", lambda self, index: (reads.append(index), read(self, index))[1])
    steps: list[tuple[int, int]] = []
    first = survey(open_folder(root), cache, lambda done, total: steps.append((done, total)))
    assert sorted(reads) == list(range(15)) and steps == [(0, 15), (15, 15)]
    second = survey(open_folder(root), cache)
    assert len(reads) == 15
    for name in ("digests", "widths", "heights"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    kinds = [[known.kind_names[kind] for kind in known.kinds] for known in (first, second)]
    assert kinds[0] == kinds[1] and set(kinds[0]) == {"JPEG RGB", "PNG RGB"}
    # One that changes is read again, though its size is the same.
    path = root / "cat/00001.png"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(5, 5))
    survey(open_folder(root), cache)
    assert len(reads) == 16
    # One that is new does not make the others new.
    (root / "bird/new.png").write_bytes(encoded(pixels(99, 20, 20)))
    survey(open_folder(root), cache)
    assert len(reads) == 17


def test_reasons_are_kept_but_not_those_of_reading(root: Path, cache: Path) -> None:
    (root / "cat/bad.png").write_bytes(b"bad")
    (root / "cat/gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "cat/pipe.jpg")
    (root / "dog/own.png").write_bytes(encoded(pixels(99, 20, 20)))
    for _ in range(2):
        known = survey(open_folder(root), cache)
        reasons = sorted(known.reasons.values())
        assert len(reasons) == 3 and known.good.sum() == 16
        assert "bad.png cannot be decoded (no picture of a known format" in reasons[0]
        assert "gone.png cannot be read (No such file or directory)" in reasons[1]
        assert "pipe.jpg cannot be read (it is no regular file)" in reasons[2]
    (root / "nowhere.png").write_bytes(encoded(pixels(98, 20, 20)))
    assert len(survey(open_folder(root / "cat"), cache).reasons) == 2


def test_an_interrupted_survey_goes_on(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "CHUNK", 4)
    monkeypatch.setattr(survey_module, "SAVE_SECONDS", 0)

    def interrupt(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(open_folder(root), cache, interrupt)
    steps: list[int] = []
    survey(open_folder(root), cache, lambda done, total: steps.append(done))
    assert steps[0] == 4 and steps[-1] == 15


def test_a_damaged_or_forbidden_cache_is_no_harm(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = survey(open_folder(root), cache)
    (path,) = (cache / "surveys").iterdir()
    for content in (b"", b"PK\x03\x04 no archive", path.read_bytes()[:-40]):
        path.write_bytes(content)
        assert np.array_equal(survey(open_folder(root), cache).digests, first.digests)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert np.array_equal(survey(open_folder(root), blocked / "cache").digests, first.digests)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.cache_folder() == tmp_path / "tokenlaw"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kept.cache_folder() == Path.home() / ".cache/tokenlaw"


def test_a_few_hundred_pictures_validate_with_as_many_as_a_study_needs(tmp_path: Path) -> None:
    for each, expected in ((26, 0.1), (27, 40), (100, 40), (132, 40), (140, 0.1)):
        random = np.random.default_rng(each)
        digests, labels = random.integers(0, 256, (3 * each, 32), dtype=np.uint8), np.repeat([0, 1, 2], each)
        plain = draw_validation(digests, labels.astype(np.int32), 0.1, 0)
        mask = draw_validation(digests, labels.astype(np.int32), 0.1, 0, 40)
        counts = np.bincount(labels[mask], minlength=3)
        assert np.ptp(counts) == 0 and not (plain & ~mask).any()
        if expected == 0.1:
            # Nothing changes where a tenth is enough, and where a half is not.
            assert np.array_equal(mask, plain)
        else:
            assert expected <= mask.sum() <= expected + 2
    # Of unequal classes the same share.
    labels = np.repeat([0, 1], [200, 50]).astype(np.int32)
    digests = np.random.default_rng(0).integers(0, 256, (250, 32), dtype=np.uint8)
    assert np.bincount(labels[draw_validation(digests, labels, 0.1, 0, 40)]).tolist() == [32, 8]


# --- division ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_division_depends_on_content_alone(
    rows: list[tuple[int, int]], fraction: float, seed: int, random: Any
) -> None:
    digests = np.array([np.random.default_rng(content).integers(0, 256, 32) for content, _ in rows], np.uint8)
    labels = np.array([label for _, label in rows], np.int32)
    mask = draw_validation(digests, labels, fraction, seed)
    sides: dict[int, bool] = {}
    for (content, _), validates in zip(rows, mask.tolist(), strict=True):
        assert sides.setdefault(content, validates) == validates
    owner = {content: min(label for other, label in rows if other == content) for content, _ in rows}
    for label in set(owner.values()):
        contents = [content for content in owner if owner[content] == label]
        count = sum(sides[content] for content in contents)
        wanted = 0 if len(contents) == 1 else min(max(round(fraction * len(contents)), 1), len(contents) - 1)
        assert count == wanted
    order = list(range(len(rows)))
    random.shuffle(order)
    assert np.array_equal(draw_validation(digests[order], labels[order], fraction, seed), mask[order])


# --- fingerprint ---------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_content_and_nothing_else(root: Path, cache: Path, tmp_path: Path) -> None:
    first = prepare(location(root), VIEW, cache)
    spec = first.pinned(VIEW)
    assert (spec.classes, spec.train_images + spec.validation_images) == (3, 15)
    moved = shutil.copytree(root, tmp_path / "moved")
    assert prepare(location(moved), VIEW, cache).fingerprint == first.fingerprint
    assert prepare(location(moved), PicturesView(image_size=8, crop="ten"), cache).fingerprint == first.fingerprint
    (moved / "notes.txt").write_text("no picture")
    assert prepare(location(moved), VIEW, cache).fingerprint == first.fingerprint
    renamed = (moved / "cat/00001.png").rename(moved / "cat/renamed.png")
    by_name = prepare(location(moved), VIEW, cache).fingerprint
    renamed.rename(moved / "dog/00001.png")
    by_label = prepare(location(moved), VIEW, cache).fingerprint
    (moved / "dog/00001.png").rename(moved / "cat/00001.png")
    content = bytearray((moved / "cat/00001.png").read_bytes()) + b"x"
    (moved / "cat/00001.png").write_bytes(content)
    by_content = prepare(location(moved), VIEW, cache).fingerprint
    assert len({first.fingerprint, by_name, by_label, by_content}) == 4
    assert prepare_again(spec, location(root), cache).fingerprint == first.fingerprint
    with pytest.raises(DataError, match=r"has other pictures than the study was planned with \(fingerprint .*planned"):
        prepare_again(spec, location(moved), cache)


def test_locations_are_found_again(root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    relative = location(Path(root.name))
    digest = prepare(relative, VIEW, cache).fingerprint
    locations.remember(tmp_path / "kept", digest, relative)
    monkeypatch.chdir("/")
    assert prepare(locations.recall(tmp_path / "kept", digest), VIEW, cache).fingerprint == digest
    named = PicturesLocation(source="huggingface", path="someone/pictures")
    locations.remember(tmp_path / "kept", digest, named)
    assert locations.recall(tmp_path / "kept", digest) == named
    with pytest.raises(DataError, match="does not tell where these pictures lie; plan the study"):
        locations.recall(tmp_path / "kept", "0" * 64)
    (tmp_path / "kept" / f"{digest}.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot be read .*; plan its study again"):
        locations.recall(tmp_path / "kept", digest)
    with pytest.raises(DataError, match="is not a SHA-256"):
        locations.recall(tmp_path / "kept", "../etc")


# --- refused, or left out and counted ------------------------------------------------------------------------------


def refused(root: Path, cache: Path, view: PicturesView = VIEW, **fields: Any) -> str:
    with pytest.raises(DataError) as raised:
        prepare(location(root, **fields), view, cache)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_damaged_pictures(root: Path, cache: Path) -> None:
    (root / "cat/bad.jpg").write_bytes(encoded(pixels(1, 40, 40), "JPEG")[:200])
    (root / "dog/bad.png").write_bytes(b"")
    text = refused(root, cache)
    assert "cat/bad.jpg cannot be decoded (" in text and "and 1 more; data.on_damaged = 'skip'" in text
    skipped = prepare(location(root, on_damaged="skip"), VIEW, cache)
    assert len(skipped.left_out) == 2 and len(skipped.train.names) + len(skipped.validation.names) == 15
    for name in ("cat/bad.jpg", "dog/bad.png"):
        (root / name).unlink()
    assert prepare(location(root), VIEW, cache).fingerprint == skipped.fingerprint


def test_a_side_that_the_pictures_cannot_give(root: Path, cache: Path) -> None:
    (root / "cat/small.png").write_bytes(encoded(pixels(1, 60, 10)))
    text = refused(root, cache)
    assert "cat/small.png has 60 x 10 pixels, below data.image_size = 16; data.on_small allows 'skip' and" in text
    assert len(prepare(location(root, on_small="skip"), VIEW, cache).left_out) == 1
    assert len(prepare(location(root, on_small="enlarge"), VIEW, cache).left_out) == 0
    large = PicturesView(image_size=4096)
    assert "; and 15 more" in refused(root, cache, large)
    assert "all 16 pictures are left out; the first:" in refused(root, cache, large, on_small="skip")


def test_empty_classes_and_classes_without_validation(root: Path, cache: Path, tmp_path: Path) -> None:
    (root / "wolf").mkdir()
    assert "no training picture of class wolf; data.on_damaged = 'skip' goes on without" in refused(root, cache)
    skipped = prepare(location(root, on_damaged="skip"), VIEW, cache)
    assert skipped.pinned(VIEW).classes == 4 and len(skipped.left_out) == 2
    split = tmp_path / "split"
    write_folder(split / "train", CONTENTS)
    write_folder(split / "val", {name: content for name, content in made(1, 9).items() if "dog" not in name})
    assert "no validation picture of class dog" in refused(split, cache)


def test_nothing_to_validate_with(tmp_path: Path, cache: Path) -> None:
    write_folder(tmp_path / "single", {"a/x.png": encoded(pixels(1, 20, 20))})
    assert "no class has two different pictures, so none can be kept for validation" in refused(
        tmp_path / "single", cache
    )


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=20), max_size=30))
def test_names_hold_any_bytes(texts: list[bytes]) -> None:
    from scaling.data.sources.names import Names

    names = Names.of(texts)
    assert [names.raw(i) for i in range(len(names))] == texts
    assert [os.fsencode(name) for name in names] == texts
    assert [texts[i] for i in names.order()] == sorted(texts)
    assert (names.repeated() is None) == (len(set(texts)) == len(texts))
    if texts:
        assert names[-1] == os.fsdecode(texts[-1]) and list(names[1:]) == list(names)[1:]
        with pytest.raises(IndexError):
            names.raw(len(texts))
