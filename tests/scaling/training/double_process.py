"""One process of a training of several in float64, for tests: double_process.py WHAT RANK SIZE PORT FOLDER.

In float32 a latent between two codes may fall to the other one by rounding, and the losses jump; in float64 that does
not happen, so that a true difference shows. Writes <FOLDER>/<RANK>.pt: the terms of 20 steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from scaling.ranks import Place
from scaling.specification.spec import (
    IndexBackpropagationSpec,
    LookupFreeQuantizerSpec,
    ReconstructionLossSpec,
    TokenizerRun,
)
from scaling.training import tokenizer
from scaling.training.distributed import connected
from scaling.training.schedule import segments
from tests.scaling.training.rank_process import SPECS, VECTOR, build

STEPS = 20
WITHOUT = {"regulariser": None, "losses": ReconstructionLossSpec(perceptual_weight=0.0)}
SPECS |= {
    "ibq": VECTOR.model_copy(update={"quantizer": IndexBackpropagationSpec(codebook_size=64, code_dim=8), **WITHOUT}),
    "lfq": VECTOR.model_copy(update={"quantizer": LookupFreeQuantizerSpec(bits=6, entropy_temperature=1.0), **WITHOUT}),
}
"""With entropies of a whole batch, which microbatches cannot have. At its published temperature of 0.01 LFQ is so steep
that rounding alone grows to a percent within 20 steps."""


def run(what: str, place: Place, folder: Path) -> None:
    """Train, without the perceptual network, whose stored weights are float32."""
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign, assignment]
    tokenizer.to_float = lambda pixels: pixels.double() / 127.5 - 1  # type: ignore[assignment]
    tokenizer.resize = lambda images, side: images  # type: ignore[assignment]
    spec = SPECS[what].model_copy(update={"losses": ReconstructionLossSpec(perceptual_weight=0.0)})
    assert isinstance(spec, TokenizerRun)
    SPECS[what] = spec
    rows = []
    with connected(place, 1) as ranks:
        training = build(what, ranks, None)
        for step in range(STEPS):
            terms = training.step(segments(spec)[0], step * spec.batch_size)
            rows.append({name: float(value) for name, value in ranks.sum_terms(terms).items()})
        training.stream.close()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(rows, folder / f"{place.rank}.pt")


if __name__ == "__main__":
    what, rank, size, port, folder = sys.argv[1:]
    run(what, Place(int(rank), int(size), int(rank), "127.0.0.1", int(port), "test"), Path(folder))
