"""Both stages on pictures that are decoded as they are read: stopped and resumed, on several ranks' parts, on a GPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from results.errors import RunError
from results.recorder import Recorder
from scaling.data import picture_images
from scaling.data.run_images import RunImages
from scaling.data.sources.fingerprint import prepare
from scaling.data.sources.locations import remember
from scaling.data.tokens import load_tokens
from scaling.ranks import Place
from scaling.run import MODEL, execute
from scaling.specification.ladder import transformer
from scaling.specification.pictures import PicturesLocation, PicturesView
from scaling.specification.spec import AutoencoderSpec, EvaluationSpec, GeneratorRun, OptimiserSpec, TokenizerRun
from scaling.specification.workspace import Workspace
from scaling.training.distributed import DEVICE, Ranks
from scaling.training.tokenizer import TokenizerTraining
from tests.scaling.data.made_pictures import made, write_folder

VIEW = PicturesView(image_size=16, crop="random", flip=True)


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenizerRun:
    """A short run on 99 + 42 pictures, each epoch of which is decoded anew, beside the training."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(picture_images, "KEPT_BYTES", 0)
    for split, count in (("train", 33), ("val", 14)):
        write_folder(tmp_path / "own" / split, made(count, seed=count))
    location = PicturesLocation(source="folder", path=str(tmp_path / "own"))
    data = prepare(location, VIEW).pinned(VIEW)
    remember(tmp_path / "pictures", data.fingerprint, location)
    return TokenizerRun(
        data=data,
        autoencoder=AutoencoderSpec(width=4, channel_multipliers=(1, 1, 1), residual_blocks=(0, 0, 0)),
        optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=60),
        train_images=30 * 30,
        batch_size=30,
        evaluation=EvaluationSpec(samples=128),
    )


def run(
    spec: TokenizerRun | GeneratorRun, folder: Path, parent: Path | None = None, stops: tuple[int, ...] = ()
) -> tuple[Recorder, Path]:
    """Run to the end, in an attempt more than there are stops, each after so many looks; rows and artifacts."""
    pictures, cache, earlier = folder.parent / "pictures", folder.parent / "moments", []
    for number, looks in enumerate((*stops, 10**9), start=1):
        attempt = folder / str(number)
        attempt.mkdir(parents=True)
        recorder, left = Recorder(spec.run_id, number), iter(range(looks))
        workspace = Workspace(attempt, tuple(reversed(earlier)), parent, cache, pictures)
        try:
            execute(spec, workspace, recorder, lambda p: None, lambda left=left: next(left, None) is None, 1e9)
        except RunError as error:
            assert error.cause == "interrupted" and number <= len(stops)
        earlier.append(attempt)
    return recorder, workspace.artifacts


def generator(tokenizer: TokenizerRun) -> GeneratorRun:
    return GeneratorRun(
        tokenizer=tokenizer, transformer=transformer("XS"), batch_size=30, train_images=(300,),
        optimiser=OptimiserSpec(learning_rate=1e-2, warmup_images=60), evaluation=tokenizer.evaluation,
    )  # fmt: skip


@pytest.mark.slow
def test_stopped_in_the_middle_of_an_epoch_it_ends_bit_for_bit_alike(tokenizer: TokenizerRun, tmp_path: Path) -> None:
    """7 steps are two epochs and 12 pictures; of the later stops one is while tokens are made."""
    whole, artifacts = run(tokenizer, tmp_path / "whole")
    stopped, others = run(tokenizer, tmp_path / "stopped", stops=(7, 9, 14))
    assert stopped.rows == whole.rows
    assert (others / MODEL).read_bytes() == (artifacts / MODEL).read_bytes()
    for split, other in zip(load_tokens(tokenizer, others), load_tokens(tokenizer, artifacts), strict=True):
        assert torch.equal(split.tokens[:], other.tokens[:]) and torch.equal(split.labels, other.labels)
    both = generator(tokenizer)
    rows, _ = run(both, tmp_path / "generator", artifacts)
    assert run(both, tmp_path / "again", artifacts, stops=(6,))[0].rows == rows.rows
    assert {row["metric"] for row in rows.rows["evaluations"]} >= {"gfid", "nats_per_token", "near_copy_fraction"}


@pytest.mark.parametrize(("size", "microbatch"), [(1, None), (1, 7), (3, None), (2, 4)])
def test_each_process_sees_its_part_of_the_same_batch(
    size: int, microbatch: int | None, tokenizer: TokenizerRun, tmp_path: Path
) -> None:
    images = RunImages(tokenizer.data, tmp_path / "pictures").split("train")
    whole = TokenizerTraining(tokenizer, images, lambda *arguments: None).stream.at(90)
    seen = []
    for rank in range(size):
        ranks = Ranks(Place(rank, size), torch.device("cpu"))
        training = TokenizerTraining(tokenizer, images, lambda *arguments: None, ranks, microbatch)
        part = training.stream.at(90)
        assert sum(rows.stop - rows.start for rows in training.parts) == len(part)
        training.stream.close()
        seen.append(part)
    assert len(whole) == 30 and torch.equal(torch.cat(seen), whole)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_gpu_trains_encodes_samples_and_measures_alike(
    device: str, tokenizer: TokenizerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first losses are those of a CPU, whose later ones differ by what rounding grows to."""
    measured = []
    for place, name in (("cpu", "first"), (device, "second")):
        monkeypatch.setenv(DEVICE, place)
        rows, artifacts = run(tokenizer, tmp_path / name)
        generated, _ = run(generator(tokenizer), tmp_path / f"{name}-generator", artifacts)
        losses = [row["value"] for row in rows.rows["curves"] if row["term"] == "loss"]
        values = {row["metric"]: row["value"] for r in (rows, generated) for row in r.rows["evaluations"]}
        assert all(math.isfinite(value) for value in values.values())
        measured.append((losses[0], values))
    (expected_loss, expected), (loss, values) = measured
    assert loss == pytest.approx(expected_loss, rel=0.02)
    assert values["psnr"] == pytest.approx(expected["psnr"], abs=1.0)
    assert values["real_fid"] == pytest.approx(expected["real_fid"], rel=1e-3)
    assert device != "cpu" or (loss, values) == (expected_loss, expected)


def test_a_device_that_is_not_there_is_refused(
    tokenizer: TokenizerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from results.errors import UsageError

    monkeypatch.setenv(DEVICE, "abacus")
    with pytest.raises(UsageError, match=r"\$TOKENLAW_DEVICE = 'abacus' is not there; allowed on this machine: cpu"):
        run(tokenizer, tmp_path / "refused")
