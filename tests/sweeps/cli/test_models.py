"""The commands sample, evaluate and export on a stored run: pictures by number, figures and rows of them, folders that
load again, clear refusals."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from typer.testing import CliRunner

from results import Store
from results.errors import DataError
from results.protocol import Protocol
from results.recorder import Recorder
from scaling import load_exported
from scaling.generator.transformer import Generator, build_generator
from scaling.specification.ladder import transformer
from scaling.specification.run_columns import run_facts
from scaling.specification.spec import AutoencoderSpec, GeneratorRun, OptimiserSpec, RunSpec, TokenizerRun
from scaling.tokenizer.model import Tokenizer
from sweeps.cli.app import app

TOKENIZER = TokenizerRun(autoencoder=AutoencoderSpec(width=8, channel_multipliers=(1, 1, 1), residual_blocks=(0, 0, 0)))
RUN = GeneratorRun(
    tokenizer=TOKENIZER, transformer=transformer("XS"), train_images=(640,), schedule="cosine",
    optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
)  # fmt: skip
PLAIN = RUN.model_copy(update={"transformer": RUN.transformer.model_copy(update={"class_dropout": 0.0})})


def put(root: Path, run: RunSpec, status: str = "done") -> None:
    recorder = Recorder(run.run_id, 1)
    if isinstance(run, GeneratorRun):
        recorder.evaluation(step=10, metric="gfid", value=9.5, n=500, protocol=Protocol("gfid", 500, guidance=1.0))
    tables = recorder.tables(run_facts(run) | {
        "status": status, "wall_seconds": 1.0, "peak_memory_bytes": 1, "started_at": "x", "finished_at": "y",
        "provenance": '{"commit": "abc123"}',
    })  # fmt: skip
    Store(root).append(run.run_id, tables, status=status, attempt=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a generator, one without class dropout, and their tokenizer, of drawn weights."""
    root = tmp_path_factory.mktemp("root")
    state = torch.get_rng_state()
    torch.manual_seed(1)
    models: dict[str, Tokenizer | Generator] = {TOKENIZER.run_id: Tokenizer(TOKENIZER)}
    for run in (RUN, PLAIN):
        models[run.run_id] = model = build_generator(run)
        torch.nn.init.normal_(model.head.weight, std=0.5)  # type: ignore[arg-type]
        torch.nn.init.normal_(model.class_embedding.weight)
    torch.set_rng_state(state)
    for run in (TOKENIZER, RUN, PLAIN):
        put(root, run)
        (root / "artifacts" / run.run_id).mkdir(parents=True)
        save_model(models[run.run_id], str(root / "artifacts" / run.run_id / "model.safetensors"))
    return root


def call(root: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--root", str(root)])
    return result.exit_code, result.output


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-class*.png")}


def test_pictures_are_named_by_number_and_class_and_are_the_same_again(root: Path, tmp_path: Path) -> None:
    words = ["--classes", "3,7", "--guidance", "2", "--seed", "5"]
    code, output = call(root, "sample", RUN.run_id[:6], *words, "--n", "9", "--out", str(tmp_path / "a"))
    assert code == 0, output
    first = pictures(tmp_path / "a")
    assert sorted(first) == [f"{i}-class{3 if i % 2 == 0 else 7}.png" for i in range(9)]
    assert imread(tmp_path / "a/0-class3.png").shape[:2] == (32, 32)
    assert imread(tmp_path / "a/sheet.png").shape[1] > 32
    # By the folder, and fewer of them: the same pictures.
    folder = root / "artifacts" / RUN.run_id
    code, output = call(root, "sample", str(folder), *words, "--n", "4", "--out", str(tmp_path / "b"))
    assert code == 0, output
    assert pictures(tmp_path / "b").items() <= first.items()
    changed = (["--guidance", "1"], ["--seed", "6"], ["--temperature", "0.5"], ["--top-k", "1"], ["--top-p", "0.1"])
    for number, change in enumerate(changed):
        code, output = call(
            root, "sample", RUN.run_id, *words, *change, "--n", "9", "--out", str(tmp_path / f"c{number}")
        )
        assert code == 0, output
        assert pictures(tmp_path / f"c{number}") != first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([RUN.run_id, "--classes", "3,10"], "classes = 10 is not a class of fashion-mnist; allowed: 0 to 9"),
        ([RUN.run_id, "--classes", "a"], "classes = 'a' is not allowed"),
        ([RUN.run_id, "--guidance", "0.5"], "guidance = 0.5 is not allowed"),
        ([RUN.run_id, "--top-p", "2"], "top_p = 2.0"),
        ([RUN.run_id, "--schedule", "square"], "guidance_schedule = 'square'"),
        ([RUN.run_id, "--n", "0"], "n = 0 is not allowed; allowed: 1 or more"),
        ([PLAIN.run_id, "--guidance", "2"], "guidance = 2 needs a null class"),
        ([TOKENIZER.run_id], "is a tokenizer run; allowed: the id of a finished generator run"),
        (["0000ffff"], "run = '0000ffff' is unknown"),
        (["no id"], "run = 'no id' is no id"),
        ([""], "run = '' is no id"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(
    root: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    code, output = call(root, "sample", *words, "--out", str(tmp_path / "out"))
    assert code == 2
    assert message in output.replace("\n", " ") and output.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_or_has_no_weights_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "attempts" / RUN.run_id / "1").mkdir(parents=True)
    code, output = call(tmp_path, "sample", RUN.run_id[:8], "--out", str(tmp_path / "out"))
    assert code == 2 and f"run {RUN.run_id} is not finished" in output
    put(tmp_path / "bare", RUN)
    code, output = call(tmp_path / "bare", "sample", RUN.run_id, "--out", str(tmp_path / "out"))
    assert code == 2 and "has no weights any more" in output
    put(tmp_path / "diverged", RUN, "diverged")
    code, output = call(tmp_path / "diverged", "sample", RUN.run_id, "--out", str(tmp_path / "out"))
    assert code == 2 and "ended as diverged, without weights" in output


class Quarters(nn.Module):
    """Means of the quarters of a picture, by channel: features for `evaluate`."""

    side, channels = 16, 3

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture
def quarters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of that network, importable, and a cache of its own."""
    module = types.ModuleType("quarters_of_pictures")
    module.Quarters = Quarters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"{module.__name__}:Quarters"


def figures(root: Path, *words: str) -> list[dict[str, Any]]:
    code, output = call(root, "evaluate", *words, "--json")
    assert code == 0, output
    told, _ = json.JSONDecoder().raw_decode(output[output.index("{") :])
    return list(told["figures"])


@pytest.mark.slow
def test_a_stored_run_is_evaluated_as_its_pictures_are(root: Path, tmp_path: Path, quarters: str) -> None:
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8))
    drawing = ["--seed", "5", "--guidance", "2", "--temperature", "0.7", "--n", "60"]
    code, output = call(root, "sample", RUN.run_id, *drawing, "--out", str(tmp_path / "drawn"))
    assert code == 0, output
    (tmp_path / "drawn/sheet.png").unlink()
    against = ["--reference", str(tmp_path / "real.npz"), "--extractor", quarters, "--metrics", "fid,kid"]
    drawing = ["--image-seed", "5", *drawing[2:]]
    of_run = figures(root, RUN.run_id[:6], *against, *drawing)
    of_pictures = figures(root, str(tmp_path / "drawn"), *against)
    assert [f["value"] for f in of_run] == [f["value"] for f in of_pictures]
    assert [f["standard_error"] for f in of_run] == [f["standard_error"] for f in of_pictures]
    told = {"guidance": 2.0, "temperature": 0.7, "microbatch": 50, "seed": 5, "n": 60, "crop": "pad32"}
    assert of_run[0]["protocol"].items() >= told.items()
    assert "image-seed=5" in of_run[1]["protocol"]["settings"] and of_run[1]["protocol"]["seed"] == 2020
    # By the folder of its artifacts, with the study's own number of samples replaced: the same images first.
    folder = str(root / "artifacts" / RUN.run_id)
    assert figures(root, folder, *against, *drawing) == of_run
    changes = (["--top-k", "1"], ["--classes", "balanced", "--image-seed", "6"], ["--guidance", "1"])
    for change in changes:
        assert figures(root, folder, *against, *drawing, *change)[0]["value"] != of_run[0]["value"]


def test_figures_become_rows_on_request(root: Path, tmp_path: Path, quarters: str) -> None:
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8))
    other = tmp_path / "other"
    shutil.copytree(root, other)
    before = Store(other).read("evaluations", [RUN.run_id])
    words = [RUN.run_id, "--reference", str(tmp_path / "real.npz"), "--extractor", quarters, "--n", "60"]
    words += ["--metrics", "fid,kid,fid-curve", "--record"]
    code, output = call(other, "evaluate", *words)
    assert code == 0 and "figures added to" in output, output
    code, output = call(other, "evaluate", *words)
    assert code == 0 and "figures are already in" in output, output
    store = Store(other)
    assert store.read("evaluations", [RUN.run_id]).equals(before) and store.check().damaged == ()
    (row,) = [row for row in store.read("runs").to_pylist() if row["source"] == "evaluate"]
    assert (row["stage"], row["generator"], row["tokenizer"]) == ("run", "XS", "K256-T16")
    assert json.loads(row["spec"])["evaluated"]["run"] == RUN.run_id
    rows = store.read("evaluations", [row["run_id"]]).to_pylist()
    assert {r["metric"] for r in rows} == {"frechet_distance", "kid"} and {r["step"] for r in rows} == {10}
    protocols = [Protocol.from_json(r["protocol_json"]) for r in rows]
    assert all(r["protocol"] == protocol.id for r, protocol in zip(rows, protocols, strict=True))
    # Images that no run made: rows of their own, without a place on a curve.
    images = [str(tmp_path / "real.npz"), *words[1:3], "--extractor", quarters, "--metrics", "fid", "--record"]
    code, output = call(other, "evaluate", *images)
    assert code == 0 and "1 figures added" in output, output
    assert len(Store(other).finished()) == len(store.finished())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([PLAIN.run_id, "--guidance", "2"], "guidance = 2 needs a null class"),
        ([RUN.run_id, "--guidance", "0"], "guidance = 0 is not allowed"),
        ([RUN.run_id, "--n", "0"], "n = 0 is not allowed"),
        ([RUN.run_id, "--top-p", "2"], "top_p = 2.0"),
        ([RUN.run_id, "--classes", "some"], "classes = 'some'"),
        ([RUN.run_id, "--image-size", "8"], "leave --image-size out"),
        ([RUN.run_id, "--classes", "proportional"], "tokens"),
        ([TOKENIZER.run_id], "is a tokenizer run"),
        (["0000ffff"], "run = '0000ffff' is unknown"),
        (["pictures", "--guidance", "2"], "guidance is of the images of a run; 'pictures' is none"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    root: Path, quarters: str, words: list[str], message: str
) -> None:
    code, output = call(root, "evaluate", *words, "--extractor", quarters)
    assert code == 2
    assert message in output.replace("\n", " ") and output.count("error:") == 1


def test_an_export_loads_and_gives_the_same_logits(root: Path, tmp_path: Path) -> None:
    code, output = call(root, "export", RUN.run_id, "--out", str(tmp_path / "model"))
    assert code == 0, output
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"generator.safetensors", "tokenizer.safetensors", "model.json", "README.md"}
    model = load_exported(tmp_path / "model")
    assert model.run == RUN
    # By hand: the weights in a model built from the JSON alone.
    about = json.loads((tmp_path / "model/model.json").read_text())
    spec = GeneratorRun.model_validate_json(json.dumps(about["spec"]))
    expected = build_generator(spec).eval()
    expected.load_state_dict(load_file(tmp_path / "model/generator.safetensors"))
    tokens, labels = torch.randint(4096, (2, 16)) % RUN.tokenizer.codebook_size, torch.tensor([0, 10])
    with torch.no_grad():
        assert torch.equal(model.generator(tokens, labels), expected(tokens, labels))
    assert model.tokenizer.pixels_of(tokens).shape == (2, 1, 32, 32)
    card = (tmp_path / "model/README.md").read_text()
    assert "abc123" in card and "9.5" in card and f"{about['parameters']['generator']:,}" in card
    assert f"{about['flops']['generator_flops']:.4g}" in card
    code, output = call(root, "export", RUN.run_id, "--out", str(tmp_path / "model"))
    assert code == 2 and "is there; allowed" in output


def test_a_damaged_export_is_named(root: Path, tmp_path: Path) -> None:
    code, output = call(root, "export", RUN.run_id, "--out", str(tmp_path / "model"))
    assert code == 0, output
    for name, reason in (("tokenizer.safetensors", "its SHA-256 is not that of"), ("model.json", "no exported model")):
        shutil.copytree(tmp_path / "model", tmp_path / name)
        path = tmp_path / name / name
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(DataError, match=reason):
            load_exported(tmp_path / name)
    with pytest.raises(DataError, match="no exported model"):
        load_exported(tmp_path)
