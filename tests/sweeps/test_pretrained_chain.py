"""`[tokenizer] pretrained` from the study file to rows: imported weights and a stored run's, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from results.errors import DataError, SpecError
from results.recorder import Recorder
from scaling.data.sources import weights
from scaling.data.sources.builtin.catalogue_files import locate
from scaling.run import MODEL, TOKENS, execute
from scaling.specification.run_columns import estimated_seconds, run_facts
from scaling.specification.spec import AutoencoderSpec, TokenizerRun, VectorQuantizerSpec, parse_run
from scaling.specification.workspace import Workspace
from scaling.tokenizer.model import Tokenizer
from sweeps.planning.plan import make_plan
from sweeps.study.study import Study, load_study
from tests.scaling.tokenizer.test_importing import llamagen_state

LEFT = TokenizerRun(
    autoencoder=AutoencoderSpec(width=8, residual_blocks=(0, 0, 1)), quantizer=VectorQuantizerSpec(codebook_size=64)
)


def study(tmp_path: Path, path: object, more: str = "", data: str = "") -> Study:
    """A study of one taken-over tokenizer and a generator on it."""
    file = tmp_path / "study.toml"
    file.write_text(
        f'[study]\nname = "test"\n{data}\n[tokenizer]\npretrained = "{path}"\n{more}\n'
        '[generator]\nsize = "XS"\nwarmup_images = 1024\ntrain_images = [2048]\n[evaluation]\nsamples = 256\n'
    )
    return load_study(str(file), root=tmp_path)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The artifacts of a run of ours below a data root, its weights as they start."""
    attempt = tmp_path / "attempts" / LEFT.run_id / "1"
    attempt.mkdir(parents=True)
    (attempt / "spec.json").write_text(LEFT.canonical)
    folder = tmp_path / "artifacts" / LEFT.run_id
    torch.manual_seed(0)
    Tokenizer(LEFT).save(folder / MODEL)
    return folder


def test_a_stored_run_is_one_line_of_a_study(tmp_path: Path, stored: Path) -> None:
    made = study(tmp_path, stored)
    tokenizer, generator = made.runs()
    assert isinstance(tokenizer, TokenizerRun) and tokenizer.pretrained is not None
    assert (tokenizer.pretrained.source, tokenizer.autoencoder) == ("stored", LEFT.autoencoder)
    assert generator.tokenizer == tokenizer and parse_run(tokenizer.canonical) == tokenizer
    # Where weights lie is no part of what they are.
    assert str(stored) not in tokenizer.canonical
    assert made.weights == {tokenizer.pretrained.fingerprint: stored.resolve()}
    facts = run_facts(tokenizer)
    assert (facts["train_images"], facts["executed_flops"], facts["tokenizer_flops"]) == (0, 0, 0)
    assert estimated_seconds(tokenizer) > 0
    assert make_plan(made).runs[0].flops == 0


def test_one_set_of_weights_is_one_run_whatever_the_seeds(tmp_path: Path, stored: Path) -> None:
    made = study(tmp_path, stored, data="[seeds]\ntokenizer = [0, 1, 2]\n")
    assert sum(isinstance(run, TokenizerRun) for run in made.runs()) == 1


def test_imported_weights_need_images_of_their_channels(tmp_path: Path) -> None:
    save_file(llamagen_state(), tmp_path / "vq.safetensors")
    with pytest.raises(SpecError, match=r"\[data\] has images of 1 channels; allowed: 3, as tokenizer.pretrained"):
        study(tmp_path, tmp_path / "vq.safetensors").runs()


def test_what_cannot_be_taken_over_is_one_error(tmp_path: Path, stored: Path) -> None:
    with pytest.raises(DataError, match="do not exist; allowed: LlamaGen"):
        study(tmp_path, tmp_path / "absent.pt").runs()
    with pytest.raises(SpecError, match=r"sets both tokenizer\.pretrained and tokenizer\.batch_size"):
        study(tmp_path, stored, "batch_size = 8").runs()
    (stored / MODEL).write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be read"):
        study(tmp_path, stored).runs()


def test_a_run_takes_over_encodes_and_measures(tmp_path: Path, stored: Path) -> None:
    try:
        locate("fashion-mnist")
    except DataError as error:
        pytest.skip(f"Fashion-MNIST is not here: {error}")
    run = study(tmp_path, stored).runs()[0]
    assert isinstance(run, TokenizerRun) and run.pretrained is not None
    known = tmp_path / weights.FOLDER

    def workspace(number: int) -> Workspace:
        attempt = tmp_path / "work" / str(number)
        attempt.mkdir(parents=True)
        return Workspace(attempt, (), None, tmp_path / "cache", pretrained=known)

    def carry_out(number: int, recorder: Recorder) -> Workspace:
        folders = workspace(number)
        execute(run, folders, recorder, lambda progress: None, lambda: False)
        return folders

    with pytest.raises(DataError, match="does not tell where these weights lie; plan the study"):
        carry_out(1, Recorder(run.run_id, 1))
    weights.remember(known, run.pretrained.fingerprint, stored)
    recorder = Recorder(run.run_id, 2)
    artifacts = carry_out(2, recorder).artifacts
    rows = recorder.rows["evaluations"]
    assert {"rfid", "psnr", "codebook_utilisation"} <= {row["metric"] for row in rows}
    assert {row["images"] for row in rows} == {0} and not recorder.rows["curves"]
    assert (artifacts / TOKENS).is_dir()
    ours, theirs = (Tokenizer.load(LEFT, folder / MODEL).state_dict() for folder in (artifacts, stored))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    # Other weights at the same place are noticed.
    Tokenizer(LEFT).save(stored / MODEL)
    with pytest.raises(DataError, match="the run was planned with"):
        carry_out(3, Recorder(run.run_id, 3))
