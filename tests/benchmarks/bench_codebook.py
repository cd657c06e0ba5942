"""Nearest-code search beside vector-quantize-pytorch's, in one run: time and memory, on one thread.

python tests/benchmarks/bench_codebook.py [VECTORS]

Needs `pip install vector-quantize-pytorch`. Its whole distance matrix, 34 GB for 65,536 vectors and 131,072 codes, does
not fit into most machines: it is given rows whose matrix has 256 MiB, the most of them that its share of time allows,
and its time is scaled to all.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from scaling.tokenizer.quantizers.nearest import nearest_codes

DIMENSIONS = 8
BLOCK_ELEMENTS = 2**26
"""Entries of the other's distance matrix at once."""
REPEATS = 3


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak_megabytes() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(vectors: int, codes: int, measured: int) -> None:
    """Print both times for one codebook; `measured` vectors are given to the other."""
    from vector_quantize_pytorch import VectorQuantize

    generator = torch.Generator().manual_seed(codes)
    flat = functional.normalize(torch.randn(vectors, DIMENSIONS, generator=generator), dim=1)
    book = functional.normalize(torch.randn(codes, DIMENSIONS, generator=generator), dim=1)
    other = VectorQuantize(dim=DIMENSIONS, codebook_size=codes, use_cosine_sim=True).eval()
    other._codebook.embed.data.copy_(book[None])
    rows = max(BLOCK_ELEMENTS // codes, 1)

    def theirs() -> Tensor:
        return torch.cat([other._codebook(block[None])[1][0] for block in flat[:measured].split(rows)])

    with torch.no_grad():
        before = peak_megabytes()
        ours_tokens = nearest_codes(flat, book, by_product=True)
        after = peak_megabytes()
        same = float((theirs() == ours_tokens[:measured]).float().mean())
        # Taken in turn, so that a busy machine slows both.
        pairs = [(seconds(lambda: nearest_codes(flat, book, by_product=True)), seconds(theirs)) for _ in range(REPEATS)]
    ours = min(pair[0] for pair in pairs)
    others = min(pair[1] for pair in pairs) * vectors / measured
    print(
        f"{vectors:7,d} vectors, {codes:7,d} codes: {ours:7.2f} s, vector-quantize-pytorch {others:7.2f} s: "
        f"{others / ours:5.1f} x; same tokens {same:.5f}; memory +{after - before:.0f} MB, "
        f"the matrix would be {vectors * codes * 4 / 1e6:,.0f} MB"
    )


def main() -> None:
    """Three codebooks."""
    torch.set_num_threads(1)
    vectors = int(sys.argv[1]) if len(sys.argv) > 1 else 65_536
    for codes, measured in ((1024, vectors), (16_384, vectors // 8), (131_072, vectors // 64)):
        compare(vectors, codes, max(measured, 1))


if __name__ == "__main__":
    main()
