"""The discriminator in training: its weight, its own gradients, its exact resume, and what is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from results.errors import UsageError
from scaling.data.images import Images
from scaling.specification.spec import AdversarialSpec, ReconstructionLossSpec, TokenizerRun, parse_run
from scaling.training.schedule import segments
from scaling.training.tokenizer import TokenizerTraining


def run(**changes: object) -> TokenizerRun:
    """Eight steps of 8 images, of which the last six have a discriminator."""
    settings = {"start_images": 16, "ramp_images": 16, "width": 16, "layers": 2} | changes
    return TokenizerRun(train_images=64, batch_size=8, ema_decay=0.0, adversarial=AdversarialSpec(**settings))


def training(spec: TokenizerRun, microbatch: int | None = None) -> TokenizerTraining:
    """On drawn images, evaluating nothing."""
    source = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (64, 1, 32, 32), generator=source, dtype=torch.uint8)
    images = Images(pixels, torch.zeros(64, dtype=torch.int64))
    return TokenizerTraining(spec, images, lambda *arguments: None, microbatch=microbatch)


def steps(stage: TokenizerTraining, first: int, last: int) -> list[dict[str, float]]:
    """The terms of some steps."""
    (segment,) = segments(stage.spec)
    return [{k: float(v) for k, v in stage.step(segment, 8 * step).items()} for step in range(first, last)]


def test_the_weight_is_zero_then_half_a_cosine_then_whole() -> None:
    spec = AdversarialSpec(weight=0.5, start_images=1000, ramp_images=200)
    weights = [spec.weight_after(images) for images in (0, 999, 1000, 1050, 1100, 1200, 5000)]
    assert weights == pytest.approx([0, 0, 0, 0.25 * (1 - 0.5**0.5), 0.25, 0.5, 0.5])
    assert AdversarialSpec(start_images=5, ramp_images=0).weight_after(5) == 0.5
    # The paper's: 20k and 2k steps of 128.
    assert AdversarialSpec().weight_after(21_000 * 128) == pytest.approx(0.25)


def test_before_its_start_it_changes_nothing_and_costs_no_draw() -> None:
    spec = run()
    plain = spec.model_copy(update={"adversarial": None})
    ours, others = steps(training(spec), 0, 2), steps(training(plain), 0, 2)
    for step, other in zip(ours, others, strict=True):
        assert {name: step[name] for name in other} == other
        assert step["adversarial_weight"] == 0 and step["discriminator"] == 0


def test_its_terms_are_columns_and_enter_the_loss() -> None:
    terms = steps(training(run(ramp_images=0)), 0, 4)[-1]
    assert terms["adversarial_weight"] == 0.5
    assert terms["adversarial"] == pytest.approx(-terms["discriminator_fake"], rel=1e-4)
    assert terms["discriminator"] == pytest.approx(terms["discriminator_fake"] - terms["discriminator_real"], abs=1e-6)
    rest = terms["squared_error"] + terms["perceptual"] + terms["codebook"] + 0.25 * terms["commitment"]
    assert terms["loss"] == pytest.approx(rest + 0.5 * terms["adversarial"], rel=1e-5)
    assert terms["discriminator_gradient_norm"] > 0


def test_each_model_learns_from_its_own_loss_alone() -> None:
    """The tokenizer's term leaves no gradient in the discriminator, and the discriminator's none in the tokenizer."""
    stage = training(run(start_images=0, ramp_images=0))
    adversary = stage.adversary
    images = torch.rand(4, 1, 32, 32)
    reconstruction = torch.rand(4, 1, 32, 32, requires_grad=True)
    term, weight = adversary.oppose(reconstruction, torch.zeros(()), 100, 1.0)
    (weight * term).backward()
    assert float(reconstruction.grad.abs().max()) > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.network.parameters())
    reconstruction.grad = None
    adversary.learn(images, reconstruction, 1.0)
    assert reconstruction.grad is None
    assert all(p.grad is not None for p in adversary.network.parameters())


def test_the_tokenizers_term_by_finite_differences() -> None:
    stage = training(run(start_images=0, ramp_images=0, norm="group"))
    network = stage.adversary.network.double()
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    stage.adversary.oppose(images, torch.zeros(()), 100, 1.0)[0].backward()
    direction = torch.randn(2, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values = [-network.layers(images + h * direction).mean() for h in (1e-4, -1e-4)]
    expected = float((values[0] - values[1]) / 2e-4)
    assert float((images.grad * direction).sum()) == pytest.approx(expected, rel=1e-3)


def test_the_adaptive_weight_balances_the_two_gradients() -> None:
    stage = training(run(start_images=0, ramp_images=0, adaptive=True, weight=1.0))
    last = stage.adversary.last
    images = torch.rand(4, 1, 32, 32)
    reconstruction = stage.model.decode(stage.model.encode(images).quantised.codes)
    faithful = (reconstruction - images).square().mean()
    term, weight = stage.adversary.oppose(reconstruction, faithful, 100, 1.0)
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (faithful, term)]
    assert float(weight) == pytest.approx(float(norms[0] / (norms[1] + 1e-4)), rel=1e-5)


def test_weights_are_clipped_where_asked() -> None:
    stage = training(run(start_images=0, ramp_images=0, weight_clip=0.01))
    steps(stage, 0, 1)
    assert max(float(p.detach().abs().max()) for p in stage.adversary.network.parameters()) <= 0.01


@pytest.mark.parametrize("split", [1, 4])
def test_a_resumed_training_goes_on_bit_for_bit(split: int) -> None:
    """Interrupted before the discriminator has begun, and after."""
    whole = training(run())
    expected = steps(whole, 0, 8)
    first = training(run())
    before = steps(first, 0, split)
    second = training(run())
    second.load({name: value.clone() for name, value in first.state().items()})
    assert before + steps(second, split, 8) == expected
    states = whole.state(), second.state()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(name.startswith("discriminator_optimiser.") for name in states[0])


def test_what_does_not_fit_is_one_error_before_training() -> None:
    with pytest.raises(ValidationError, match="start_images = 60 and ramp_images = 16 reach past train_images = 64"):
        run(start_images=60)
    with pytest.raises(ValidationError, match="layers = 4 leave no patch of 32 pixels"):
        run(layers=4)
    with pytest.raises(ValidationError, match="width = 24 gives 24 channels; allowed: multiples of 16"):
        run(width=24, norm="group")
    with pytest.raises(UsageError, match="norm = 'batch' looks at a whole batch, but a microbatch of 4 cuts"):
        training(run(), microbatch=4)
    with pytest.raises(UsageError, match="adaptive = True looks at a whole batch"):
        training(run(norm="group", adaptive=True), microbatch=4)


def test_runs_without_one_keep_their_ids() -> None:
    plain = TokenizerRun(losses=ReconstructionLossSpec())
    assert "adversarial" not in plain.canonical
    assert parse_run(run().canonical) == run()
