"""A whole small study of one pair on Fashion-MNIST, replayed: losses and measurements as they were once.

`golden_generator.json` holds them; this file, executed, writes it (python -m tests.scaling.test_golden_generator).
Takes about three minutes of one core.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import pytest

from results.recorder import Recorder
from scaling.run import execute
from scaling.specification.ladder import transformer
from scaling.specification.spec import (
    AutoencoderSpec,
    EvaluationSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.specification.workspace import Workspace

GOLDEN = Path(__file__).with_name("golden_generator.json")
RELATIVE = 0.02
"""Processors round differently, which a tokenizer and a thousand steps amplify; another formula, rate or
order of images shows in more."""
EVALUATION = EvaluationSpec(samples=1024, guidance=(1.0, 1.5))
RUN = GeneratorRun(
    tokenizer=TokenizerRun(
        autoencoder=AutoencoderSpec(width=8, residual_blocks=(0, 0, 1)),
        quantizer=VectorQuantizerSpec(codebook_size=256),
        train_images=16_384,
        evaluation=EVALUATION,
    ),
    transformer=transformer("S"),
    optimiser=OptimiserSpec(learning_rate=7e-3, warmup_images=2048),
    train_images=(24_576, 65_536),
    evaluate_images=(16_384,),
    batch_size=64,
    evaluation=EVALUATION,
)


def replay(folder: Path) -> dict[str, dict[str, float]]:
    """Every 16th row of the losses, and the measurements, by branch, images and name."""
    parent, values = None, {"losses": {}, "evaluations": {}}
    for spec in (RUN.tokenizer, RUN):
        attempt = folder / spec.stage
        attempt.mkdir()
        recorder = Recorder(spec.run_id, 1)
        workspace = Workspace(attempt, (), parent, folder)
        execute(spec, workspace, recorder, lambda progress: None, lambda: False, 1e9)
        parent = workspace.artifacts
        losses = [row for row in recorder.rows["curves"] if row["term"] == "loss"]
        for row in losses[7::8]:
            values["losses"][f"{spec.stage} {row['branch']} {row['images']}"] = row["value"]
        for row in recorder.rows["evaluations"]:
            if row["metric"] in ("nats_per_image", "gfid", "rfid"):
                name = f"{row['metric']} {row['branch']} {row['images']} {row['guidance']} {row['split']}"
                values["evaluations"][name] = row["value"]
                assert (row["flag"] is None) == (row["branch"] != "trunk" or spec is not RUN)
    return values


@pytest.mark.slow
def test_a_pair_on_fashion_mnist_ends_as_it_once_did(tmp_path: Path, fashion_mnist: object) -> None:
    golden, values = json.loads(GOLDEN.read_text()), replay(tmp_path)
    for kind, expected in golden.items():
        assert values[kind].keys() == expected.keys()
        for name, value in values[kind].items():
            # A distance of 1,024 samples is itself uncertain by a few percent.
            tolerance = 0.1 if "fid" in name else RELATIVE
            assert value == pytest.approx(expected[name], rel=tolerance), name
    losses = [value for name, value in values["losses"].items() if name.startswith("generator trunk")]
    assert losses[-1] < losses[0] < math.log(256)
    # The rate's decay pays: the trunk as it is at 16,384 images is no budget.
    assert any(name.startswith("gfid trunk 16384") for name in values["evaluations"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(replay(Path(place)), indent=1) + "\n")
    sys.stdout.write(GOLDEN.read_text())
