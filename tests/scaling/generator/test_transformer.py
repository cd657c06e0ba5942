"""The generator: causal, class-conditional, cached exactly, sampled from the right distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.generator.sampling import draw, sample
from scaling.generator.transformer import Generator, KeyValueCache, rotary_table, rotate
from scaling.specification.sampling import GuidanceSchedule
from scaling.specification.spec import TransformerSpec


def model(codebook_size: int = 32, grid: int = 4, classes: int = 3, **changes: object) -> Generator:
    """A small generator whose head is not zero, so that its logits depend on everything."""
    torch.manual_seed(0)
    spec = TransformerSpec(**({"width": 32, "layers": 2, "head_dim": 16} | changes))
    found = Generator(spec, codebook_size=codebook_size, grid=grid, classes=classes)
    for name, parameter in found.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return found.eval()


def test_logits_depend_on_class_and_earlier_tokens_only() -> None:
    generator, tokens, labels = model(), torch.randint(32, (2, 16)), torch.tensor([0, 1])
    base = generator(tokens, labels)
    assert base.shape == (2, 16, 32)
    for position in range(16):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % 32
        moved = (generator(changed, labels) - base).abs().amax(dim=(0, 2)) > 1e-6
        assert not moved[: position + 1].any()
        assert moved[position + 1 :].all()
    assert ((generator(tokens, torch.tensor([2, 2])) - base).abs().amax(2) > 1e-6).all()


@pytest.mark.parametrize("length", [0, 17, 18])
def test_more_tokens_than_an_image_has_are_refused(length: int) -> None:
    generator = model()
    for call in (generator, generator.hidden):
        with pytest.raises(ValueError, match=rf"shape \[2, {length}\]; allowed: \[n, T\] with T from 1 to 16"):
            call(torch.zeros(2, length, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"labels have the shape \[1\]; allowed: \[2\]"):
            call(torch.zeros(2, 16, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert generator(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)).shape == (2, 5, 32)


@pytest.mark.parametrize(
    ("token", "label", "words"),
    [
        (32, 0, "token 32 is not allowed; allowed: 0 to 31"),
        (-1, 0, "token -1 is not allowed"),
        (0, 4, "label 4 is not allowed; allowed: 0 to 3"),
        (0, -1, "label -1 is not allowed"),
    ],
)
def test_codes_and_classes_that_are_not_there_are_refused(token: int, label: int, words: str) -> None:
    tokens, labels = torch.zeros(2, 16, dtype=torch.int64), torch.tensor([3, label])
    tokens[1, 15] = token  # the last one is only predicted, and would pass unseen
    with pytest.raises(ValueError, match=words):
        model()(tokens, labels)


def test_first_loss_is_that_of_uniform_codes() -> None:
    spec = TransformerSpec(width=32, layers=1, head_dim=16)
    fresh = Generator(spec, codebook_size=64, grid=4, classes=10)
    logits = fresh(torch.randint(64, (2, 16)), torch.tensor([0, 1]))
    assert float(logits.detach().abs().max()) == 0


def test_rotations_keep_norms_and_depend_on_distance_only() -> None:
    table = torch.view_as_real(rotary_table(4, 16, prefix=1))
    x, y = torch.randn(1, 17, 1, 16), torch.randn(1, 17, 1, 16)
    torch.testing.assert_close(rotate(x, table).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(x, table)[:, 0], x[:, 0])  # the class token is not turned
    a, b = x[:, :1].expand(-1, 17, -1, -1), y[:, :1].expand(-1, 17, -1, -1)
    dots = torch.einsum("nthd,nshd->ts", rotate(a, table), rotate(b, table))[1:, 1:].view(4, 4, 4, 4)
    torch.testing.assert_close(dots[0, 0, 1, 2], dots[2, 1, 3, 3])  # one row down, two columns right
    assert (dots[0, 0, 1, 2] - dots[0, 0, 2, 1]).abs() > 1e-4  # rows and columns are told apart


def test_cached_steps_give_the_logits_of_the_whole_sequence() -> None:
    generator, tokens, labels = model(), torch.randint(32, (3, 16)), torch.tensor([0, 1, 3])
    whole = generator(tokens, labels)
    cache = KeyValueCache.empty(generator.spec, 3, 16, whole)
    x = generator.class_embedding(labels)
    for position in range(16):
        logits = generator.head(generator.step(x[:, None], cache))
        torch.testing.assert_close(logits, whole[:, position], rtol=1e-5, atol=1e-5)
        x = generator.token_embedding(tokens[:, position])


@settings(max_examples=30)
@given(st.integers(2, 300), st.integers(0, 10**6), st.floats(0.1, 30))
def test_draws_invert_the_cumulative_distribution(size: int, seed: int, scale: float) -> None:
    source = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(1, size, generator=source)
    probabilities = logits.double().softmax(1)[0]
    uniforms = torch.linspace(0, 1 - 2**-24, 2001)
    found = draw(logits.expand(2001, -1).clone(), uniforms)
    assert int(found.max()) < size
    assert bool((found[1:] >= found[:-1]).all())  # monotone in the uniform number
    share = torch.bincount(found, minlength=size) / 2001
    assert float((share - probabilities).abs().max()) < 2.5 / 2001


def test_draws_never_pick_impossible_codes_even_in_the_tail() -> None:
    logits = torch.full((1000, 4096), float("-inf"))
    logits[:, :3] = torch.tensor([0.0, 1.0, 2.0])
    uniforms = torch.cat([torch.zeros(500), torch.full((500,), 1 - 2**-24)])
    drawn = draw(logits, uniforms)
    assert int(drawn.max()) <= 2
    assert int(drawn[0]) == 0


def test_samples_follow_the_models_joint_distribution() -> None:
    """Two tokens of three codes: 9 outcomes, frequencies against exact probabilities by chi-square."""
    generator = model(codebook_size=3, grid=2)
    n = 20_000
    labels = torch.zeros(n, dtype=torch.int64)
    tokens = sample(generator, labels, torch.rand(n, 4, generator=torch.Generator().manual_seed(3)))
    outcome = tokens[:, 0] * 3 + tokens[:, 1]
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    padded = torch.cat([pairs, torch.zeros(9, 2, dtype=torch.int64)], dim=1)
    with torch.inference_mode():
        log = generator(padded, torch.zeros(9, dtype=torch.int64)).log_softmax(-1)
    expected = (log[range(9), 0, pairs[:, 0]] + log[range(9), 1, pairs[:, 1]]).exp() * n
    statistic = ((torch.bincount(outcome, minlength=9) - expected).square() / expected).sum()
    assert float(statistic) < 26.1  # 99.9 % of chi-square with 8 degrees of freedom


def test_samples_do_not_depend_on_the_batch() -> None:
    generator, uniforms = model(), torch.rand(12, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(12) % 3
    whole = sample(generator, labels, uniforms)
    parts = [sample(generator, labels[i : i + 5], uniforms[i : i + 5]) for i in range(0, 12, 5)]
    assert torch.equal(whole, torch.cat(parts))


def test_guidance_is_the_papers_formula() -> None:
    """l = l_u + a (l_c - l_u): with a very large scale the draw is the code whose logit gains most from the class."""
    generator = model()
    labels = torch.tensor([0, 1, 2])
    null = torch.full((3,), generator.classes)
    blank = torch.zeros(3, 16, dtype=torch.int64)
    with torch.inference_mode():
        gain = generator(blank, labels)[:, 0] - generator(blank, null)[:, 0]
    tokens = sample(generator, labels, torch.full((3, 16), 0.5), guidance=1e5)
    assert torch.equal(tokens[:, 0], gain.argmax(1))
    plain = sample(generator, labels, torch.full((3, 16), 0.5))
    assert torch.equal(sample(generator, labels, torch.full((3, 16), 0.5), guidance=1.0), plain)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_samples_are_drawn_token_by_token_from_the_full_forward(guidance: float) -> None:
    """Without a cache, in memory of its own at each token: what is kept and overwritten meanwhile changes nothing."""
    generator, uniforms = model(), torch.rand(12, 16, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(12) % 3
    tokens = torch.zeros(12, 16, dtype=torch.int64)
    with torch.inference_mode():
        for position in range(16):
            conditional = generator(tokens, labels)[:, position]
            unconditional = generator(tokens, torch.full_like(labels, generator.classes))[:, position]
            logits = unconditional + guidance * (conditional - unconditional)
            cumulative = logits.double().softmax(1).cumsum(1)
            tokens[:, position] = (cumulative <= uniforms[:, position, None]).sum(1)
    assert torch.equal(sample(generator, labels, uniforms, guidance=guidance), tokens)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_guided_states_draw_what_guided_logits_draw_but_for_rounding(schedule: GuidanceSchedule) -> None:
    generator, uniforms = model(), torch.rand(400, 16, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(400) % 3
    logits = sample(generator, labels, uniforms, guidance=2.5, schedule=schedule)
    states = sample(generator, labels, uniforms, guidance=2.5, schedule=schedule, guided="states")
    # An image differs where a uniform number lies within rounding of an edge, of 400 x 16 hardly one.
    assert float((logits == states).all(1).float().mean()) >= 0.99
    assert not torch.equal(states, sample(generator, labels, uniforms))
    plain = sample(generator, labels, uniforms, guidance=1.0, guided="states")
    assert torch.equal(plain, sample(generator, labels, uniforms))


def test_half_precision_stays_close() -> None:
    generator, tokens, labels = model(), torch.randint(32, (2, 16)), torch.tensor([0, 1])
    full = generator(tokens, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = generator(tokens, labels).float()
    assert float((half - full).abs().max()) < 0.1 * float(full.abs().max())


@pytest.mark.parametrize("tied", [True, False])
def test_learns_a_deterministic_sequence(tied: bool) -> None:
    from scaling.generator.loss import linear_cross_entropy

    generator = model(tied_embeddings=tied).train()
    tokens = ((torch.arange(16) * 5) % 32).expand(8, -1)
    labels = torch.zeros(8, dtype=torch.int64)
    optimiser = torch.optim.Adam(generator.parameters(), 3e-3)
    for _ in range(120):
        hidden = generator.hidden(tokens, labels).flatten(0, 1)
        loss = linear_cross_entropy(hidden, generator.head.weight, tokens.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * math.log(32)
