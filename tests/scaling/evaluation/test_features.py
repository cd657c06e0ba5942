"""The two feature networks: what they cost, that they are the pinned ones, what the perceptual loss measures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from results.errors import DataError
from scaling.data.images import Images, load_images, to_float
from scaling.evaluation.networks import features, pretrain
from scaling.evaluation.networks.features import PerceptualLoss, extract_features, load_network
from scaling.specification import catalogue, feature_networks
from scaling.specification.spec import DataSpec

ROLES: tuple[feature_networks.Role, ...] = ("fid", "perceptual")


@pytest.fixture(scope="module")
def validation(fashion_mnist: dict[str, Path]) -> Images:
    return load_images(DataSpec(), "validation")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("side", [28, 32, 40, 64])
def test_flops_are_those_that_torch_counts(role: feature_networks.Role, side: int) -> None:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        load_network(role)(torch.zeros(3, 1, side, side))
    assert counter.get_total_flops() == 3 * feature_networks.forward_flops(role, side)


@pytest.mark.parametrize("role", ROLES)
def test_parameters_and_size(role: feature_networks.Role) -> None:
    network = load_network(role)
    entry = json.loads((catalogue.WEIGHTS / "networks.json").read_text())[role]
    assert sum(p.numel() for p in network.parameters()) == feature_networks.parameter_count(role) == entry["parameters"]
    assert catalogue.FEATURE_NETWORKS[role].path.stat().st_size <= 2**20
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_unknown_role() -> None:
    with pytest.raises(ValueError, match="'inception' is unknown; allowed: 'fid', 'perceptual'"):
        feature_networks.forward_flops("inception", 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    entry = catalogue.FEATURE_NETWORKS["fid"]
    content = bytearray(entry.path.read_bytes())
    content[len(content) // 2] ^= 1
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    if damage == "flip":
        (tmp_path / entry.name).write_bytes(content)
    features._verified_bytes.cache_clear()
    try:
        with pytest.raises(DataError, match=r"fid_classifier.safetensors (is damaged|cannot be read)"):
            load_network("fid")
    finally:
        features._verified_bytes.cache_clear()


def test_networks_differ_in_architecture_and_weights() -> None:
    shapes = [{tuple(p.shape) for p in load_network(role).parameters() if p.ndim == 4} for role in ROLES]
    assert not shapes[0] & shapes[1] - {(32, 32, 3, 3)}
    assert any(isinstance(module, features.ResidualBlock) for module in load_network("fid").modules())
    assert not any(isinstance(module, features.ResidualBlock) for module in load_network("perceptual").modules())


def test_classifier_is_as_accurate_as_stated(validation: Images) -> None:
    network = load_network("fid")
    with torch.inference_mode():
        guesses = torch.cat([network.logits(to_float(chunk)).argmax(1) for chunk in validation.pixels.split(500)])
    accuracy = (guesses == validation.labels).double().mean().item()
    stated = json.loads((catalogue.WEIGHTS / "networks.json").read_text())["fid"]["test_accuracy"]
    assert accuracy >= 0.93
    # Other processors round differently: a few images near a border between classes may change sides.
    assert accuracy == pytest.approx(stated, abs=5e-4)


def test_features_have_unit_variance_and_do_not_depend_on_the_batch(validation: Images) -> None:
    network = load_network("fid")
    found = extract_features(network, validation.pixels[:2_000])
    assert found.shape == (2_000, feature_networks.FID_DIMENSIONS) and found.dtype == torch.float32
    assert found.var(dim=0).mean().item() == pytest.approx(1, abs=0.1)
    again = extract_features(network, validation.pixels[:2_000], batch=77)
    torch.testing.assert_close(found, again, atol=1e-4, rtol=1e-4)
    assert not found.requires_grad and not found.is_inference()


def test_features_want_uint8_images() -> None:
    with pytest.raises(ValueError, match=r"pixels must be uint8 \[n, c, s, s\], not torch.float32 \[1, 1, 32, 32\]"):
        extract_features(load_network("fid"), torch.zeros(1, 1, 32, 32))
    assert extract_features(load_network("fid"), torch.zeros(0, 1, 32, 32, dtype=torch.uint8)).shape == (0, 96)


# --- perceptual loss


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss()


def test_loss_is_the_distance_of_unit_features(loss: PerceptualLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(3, 1, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    expected = []
    for found, wanted in zip(loss.network(a), loss.network(b), strict=True):
        angles = nn.functional.cosine_similarity(found.double(), wanted.double(), dim=1)
        expected.append(2 - 2 * angles.mean())
    torch.testing.assert_close(loss(a, b).double(), torch.stack(expected).mean(), atol=1e-5, rtol=1e-5)
    assert len(expected) == len(feature_networks.PERCEPTUAL_DEPTHS)


def test_loss_is_zero_for_equal_images_and_bounded(loss: PerceptualLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 1, 32, 32, generator=generator) for _ in range(2))
    assert loss(a, a).item() == 0
    assert 0 < loss(a, b).item() < 4
    assert loss(a, b).item() == pytest.approx(loss(b, a).item(), rel=1e-5)


def test_gradient_flows_to_the_reconstruction_alone(loss: PerceptualLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 1, 32, 32, generator=generator).requires_grad_() for _ in range(2))
    loss(a, b).backward()
    assert a.grad is not None and a.grad.isfinite().all() and a.grad.abs().sum() > 0
    assert b.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_gradient_agrees_with_finite_differences() -> None:
    loss = PerceptualLoss().double()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 1, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: loss(x, b), a.requires_grad_(), eps=1e-7, atol=1e-6)


def test_gradient_is_finite_at_equality_and_on_black(loss: PerceptualLoss) -> None:
    for image in (torch.full((1, 1, 32, 32), -1.0), torch.zeros(1, 1, 32, 32)):
        reconstruction = image.clone().requires_grad_()
        loss(reconstruction, image).backward()
        assert reconstruction.grad is not None and reconstruction.grad.isfinite().all()


def test_train_mode_of_the_owner_leaves_the_network_frozen(loss: PerceptualLoss) -> None:
    owner = nn.ModuleList([loss])
    owner.train()
    assert loss.training and not loss.network.training


def blurred(images: Tensor) -> Tensor:
    """3x3 box blur, twice."""
    for _ in range(2):
        images = nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return images


def test_blur_costs_more_than_a_shift_of_brightness_of_equal_squared_error(
    loss: PerceptualLoss, validation: Images
) -> None:
    """What squared error cannot tell apart and a perceptual loss should: lost texture against a change of contrast."""
    images = to_float(validation.pixels[:500])
    blur = blurred(images)
    error = (blur - images).square().mean(dim=(1, 2, 3), keepdim=True)
    # Contrast about the background: scale the distance from black so that the squared error is the same.
    signal = images + 1
    dimmed = images - signal * (error / signal.square().mean(dim=(1, 2, 3), keepdim=True)).sqrt()
    torch.testing.assert_close((dimmed - images).square().mean(), error.mean())
    assert loss(blur, images).item() > 1.5 * loss(dimmed, images).item()


def test_loss_grows_with_the_strength_of_a_distortion(loss: PerceptualLoss, validation: Images) -> None:
    images = to_float(validation.pixels[:200])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    values = [loss(images + strength * noise, images).item() for strength in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert values == sorted(values) and len(set(values)) == len(values)


# --- training


def test_folding_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    network = features.FidClassifier()
    pretrain._insert_batch_norm(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(3):
        network(torch.randn(16, 1, 32, 32))
    network.eval()
    images = torch.randn(4, 1, 32, 32)
    before = network(images)
    pretrain._fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(images), before, atol=1e-5, rtol=1e-4)
    assert set(network.state_dict()) == set(features.FidClassifier().state_dict())


def test_moves_lose_nothing() -> None:
    image = torch.full((64, 1, 8, 8), -1.0)
    image[:, :, 2:6, 2:6] = torch.randn(1, 1, 4, 4)
    moved = pretrain._shift_and_flip(image, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.flatten(1).sort().values, image.flatten(1).sort().values)
    assert len({tuple(row) for row in moved.flatten(1).tolist()}) > 20


@pytest.mark.slow
def test_training_is_deterministic(validation: Images, tmp_path: Path) -> None:
    few = Images(validation.pixels[:640], validation.labels[:640])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for role, train in (("fid", pretrain.train_fid), ("perceptual", pretrain.train_perceptual)):
            digests = set()
            for turn in range(2):
                network, facts = train(few, few, epochs=1)
                digests.add(pretrain.write_network(role, network, facts, tmp_path / str(turn)))  # type: ignore[arg-type]
            assert len(digests) == 1
            entry = json.loads((tmp_path / "0" / "networks.json").read_text())[role]
            shipped = dataclasses.asdict(catalogue.FEATURE_NETWORKS[role])
            assert entry["file"] == shipped["name"] and entry["description"] == shipped["description"]
    finally:
        torch.set_num_threads(threads)
