"""One process of a training of several, for tests: rank_process.py WHAT RANK SIZE PORT FOLDER [MICROBATCH] [STOP_RANK]
[STRATEGY].

WHAT is a name of SPECS, trained in the loop on drawn images or tokens, without evaluations that need real ones. Writes
<FOLDER>/<RANK>.pt: rows, final tensors, and how it ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from results.errors import RunError
from results.recorder import Recorder
from scaling.data.images import Images
from scaling.data.tokens import TokenSplit
from scaling.ranks import Place, Strategy
from scaling.specification.ladder import transformer
from scaling.specification.spec import (
    AdversarialSpec,
    AutoencoderSpec,
    CausalRegulariserSpec,
    FiniteScalarQuantizerSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.specification.workspace import Workspace
from scaling.training.distributed import Ranks, connected
from scaling.training.generator import GeneratorTraining
from scaling.training.loop import TrainingLoop
from scaling.training.schedule import segments
from scaling.training.sharding import whole_state
from scaling.training.tokenizer import TokenizerTraining

VECTOR = TokenizerRun(
    autoencoder=AutoencoderSpec(width=8, residual_blocks=(0, 0, 1)),
    quantizer=VectorQuantizerSpec(codebook_size=64, revive_every=5),
    regulariser=CausalRegulariserSpec(weight=0.5, width=32, layers=1),
    train_images=20 * 31,
    batch_size=31,
    optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=310),
)
SPECS: dict[str, TokenizerRun | GeneratorRun] = {
    "vector": VECTOR,
    "scalar": VECTOR.model_copy(update={"quantizer": FiniteScalarQuantizerSpec(levels=(4, 4, 4)), "regulariser": None}),
    # The discriminator begins within the training, and looks at whole batches.
    "adversarial": VECTOR.model_copy(
        update={
            "adversarial": AdversarialSpec(
                start_images=31 * 5, ramp_images=31 * 5, width=8, layers=2, adaptive=True, learning_rate=1e-4
            )
        }
    ),
    "adversarial-parts": VECTOR.model_copy(
        update={
            "adversarial": AdversarialSpec(
                start_images=31 * 3, ramp_images=0, width=16, layers=2, norm="group", loss="hinge", learning_rate=1e-4
            )
        }
    ),
    "generator": GeneratorRun(
        tokenizer=VECTOR,
        transformer=transformer("XS"),
        optimiser=OptimiserSpec(learning_rate=4e-3, warmup_images=62),
        train_images=(31 * 10, 31 * 20),
        batch_size=31,
        z_loss_weight=1e-4,
    ),
    "generator-alike": GeneratorRun(
        tokenizer=VECTOR,
        transformer=transformer("XS"),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=31 * 4),
        train_images=(31 * 10, 31 * 20),
        batch_size=31,
        z_loss_weight=1e-4,
    ),
}
"""Batches that no number of processes divides."""


def build(
    what: str, ranks: Ranks, microbatch: int | None, strategy: Strategy = "ddp"
) -> TokenizerTraining | GeneratorTraining:
    """A training on drawn data whose evaluation records nothing."""
    spec = SPECS[what]
    if isinstance(spec, TokenizerRun):
        source = torch.Generator().manual_seed(3)
        pixels = torch.randint(0, 256, (200, 1, 32, 32), generator=source, dtype=torch.uint8)
        images = Images(pixels, torch.zeros(200, dtype=torch.int64))
        return TokenizerTraining(spec, images, lambda *arguments: None, ranks, microbatch)
    source = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 64, (200, spec.tokenizer.tokens_per_image), generator=source).int()
    split = TokenSplit.of(tokens, torch.randint(0, 10, (200,), generator=source))
    return GeneratorTraining(spec, split, lambda *arguments: None, ranks, microbatch, strategy)


def run(
    what: str,
    place: Place,
    folder: Path,
    microbatch: int | None = None,
    stop_rank: int | None = None,
    strategy: Strategy = "ddp",
) -> tuple[Recorder, dict[str, Tensor], str]:
    """Train; the rows, the final tensors, and `done` or the cause of the end. `stop_rank` is told to stop at step 7."""
    spec, asked = SPECS[what], 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return place.rank == stop_rank and asked >= 7

    recorder = Recorder(spec.run_id, 1)
    (folder / "1").mkdir(parents=True, exist_ok=True)
    workspace = Workspace(folder / "1", (), None, folder)
    with connected(place, 1) as ranks:
        training = build(what, ranks, microbatch, strategy)
        try:
            TrainingLoop(training, segments(spec), workspace, recorder, lambda p: None, stop, 0.1, 1e9, ranks).run()
        except RunError as error:
            return recorder, whole_state(training.state(), kept=True), f"{error.cause}: {error}"
        return recorder, whole_state(training.state(), kept=True), "done"


if __name__ == "__main__":
    name, rank, size, port, out, *rest = sys.argv[1:]
    microbatch, stop_rank = (int(text) if text != "-" else None for text in (*rest, "-", "-")[:2])
    strategy: Strategy = "fsdp2" if "fsdp2" in rest[2:] else "ddp"
    here = Path(out)
    place = Place(int(rank), int(size), int(rank), "127.0.0.1", int(port), "test")
    recorder, state, ending = run(name, place, here, microbatch, stop_rank, strategy)
    torch.save({"rows": recorder.rows["curves"], "state": state, "ending": ending}, here / f"{rank}.pt")
