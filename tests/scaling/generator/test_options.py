"""Options of the transformer: dropout by image, checkpointing, the factorised head, muP, LlamaGen's class position."""

from __future__ import annotations

import pytest
import torch

from scaling.data.tokens import TokenSplit
from scaling.generator.dropout import Dropout, image_keys
from scaling.generator.head import FactorisedHead
from scaling.generator.sampling import sample
from scaling.generator.transformer import Generator, KeyValueCache
from scaling.networks import recompute_activations
from scaling.specification.learning_rates import RULES
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, TransformerSpec, VectorQuantizerSpec
from scaling.training.generator import GeneratorTraining
from scaling.training.schedule import segments

DROPOUTS = {"token_dropout": 0.1, "residual_dropout": 0.2, "feed_forward_dropout": 0.3}


def model(codebook_size: int = 32, **changes: object) -> Generator:
    """A small generator whose head is not zero."""
    torch.manual_seed(0)
    spec = TransformerSpec(**({"width": 32, "layers": 2, "head_dim": 16} | changes))
    generator = Generator(spec, codebook_size=codebook_size, grid=4, classes=3)
    for name, parameter in generator.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return generator


def inputs(n: int = 4, codes: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n, 16] and labels [n]."""
    source = torch.Generator().manual_seed(1)
    return torch.randint(codes, (n, 16), generator=source), torch.arange(n) % 3


def trained(
    spec: TransformerSpec, steps: int, *, microbatch: int | None = None, rate: float = 1e-2
) -> GeneratorTraining:
    """A training on random tokens after some steps."""
    run = GeneratorRun(
        tokenizer=TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=64)), transformer=spec, batch_size=16,
        optimiser=OptimiserSpec(learning_rate=rate, warmup_images=0), train_images=(1600,),
    )  # fmt: skip
    tokens, labels = inputs(64, 64)
    training = GeneratorTraining(run, TokenSplit(tokens, labels), None, microbatch=microbatch)
    for step in range(steps):
        training.step(segments(run)[0], 16 * step)
    return training


# --- dropout ---


def test_masks_have_their_share_and_are_independent_over_places_and_images() -> None:
    x, keys = torch.ones(64, 16, 32), image_keys(0, 0, 64)
    first, second = (Dropout(0.3, place)(x, keys) == 0 for place in (0, 1))
    n = x.numel()
    assert float(first.float().mean()) == pytest.approx(0.3, abs=4 * (0.21 / n) ** 0.5)
    assert float((first & second).float().mean()) == pytest.approx(0.09, abs=4 * (0.082 / n) ** 0.5)
    neighbours = (first[1:] & first[:-1]).float().mean()
    assert float(neighbours) == pytest.approx(0.09, abs=4 * (0.082 / n) ** 0.5)
    assert float((first[..., 1:] & first[..., :-1]).float().mean()) == pytest.approx(0.09, abs=0.01)
    assert float(Dropout(0.3, 0)(x, keys).mean()) == pytest.approx(1, abs=0.02)


def test_a_mask_depends_on_the_image_alone() -> None:
    generator, (tokens, labels) = model(**DROPOUTS).train(), inputs(6)
    keys = image_keys(5, 100, 6)
    whole = generator(tokens, labels, keys)
    parts = [generator(tokens[i : i + 2], labels[i : i + 2], image_keys(5, 100 + i, 2)) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(generator(tokens, labels, image_keys(6, 100, 6)), whole)
    evaluated = generator.eval()(tokens, labels)
    assert torch.equal(evaluated, model().eval()(tokens, labels))  # none outside of training


def test_training_needs_the_keys() -> None:
    with pytest.raises(ValueError, match="needs the keys"):
        model(**DROPOUTS).train()(*inputs())


def test_microbatches_share_out_one_draw() -> None:
    spec = TransformerSpec(width=32, layers=2, head_dim=16, **DROPOUTS)
    whole, parts = trained(spec, 3), trained(spec, 3, microbatch=5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert not torch.equal(trained(TransformerSpec(width=32, layers=2, head_dim=16), 3).model.head.weight,
                           whole.model.head.weight)  # fmt: skip


# --- checkpointing ---


def test_checkpointing_computes_the_same_numbers() -> None:
    tokens, labels = inputs()
    gradients = []
    for checkpointing in (False, True):
        generator = model(**DROPOUTS).train()
        recompute_activations(generator, checkpointing)
        generator.loss(generator.hidden(tokens, labels, image_keys(0, 0, 4)), tokens).backward()
        gradients.append([p.grad for p in generator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# --- cached steps ---


@pytest.mark.parametrize(
    "changes",
    [{}, {"qk_norm": False}, {"class_position": "zero", "qk_norm": False}, {"head": "factorised"},
     {"tied_embeddings": True}, {"mup_base_width": 16}],
)  # fmt: skip
def test_cached_steps_are_the_full_forward(changes: dict[str, object]) -> None:
    generator, (tokens, labels) = model(**changes).eval(), inputs()
    with torch.no_grad():
        whole = generator(tokens, labels)
        cache = KeyValueCache.empty(generator.spec, 4, 16, whole)
        x = generator.class_embedding(labels)
        for position in range(16):
            step = generator.head(generator.step(x[:, None], cache))
            torch.testing.assert_close(step, whole[:, position], rtol=1e-5, atol=1e-5)
            x = generator.token_embedding(tokens[:, position])


def test_a_class_at_position_zero_has_no_key() -> None:
    """LlamaGen's zeros: every score against the class token is 0, whatever the class; its value still counts."""
    attention = model(class_position="zero", qk_norm=False).trunk
    assert float(attention.rotary[0].abs().max()) == 0
    assert float(attention.rotary[1:].abs().min()) == pytest.approx(1)


# --- the factorised head ---


@pytest.mark.parametrize("codes", [16, 32, 37, 1000])
def test_the_factorised_likelihood_is_exact(codes: int) -> None:
    """Probabilities sum to 1 over the codes that exist, and all three ways of computing them agree."""
    torch.manual_seed(0)
    head = FactorisedHead(8, codes)
    hidden, targets = torch.randn(20, 8), torch.randint(codes, (20,))
    log = head(hidden)
    assert log.shape == (20, codes)
    torch.testing.assert_close(log.exp().sum(1), torch.ones(20))
    each = -log.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(head.negative_log_likelihood(hidden, targets), each.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.cross_entropy(hidden, targets), each.mean(), rtol=1e-5, atol=1e-5)


def test_the_factorised_heads_gradients_are_those_of_its_likelihood() -> None:
    for codes in (36, 37):
        torch.manual_seed(0)
        head, targets = FactorisedHead(8, codes), torch.randint(codes, (20,))
        hidden = torch.randn(20, 8, requires_grad=True)
        inputs_of = [hidden, *head.parameters()]
        wanted = torch.autograd.grad(-head(hidden).gather(1, targets[:, None]).mean(), inputs_of)
        found = torch.autograd.grad(head.cross_entropy(hidden, targets), inputs_of)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_factorised_generator_trains_and_samples() -> None:
    training = trained(TransformerSpec(width=32, layers=1, head_dim=16, head="factorised"), 60)
    tokens, labels = training.tokens.tokens[:16].long(), training.tokens.labels[:16]
    loss = training.model.loss(training.model.hidden(tokens, labels), tokens)
    assert loss.item() < 0.9 * torch.log(torch.tensor(64.0)).item()
    drawn = sample(training.model.eval(), labels, torch.rand(16, 16), guidance=1.5)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < 64


# --- muP ---


def growth(mup: bool) -> list[float]:
    """How the logits' and the last states' size after 8 steps grow from width 32 to width 256, as ratios."""
    sizes = []
    for width in (32, 256):
        base = 32 if mup else None
        spec = TransformerSpec(width=width, layers=2, head_dim=16, mup_base_width=base, class_dropout=0.0)
        training = trained(spec, 8, rate=2e-2)
        tokens, labels = training.tokens.tokens[:32].long(), training.tokens.labels[:32]
        with torch.no_grad():
            x = torch.cat([training.model.class_embedding(labels)[:, None],
                           training.model.token_embedding(tokens[:, :-1])], 1)  # fmt: skip
            for layer, block in enumerate(training.model.trunk.blocks):
                x = block(x, torch.view_as_real(training.model.trunk.rotary[:16]), None, layer)
            logits = training.model(tokens, labels)
        sizes.append([float(x.square().mean().sqrt()), float(logits.square().mean().sqrt())])
    return [wide / narrow for narrow, wide in zip(*sizes, strict=True)]


def test_coordinate_check_of_mup() -> None:
    """With muP activations and logits after some steps do not grow with the width (within 2x over 8x the width);
    without it, they do (arXiv 2203.03466, Sec. 4 and App. D)."""
    with_mup, without = growth(mup=True), growth(mup=False)
    assert all(0.5 < ratio < 2 for ratio in with_mup), with_mup
    assert max(without) > 2.5, without


def test_mups_rates_and_first_weights() -> None:
    spec = RULES["mup"].shaped(TransformerSpec(width=256, layers=2))
    training = trained(spec, 1, rate=0.02)
    names = {p: name for name, p in training.model.named_parameters()}
    rates = {names[p]: group["lr"] for group in training.optimiser.param_groups for p in group["params"]}
    assert rates["trunk.blocks.0.attention.qkv.weight"] == pytest.approx(0.02 / 4)
    assert rates["trunk.blocks.1.feed_forward.down.weight"] == pytest.approx(0.02 / 4)
    assert {rates[name] for name in ("head.weight", "token_embedding.weight", "trunk.norm.weight")} == {0.02}
    fresh = trained(spec, 0).model
    assert float(fresh.trunk.blocks[0].attention.qkv.weight.std()) == pytest.approx(0.02 / 2, rel=0.02)
    assert float(fresh.token_embedding.weight.std()) == pytest.approx(0.02, rel=0.05)
    base = trained(TransformerSpec(width=64, layers=2, mup_base_width=64), 2)
    plain = trained(TransformerSpec(width=64, layers=2), 2)
    assert all(torch.equal(a, b) for a, b in zip(base.model.parameters(), plain.model.parameters(), strict=True))
