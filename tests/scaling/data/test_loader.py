"""The order of pictures: a function of seed and position, whatever the workers, the ranks and the place of a resume."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from results.errors import DataError, RunError
from scaling import randomness
from scaling.data.loader import Batch, PictureStream, in_order
from scaling.data.sources.layouts.folder import open_folder
from scaling.data.sources.layouts.shards import open_shards
from scaling.data.sources.pictures import Pictures
from scaling.specification.pictures import PicturesView

from .made_pictures import encoded, made, pixels, write_folder, write_parquet, write_shards

VIEW = PicturesView(image_size=16, crop="random", flip=True)
CONTENTS = made(6, 1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return open_folder(write_folder(tmp_path_factory.mktemp("pictures"), CONTENTS))


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)


def batches(stream: PictureStream, start: int, count: int, size: int) -> list[Batch]:
    try:
        return [stream.at(start + size * number) for number in range(count)]
    finally:
        stream.close()


@pytest.mark.parametrize("view", [VIEW, PicturesView(image_size=16, crop="ten"), PicturesView(image_size=16)])
def test_the_same_for_any_number_of_workers(pictures: Pictures, view: PicturesView) -> None:
    # Seven pictures at a time out of eighteen: batches cross the ends of epochs.
    first, *others = (
        batches(PictureStream(pictures, view, 3, "test", 7, workers=workers), 0, 8, 7) for workers in (0, 2, 5)
    )
    assert first[0].pixels.shape == (7, 3, 16, 16) and first[0].pixels.dtype == torch.uint8
    assert first[0].labels.dtype == torch.int64
    for other in others:
        assert all(equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_same_for_two_ranks_and_after_a_resume_at_any_image(pictures: Pictures) -> None:
    whole = batches(PictureStream(pictures, VIEW, 3, "test", 8), 0, 6, 8)
    parts = [
        batches(PictureStream(pictures, VIEW, 3, "test", 8, part=part, workers=workers), 0, 6, 8)
        for part, workers in ((slice(0, 4), 0), (slice(4, 8), 2))
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.pixels, torch.cat([first.pixels, second.pixels]))
    stream = torch.cat([batch.pixels for batch in whole])
    for start in (1, 13, 24):
        resumed = batches(PictureStream(pictures, VIEW, 3, "test", 8, workers=2), start, 2, 8)
        assert torch.equal(torch.cat([batch.pixels for batch in resumed]), stream[start : start + 16])


def test_a_stream_goes_back_as_training_does_after_a_decay(pictures: Pictures) -> None:
    stream = PictureStream(pictures, VIEW, 3, "test", 4, workers=2)
    first = [stream.at(position) for position in (0, 4, 8)]
    assert equal(stream.at(4), first[1]) and equal(stream.at(8), first[2])
    stream.close()


@settings(max_examples=25)
@given(st.integers(0, 5), st.integers(0, 60), st.integers(1, 20))
def test_what_is_seen_follows_the_named_order(seed: int, start: int, count: int) -> None:
    colours = _Colours(13)
    batch = PictureStream(colours, PicturesView(image_size=2, channels=1), seed, "name", count).at(start)
    indices = randomness.batch_indices(seed, "name", start, count, 13)
    assert batch.labels.tolist() == indices.tolist() and batch.pixels[:, 0, 0, 0].tolist() == indices.tolist()


def test_each_epoch_sees_each_picture_once_and_otherwise_cropped(pictures: Pictures) -> None:
    total = len(pictures.names)
    epochs = [batches(PictureStream(pictures, VIEW, 0, "test", total), total * epoch, 1, total)[0] for epoch in (0, 1)]
    orders = [randomness.batch_indices(0, "test", total * epoch, total, total) for epoch in (0, 1)]
    assert sorted(orders[0].tolist()) == sorted(orders[1].tolist()) == list(range(total))
    by_index = [epoch.pixels[order.argsort()] for epoch, order in zip(epochs, orders, strict=True)]
    assert (by_index[0] != by_index[1]).flatten(1).any(1).sum() > total // 2


@pytest.mark.parametrize("workers", [0, 2])
def test_in_order(pictures: Pictures, workers: int) -> None:
    every = list(in_order(pictures, VIEW, 4, workers=workers))
    assert [len(batch.labels) for batch in every] == [4, 4, 4, 4, 2]
    assert torch.cat([batch.labels for batch in every]).tolist() == pictures.labels.tolist()
    rest = torch.cat([batch.pixels for batch in in_order(pictures, VIEW, 5, start=3, workers=workers)])
    assert torch.equal(rest, torch.cat([batch.pixels for batch in every])[3:])
    mirrored = torch.cat([batch.pixels for batch in in_order(pictures, VIEW, 5, number=1, workers=workers)])
    assert torch.equal(mirrored.flip(3), torch.cat([batch.pixels for batch in every]))


def test_a_number_that_there_is_not(pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="number = 2 is not allowed; allowed: 0 to 1"):
        in_order(pictures, VIEW, 4, number=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_one_line(tmp_path: Path, workers: int) -> None:
    damaged = dict.fromkeys(itertools.islice(CONTENTS, 3, 4), b"nothing")
    opened = open_folder(write_folder(tmp_path, CONTENTS | damaged))
    stream = PictureStream(opened, VIEW, 0, "test", 6, workers=workers)
    with pytest.raises(DataError, match=r"^.*/00003\.png cannot be decoded \(no picture of a known format") as raised:
        for position in itertools.count(0, 6):
            stream.at(position)
    assert "\n" not in str(raised.value)
    (tmp_path / "bird/00000.jpg").unlink()
    with pytest.raises(DataError, match=r"00000\.jpg cannot be read \(No such file or directory\)"):
        list(in_order(opened, VIEW, 1, workers=workers))


@pytest.mark.processes
def test_a_killed_worker_is_told(pictures: Pictures) -> None:
    with pytest.raises(RunError, match="a process that decodes pictures was killed"):
        list(in_order(_Killing(pictures), VIEW, 4, workers=1))


@pytest.mark.parametrize("layout", ["shards", "parquet"])
def test_forked_workers_read_files_in_place(tmp_path: Path, pictures: Pictures, layout: str) -> None:
    from scaling.data.sources.layouts.parquet import open_parquet

    opened: Pictures
    if layout == "shards":
        opened = open_shards(tmp_path, sorted(write_shards(tmp_path, CONTENTS).glob("*.tar")), tmp_path / "cache")
    else:
        opened = open_parquet(tmp_path, [write_parquet(tmp_path / "t.parquet", CONTENTS)], "image", "label")
    opened.read(0)  # Files that are open when the workers are forked are shared with them.
    expected = batches(PictureStream(pictures, VIEW, 1, "test", 5), 0, 8, 5)
    result = batches(PictureStream(opened, VIEW, 1, "test", 5, workers=3), 0, 8, 5)
    assert all(equal(a, b) for a, b in zip(expected, result, strict=True))


class _Colours:
    """Grey pictures whose value and label are their number."""

    def __init__(self, count: int) -> None:
        self.contents = [encoded(pixels(0, 2, 2, 1) * 0 + number) for number in range(count)]
        self.names, self.labels = range(count), torch.arange(count).numpy()

    def read(self, index: int) -> bytes:
        return self.contents[index]

    def where(self, index: int) -> str:
        return str(index)


class _Killing:
    """Pictures whose reading kills the process, as a full memory does."""

    def __init__(self, pictures: Pictures) -> None:
        self.names, self.labels, self.where = pictures.names, pictures.labels, pictures.where

    def read(self, index: int) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    import multiprocessing

    yield
    assert not multiprocessing.active_children()
