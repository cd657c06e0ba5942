"""Distances of reconstructions that a study names: measured by a run, refused by side and by a missing package."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from results.errors import DataError, SpecError
from results.recorder import Recorder
from scaling.data.sources.fingerprint import prepare
from scaling.data.sources.locations import remember
from scaling.evaluation import memorisation
from scaling.evaluation.networks import lpips
from scaling.run import execute
from scaling.specification.pictures import PicturesLocation, PicturesView
from scaling.specification.spec import AutoencoderSpec, EvaluationSpec, OptimiserSpec, TokenizerRun
from scaling.specification.workspace import Workspace
from sweeps.study.study import parse_study
from tests.scaling.data.made_pictures import made, write_folder

SIDE = 168
"""Of pictures: MS-SSIM needs 161 pixels, the tokenizer a multiple of 8."""
STUDY = """
[study]
name = "distances"
[tokenizer]
train_images = 1024
optimiser = { warmup_images = 512 }
[evaluation]
"""


@pytest.mark.slow
def test_a_tokenizer_run_measures_ms_ssim_and_keeps_what_is_the_same_for_every_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "own" / "train", made(4, side=SIDE))
    write_folder(tmp_path / "own" / "val", made(14, seed=1, side=SIDE))
    location, view = PicturesLocation(source="folder", path=str(tmp_path / "own")), PicturesView(image_size=SIDE)
    data = prepare(location, view).pinned(view)
    remember(tmp_path / "pictures", data.fingerprint, location)
    run = TokenizerRun(
        data=data, autoencoder=AutoencoderSpec(width=4, channel_multipliers=(1, 1, 1), residual_blocks=(0, 0, 0)),
        optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=8), train_images=32, batch_size=8,
        evaluation=EvaluationSpec(samples=128, metrics=("ms-ssim",)),
    )  # fmt: skip
    recorder = Recorder(run.run_id, 1)
    (tmp_path / "attempt").mkdir()
    workspace = Workspace(tmp_path / "attempt", (), None, tmp_path / "moments", tmp_path / "pictures")
    execute(run, workspace, recorder, lambda progress: None, lambda: False)
    rows = {row["metric"]: row for row in recorder.rows["evaluations"]}
    assert 0 < rows["ms_ssim"]["value"] < 1 and rows["ms_ssim"]["n"] == rows["ssim"]["n"] == 42
    assert rows["ms_ssim"]["standard_error"] > 0 and rows["ms_ssim"]["protocol"] != rows["ssim"]["protocol"]

    # What is held out has the same features for every tokenizer: they are computed once.
    monkeypatch.setattr(memorisation, "features_in_order", lambda *_, **__: pytest.fail("they are kept"))
    other = run.model_copy(update={"seed": 1})
    again = Recorder(other.run_id, 1)
    execute(other, workspace, again, lambda progress: None, lambda: False)
    of_other = {row["metric"]: row["value"] for row in again.rows["evaluations"]}
    assert of_other["real_fid"] == rows["real_fid"]["value"] and of_other["rfid"] != rows["rfid"]["value"]


def test_a_study_of_small_images_is_refused_by_side(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'ms-ssim' is defined for images of at least 161 pixels"):
        parse_study(f'{STUDY}metrics = ["ms-ssim"]\n', "distances.toml").runs()
    path = tmp_path / "distances.toml"
    path.write_text(f'{STUDY}metrics = ["ms-ssim"]\n')
    line = [sys.executable, "-c", "from sweeps.cli.entry import main; main()", "plan", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "'ms-ssim' is defined for images of at least 161 pixels a side; data.image_size = 32" in done.stderr


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_a_run_with_lpips_ends_before_training_where_its_package_lacks(
    trunk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parse_study(f'{STUDY}metrics = ["lpips-{trunk}"]\n', "distances.toml").runs()
    assert isinstance(run, TokenizerRun)
    known = importlib.import_module

    def without(name: str) -> object:
        if name == "lpips":
            raise ImportError(f"No module named {name!r}")
        return known(name)

    lpips._shared.cache_clear()
    monkeypatch.setattr(importlib, "import_module", without)
    recorder, state = Recorder(run.run_id, 1), torch.get_rng_state()
    workspace = Workspace(tmp_path / "attempt", (), None, tmp_path / "moments", tmp_path / "pictures")
    with pytest.raises(DataError, match=r"pip install 'tokenlaw\[lpips\]'"):
        execute(run, workspace, recorder, lambda progress: None, lambda: False)
    assert not (tmp_path / "attempt").exists() and torch.equal(torch.get_rng_state(), state)
