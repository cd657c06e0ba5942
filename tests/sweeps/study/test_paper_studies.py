"""The paper's grids as built-in studies: they plan without ImageNet, to the printed parameters."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scaling.specification.pictures import UNSEEN
from scaling.specification.spec import CausalRegulariserSpec, GeneratorRun, TokenizerRun
from sweeps.cli.app import app
from sweeps.planning.costs import MOST_SHARDS, SHARD_IMAGES
from sweeps.study.study import load_study

GRIDS = {"imagenet-baseline": (1, 72), "imagenet-tokens": (3, 189), "imagenet-codebook": (3, 216),
         "imagenet-crt": (1, 63), "imagenet-tokenizers": (39, 0), "headline": (1, 1)}  # fmt: skip
SIZES = ("31M", "52M", "81M", "111M", "212M", "343M", "517M", "775M")


@cache
def plan(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", name, "--root", "/nowhere", "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_plans_without_its_pictures(name: str) -> None:
    table = plan(name)
    assert (table["totals"]["tokenizers"], table["totals"]["generators"]) == GRIDS[name]
    assert any("data.path is not given" in note for note in table["notes"])
    assert table["totals"]["hours_by_device"].keys() == {"a100-80gb", "h100-80gb"}
    for group in table["groups"]:
        assert group["gpus"] == [8, 8] and group["state_bytes"] >= 16 * group["params_total"][1]
        assert group["artifact_files"] > 0


@pytest.mark.parametrize("name", GRIDS)
def test_distances_are_those_of_the_field(name: str) -> None:
    """FID is a distance of Inception's features; those of the shipped network compare runs of this project alone."""
    for run in load_study(name).runs():
        assert isinstance(run, TokenizerRun | GeneratorRun)
        assert [network.name for network in run.evaluation.extractors] == ["inception"]
        assert set(run.evaluation.metrics) == {"is", "precision-recall", "ms-ssim"}


@pytest.mark.parametrize(
    ("codebook_size", "printed"),
    [
        (1024, "13.70 32.4 58.9 87.3 184 311 481 735.4"),
        (16384, "31.40 52.09 80.56 110.9 212.0 342.9 516.7 774.7"),
        (131072, "163.5 199 242 287 417 578 781 1068.3"),
    ],
)
def test_parameters_are_the_papers_to_the_printed_digit(codebook_size: int, printed: str) -> None:
    runs = [run for run in plan("imagenet-codebook")["runs"] if run["label"].startswith(f"K{codebook_size}-")]
    if codebook_size == 16384:
        runs = plan("imagenet-baseline")["runs"]
    for size, text in zip(SIZES, printed.split(), strict=True):
        (total,) = {run["params_total"] for run in runs if run["size"] == size}
        digits = len(text.partition(".")[2])
        assert f"{total / 1e6:.{digits}f}" == text, size


def test_the_baseline_is_shared_and_costs_what_the_paper_spent() -> None:
    """About 25,300 A100-hours a grid (facts of the paper: 132 days of 8 A100)."""
    baseline, codebook, tokens = (plan(f"imagenet-{name}") for name in ("baseline", "codebook", "tokens"))
    ids = [{run["id"] for run in each["runs"]} for each in (baseline, codebook, tokens)]
    assert ids[0] < ids[1] and len(ids[0] & ids[2]) == 1 + 63
    assert baseline["totals"]["hours_by_device"]["a100-80gb"] == pytest.approx(25_300, rel=0.05)
    axes = [run["flops_paper_axis"] for run in baseline["runs"] if run["stage"] == "generator"]
    assert max(axes) == pytest.approx(2.7e18, rel=0.02)
    smallest = min(run["flops_paper_axis"] for run in baseline["runs"] if run["size"] == "52M")
    assert smallest == pytest.approx(1.2e15, rel=0.02)


def test_a_tokenizers_cost_is_told_by_part() -> None:
    """Discriminator, frozen loss network and regulariser by themselves; together they are the run's FLOPs."""
    (run,) = [run for run in plan("imagenet-crt")["runs"] if run["stage"] == "tokenizer"]
    parts = run["flops_per_image_by_part"]
    assert parts.keys() == {"autoencoder", "quantizer", "perceptual", "causal", "adversarial"}
    assert all(value > 0 for value in parts.values())
    images = {r.train_images for r in load_study("imagenet-crt").runs() if isinstance(r, TokenizerRun)}
    assert {round(run["flops"] / sum(parts.values()))} == images


def test_the_tokenizers_alone_are_those_of_the_grids() -> None:
    """Figure 3 and its causal regulariser: eight codebooks, six sizes of input, FSQ, weights to 15, layers to 12."""
    runs = load_study("imagenet-tokenizers").runs()
    specs = {run.run_id: run.tokenizer for run in runs if isinstance(run, TokenizerRun)}
    assert len(specs) == len(runs) == 39
    plain = [spec for spec in specs.values() if spec.regulariser is None]
    assert {s.codebook_size for s in plain if s.quantizer.kind == "vq" and s.tokens_per_image == 256} == {
        2**n for n in range(10, 18)
    }
    assert {spec.tokens_per_image for spec in plain} == {196, 256, 324, 400, 484, 576}
    crt = [spec.regulariser for spec in specs.values() if isinstance(spec.regulariser, CausalRegulariserSpec)]
    assert {spec.weight for spec in crt} == {1, 2, 4, 8, 15} and {spec.layers for spec in crt} == {2, 4, 6, 8, 10, 12}
    for grid, shared in (("codebook", 3), ("tokens", 3), ("crt", 1)):
        others = {run.run_id for run in load_study(f"imagenet-{grid}").runs() if run.stage == "tokenizer"}
        assert len(others & specs.keys()) == shared
    # The paper names no revival of dead codes.
    assert all(getattr(spec.quantizer, "revive_every", 0) == 0 for spec in specs.values())


def test_crt_costs_what_the_baseline_does() -> None:
    """5 % fewer iterations pay for the causal model (Sec. 3.6)."""
    flops = [plan(f"imagenet-{name}")["groups"][0]["flops"] for name in ("baseline", "crt")]
    assert flops[1] == pytest.approx(flops[0], rel=0.01)


def test_trainings_are_the_papers() -> None:
    runs = [run for run in load_study("imagenet-baseline").runs() if isinstance(run, GeneratorRun)]
    assert {run.schedule for run in runs} == {"cosine"} and {run.batch_size for run in runs} == {256}
    assert {run.optimiser.learning_rate for run in runs} == {3e-3}
    assert {run.optimiser.warmup_images for run in runs} == {5_000 * 256}
    assert sorted({run.train_images[0] // 256 for run in runs})[::8] == [15_000, 2_250_000]
    assert {run.evaluation.tuned_guidance for run in runs} == {(1.5, 1.75, 2.0, 2.25)}
    assert {run.tokenizer.data.fingerprint for run in runs} == {UNSEEN}


@pytest.mark.parametrize("cluster", ["local", "slurm", "debug"])
def test_nothing_is_submitted_without_the_pictures(cluster: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["submit", "headline", "--root", str(tmp_path / "root"), "--cluster", cluster])
    assert result.exit_code == 2 and "data.path is not given" in result.output
    assert not list((tmp_path / "root").glob("**/spec.json"))


def test_a_path_that_is_not_there_is_refused_at_once() -> None:
    result = CliRunner().invoke(app, ["plan", "headline", "--set", "data.path=/nowhere/imagenet"])
    assert result.exit_code != 0 and "/nowhere/imagenet" in result.output


def test_shards_are_counted_as_they_are_written() -> None:
    from scaling.tokenizer import encoding

    assert (encoding.SHARD, encoding.MOST_SHARDS) == (SHARD_IMAGES, MOST_SHARDS)
