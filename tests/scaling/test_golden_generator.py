"""A small study of one pair on Fashion-MNIST, replayed: its losses and measurements as they were once.

`golden_generator.json` holds them. The test replays the tokenizer and the generator's first 16,384 images, without
evaluations (about 35 seconds of a core). `make golden`, which executes this file, replays all of it, evaluations and
forks included (about 130 seconds); `python -m tests.scaling.test_golden_generator write` writes the file.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from results.errors import RunError
from results.recorder import Recorder
from scaling import run
from scaling.specification.ladder import transformer
from scaling.specification.spec import (
    AutoencoderSpec,
    EvaluationSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.specification.workspace import Progress, Workspace

GOLDEN = Path(__file__).with_name("golden_generator.json")
TOLERANCES = {"loss": 0.06, "nats_per_image": 0.03, "rfid": 0.04, "gfid": 0.06}
"""Relative. Processors round differently, which training amplifies: with none of this one's vector instructions
(ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE) losses differ by 3.2 % at most, nats by
1.0 %, rFID by 1.4 %, gFID by 2.3 %. On one machine nothing differs."""
EVALUATION = EvaluationSpec(samples=1024, guidance=(1.0, 1.5))
PAUSE = 16_384
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
    evaluate_images=(PAUSE,),
    batch_size=64,
    evaluation=EVALUATION,
)


def replay(folder: Path, whole: bool) -> dict[str, float]:
    """Losses and measurements by metric, stage, branch, images, guidance and split; without `whole` the losses until
    the generator's first evaluation."""
    parent, values, phases = None, {}, [""]

    def follow(progress: Progress) -> None:
        phases.append(progress.phase)

    def stops() -> bool:
        return not whole and stage == "generator" and phases[-1] == "evaluate"

    for spec in (RUN.tokenizer, RUN):
        stage, attempt = spec.stage, folder / spec.stage
        attempt.mkdir()
        recorder, workspace = Recorder(spec.run_id, 1), Workspace(attempt, (), parent, folder)
        try:
            run.execute(spec, workspace, recorder, follow, stops, 1e9)
        except RunError as error:
            assert not whole and stage == "generator" and error.cause == "interrupted"
        parent = workspace.artifacts
        for row in recorder.rows["curves"]:
            if row["term"] == "loss":
                values[f"loss {stage} {row['branch']} {row['images']}"] = row["value"]
        for row in recorder.rows["evaluations"]:
            if row["metric"] in TOLERANCES:
                place = f"{stage} {row['branch']} {row['images']} {row['guidance']} {row['split']}"
                values[f"{row['metric']} {place}"] = row["value"]
    return values


def differences(values: dict[str, float], golden: dict[str, float]) -> dict[str, float]:
    """Relative differences by name."""
    return {name: abs(value / golden[name] - 1) for name, value in values.items()}


def beyond(values: dict[str, float], golden: dict[str, float]) -> list[str]:
    """Names of the values that are not within tolerance of the golden ones."""
    return [
        f"{name}: {values[name]:.6g}, was {golden[name]:.6g}"
        for name, difference in differences(values, golden).items()
        if not difference <= TOLERANCES[name.split()[0]]
    ]


@pytest.mark.slow
def test_a_pair_on_fashion_mnist_begins_as_it_once_did(tmp_path: Path, fashion_mnist: object) -> None:
    golden = json.loads(GOLDEN.read_text())
    shown = torch.zeros(20, 1, 28, 28, dtype=torch.uint8)
    with patch.object(run, "measure_tokenizer", lambda *arguments: (shown, shown)):
        values = replay(tmp_path, whole=False)
    # All of the tokenizer's losses, and of the generator's those of its trunk until the pause.
    begun = {name for name in golden if name.startswith(("loss tokenizer", "loss generator trunk"))}
    begun = {name for name in begun if int(name.split()[-1]) <= PAUSE}
    assert values.keys() == begun and len(begun) > 20
    assert beyond(values, golden) == []
    losses = [value for name, value in values.items() if name.startswith("loss generator")]
    assert losses[-1] < losses[0] - 1 and losses[0] < math.log(256)


def main() -> None:
    """Replay everything and compare; with the word `write`, write it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        values = replay(Path(place), whole=True)
    if sys.argv[1:] == ["write"]:
        GOLDEN.write_text(json.dumps(values, indent=1) + "\n")
        return
    golden = json.loads(GOLDEN.read_text())
    if values.keys() != golden.keys():
        sys.exit(f"other rows than before: {', '.join(sorted(values.keys() ^ golden.keys()))}")
    for metric, tolerance in TOLERANCES.items():
        most = max(value for name, value in differences(values, golden).items() if name.split()[0] == metric)
        sys.stdout.write(f"{metric:15} differs by {100 * most:.3f} % at most; allowed: {100 * tolerance:g} %\n")
    if wrong := beyond(values, golden):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
