"""The causal regulariser: causal, weighted as the paper says, and effective."""

from __future__ import annotations

import pytest
import torch

from scaling.specification.spec import CausalRegulariserSpec
from scaling.tokenizer.causal import CausalRegulariser
from scaling.tokenizer.regulariser import latents_of, scale_gradient


def regulariser(**changes: object) -> CausalRegulariser:
    """A regulariser on 8-dimensional latents of a 4x4 grid, with weights that are not at their start."""
    torch.manual_seed(0)
    return CausalRegulariser(CausalRegulariserSpec(**({"weight": 4.0, "width": 32} | changes)), 8, 4)


def latents() -> torch.Tensor:
    """Latent grids that need a gradient."""
    return torch.randn(5, 8, 4, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)


def test_a_prediction_sees_only_earlier_positions() -> None:
    model = regulariser().model
    sequence = torch.randn(3, 16, 8)
    base = model(sequence)
    for position in range(16):
        changed = sequence.clone()
        changed[:, position] += 1.0
        moved = (model(changed) - base).abs().amax(dim=(0, 2)) > 1e-7
        assert not moved[: position + 1].any()
        assert moved[position + 1 :].all()


def test_lambda_scales_the_encoders_gradient_and_not_the_causal_models() -> None:
    gradients = {}
    for weight in (0.0, 1.0, 4.0):
        module, x = regulariser(), latents()
        loss, _ = module(x, weight)
        loss.backward()
        gradients[weight] = (x.grad.clone(), [p.grad.clone() for p in module.parameters()])
    assert float(gradients[0.0][0].abs().max()) == 0
    torch.testing.assert_close(gradients[4.0][0], 4 * gradients[1.0][0])
    for weight in (0.0, 4.0):
        for own, expected in zip(gradients[weight][1], gradients[1.0][1], strict=True):
            torch.testing.assert_close(own, expected)
    assert all(float(g.abs().max()) > 0 for g in gradients[0.0][1])


@pytest.mark.parametrize(
    "form",
    [{}, {"normalised": False}, {"reduction": "sum"}, {"first_position": "skipped", "normalised": False}],
    ids=str,
)
def test_the_gradient_of_each_form_by_finite_differences(
    form: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    module, x = regulariser(**form).double(), latents().detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda latents: module(latents, 1.0)[0], x[:1].detach().requires_grad_(), atol=1e-7)


def test_targets_carry_gradient_unless_detached() -> None:
    """With attached targets the last position, which is only ever a target, receives a gradient."""
    for detached in (False, True):
        module, x = regulariser(detach_targets=detached), latents()
        module(x, 1.0)[0].backward()
        assert (float(x.grad[:, :, -1, -1].abs().max()) == 0) is detached


def test_normalised_loss_cannot_be_lowered_by_shrinking_latents() -> None:
    module, x = regulariser(), latents()
    torch.testing.assert_close(module(x, 1.0)[0], module(0.01 * x, 1.0)[0])
    raw = regulariser(normalised=False)
    assert raw(0.01 * x, 1.0)[0].item() < 0.05 * raw(x, 1.0)[0].item()


def test_sum_and_mean_differ_by_the_dimension() -> None:
    x = latents()
    mean, total = regulariser()(x, 1.0)[0], regulariser(reduction="sum")(x, 1.0)[0]
    torch.testing.assert_close(total, 8 * mean)


def test_weight_is_annealed_from_zero() -> None:
    module = regulariser(anneal_images=1000)
    assert [module.annealed_weight(i) for i in (0, 250, 1000, 9999)] == [0.0, 1.0, 4.0, 4.0]
    assert regulariser(anneal_images=0).annealed_weight(0) == 4.0


@pytest.mark.parametrize("latent_kind", ["projected", "encoder", "quantised"])
def test_gradient_reaches_the_encoder_from_each_kind_of_latent(latent_kind: str) -> None:
    from scaling.data.images import Images
    from scaling.specification.spec import TokenizerRun
    from scaling.training.schedule import segments
    from scaling.training.tokenizer import TokenizerTraining

    run = TokenizerRun(
        regulariser=CausalRegulariserSpec(latents=latent_kind, anneal_images=0), train_images=128, ema_decay=0.0
    )
    images = Images(torch.zeros(128, 1, 32, 32, dtype=torch.uint8), torch.zeros(128, dtype=torch.int64))
    training = TokenizerTraining(run, images, lambda *arguments: None)
    encoded = training.model.encode(torch.randn(2, 1, 32, 32))
    training.regulariser(latents_of(encoded, latent_kind), 1.0)[0].backward()
    assert float(training.model.encoder.levels[0].weight.grad.abs().max()) > 0
    terms = training.step(segments(run)[0], 0)
    assert {"causal", "causal_explained_variance", "latent_norm"} <= set(terms)


def test_it_learns_what_is_predictable_and_reports_how_much() -> None:
    """On sequences that repeat their first vector, all but the first position becomes predictable."""
    module = regulariser(normalised=False)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    source = torch.Generator().manual_seed(0)
    for _ in range(150):
        x = torch.randn(64, 8, 1, 1, generator=source).expand(-1, -1, 4, 4)
        loss, explained = module(x, 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(explained) > 0.8


def test_scaled_gradients() -> None:
    x = torch.ones(3, requires_grad=True)
    (scale_gradient(x, 0.5) * 2).sum().backward()
    assert torch.equal(x.grad, torch.ones(3))
