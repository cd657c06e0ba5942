"""Options of the causal regulariser, a second prior by the same protocol, and the flag for latents that shrink."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from results.errors import UsageError
from scaling.data.images import Images
from scaling.evaluation.measuring.guards import collapsed_codebook, shrunk_latents
from scaling.specification.costs import flops
from scaling.specification.spec import CausalRegulariserSpec, LinearPriorSpec, TokenizerRun, parse_run
from scaling.tokenizer.known_regularisers import build_regulariser
from scaling.tokenizer.model import Encoded
from scaling.tokenizer.quantizers import Quantised
from scaling.training.schedule import segments
from scaling.training.tokenizer import TokenizerTraining, codebook_use

CROSS_ENTROPY = CausalRegulariserSpec(objective="cross-entropy", latents="quantised", weight=0.03, width=32)
KINDS = {
    "cross-entropy": CROSS_ENTROPY,
    "skipped": CausalRegulariserSpec(first_position="skipped", width=32),
    "linear": LinearPriorSpec(anneal_images=0),
    "linear-encoder": LinearPriorSpec(latents="encoder", normalised=False),
}


def run(regulariser: CausalRegulariserSpec | LinearPriorSpec | None, **changes: object) -> TokenizerRun:
    """Four steps of 8 images, without the perceptual loss's noise in what is compared."""
    return TokenizerRun(regulariser=regulariser, train_images=32, batch_size=8, ema_decay=0.0, **changes)


def encoded(latents: torch.Tensor, tokens: torch.Tensor) -> Encoded:
    """A pass of an encoder that gave these latents at every stage."""
    return Encoded(latents, latents, latents, Quantised(latents, tokens))


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents float64 [3, 8, 4, 4] that need a gradient, and tokens [3, 16] of 256."""
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 8, 4, 4, dtype=torch.float64, generator=source, requires_grad=True)
    return latents, torch.randint(0, 256, (3, 16), generator=source)


@pytest.mark.parametrize("name", KINDS)
def test_it_trains_with_the_tokenizer_and_its_parts_add_up(name: str) -> None:
    spec = run(KINDS[name])
    pixels = torch.randint(0, 256, (32, 1, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = Images(pixels, torch.zeros(32, dtype=torch.int64))
    whole, cut = (TokenizerTraining(spec, images, lambda *arguments: None, microbatch=m) for m in (None, 3))
    for step in range(2):
        terms, others = (t.step(segments(spec)[0], 8 * step) for t in (whole, cut))
        assert terms.keys() == others.keys()
        assert spec.regulariser.kind in terms
        for term, value in terms.items():
            # By the second step one optimiser's step has amplified the rounding.
            assert float(others[term]) == pytest.approx(float(value), rel=[1e-4, 0.05][step], abs=[1e-5, 1e-2][step])
    assert parse_run(spec.canonical) == spec


@pytest.mark.parametrize("name", KINDS)
def test_costs_are_what_torch_counts(name: str) -> None:
    spec = run(KINDS[name])
    regulariser = build_regulariser(spec)
    dim = flops.regulariser_latent_dim(spec)
    latents = torch.randn(2, dim, 4, 4, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        regulariser.penalty(encoded(latents, torch.zeros(2, 16, dtype=torch.int64)), 1.0, True).loss.backward()
    assert counter.get_total_flops() == 2 * flops.tokenizer_costs(spec).causal
    plain = run(None)
    extra = flops.parameters(spec).frozen - flops.parameters(plain).frozen
    assert extra == sum(p.numel() for p in regulariser.parameters())


@pytest.mark.parametrize("name", ["cross-entropy", "skipped", "linear"])
def test_gradients_into_the_latents_by_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    regulariser = build_regulariser(run(KINDS[name])).double()
    latents, tokens = drawn()

    def loss(values: torch.Tensor) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            # Training casts to float32, which differences cannot see through.
            patch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())
            return regulariser.penalty(encoded(values, tokens), 1.0, True).loss

    loss(latents).backward()
    direction = torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        difference = (loss(latents + 1e-5 * direction) - loss(latents - 1e-5 * direction)) / 2e-5
    assert (latents.grad * direction).sum().item() == pytest.approx(difference.item(), rel=1e-5)


def test_cross_entropy_reaches_the_encoder_through_what_is_read_alone() -> None:
    """The last position is only ever a target, and tokens have no gradient; weights learn with lambda 0 as with 1."""
    regulariser = build_regulariser(run(CROSS_ENTROPY))
    latents, tokens = drawn()
    penalty = regulariser.penalty(encoded(latents, tokens), 0.5, True)
    penalty.loss.backward()
    assert float(latents.grad[:, :, -1, -1].abs().max()) == 0
    assert float(latents.grad[:, :, 0, 0].abs().max()) > 0
    # Before training the guess is nearly uniform.
    assert penalty.loss.item() == pytest.approx(torch.tensor(256.0).log().item(), rel=0.05)
    gradient = regulariser.model.predict.weight.grad.clone()
    regulariser.zero_grad()
    regulariser.penalty(encoded(latents, tokens), 0.0, True).loss.backward()
    torch.testing.assert_close(regulariser.model.predict.weight.grad, gradient)


def test_a_skipped_first_position_is_in_no_loss() -> None:
    latents, tokens = drawn()
    skipping, starting = (
        build_regulariser(run(CausalRegulariserSpec(first_position=first, width=32))) for first in ("skipped", "start")
    )
    starting.load_state_dict(skipping.state_dict())
    _, squared, target = starting.terms(latents.float(), 1.0)
    expected = squared[:, 1:].mean()
    torch.testing.assert_close(skipping.penalty(encoded(latents, tokens), 1.0, True).loss, expected)
    assert target.shape[1] == 16


def test_the_linear_prior_by_hand() -> None:
    """The map starts as the identity: the loss is the mean squared difference of neighbours in raster order."""
    regulariser = build_regulariser(run(LinearPriorSpec(normalised=False)))
    latents, tokens = drawn()
    flat = latents.detach().float().flatten(2)
    expected = (flat[:, :, 1:] - flat[:, :, :-1]).square().mean()
    torch.testing.assert_close(regulariser.penalty(encoded(latents, tokens), 1.0, True).loss.detach(), expected)


def test_overhead_is_the_share_of_all_else() -> None:
    spec = run(CausalRegulariserSpec())
    with_it, without = (flops.tokenizer_costs(s).total for s in (spec, run(None)))
    assert flops.regulariser_overhead(spec) == pytest.approx(with_it / without - 1)


def curve(*norms: float, term: str = "latent_norm") -> list[dict[str, object]]:
    """Rows of a term."""
    return [{"term": term, "value": norm} for norm in norms]


def test_latents_that_shrink_under_a_loss_that_rewards_it_are_flagged() -> None:
    raw, unit = (run(CausalRegulariserSpec(normalised=normalised)) for normalised in (False, True))
    shrinking = curve(1.0, 4.0, 0.9)
    assert "0.23 of their largest norm" in (shrunk_latents(raw, shrinking) or "")
    assert shrunk_latents(raw, curve(1.0, 4.0, 1.1)) is None
    assert shrunk_latents(unit, shrinking) is None
    assert shrunk_latents(run(None), shrinking) is None
    assert shrunk_latents(run(CROSS_ENTROPY), shrinking) is None
    # Of the latents that the loss is of, where they are others than the projected ones.
    assert shrunk_latents(raw, curve(1.0, 4.0, 4.0, term="causal_latent_norm") + shrinking) is None


def test_a_codebook_that_collapsed_is_told() -> None:
    assert collapsed_codebook(0.5, 40.0) is None and collapsed_codebook(0.01, 2.0) is None
    assert "use 0.39 % of it, with a perplexity of 1" in (collapsed_codebook(1 / 256, 1.0) or "")
    assert collapsed_codebook(0.9, 1.9) is not None and collapsed_codebook(0.009, 500.0) is not None
    use = codebook_use(torch.tensor([2, 0, 2, 0]))
    assert {name: float(value) for name, value in use.items()} == {
        "codebook_utilisation": 0.5, "codebook_perplexity": pytest.approx(2.0)
    }  # fmt: skip


def test_what_does_not_fit_is_one_error() -> None:
    with pytest.raises(ValidationError, match="latents = 'projected' have no tokens to predict; allowed: 'quantised'"):
        CausalRegulariserSpec(objective="cross-entropy")
    single = run(CausalRegulariserSpec(first_position="skipped"), input_size=8)
    with pytest.raises(UsageError, match="'skipped' leaves nothing to predict of 1 token"):
        build_regulariser(single)


def test_labels_and_ids_of_earlier_runs_stay() -> None:
    assert run(CausalRegulariserSpec(weight=0.5)).configuration_label == "K256-T16-crt0.5"
    assert run(CausalRegulariserSpec(latents="encoder")).configuration_label == "K256-T16-crt4-encoder"
    assert run(CROSS_ENTROPY).configuration_label == "K256-T16-crt0.03-quantised-ce"
    assert "objective" not in run(CausalRegulariserSpec()).canonical
