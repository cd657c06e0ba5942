"""Studies of a user's own pictures: pinned by content, refused before training in one line, plans without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.errors import DataError, SpecError
from scaling.data.sources.locations import recall
from scaling.specification.pictures import PicturesSpec
from scaling.specification.spec import GeneratorRun, parse_run
from sweeps.cli.app import app
from sweeps.planning.costs import artifact_bytes
from sweeps.planning.plan import make_plan
from sweeps.study.study import Study, parse_study
from tests.scaling.data.made_pictures import made, write_folder

TEXT = """
[study]
name = "own"
[data]
source = "folder"
path = "{path}"
image_size = 16
{more}
[tokenizer]
autoencoder = {{ width = 8 }}
[generator]
size = "XS"
warmup_images = 512
train_images = [1024]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """141 pictures in three classes, of which 42 validate."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "own" / "train", made(33))
    write_folder(tmp_path / "own" / "val", made(14, seed=1))
    return tmp_path / "own"


def study(folder: Path, more: str = "") -> Study:
    return parse_study(TEXT.format(path=folder, more=more), "own.toml")


def test_pictures_are_pinned_by_content_and_not_by_place(folder: Path, tmp_path: Path) -> None:
    own = study(folder)
    tokenizer, generator = own.runs()
    data = tokenizer.data  # type: ignore[union-attr]
    assert isinstance(data, PicturesSpec) and isinstance(generator, GeneratorRun)
    assert (data.classes, data.train_images, data.validation_images, data.image_size) == (3, 99, 42, 16)
    assert list(own.locations) == [data.fingerprint]
    assert parse_run(tokenizer.canonical) == tokenizer and parse_run(generator.canonical) == generator
    assert str(folder) not in generator.canonical
    shutil.copytree(folder, tmp_path / "moved")
    assert [run.run_id for run in study(tmp_path / "moved").runs()] == [tokenizer.run_id, generator.run_id]
    next((tmp_path / "moved/train/cat").iterdir()).unlink()
    assert study(tmp_path / "moved").runs()[0].run_id != tokenizer.run_id
    for more in ("flip = true", 'crop = "random"', "channels = 1"):
        assert study(folder, more).runs()[0].run_id != tokenizer.run_id


def test_axes_over_what_is_seen_of_pictures(folder: Path) -> None:
    text = '[[grid]]\nproduct = { "data.image_size" = [8, 16], "data.flip" = [false, true] }\n'
    runs = parse_study(TEXT.format(path=folder, more="") + text, "own.toml").runs()
    assert len(runs) == 8 and len({run.tokenizer.data.fingerprint for run in runs}) == 1  # type: ignore[union-attr]


def test_tokens_of_every_view_need_disk(folder: Path) -> None:
    once, ten = (make_plan(study(folder, more)).runs[0] for more in ("", 'crop = "ten"'))
    # 16 pixels are 4 tokens of 2 bytes, beside a label of 4.
    assert artifact_bytes(ten) - artifact_bytes(once) == 9 * 99 * (4 * 2 + 4)


def test_the_catalogue_is_a_source_too() -> None:
    plain = parse_study('[study]\nname = "x"\n[data]\nimage_size = 32\n', "x").runs()
    named = parse_study('[study]\nname = "x"\n[data]\nsource = "builtin"\nimage_size = 32\n', "x").runs()
    assert [run.run_id for run in plain] == [run.run_id for run in named]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('path = "x"', "data.path is of pictures of one's own; allowed: with data.source"),
        ('source = "folders"\npath = "x"', "data.source = 'folders': Input should be 'folder'"),
        ('source = "folder"', "data.path is missing; pictures of one's own need data.source and data.path"),
        ('source = "folder"\npath = "x"\nname = "fashion-mnist"', "data.name is not a field of pictures"),
        ('source = "folder"\npath = "x"\nimage_sise = 3', "'image_sise' is not a key of data"),
        ('source = "folder"\npath = "x"\nimage_size = 0', "data.image_size = 0"),
    ],
)
def test_wrong_fields_are_named(table: str, told: str) -> None:
    with pytest.raises(SpecError, match=told.replace("(", r"\(")):
        parse_study(f'[study]\nname = "x"\n[data]\n{table}\n', "x").runs()


def _damage(folder: Path) -> str:
    path = folder / "train" / "cat" / "00001.png"
    path.write_bytes(path.read_bytes()[:50])
    return f"{path} cannot be decoded"


def _empty_class(folder: Path) -> str:
    shutil.rmtree(folder / "val" / "dog")
    return f"{folder / 'val'}: no validation picture of class dog"


def _too_small(folder: Path) -> str:
    write_folder(folder / "train", {"cat/tiny.png": next(iter(made(1, side=4).values()))})
    return f"{folder}/train/cat/tiny.png has "


def _few(folder: Path) -> str:
    for path in sorted((folder / "val").rglob("*.png"))[:3]:
        path.unlink()
    return f"data.path = '{folder}' gives 39 validation pictures; allowed: at least 40"


@pytest.mark.parametrize("spoil", [_damage, _empty_class, _too_small, _few])
@pytest.mark.parametrize("command", ["plan", "submit"])
def test_what_cannot_be_trained_on_is_refused_in_one_line(
    spoil: object, command: str, folder: Path, tmp_path: Path
) -> None:
    told = spoil(folder)  # type: ignore[operator]
    with pytest.raises(DataError) as error:
        study(folder).runs()
    assert str(error.value).startswith(told) and "\n" not in str(error.value)
    inspected = CliRunner().invoke(app, ["data", "inspect", str(folder), "--image-size", "16", "--json"])
    assert inspected.exit_code == 1 and json.loads(inspected.stdout)["problem"] == str(error.value)
    path = tmp_path / "own.toml"
    path.write_text(TEXT.format(path=folder, more=""))
    arguments = [command, str(path), "--root", str(tmp_path / "root")]
    command_line = [sys.executable, "-c", "from sweeps.cli.entry import main; main()", *arguments]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(error.value) in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "root").exists()


def test_a_plan_of_pictures_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEXT.format(path=folder, more=""))
    code = (
        "import sys; from sweeps import load_study, plan\n"
        f"made = plan(load_study({str(path)!r}))\n"
        "assert len(made.runs) == 2 and not {'torch', 'pandas', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_submission_keeps_where_the_pictures_lie(folder: Path, tmp_path: Path) -> None:
    from sweeps.backends.base import Request
    from sweeps.backends.submission import enter

    plan, root = make_plan(study(folder)), tmp_path / "root"
    enter(Request(plan, root), "local", plan.runs, plan.runs)
    (fingerprint,) = plan.study.locations
    assert recall(root / "pictures", fingerprint).folder == folder
