"""A run's images behind one interface: few pictures in memory and many decoded as they are read are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from results.errors import DataError
from scaling.data import picture_images as module
from scaling.data.images import Images, LabelledImages
from scaling.data.picture_images import PictureImages, decoding_workers, picture_images
from scaling.data.run_images import RunImages
from scaling.data.sources.fingerprint import Prepared, prepare
from scaling.data.sources.locations import remember
from scaling.specification.pictures import PicturesLocation, PicturesView
from tests.scaling.data.made_pictures import made, write_folder

VIEW = PicturesView(image_size=16)


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PicturesLocation:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return PicturesLocation(source="folder", path=str(write_folder(tmp_path / "own", made(9))))


@pytest.fixture
def prepared(location: PicturesLocation) -> Prepared:
    return prepare(location, VIEW)


def ordered(images: LabelledImages, batch: int = 4, start: int = 0) -> torch.Tensor:
    return torch.cat(list(images.in_order(batch, start)))


def test_few_pictures_are_kept_in_memory_and_are_the_same(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = picture_images(prepared.train, VIEW)
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    read = picture_images(prepared.train, VIEW)
    assert isinstance(kept, Images) and isinstance(read, PictureImages) and len(kept) == len(read) == 24
    assert torch.equal(kept.labels, read.labels)
    assert torch.equal(ordered(kept), ordered(read)) and torch.equal(ordered(kept, 5, 7), ordered(read, 3, 7))
    numbers = torch.tensor([5, 0, 5, 23])
    assert torch.equal(kept.take(numbers), read.take(numbers))
    streams = [images.stream(3, "batches", 10, slice(2, 7)) for images in (kept, read)]
    for position in (0, 10, 20, 5, 24_000):
        first, second = (stream.at(position) for stream in streams)
        assert torch.equal(first, second) and first.shape == (5, 3, 16, 16)


@pytest.mark.parametrize(("view", "views"), [({"flip": True}, 2), ({"crop": "ten"}, 10), ({"crop": "random"}, 1)])
def test_every_view_is_in_order_after_the_one_before(prepared: Prepared, view: dict, views: int) -> None:
    images = picture_images(prepared.train, VIEW.model_copy(update=view))
    size = len(prepared.train.names)
    assert len(images) == len(images.labels) == views * size
    everything = ordered(images, 7)
    assert torch.equal(ordered(images, 5, size - 2 if views > 1 else 3), everything[size - 2 if views > 1 else 3 :])
    assert torch.equal(images.take(torch.tensor([0, len(images) - 1])), everything[[0, -1]])
    central = ordered(picture_images(prepared.train, VIEW))
    assert torch.equal(ordered(images.central()), central)
    if view == {"flip": True}:
        assert torch.equal(everything, torch.cat([central, central.flip(3)]))


def test_a_run_finds_its_pictures_again_or_says_why_not(location: PicturesLocation, tmp_path: Path) -> None:
    spec = prepare(location, VIEW).pinned(VIEW)
    with pytest.raises(DataError, match="is not known here; submit the study"):
        RunImages(spec).split("train")
    remember(tmp_path / "pictures", spec.fingerprint, location)
    images = RunImages(spec, tmp_path / "pictures")
    assert (len(images.split("train")), len(images.split("validation"))) == (24, 3)
    changed = next((tmp_path / "own" / "cat").iterdir())
    changed.write_bytes(next((tmp_path / "own" / "dog").iterdir()).read_bytes())
    with pytest.raises(DataError, match="other pictures than the study was planned with"):
        RunImages(spec, tmp_path / "pictures").split("train")


def test_jobs_decode_with_the_cpus_that_training_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert decoding_workers(1) == 1
    for given, threads, workers in (("1", 1, 0), ("4", 1, 3), ("64", 4, 8)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
        assert decoding_workers(threads) == workers
