"""Measures how pictures are read: `python tests/benchmarks/bench_pictures.py speed|memory|index [COUNT]`.

speed   JPEGs of 500 x 375 decoded and cropped to 256 pixels: pictures a second and core, beside ImageFolder and
        DataLoader of torchvision, where it is installed, in turns; then through two worker processes
memory  an epoch of a tokenizer's batches over COUNT generated pictures of 64 pixels in shards, and reading all of them
        in order as for encoding: peak memory of the process and of its workers, less what Python and torch take alone
index   the first and the second survey, division and fingerprint of COUNT files in class folders
"""

from __future__ import annotations

import io
import os
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scaling.data.loader import PictureStream, in_order
from scaling.data.sources.fingerprint import prepare
from scaling.data.sources.layouts.folder import open_folder
from scaling.specification.pictures import PicturesLocation, PicturesView

SHARD = 10_000
"""Pictures in a generated shard."""


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """A picture that compresses about as a photograph does: smooth structure at several scales, and noise."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (max(height >> s, 2), max(width >> s, 2), 3), np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        / 2 ** (7 - s)
        for s in (2, 3, 4, 5, 6)
    ]
    values = sum(layers) / sum(2.0 ** (s - 7) for s in (2, 3, 4, 5, 6))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def jpeg(seed: int, width: int, height: int) -> bytes:
    """An encoded photograph."""
    buffer = io.BytesIO()
    photograph(seed, width, height).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def rate(call: Callable[[], object], count: int) -> float:
    """Pictures a second of processor time of this process, so that what else runs on the machine does not matter."""
    start = time.process_time()
    call()
    return count / (time.process_time() - start)


def speed(count: int) -> None:
    """Prints pictures a second."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            path = Path(folder) / f"class{number % 4}" / f"{number:05d}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(jpeg(number, *((500, 375) if number % 3 else (375, 500))))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / count
        print(f"{count} JPEGs of 500 x 375, {size / 1000:.0f} kB each")
        pictures, view = open_folder(Path(folder)), PicturesView(image_size=256)
        calls: dict[str, Callable[[], object]] = {
            "tokenlaw, centre crop of ADM": lambda: [None for _ in in_order(pictures, view, 32)],
        }
        try:
            from torch.utils.data import DataLoader
            from torchvision import transforms
            from torchvision.datasets import ImageFolder
        except ImportError:
            print("torchvision is not installed: nothing to compare with")
        else:
            for name, mode, last in (
                ("bicubic, uint8", transforms.InterpolationMode.BICUBIC, transforms.PILToTensor()),
                ("bilinear, ToTensor", transforms.InterpolationMode.BILINEAR, transforms.ToTensor()),
            ):
                steps = transforms.Compose([transforms.Resize(256, mode), transforms.CenterCrop(256), last])
                loader = DataLoader(ImageFolder(folder, steps), 32)
                calls[f"torchvision, {name}"] = lambda loader=loader: [None for _ in loader]  # type: ignore[misc]
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(5):
            for name, call in calls.items():
                rates[name].append(rate(call, count))
        for name, values in rates.items():
            print(f"{name:40} {np.median(values):7.1f} pictures a second and core (median of 5)")
        start = time.perf_counter()
        for _ in in_order(pictures, view, 32, workers=2):
            pass
        print(f"{'tokenlaw, two worker processes':40} {count / (time.perf_counter() - start):7.1f} pictures a second")


def write_shards(folder: Path, count: int, side: int = 64) -> None:
    """Shards of different JPEGs: a few photographs, each with a number of its own in its comment."""
    bases = [jpeg(seed, side, side) for seed in range(64)]
    for begin in range(0, count, SHARD):
        with tarfile.open(folder / f"train-{begin // SHARD:05d}.tar", "w") as archive:
            for number in range(begin, min(begin + SHARD, count)):
                # A comment segment after the start of the image: other bytes, the same pixels.
                content = bases[number % 64]
                content = content[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + content[2:]
                for name, data in ((f"{number:08d}.jpg", content), (f"{number:08d}.cls", b"%d" % (number % 10))):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def peak_megabytes(who: int = resource.RUSAGE_SELF) -> float:
    """Most memory that this process, or the largest of its children, has had."""
    return resource.getrusage(who).ru_maxrss / 1024


def memory(count: int) -> None:
    """Prints peak memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), count)
        if os.fork():
            # In a fresh process, so that what was written is not counted.
            os.wait()
            return
        alone = peak_megabytes()
        start = time.perf_counter()
        view = PicturesView(image_size=64)
        location = PicturesLocation(source="shards", path=folder, validation_fraction=0.02)
        prepared = prepare(location, view, Path(folder) / "cache")
        print(f"{count:,} pictures of 64 pixels in shards; Python and torch alone {alone:,.0f} MB")
        print(f"survey, division, fingerprint: {time.perf_counter() - start:6.1f} s, peak {peak_megabytes():,.0f} MB")
        start = time.perf_counter()
        again = prepare(location, view, Path(folder) / "cache")
        assert again.fingerprint == prepared.fingerprint
        print(f"the same again:                {time.perf_counter() - start:6.1f} s, peak {peak_megabytes():,.0f} MB")
        train = prepared.train
        start = time.perf_counter()
        stream = PictureStream(train, view, 0, "tokenizer batches", 64, workers=2)
        for position in range(0, len(train.names), 64):
            stream.at(position)
        stream.close()
        print(f"an epoch in random order:      {time.perf_counter() - start:6.1f} s, peak {peak_megabytes():,.0f} MB")
        start = time.perf_counter()
        for _ in in_order(train, view, 64, workers=2):
            pass
        print(f"all pictures in order:         {time.perf_counter() - start:6.1f} s, peak {peak_megabytes():,.0f} MB")
        largest = peak_megabytes(resource.RUSAGE_CHILDREN)
        print(f"the larger of two workers: {largest:,.0f} MB, most of it shared; limit of all 1,500 MB", flush=True)
        os._exit(0)


def index(count: int) -> None:
    """Prints seconds of two preparations."""
    with tempfile.TemporaryDirectory() as folder:
        base = jpeg(0, 64, 64)
        for number in range(count):
            path = Path(folder) / "pictures" / f"class{number % 100:03d}" / f"{number:08d}.jpg"
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(base[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + base[2:])
        location = PicturesLocation(source="folder", path=str(Path(folder) / "pictures"))
        for name in ("first", "second"):
            start = time.perf_counter()
            prepare(location, PicturesView(image_size=64), Path(folder) / "cache")
            seconds = time.perf_counter() - start
            each = seconds / count * 1e6
            print(f"{name:7} {seconds:6.1f} s, {each:6.1f} microseconds a picture, peak {peak_megabytes():,.0f} MB")


if __name__ == "__main__":
    commands = {"speed": (speed, 400), "memory": (memory, 200_000), "index": (index, 50_000)}
    chosen = sys.argv[1] if len(sys.argv) > 1 else "speed"
    if chosen not in commands:
        sys.exit(f"{chosen!r} is not allowed; allowed: {', '.join(commands)}")
    command, default = commands[chosen]
    command(int(sys.argv[2]) if len(sys.argv) > 2 else default)
