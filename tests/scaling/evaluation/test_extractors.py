"""Feature networks: architectures by their published facts, conventions, weights refused, photographs named."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from results.errors import DataError, UsageError
from scaling.data.sources.builtin import catalogue_files as sources
from scaling.evaluation.networks import extractors
from scaling.evaluation.networks.efficientnet import EfficientNetLite0, SameConvolution
from scaling.evaluation.networks.extractors import load_extractor, read_weights
from scaling.evaluation.networks.inception import Inception, resize_as_tensorflow


def photographs() -> Path:
    """Folder of scikit-image's own photographs, without importing it."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image, whose photographs are looked at, is not installed")
    return Path(package.origin).parent / "data"


def test_parameters_are_those_published() -> None:
    """EfficientNet-Lite0: 4.7 million; Inception: torchvision's 23,834,568 without its side head, and 8 classes."""
    counts = [sum(p.numel() for p in network.parameters()) for network in (EfficientNetLite0(), Inception())]
    assert counts == [4_652_008, 23_834_568 + 8 * 2_049]


@pytest.mark.parametrize(("side", "kernel", "stride"), [(7, 3, 1), (8, 3, 2), (9, 5, 2), (10, 5, 2)])
def test_same_padding_is_tensorflows(side: int, kernel: int, stride: int) -> None:
    convolution = SameConvolution(1, 1, kernel, stride)
    nn.init.ones_(convolution.weight)
    out = -(-side // stride)
    rest = max((out - 1) * stride + kernel - side, 0)
    padded = nn.functional.pad(torch.ones(1, 1, side, side), (rest // 2, rest - rest // 2) * 2)
    expected = nn.functional.conv2d(padded, convolution.weight, stride=stride)
    torch.testing.assert_close(convolution(torch.ones(1, 1, side, side)), expected)


def test_resize_reads_at_corners_without_antialiasing() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert resize_as_tensorflow(ramp, 16)[0, 0, 0].tolist() == [min(i / 2, 7) for i in range(16)]
    stripes = (torch.arange(8) % 2 * 1.0).expand(1, 1, 8, 8)
    assert resize_as_tensorflow(stripes, 4).abs().max() == 0
    square = torch.rand(2, 3, 5, 9)
    assert resize_as_tensorflow(square, 7).shape == (2, 3, 7, 7)


def test_inception_gives_one_vector_an_image() -> None:
    network = Inception().eval()
    with torch.inference_mode():
        features = network(torch.rand(2, 3, 299, 299))
    assert features.shape == (2, 2_048)
    assert network.classify(features.clone()).shape == (2, 1_008)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("coffee.png", {967}),  # espresso
        ("chelsea.png", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("camera.png", {872}),  # tripod
        ("motorcycle_left.png", {665, 670}),  # moped, motor scooter
        ("rocket.jpg", {657, 744}),  # missile, projectile
    ],
)
def test_photographs_are_named(name: str, classes: set[int]) -> None:
    try:
        extractor = load_extractor("efficientnet-lite0")
    except DataError as error:
        pytest.skip(f"EfficientNet-Lite0's weights are not here: {error}")
    image = Image.open(photographs() / name).convert("RGB")
    side = min(image.size)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    image = image.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None]
    assert extractor.classify is not None
    with torch.inference_mode():
        assert int(extractor.classify(extractor.features(pixels)).argmax()) in classes


def small_file(path: Path) -> Path:
    """Weights of random values."""
    torch.save(EfficientNetLite0().state_dict(), path)
    return path


def test_weights_are_read_and_hashed(tmp_path: Path) -> None:
    network = EfficientNetLite0()
    digest = read_weights(small_file(tmp_path / "w.pth"), network)
    assert len(digest) == 64
    with pytest.raises(DataError, match=r"w\.pth are not those expected \(SHA-256 "):
        load_extractor(f"efficientnet-lite0={tmp_path / 'w.pth'}")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a pickle ran",)


def test_bad_weights_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": _Evil()}))
    torch.save({"a": _Evil()}, tmp_path / "evil.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save(Inception().fc.state_dict(), tmp_path / "other.pth")
    state = EfficientNetLite0().state_dict()
    torch.save(state | {"_fc.weight": torch.ones(10, 1_280)}, tmp_path / "ten.pth")
    (tmp_path / "cut.pth").write_bytes(small_file(tmp_path / "w.pth").read_bytes()[:5_000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x01\x02")
    (tmp_path / "empty.pth").write_bytes(b"")
    expected = {
        "pickle.pth": "cannot be read", "evil.pth": "cannot be read", "tensor.pth": "no state dict",
        "other.pth": "another network: _conv_stem.weight is missing", "ten.pth": r"_fc.weight is \[10, 1280\]",
        "cut.pth": "cannot be read", "cut.safetensors": "cannot be read", "empty.pth": "cannot be read",
        "absent.pth": "No such file",
    }  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(DataError, match=message) as caught:
            read_weights(tmp_path / name, EfficientNetLite0())
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_inception_is_downloaded_or_said_where_to_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "_resolves", lambda host: False)
    monkeypatch.setattr(sources.urllib.request, "getproxies", dict)
    with pytest.raises(DataError, match=r"host github\.com cannot be resolved\); put it at .*weights/weights-incep"):
        load_extractor("inception")


def test_a_downloaded_file_is_checked_kept_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, asked = b"weights" * 100, []

    def download(url: str, part: Path, report: object) -> bool:
        asked.append(part.exists() and part.stat().st_size)
        part.write_bytes(content)
        return False

    monkeypatch.setattr(sources, "_download", download)
    monkeypatch.setattr(sources, "_resolves", lambda host: True)
    sha = sources.hashlib.sha256(content).hexdigest()
    (tmp_path / "w.pth.part").write_bytes(content[:50])
    assert sources.fetch("https://host/w", tmp_path / "w.pth", sha).read_bytes() == content
    assert sources.fetch("https://host/w", tmp_path / "w.pth", sha) == tmp_path / "w.pth"
    assert asked == [50]
    with pytest.raises(DataError, match="is damaged"):
        sources.fetch("https://host/x", tmp_path / "x.pth", "0" * 64)
    assert not (tmp_path / "x.pth").exists()


def module_named(name: str, **content: object) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


class Means(nn.Module):
    """Channel means of 8-pixel images."""

    side, channels = 8, 3

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_a_module_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module_named("own_networks", means=Means, nothing=lambda: 3, maps=nn.Identity)
    monkeypatch.delitem(sys.modules, "own_networks.none", raising=False)
    extractor = load_extractor("own_networks:means")
    assert (extractor.resize, extractor.dimensions, extractor.label) == ("bicubic-antialias-8", 3, "FD-means")
    features = extractor.features(torch.full((4, 1, 16, 16), 255, dtype=torch.uint8))
    torch.testing.assert_close(features, torch.ones(4, 3))
    with pytest.raises(UsageError, match="gives a int; allowed: a torch"):
        load_extractor("own_networks:nothing")
    with pytest.raises(UsageError, match="cannot be made"):
        load_extractor("own_networks:absent")
    with pytest.raises(UsageError, match=r"gives \[2, 3, 8, 8\] for 2 images"):
        load_extractor("own_networks:maps").features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    del sys.modules["own_networks"]


class Broken(Means):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * float("nan")


def test_features_that_are_not_finite_are_an_error() -> None:
    module_named("broken_network", make=Broken)
    with pytest.raises(DataError, match=r"broken_network:make gives features that are not finite"):
        load_extractor("broken_network:make").features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    del sys.modules["broken_network"]


def test_names_and_colours(tmp_path: Path) -> None:
    for name, message in (("incepton", "allowed: inception,"), ("builtin=file", "takes no file")):
        with pytest.raises(UsageError, match=message):
            load_extractor(name)
    builtin = load_extractor("builtin")
    assert builtin.features(torch.zeros(3, 1, 32, 32, dtype=torch.uint8)).shape == (3, 96)
    with pytest.raises(UsageError, match="takes images of 1 channel, not 3"):
        builtin.features(torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    assert load_extractor("builtin-perceptual").dimensions > 0
    assert set(extractors.EXTRACTORS) >= {"inception", "efficientnet-lite0", "builtin"}
