"""The chunked head: equal to torch's cross-entropy, gradients checked by finite differences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from scaling.generator import loss as module
from scaling.generator.gating import gated
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


@pytest.mark.parametrize(("rows", "codes"), [(300, 1024), (200, 16_384), (140, 131_072)])
def test_slices_equal_the_plain_head_to_a_millionth(rows: int, codes: int) -> None:
    """In float32, against plain logits in float32 and, more strictly, in float64: at large codebooks the plain head in
    float32 is itself the less accurate one. The last slice is not full."""
    hidden, weight, targets = inputs(rows, 24, codes)
    found = linear_cross_entropy(hidden, weight, targets, 1e-4)
    gradients = torch.autograd.grad(found, [hidden, weight])
    for dtype in (torch.float32, torch.float64):
        pair = [tensor.detach().to(dtype).requires_grad_() for tensor in (hidden, weight)]
        logits = pair[0] @ pair[1].t()
        z = logits.logsumexp(1)
        plain = functional.cross_entropy(logits, targets) + 1e-4 * z.square().mean()
        assert found.item() == pytest.approx(plain.item(), rel=1e-6)
        for a, b in zip(gradients, torch.autograd.grad(plain, pair), strict=True):
            assert float((a - b).abs().max()) < 1e-6
            if dtype == torch.float64:
                assert float((a - b).norm()) < 1e-6 * float(b.norm())


def test_autocast_gives_its_precision_with_sums_in_float32() -> None:
    """bfloat16 products: the loss within their rounding of the exact one, gradients in the types of their inputs."""
    hidden, weight, targets = inputs(300, 16, 1000)
    exact = linear_cross_entropy(hidden, weight, targets)
    wanted = torch.autograd.grad(exact, [hidden, weight])
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(hidden, weight, targets)
        gradients = torch.autograd.grad(found, [hidden, weight])
    assert found.dtype == torch.float32
    assert found.item() != exact.item()
    assert found.item() == pytest.approx(exact.item(), rel=2e-3)
    for a, b in zip(gradients, wanted, strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).norm()) < 0.02 * float(b.norm())


def test_slices_fit_the_device_and_the_codebook() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    # As ever up to 4,096 codes, so that earlier trainings are repeated bit for bit.
    assert [module.slice_rows(codes, cpu) for codes in (256, 1024, 4096)] == [1024, 256, 64]
    for codes in (16_384, 131_072, 2**18, 2**20):
        assert 16 <= module.slice_rows(codes, cpu) <= 256
        assert module.slice_rows(codes, cpu) * codes <= module.MOST_ELEMENTS
        assert module.slice_rows(codes, gpu) * codes <= module.ACCELERATOR_ELEMENTS


_PEAK = """
import sys, torch
from pathlib import Path
from torch.nn import functional
from scaling.generator.loss import linear_cross_entropy
torch.set_num_threads(1)

def peak():  # in kB, of this program; getrusage would begin with the peak of the process that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

hidden = torch.randn(512, 16, requires_grad=True)
weight = torch.randn(131072, 16, requires_grad=True)
targets = torch.randint(131072, (512,))
linear_cross_entropy(hidden[:2], weight, targets[:2]).backward()  # what libraries need once
weight.grad = hidden.grad = None
before = peak()
if sys.argv[1] == "plain":
    functional.cross_entropy(hidden @ weight.t(), targets).backward()
else:
    linear_cross_entropy(hidden, weight, targets).backward()
print(peak() - before)
"""


def test_memory_at_a_codebook_of_131072_is_a_quarter_at_most() -> None:
    """Peak of a process above what it had before the step, for 512 positions: plain logits are 268 MB."""
    root = Path(__file__).parents[3]
    peaks = {
        kind: int(subprocess.run([sys.executable, "-c", _PEAK, kind], cwd=root, check=True, capture_output=True).stdout)
        for kind in ("plain", "sliced")
    }
    assert peaks["plain"] > 4 * peaks["sliced"], peaks
    assert peaks["sliced"] > 1000  # Something was measured: at least the buffer of a slice.


def test_the_gate_of_swiglu_is_torchs_bit_for_bit() -> None:
    x = torch.randn(5, 3, 2 * 96, requires_grad=True)
    gate, up = x.chunk(2, dim=-1)
    plain, upstream = functional.silu(gate) * up, torch.randn(5, 3, 96)
    assert torch.equal(gated(x), plain)
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (gated(x), plain)))
    small = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gated, small)
