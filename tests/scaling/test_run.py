"""Whole runs on real images: what they leave, bit-for-bit resumption at any point, divergence, forks that stand in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from results.errors import DataError, RunError
from results.recorder import Recorder
from scaling.data.images import load_images
from scaling.data.tokens import load_tokens
from scaling.run import MODEL, NEIGHBOURS, PREVIEW, TOKENS, execute
from scaling.specification import run_columns
from scaling.specification.ladder import transformer
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import (
    AutoencoderSpec,
    CausalRegulariserSpec,
    EvaluationSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
)
from scaling.specification.workspace import Progress, Workspace
from scaling.training.checkpoint import load_newest
from scaling.training.schedule import segments
from scaling.training.tokenizer import TokenizerTraining

EVALUATION = EvaluationSpec(samples=256, guidance=(1.0, 1.5))
TOKENIZER = TokenizerRun(
    autoencoder=AutoencoderSpec(width=8, residual_blocks=(0, 0, 1)),
    quantizer=VectorQuantizerSpec(codebook_size=64, revive_every=5),
    regulariser=CausalRegulariserSpec(weight=0.5, width=32, layers=1),
    train_images=3072,
    optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=512),
    evaluation=EVALUATION,
)


def generator(**changes: object) -> GeneratorRun:
    """A tiny generator run with two budgets."""
    fields = {
        "tokenizer": TOKENIZER,
        "transformer": transformer("XS"),
        "optimiser": OptimiserSpec(learning_rate=4e-3, warmup_images=256),
        "train_images": (4096, 8192),
        "batch_size": 64,
        "evaluation": EVALUATION,
    }
    return GeneratorRun(**(fields | changes))


class Interrupter:
    """Says stop at the n-th question."""

    def __init__(self, after: int | None) -> None:
        self.left = after

    def __call__(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


def ignore(progress: Progress) -> None:
    """A report nobody reads."""


def finish(
    spec: TokenizerRun | GeneratorRun,
    folder: Path,
    cache: Path,
    parent: Path | None = None,
    stops: tuple[int, ...] = (),
    report: Callable[[Progress], None] = ignore,
    checkpoint_seconds: float = 1e9,
) -> tuple[Recorder, Path]:
    """Run to the end in len(stops) + 1 attempts, each but the last stopped; returns rows and artifacts."""
    earlier: list[Path] = []
    for number, after in enumerate((*stops, None), start=1):
        attempt = folder / str(number)
        attempt.mkdir(parents=True)
        recorder = Recorder(spec.run_id, number)
        workspace = Workspace(attempt, tuple(reversed(earlier)), parent, cache)
        try:
            execute(spec, workspace, recorder, report, Interrupter(after), checkpoint_seconds)
        except RunError as error:
            assert error.cause == "interrupted"
            assert after is not None
        else:
            assert after is None
        earlier.append(attempt)
    return recorder, workspace.artifacts


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: object) -> Path:
    """A cache shared by the module; needs the real images."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Recorder, Path]:
    """The tokenizer, trained without interruption."""
    return finish(TOKENIZER, tmp_path_factory.mktemp("tokenizer"), cache)


def metrics(recorder: Recorder) -> dict[tuple, float]:
    """All evaluations by what identifies them."""
    rows = recorder.rows["evaluations"]
    return {(r["branch"], r["images"], r["metric"], r["guidance"]): r["value"] for r in rows}


@pytest.mark.slow
def test_a_tokenizer_leaves_rows_weights_tokens_and_a_picture(trained: tuple[Recorder, Path]) -> None:
    recorder, artifacts = trained
    assert {p.name for p in artifacts.iterdir()} == {MODEL, TOKENS, PREVIEW}
    found = {key[2]: value for key, value in metrics(recorder).items()}
    assert set(found) == {
        "psnr", "ssim", "rfid", "rfid_floor", "real_fid", "codebook_utilisation", "codebook_perplexity",
        "position_utilisation", "position_perplexity", "unigram_entropy", "latent_norm", "latent_variance",
    }  # fmt: skip
    assert found["real_fid"] < found["rfid_floor"]
    assert 0 < found["codebook_utilisation"] <= 1
    assert found["codebook_perplexity"] <= 64
    losses = [r["value"] for r in recorder.rows["curves"] if r["term"] == "loss"]
    assert losses[-1] < 0.7 * losses[0]
    row = run_columns.run_facts(TOKENIZER)
    recorder.tables(row | {
        "status": "done", "wall_seconds": 1.0, "peak_memory_bytes": 1, "started_at": "x", "finished_at": "y",
        "provenance": "{}",
    })  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(0,), (1,), (0, 0, 0)])
def test_an_interrupted_tokenizer_ends_bit_for_bit_alike(
    stops: tuple[int, ...], tmp_path: Path, cache: Path, trained: tuple[Recorder, Path]
) -> None:
    recorder, artifacts = finish(TOKENIZER, tmp_path, cache, stops=stops)
    assert recorder.rows == trained[0].rows
    for name in (MODEL, PREVIEW):
        assert (artifacts / name).read_bytes() == (trained[1] / name).read_bytes()
    for split, other in zip(load_tokens(TOKENIZER, artifacts), load_tokens(TOKENIZER, trained[1]), strict=True):
        assert torch.equal(split.tokens[:], other.tokens[:]) and torch.equal(split.labels, other.labels)


@pytest.fixture(scope="module")
def generated(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, trained: tuple[Recorder, Path]
) -> tuple[Recorder, Path]:
    """The generator, trained without interruption."""
    return finish(generator(), tmp_path_factory.mktemp("generator"), cache, trained[1])


@pytest.mark.slow
def test_a_generator_is_measured_at_each_budget(generated: tuple[Recorder, Path]) -> None:
    recorder, artifacts = generated
    assert {p.name for p in artifacts.iterdir()} == {MODEL, PREVIEW, NEIGHBOURS}
    found = metrics(recorder)
    for budget in (4096, 8192):
        branch = f"decay@{budget}"
        nats = found[branch, budget, "nats_per_token", None]
        assert found[branch, budget, "nats_per_image", None] == pytest.approx(16 * nats)
        assert found[branch, budget, "unigram_normalised_nats", None] < 0
        assert {1.0, 1.5} <= {key[3] for key in found if key[0] == branch and key[2] == "gfid"}
    assert found["decay@8192", 8192, "nats_per_token", None] < found["decay@4096", 4096, "nats_per_token", None]
    assert ("decay@8192", 8192, "near_copy_fraction", 1.0) in found
    cost = {r["images"]: r["path_flops"] for r in recorder.rows["evaluations"]}
    assert cost[8192] == 2 * cost[4096] == run_columns.run_facts(generator())["path_flops"]


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(0,), (4,), (2, 1, 2)], ids=["trunk", "decay", "three times"])
def test_an_interrupted_generator_ends_bit_for_bit_alike(
    stops: tuple[int, ...],
    tmp_path: Path,
    cache: Path,
    trained: tuple[Recorder, Path],
    generated: tuple[Recorder, Path],
) -> None:
    recorder, artifacts = finish(generator(), tmp_path, cache, trained[1], stops=stops)
    assert recorder.rows == generated[0].rows
    assert (artifacts / MODEL).read_bytes() == (generated[1] / MODEL).read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on_from_a_checkpoint_not_from_the_start(
    tmp_path: Path, cache: Path, trained: tuple[Recorder, Path], generated: tuple[Recorder, Path]
) -> None:
    """A kill is a run that ends anywhere, without a word: here, in the middle of an evaluation."""

    class Killed(BaseException):
        pass

    def kill_late(progress: Progress) -> None:
        if progress.phase == "evaluate" and "sampling" in progress.detail and progress.done > 0.5:
            raise Killed

    spec, parent = generator(), trained[1]
    (tmp_path / "1").mkdir()
    with pytest.raises(Killed):
        workspace = Workspace(tmp_path / "1", (), parent, cache)
        execute(spec, workspace, Recorder(spec.run_id, 1), kill_late, lambda: False, checkpoint_seconds=0.0)
    resumed = load_newest([tmp_path / "1" / "checkpoints"], Recorder(spec.run_id, 1))
    assert resumed is not None and resumed[1].images >= 4096
    (tmp_path / "2").mkdir()
    recorder, details = Recorder(spec.run_id, 2), []
    workspace = Workspace(tmp_path / "2", (tmp_path / "1",), parent, cache)
    execute(spec, workspace, recorder, lambda p: details.append(p.phase), lambda: False, 1e9)
    assert "resume" in details
    assert recorder.rows == generated[0].rows


@pytest.mark.slow
def test_a_fork_is_the_run_of_its_budget_alone(
    tmp_path: Path, cache: Path, trained: tuple[Recorder, Path], generated: tuple[Recorder, Path]
) -> None:
    """The trunk sees the same images at the same rates, so a fork equals, exactly, a run with that one budget."""
    alone, _ = finish(generator(train_images=(4096,)), tmp_path, cache, trained[1])
    whole = metrics(generated[0])
    found = {k: v for k, v in metrics(alone).items() if k[2] not in ("memorisation_ratio", "near_copy_fraction")}
    assert found
    for key, value in found.items():
        assert whole[key] == value


@pytest.mark.slow
def test_images_drawn_by_number_and_the_scale_that_was_chosen_are_measured(
    tmp_path: Path, cache: Path, trained: tuple[Recorder, Path], generated: tuple[Recorder, Path]
) -> None:
    sampling = SamplingSpec(microbatch=48, top_k=50, classes="proportional")
    evaluation = EvaluationSpec(samples=256, guidance=["tuned", 1.5], sampling=sampling, tuned_guidance=(1.25, 2.0))
    recorder, _ = finish(generator(train_images=(4096,), evaluation=evaluation), tmp_path, cache, trained[1])
    rows = [row for row in recorder.rows["evaluations"] if row["metric"] == "gfid"]
    protocols = [json.loads(row["protocol_json"]) for row in rows]
    assert [row["split"] for row in rows] == ["train", "train", "train", "validation"]
    assert [protocol.get("guidance_schedule") for protocol in protocols] == [None, None, "best", "best"]
    assert [row["guidance"] for row in rows[:2]] == [1.0, 1.5]
    assert rows[2]["guidance"] == rows[3]["guidance"] and rows[2]["guidance"] in (1.25, 2.0)
    for protocol in protocols:
        assert (protocol["microbatch"], protocol["top_k"], protocol["settings"]) == (48, 50, "classes=proportional")
        assert "temperature" not in protocol and "top_p" not in protocol
    # Training is what it was; so is all that needs no samples.
    nats = {key: value for key, value in metrics(recorder).items() if key[2] == "nats_per_token"}
    assert nats.items() <= metrics(generated[0]).items()
    again, _ = finish(
        generator(train_images=(4096,), evaluation=evaluation), tmp_path / "again", cache, trained[1], stops=(6,)
    )
    assert again.rows == recorder.rows


@pytest.mark.slow
def test_divergence_is_a_cause_of_its_own(tmp_path: Path, cache: Path, trained: tuple[Recorder, Path]) -> None:
    spec = generator(optimiser=OptimiserSpec(learning_rate=1e12, warmup_images=0, gradient_clip=0.0))
    (tmp_path / "1").mkdir()
    recorder = Recorder(spec.run_id, 1)
    with pytest.raises(RunError, match="loss is") as error:
        execute(spec, Workspace(tmp_path / "1", (), trained[1], cache), recorder, ignore, lambda: False)
    assert error.value.cause == "diverged"
    assert recorder.rows["curves"]


def test_a_generator_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    spec = generator()
    with pytest.raises(DataError, match=spec.tokenizer.run_id):
        execute(spec, Workspace(tmp_path, (), None, tmp_path), Recorder(spec.run_id, 1), ignore, lambda: False)


def test_damaged_artifacts_are_named(tmp_path: Path) -> None:
    spec = generator()
    (tmp_path / MODEL).write_bytes(b"not weights")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        execute(spec, Workspace(tmp_path, (), tmp_path, tmp_path), Recorder(spec.run_id, 1), ignore, lambda: False)


def test_training_in_half_precision_lowers_the_loss(fashion_mnist: object) -> None:
    spec = TOKENIZER.model_copy(update={"precision": "bfloat16"})
    training = TokenizerTraining(spec, load_images(spec.data, "train"), lambda *arguments: None)
    losses = [float(training.step(segments(spec)[0], i * 64)["loss"]) for i in range(30)]
    assert losses[-1] < losses[0]
