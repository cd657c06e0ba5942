"""The chunked head: equal to torch's cross-entropy, gradients checked by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from scaling.generator import loss as module
from scaling.generator.loss import linear_cross_entropy, negative_log_likelihood
from scaling.generator.normalisation import RmsNorm


def inputs(rows: int, width: int, codes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, head weights and targets."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=source, requires_grad=True)
    weight = torch.randn(codes, width, generator=source, requires_grad=True)
    return hidden, weight, torch.randint(codes, (rows,), generator=source)


@pytest.mark.parametrize(("rows", "codes"), [(5, 7), (300, 4096), (64, 256)])
@pytest.mark.parametrize("z_weight", [0.0, 1e-2])
def test_value_and_gradients_are_those_of_the_whole_matrix(rows: int, codes: int, z_weight: float) -> None:
    hidden, weight, targets = inputs(rows, 16, codes)
    logits = hidden @ weight.t()
    expected = functional.cross_entropy(logits, targets) + z_weight * logits.logsumexp(1).square().mean()
    wanted = torch.autograd.grad(expected, [hidden, weight])
    found = linear_cross_entropy(hidden, weight, targets, z_weight)
    gradients = torch.autograd.grad(3 * found, [hidden, weight])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, 3 * b, rtol=1e-4, atol=1e-6)


def test_gradient_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)  # the least chunk, so that several are used
    hidden, weight, targets = inputs(40, 3, 9)
    gradient = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, 0.05), [hidden, weight])
    for tensor, found in zip((hidden, weight), gradient, strict=True):
        for index in ((0, 0), (2, 1), (8, 2)):
            values = []
            for sign in (1, -1):
                moved = tensor.detach().double().clone()
                moved[index] += sign * 1e-3
                pair = (moved, weight.detach().double()) if tensor is hidden else (hidden.detach().double(), moved)
                logits = pair[0] @ pair[1].t()
                z = logits.logsumexp(1)
                values.append(functional.cross_entropy(logits, targets) + 0.05 * z.square().mean())
            assert float(found[index]) == pytest.approx(float((values[0] - values[1]) / 2e-3), rel=1e-3, abs=1e-6)


def test_rows_one_by_one() -> None:
    hidden, weight, targets = inputs(50, 8, 256)
    expected = functional.cross_entropy(hidden @ weight.t(), targets, reduction="none")
    torch.testing.assert_close(negative_log_likelihood(hidden, weight, targets), expected.detach())


def test_rms_norm_is_torchs_with_its_gradients() -> None:
    own, reference = RmsNorm(24), torch.nn.RMSNorm(24, eps=1e-5)
    with torch.no_grad():
        own.weight.uniform_(0.5, 2)
        reference.weight.copy_(own.weight)
    x = torch.randn(7, 5, 24, requires_grad=True)
    upstream = torch.randn(7, 5, 24)
    found = torch.autograd.grad(own(x), [x, own.weight], upstream)
    wanted = torch.autograd.grad(reference(x), [x, reference.weight], upstream)
    torch.testing.assert_close(own(x), reference(x))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
