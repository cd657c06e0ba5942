"""`tokenlaw evaluate` and what it reads: folders, .npz of images and statistics, references, caches, bad files."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from results.errors import DataError, TokenlawError, UsageError
from scaling.evaluate import Request, evaluate
from scaling.evaluation.npz import npz_images, npz_statistics, write_statistics
from scaling.evaluation.reference import open_images
from scaling.evaluation.sets import frechet
from scaling.evaluation.sets.moments import Moments
from sweeps.cli.app import app

SIDE = 16


class Blocks(nn.Module):
    """Means of the four quarters of each channel: 12 features."""

    side, channels = SIDE, 3

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        return features * 3


EXTRACTOR = f"{__name__}:Blocks"


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This module under its name (tests are imported under another), and a cache of its own."""
    import sys
    import types

    module = types.ModuleType("evaluate_networks")
    module.Blocks = Blocks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "evaluate_networks", module)
    monkeypatch.setitem(globals(), "EXTRACTOR", "evaluate_networks:Blocks")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pictures(seed: int, n: int = 60, shift: int = 0) -> np.ndarray:
    """uint8 [n, s, s, 3] of smooth noise."""
    draws = np.random.default_rng(seed).integers(20, 200, (n, 4, 4, 3))
    return (draws.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2) + shift).astype(np.uint8)


def folder(path: Path, images: np.ndarray) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:03}.png")
    return path


def run(*words: str) -> dict[str, float]:
    result = CliRunner().invoke(app, ["evaluate", *words, "--extractor", EXTRACTOR, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return {figure["label"]: figure["value"] for figure in json.loads(result.stdout)["figures"]}


def refusal(images: str | Path, reference: str | Path | None = None, metrics: tuple[str, ...] = ("fid",)) -> str:
    with pytest.raises(TokenlawError) as caught:
        evaluate(
            Request(str(images), None if reference is None else str(reference), (EXTRACTOR,), metrics),
            report=lambda line: None,
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_and_npz_of_the_same_images_give_the_same_figures(tmp_path: Path) -> None:
    a, b = pictures(0), pictures(1, shift=20)
    np.savez(tmp_path / "a.npz", a)
    np.savez(tmp_path / "b.npz", b)
    from_npz = run(str(tmp_path / "a.npz"), "--reference", str(tmp_path / "b.npz"))
    from_folder = run(str(folder(tmp_path / "a", a)), "--reference", str(folder(tmp_path / "b", b)))
    assert from_npz == from_folder
    names = {"FD-Blocks", "KID-Blocks", "precision-Blocks", "recall-Blocks", "MIND-Blocks"}
    assert set(from_npz) == names
    blocks = Blocks()
    rows = [blocks((torch.from_numpy(x).permute(0, 3, 1, 2).float() - 127.5) / 127.5) for x in (a, b)]
    expected = frechet.exact_distance(Moments.of(rows[0]), Moments.of(rows[1]))
    assert from_npz["FD-Blocks"] == pytest.approx(expected, rel=1e-5)


def test_protocols_say_what_the_value_depends_on(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", pictures(0))
    b = folder(tmp_path / "b", pictures(1))
    figures = evaluate(Request(str(a), str(b), (EXTRACTOR,), ("fid", "kid", "fid-curve")), report=lambda line: None)
    first = figures[0].protocol
    assert (first.metric, first.n, first.crop, first.quantisation) == ("frechet_distance", 60, "none", "uint8")
    assert first.resize == f"bicubic-antialias-{SIDE}" and first.reference_hash and first.extractor_hash
    assert figures[0].standard_error is not None and figures[0].standard_error > 0
    assert figures[1].protocol.settings == "subsets=100 size=60"
    assert len({figure.protocol.id for figure in figures}) == len(figures)
    small = Request(str(a), str(b), (EXTRACTOR,), ("fid",), image_size=8)
    (cut,) = evaluate(small, report=lambda line: None)
    assert cut.protocol.crop == "adm-center-8" and cut.protocol.id != first.id
    (b / "000.png").write_bytes((b / "001.png").read_bytes())
    (changed,) = evaluate(Request(str(a), str(b), (EXTRACTOR,), ("fid",)), report=lambda line: None)
    assert changed.protocol.reference_hash != first.reference_hash and changed.value != figures[0].value


def test_statistics_are_written_read_and_bound_to_their_network(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", pictures(0)), folder(tmp_path / "b", pictures(1, shift=9))
    run(str(b), "--write-statistics", str(tmp_path / "b.npz"))
    with np.load(tmp_path / "b.npz", allow_pickle=False) as archive:
        assert archive["mu"].shape == (12,) and archive["sigma"].dtype == np.float64
    figures = run(str(a), "--reference", str(tmp_path / "b.npz"), "--metrics", "fid")
    assert figures["FD-Blocks"] == pytest.approx(run(str(a), "--reference", str(b), "--metrics", "fid")["FD-Blocks"])
    assert "statistics alone, no images, which kid need" in refusal(a, tmp_path / "b.npz", ("kid",))
    moments = npz_statistics(tmp_path / "b.npz").moments
    write_statistics(tmp_path / "other.npz", moments, "inception", "0" * 64)
    assert "holds statistics of inception (000000000000...), not of" in refusal(a, tmp_path / "other.npz")
    np.savez(tmp_path / "adm.npz", mu=np.zeros(2048, np.float32), sigma=np.eye(2048, dtype=np.float32))
    assert "Inception, by habit" in refusal(a, tmp_path / "adm.npz")


def test_features_of_a_reference_are_kept(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", pictures(0)), folder(tmp_path / "b", pictures(1))
    first = run(str(a), "--reference", str(b))
    assert len(list((tmp_path / "cache/tokenlaw/features").iterdir())) == 1
    assert run(str(a), "--reference", str(b)) == first


def test_inception_score_needs_no_reference(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", pictures(0))
    assert run(str(a))["IS-Blocks"] >= 1
    assert "need --reference" in refusal(a)


def bad_npz(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", content)
    return path


def test_bad_npz_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = folder(tmp_path / "good", pictures(0))
    np.savez(tmp_path / "floats.npz", pictures(0) / 255)
    np.savez(tmp_path / "flat.npz", np.zeros((3, 4), np.uint8))
    np.savez(tmp_path / "objects.npz", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "nothing.npz", other=np.zeros(3))
    np.savez(tmp_path / "half.npz", mu=np.zeros(12))
    np.savez(tmp_path / "integers.npz", mu=np.zeros(12, int), sigma=np.eye(12, dtype=int))
    np.savez(tmp_path / "nan.npz", mu=np.full(12, np.nan), sigma=np.eye(12))
    np.savez(tmp_path / "shapes.npz", mu=np.zeros(12), sigma=np.eye(11))
    np.savez(tmp_path / "skew.npz", mu=np.zeros(12), sigma=np.triu(np.ones((12, 12))))
    np.savez(tmp_path / "pickled.npz", mu=np.array([None] * 12, dtype=object), sigma=np.eye(12))
    (tmp_path / "text.npz").write_text("no archive")
    buffer = io.BytesIO()
    np.save(buffer, pictures(0))
    bad_npz(tmp_path / "cut.npz", "arr_0", buffer.getvalue()[:-100])
    for name, message in {
        "floats": "arr_0 is float64 [60, 16, 16, 3]; allowed: uint8", "flat": "arr_0 is uint8 [3, 4]",
        "objects": "pickled Python objects, which are not loaded", "nothing": "no array arr_0 (images); it has other",
        "cut": "arr_0 is cut short", "text": "cannot be read as .npz",
    }.items():  # fmt: skip
        text = refusal(tmp_path / f"{name}.npz", good)
        assert message in text and f"{name}.npz" in text
    for name, message in {
        "half": "no array sigma", "integers": "mu is int64; allowed: float32 or float64",
        "nan": "not finite", "shapes": "do not fit together", "skew": "not symmetric",
        "pickled": "pickled Python objects, which are not loaded",
    }.items():  # fmt: skip
        text = refusal(good, tmp_path / f"{name}.npz")
        assert message in text and f"{name}.npz" in text


def test_bad_folders_and_requests(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", pictures(0, 4))
    Image.new("RGB", (20, 16)).save(a / "zzz.png")
    text = refusal(a, a)
    assert "zzz.png has 20 x 16 pixels, the first image 16 x 16; --image-size N" in text
    (a / "zzz.png").write_bytes(b"broken")
    assert "zzz.png" in refusal(a, a)
    (tmp_path / "empty").mkdir()
    assert "has no picture" in refusal(tmp_path / "empty", a)
    assert "does not exist; allowed: a folder, an .npz, or fashion-mnist" in refusal("absent", a)
    assert "metrics = 'fidd' is not allowed; allowed: fid" in refusal(a, a, ("fidd",))
    with pytest.raises(UsageError, match="leave --image-size out"):
        np.savez(tmp_path / "a.npz", pictures(0))
        open_images(str(tmp_path / "a.npz"), tmp_path, 8)
    with pytest.raises(DataError, match="no array arr_0"):
        np.savez(tmp_path / "b.npz", x=pictures(0))
        npz_images(tmp_path / "b.npz")


class NotFinite(Blocks):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * float("nan")


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        ("builtin", "extractor builtin takes images of 1 channel, not 3; allowed here: efficientnet-lite0"),
        ("evaluate_networks:NotFinite", "extractor evaluate_networks:NotFinite gives features that are not finite"),
    ],
)
def test_what_a_network_refuses_is_told_with_the_images(tmp_path: Path, extractor: str, message: str) -> None:
    import sys

    sys.modules["evaluate_networks"].NotFinite = NotFinite  # type: ignore[attr-defined]
    np.savez(tmp_path / "grey.npz", pictures(0)[..., :1])
    np.savez(tmp_path / "colour.npz", pictures(1))
    for names in (("colour.npz", "grey.npz"), ("grey.npz", "colour.npz")):
        images, reference = (str(tmp_path / name) for name in names)
        with pytest.raises(TokenlawError, match=message) as caught:
            evaluate(Request(images, reference, (extractor,), ("fid",)), report=lambda line: None)
        # A reference is looked at first; a network of one channel takes grey images.
        refused = "colour.npz" if extractor == "builtin" else names[1]
        assert f"{refused}: extractor" in str(caught.value) and "\n" not in str(caught.value)


def test_images_of_an_npz_are_streamed(tmp_path: Path) -> None:
    images = pictures(0, 50)
    np.savez_compressed(tmp_path / "a.npz", images)
    batches = list(npz_images(tmp_path / "a.npz").batches(16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert torch.equal(torch.cat(batches).permute(0, 2, 3, 1), torch.from_numpy(images))
