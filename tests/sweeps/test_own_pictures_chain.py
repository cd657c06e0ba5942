"""The whole chain on a user's own pictures: a folder of JPEGs, a study of a few lines, both stages, report, a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from results.protocol import Protocol
from sweeps.record.attempts import attempted, living
from tests.sweeps.rooted_study import RootedStudy

pytestmark = [pytest.mark.slow, pytest.mark.processes]
pytest.importorskip("torch")

EACH = 200
CLASSES = ("disc", "square", "stripes")
STUDY = """
[study]
name = "shapes"
[data]
source = "folder"
path = "shapes"
image_size = 64
[tokenizer]
train_images = 1536
autoencoder = { width = 8, channel_multipliers = [1, 1, 1], residual_blocks = [0, 0, 0] }
optimiser = { warmup_images = 512 }
[generator]
size = "XS"
warmup_images = 256
train_images = [512, 1024]
[evaluation]
samples = 128
"""
"""Nothing but the pictures' place, and sizes."""


def draw(kind: str, random: np.random.Generator) -> Image.Image:
    """A shape of one colour on another, 70 to 139 pixels wide and high."""
    width, height = (int(side) for side in random.integers(70, 140, 2))
    ground, colour = (tuple(int(value) for value in random.integers(0, 256, 3)) for _ in range(2))
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    x, y, radius = width / 2 + random.integers(-8, 9), height / 2 + random.integers(-8, 9), random.integers(12, 26)
    if kind == "stripes":
        for left in range(0, width, 12):
            pen.rectangle((left, 0, left + 5, height), fill=colour)
    else:
        shape = pen.ellipse if kind == "disc" else pen.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with 600 JPEGs of three classes, in colour, grey and CMYK, and the study."""
    folder = tmp_path_factory.mktemp("own")
    for number, kind in enumerate(CLASSES):
        (folder / "shapes" / kind).mkdir(parents=True)
        for index in range(EACH):
            image = draw(kind, np.random.default_rng(1000 * number + index))
            image.convert(("RGB", "RGB", "L", "CMYK")[index % 4]).save(folder / "shapes" / kind / f"{index:03d}.jpg")
    (folder / "shapes.toml").write_text(STUDY)
    return folder


def command(place: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "from sweeps.cli.entry import main; main()", *arguments]


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(place / "cache"), "OMP_NUM_THREADS": "1"}


def tokenlaw(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        command(place, *arguments), cwd=place, env=environment(place), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> RootedStudy:
    """The study, submitted and left alone."""
    tokenlaw(place, "submit", "shapes.toml", "--wait", "--jobs", "1", "--root", "undisturbed")
    return RootedStudy(place / "undisturbed", place / "shapes.toml")


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans made by the test itself are of the same pictures."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


def test_from_a_folder_of_jpegs_to_a_report(place: Path, undisturbed: RootedStudy, here: None) -> None:
    inspected = tokenlaw(place, "data", "inspect", "shapes", "--image-size", "64")
    assert "JPEG RGB 300, JPEG L 150, JPEG CMYK 150" in inspected
    assert "540 training and 60 validation pictures (0 left out)" in inspected
    undisturbed.assert_complete()
    rows = undisturbed.store.read("evaluations").to_pylist()
    by_metric = {row["metric"]: row for row in rows}
    assert {"rfid", "rfid_floor", "real_fid", "gfid", "psnr", "ssim", "nats_per_token", "memorisation_ratio"} <= set(
        by_metric
    )
    assert [row["images"] for row in rows if row["metric"] == "gfid"] == [512, 1024]
    assert all(np.isfinite(row["value"]) for row in rows) and by_metric["rfid"]["n"] == 60
    judged = Protocol.from_json(by_metric["gfid"]["protocol_json"])
    assert judged.extractor == "fid-grey32" and judged.crop == "center64"
    assert judged.reference == f"{undisturbed.plan.runs[0].facts['data']}/train"
    for run, pictures in zip(undisturbed.plan.runs, (("preview",), ("preview", "neighbours")), strict=True):
        for name in pictures:
            with Image.open(undisturbed.root / "artifacts" / run.run_id / f"{name}.png") as sheet:
                assert sheet.size[0] % 64 == sheet.size[1] % 64 == 0
                assert np.ptp(np.asarray(sheet.convert("RGB")).astype(int), axis=2).max() > 0
    reported = tokenlaw(place, "report", "shapes.toml", "--root", "undisturbed", "--out", "report")
    assert "K256-T64 + XS" in reported and (place / "report" / "index.html").stat().st_size > 10_000
    assert "nothing to do" in tokenlaw(place, "submit", "shapes.toml", "--wait", "--root", "undisturbed")


@pytest.fixture
def killed(place: Path) -> Iterator[RootedStudy]:
    """The same study below another root, whose processes are killed at the end whatever happens."""
    study = RootedStudy(place / "killed", place / "shapes.toml")
    yield study
    _kill(study)


def _kill(study: RootedStudy) -> int:
    """End the submitter and all workers without a word; how many workers."""
    for process in study.processes:
        process.kill()
        process.wait()
    claims = [attempt.claim for attempt in living(study.root, attempted(study.root)).values()]
    for claim in claims:
        if claim is not None:
            claim.worker.signal(signal.SIGKILL)
    return len(claims)


def test_a_kill_changes_no_row(place: Path, undisturbed: RootedStudy, killed: RootedStudy, here: None) -> None:
    killed.root.mkdir()
    arguments = ("submit", "shapes.toml", "--wait", "--jobs", "1", "--root", "killed")
    killed.processes.append(
        subprocess.Popen(
            command(place, *arguments),
            cwd=place,
            env=environment(place),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    deadline = time.monotonic() + 300
    while not killed.at_work():
        assert time.monotonic() < deadline, "no run has come anywhere"
        time.sleep(0.1)
    assert _kill(killed) >= 1
    tokenlaw(place, *arguments)
    killed.assert_complete()
    killed.assert_equals(undisturbed)
    assert max(killed.store.read("runs")["attempt"].to_pylist()) >= 2
