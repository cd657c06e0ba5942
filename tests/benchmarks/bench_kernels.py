"""The hand-written CPU kernels against torch's own, as ratios measured in one run.

python tests/benchmarks/bench_kernels.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional

from scaling.generator.loss import linear_cross_entropy
from scaling.generator.normalisation import RmsNorm
from scaling.generator.sampling import draw
from scaling.tokenizer.quantizers.nearest import largest


def seconds(call: Callable[[], object], repeats: int = 15) -> float:
    """Median processor time of a call on one thread, after a warm-up."""
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return sorted(found)[repeats // 2]


def compare(name: str, own: Callable[[], object], reference: Callable[[], object]) -> None:
    """Print both times and their ratio."""
    a, b = seconds(own), seconds(reference)
    print(f"{name:58s} {1e3 * a:8.2f} ms {1e3 * b:8.2f} ms   {b / a:5.2f} x")


def head(codes: int) -> None:
    """Cross-entropy of the head, forward and backward, for 64 images of 16 tokens at width 64."""
    hidden = torch.randn(1024, 64, requires_grad=True)
    weight = torch.randn(codes, 64, requires_grad=True)
    targets = torch.randint(codes, (1024,))
    compare(
        f"head and cross-entropy, 1024 x {codes}",
        lambda: linear_cross_entropy(hidden, weight, targets).backward(),
        lambda: functional.cross_entropy(hidden @ weight.t(), targets).backward(),
    )


def main() -> None:
    """All kernels."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':58s} {'tokenlaw':>11s} {'torch':>11s}")
    for codes in (256, 1024, 4096, 16_384):
        head(codes)
    for codes in (1024, 4096):
        scores = torch.randn(256, codes)
        compare(f"nearest code among {codes}", lambda s=scores: largest(s), lambda s=scores: s.argmax(1))
        logits, uniforms = torch.randn(500, codes), torch.rand(500)
        compare(
            f"draw from {codes} codes, 500 rows",
            lambda x=logits, u=uniforms: draw(x.clone(), u),
            lambda x=logits: torch.multinomial(x.softmax(1), 1),
        )
    x, upstream = torch.randn(64, 16, 64, requires_grad=True), torch.randn(64, 16, 64)
    own, theirs = RmsNorm(64), torch.nn.RMSNorm(64, eps=1e-5)
    compare("RMS norm, both directions", lambda: own(x).backward(upstream), lambda: theirs(x).backward(upstream))


if __name__ == "__main__":
    main()
