"""Bad study files through the command line: exit 2, one clear message, nothing written. Stored tokenizers by id."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from results import SpecError, UsageError
from scaling.specification.spec import GeneratorRun, canonical_json
from sweeps.cli.app import app
from sweeps.record.attempts import claim_attempt
from sweeps.study.stored_tokenizers import find_tokenizer
from sweeps.study.study import load_study

if TYPE_CHECKING:
    from click.testing import Result

    from tests.sweeps.conftest import Sweep

BASE = """
[study]
name = "bad"
[tokenizer]
train_images = 2048
[generator]
size = "XS"
warmup_images = 1024
train_images = [2048]
"""
BILLION = "[[grid]]\nproduct = {{ {} }}\n".format(
    ", ".join(f'"tokenizer.{name}" = {list(range(1, 1001))}' for name in ("batch_size", "threads", "train_images"))
)
BAD = {
    "unknown key": (
        BASE.replace("size =", "siz ="),
        "'siz' is not a key of generator (set by [generator]); did you mean 'size'? allowed: ",
    ),
    "unknown section": (BASE + "[resource.generator]\n", "did you mean 'resources'?"),
    "unknown resource": (BASE + "[resources.generator]\ngpu = 1\n", "'gpu' is not a key of [resources.generator]"),
    "wrong type": (
        BASE.replace("train_images = 2048", 'train_images = "many"', 1),
        "train_images = 'many': Input should be a valid integer",
    ),
    "negative size": (BASE.replace('"XS"', "-3"), "generator.size = -3 is not allowed; allowed: a name of the ladder"),
    "negative count": (BASE.replace("train_images = 2048", "train_images = -5", 1), "train_images = -5"),
    "negative hours": (BASE + "[resources.tokenizer]\nhours = -1\n", "[resources.tokenizer] hours = -1: "),
    "impossible tokens": (
        BASE.replace("train_images = 2048", "train_images = 2048\ninput_size = 30", 1),
        "autoencoder.downsampling = 8 does not divide the image side 30; no whole number of tokens results. "
        "Allowed sides are multiples of 8",
    ),
    "billion runs": (BASE + BILLION, "has 1,000,000,000 combinations; allowed: up to 200,000 before exclusions"),
    "unknown tokenizer": (
        BASE.replace("train_images = 2048", 'id = "0123abcd"', 1),
        "tokenizer.id = '0123abcd' is unknown; allowed: the start of the id of one tokenizer below ",
    ),
    "tokenizer id that is a path": (
        BASE.replace("train_images = 2048", 'id = "../../etc"', 1),
        "tokenizer.id = '../../etc' is no id",
    ),
    "name that is a path": (BASE.replace('"bad"', '"../bad"'), "[study] name = '../bad'"),
    "trainer outside the root": (
        BASE + '[worker]\nstage = "generator"\ncommand = ["python", "../../train.py"]\n',
        "'../../train.py', a path outside the root of the code that is frozen with a submission",
    ),
    "unknown hardware": (BASE + '[hardware]\nprofile = "h300"\n', "did you mean 'h200'?"),
    "not TOML": ("[study\n", "is not TOML"),
}


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore


@pytest.mark.parametrize("name", BAD)
def test_bad_study_ends_with_two_and_one_message_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.toml"
    path.write_text(text)
    root = tmp_path / "root"
    commands = (["plan"], ["status"], ["submit", "--wait"], ["submit"], ["retry"])
    for command, *options in commands:
        done = _run(command, path, *options, "--root", root)
        assert done.exit_code == 2, (command, done.output)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert len(line) < 700
    assert list(tmp_path.iterdir()) == [path]


def test_a_billion_runs_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(BASE + BILLION)
    begun = time.process_time()
    assert _run("plan", path, "--root", tmp_path / "root").exit_code == 2
    assert time.process_time() - begun < 1.0


def test_a_trainer_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('[study]\nname = "own"\n[worker]\ncommand = ["python", "trian.py"]\nstage = "run"\n')
    for options in ((), ("--wait",), ("--cluster", "debug"), ("--cluster", "slurm")):
        done = _run("submit", path, "--root", tmp_path / "root", *options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "names 'trian.py', which is not in" in done.stderr
    # What it would cost, and how it stands, can be asked nevertheless.
    assert _run("plan", path, "--root", tmp_path / "root").exit_code == 0
    assert not (tmp_path / "root").exists()


def test_generators_on_a_tokenizer_that_was_begun_before(sweep: Sweep) -> None:
    tokenizer = sweep.plan.runs[0].spec
    assert claim_attempt(sweep.root, tokenizer.run_id, canonical_json(tokenizer), "", None)
    path = sweep.root.parent / "more.toml"
    start = tokenizer.run_id[:5]
    path.write_text(BASE.replace("train_images = 2048", f'id = "{start}"', 1) + "[seeds]\ngenerator = [3, 4]\n")
    runs = load_study(str(path), root=sweep.root).runs()
    assert runs[0] == tokenizer
    assert [(run.seed, run.tokenizer) for run in runs if isinstance(run, GeneratorRun)] == [
        (3, tokenizer),
        (4, tokenizer),
    ]
    assert f"{tokenizer.run_id}" in _run("plan", path, "--root", sweep.root, "--csv", "-").stdout
    path.write_text(path.read_text() + "[evaluation]\nsamples = 256\n")
    other = load_study(str(path), root=sweep.root).runs()
    assert other[0].run_id == tokenizer.run_id
    assert {run.evaluation.samples for run in other if isinstance(run, GeneratorRun)} == {256}


def test_tokenizer_is_found_in_the_store_alone(sweep: Sweep) -> None:
    sweep.submit()
    shutil.rmtree(sweep.root / "attempts")
    tokenizer, generator = (
        next(r.spec for r in sweep.plan.runs if r.stage == stage) for stage in ("tokenizer", "generator")
    )
    assert find_tokenizer(sweep.root, tokenizer.run_id) == tokenizer
    with pytest.raises(SpecError, match=f"{tokenizer.run_id} \\({tokenizer.label}\\)"):
        find_tokenizer(sweep.root, generator.run_id)


def test_start_that_fits_several_tokenizers_names_them(sweep: Sweep) -> None:
    tokenizers = [run.spec for run in sweep.plan.runs if run.stage == "tokenizer"]
    for spec in tokenizers:
        assert claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None)
    # A damaged file and a generator are no tokenizers.
    (sweep.root / "attempts" / tokenizers[1].run_id / "1" / "spec.json").write_text("{}")
    with pytest.raises(SpecError, match=r"is unknown; .*: [0-9a-f]{12} \(K256-T16-s0\)$"):
        find_tokenizer(sweep.root, "f" * 12)
    assert find_tokenizer(sweep.root, tokenizers[0].run_id[:4]) == tokenizers[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("[tokenizer]", '[tokenizer]\nid = "ab"'), "sets both tokenizer.id and tokenizer.train_images"),
        (BASE.replace("train_images = 2048", 'id = "ab"', 1) + "[data]\nimage_size = 32\n", "tokenizer.id and [data]"),
        (
            BASE.replace("train_images = 2048", 'id = "ab"', 1) + "[seeds]\ntokenizer = [1]\n",
            "which has a seed already",
        ),
        (BASE.replace("train_images = 2048", "id = 3", 1), "tokenizer.id = 3 is not allowed; allowed: a text"),
        ('[study]\nname = "t"\n[tokenizer]\nid = "ab"\n', "but there is no [generator] to train"),
    ],
)
def test_what_cannot_stand_beside_an_id(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_study(str(path), root=tmp_path).runs()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smoek", "study = 'smoek' is unknown; did you mean 'smoke'\\? allowed: "),
        ("some/dir", "study = 'some/dir' does not exist: no such file or folder; allowed: "),
        ("./nosuch", "study = './nosuch' does not exist: no such file or folder"),
        ("nosuch/", "study = 'nosuch/' does not exist: no such file or folder"),
        ("x.tml", "study = 'x.tml' does not exist: no such file or folder"),
        ("x.toml", "study = 'x.toml' cannot be read: No such file"),
        ("lab", "study = 'lab' is a folder; allowed: a TOML file, such as lab/mine.toml"),
    ],
)
def test_a_study_that_is_not_there(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.toml").write_text("")
    with pytest.raises(UsageError, match=words):
        load_study(name)


def test_another_kind_names_the_fields_that_it_has() -> None:
    with pytest.raises(
        SpecError, match=r"codebook_size is not a field of quantizer\.kind = 'fsq'; allowed: levels"
    ) as error:
        load_study("smoke", ["tokenizer.quantizer.kind=fsq"]).runs()
    assert "quantizer.levels = [8, 6, 5] in its place (in its section, in the grid, or by --set)" in str(error.value)
