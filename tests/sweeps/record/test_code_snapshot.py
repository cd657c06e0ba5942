"""Freezing the code of a submission."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from results import StoreError, UsageError
from results.provenance import _code_hash as code_hash
from results.provenance import provenance
from sweeps.record import code_snapshot as module
from sweeps.record.code_snapshot import check_commands, load_snapshot, take_snapshot


def test_copy_is_whole_read_only_and_shared(tmp_path: Path) -> None:
    first = take_snapshot(tmp_path)
    assert take_snapshot(tmp_path) == first == load_snapshot(tmp_path, first.name)
    assert [path.name for path in first.path.parent.iterdir()] == [first.name]
    assert first.trainer is None
    for name in ("sweeps/worker/worker.py", "sweeps/study/built_in/smoke.toml", "results/schema.py"):
        assert (first.path / name).read_bytes() == (module.HOME / name).read_bytes()
        assert (first.path / name).stat().st_mode & 0o222 == 0
    assert not list(first.path.rglob("__pycache__"))
    about = json.loads((first.path / "snapshot.json").read_text())
    assert (about["git"], about["diff"]) == (provenance()["git"], provenance()["diff"])
    assert bool((first.path / "diff.patch").read_bytes()) <= bool(about["diff"])


def test_processes_run_from_the_copy_and_say_where_it_came_from(tmp_path: Path) -> None:
    frozen = take_snapshot(tmp_path)
    program = (
        "import json, results.provenance as p; import sweeps.worker.worker as w, analysis, scaling;"
        "print(json.dumps([p.provenance(), p.__file__, w.__file__, analysis.__file__, scaling.__file__]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=os.environ | {"PYTHONPATH": str(frozen.path)},
        cwd=module.HOME, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found, *files = json.loads(done.stdout)
    assert all(Path(file).is_relative_to(frozen.path.resolve()) for file in files)
    assert (found["git"], found["diff"]) == (provenance()["git"], provenance()["diff"])
    assert found["code"] == code_hash(frozen.path)


def test_change_by_hand_is_noticed(tmp_path: Path) -> None:
    frozen = take_snapshot(tmp_path)
    file = frozen.path / "sweeps" / "worker" / "worker.py"
    file.chmod(0o644)
    file.write_text("print()\n")
    with pytest.raises(StoreError, match="was changed"):
        take_snapshot(tmp_path)
    with pytest.raises(StoreError, match="is gone; submit again"):
        load_snapshot(tmp_path, "0123")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    (folder / "models").mkdir(parents=True)
    (folder / "study.toml").write_text("")
    (folder / "train.py").write_text("import models.net\n")
    (folder / "models" / "net.py").write_text("")
    (folder / ".secret").write_text("")
    (folder / "runs").mkdir()
    (folder / "runs" / "big").write_bytes(b"0" * 100)
    return folder


def test_trainer_of_the_study_comes_along(lab: Path) -> None:
    root = lab / "runs"
    study = lab / "study.toml"
    for command in (["python", "train.py", "--spec", "{spec}"], ["python", "-m", "models.net"]):
        frozen = take_snapshot(root, study, [command])
        assert frozen.trainer is not None
        found = {path.relative_to(frozen.trainer).as_posix() for path in frozen.trainer.rglob("*") if path.is_file()}
        assert found == {"study.toml", "train.py", "models/net.py"}
    plain = take_snapshot(root, study, [["python", "-m", "torch.distributed.run"], ["/usr/bin/env", "true"]])
    assert plain.trainer is None
    (lab / "train.py").write_text("changed\n")
    assert take_snapshot(root, study, [["python", "train.py"]]).name not in (frozen.name, plain.name)


def test_trainer_in_a_checkout_is_what_git_does_not_ignore(lab: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=lab, check=True)
    (lab / ".gitignore").write_text("*.bin\nruns/\n")
    (lab / "weights.bin").write_bytes(b"0" * 100)
    frozen = take_snapshot(lab / "runs", lab / "study.toml", [["python", "train.py"]])
    assert frozen.trainer is not None
    found = {path.name for path in frozen.trainer.rglob("*") if path.is_file()}
    assert found == {"study.toml", "train.py", "net.py", ".gitignore", ".secret"}


def test_commit_of_the_trainer_is_named_and_what_few_may_read_stays_so(lab: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "train.py"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=lab, check=True)
    (lab / ".secret").chmod(0o600)
    (lab / "train.py").chmod(0o777)
    (lab / "study.toml").chmod(0o664)
    frozen = take_snapshot(lab / "runs", lab / "study.toml", [["python", "train.py"]])
    assert frozen.trainer is not None
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=lab, capture_output=True, text=True, check=True).stdout
    assert json.loads((frozen.path / "snapshot.json").read_text())["trainer_git"] == commit.strip()
    modes = {name: (frozen.trainer / name).stat().st_mode & 0o777 for name in (".secret", "train.py", "study.toml")}
    assert modes == {".secret": 0o400, "train.py": 0o555, "study.toml": 0o444}


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["python", "trian.py", "{spec}"], "trian.py"),
        (["./train.sh"], "./train.sh"),
        (["bash", "run/all.sh"], "run/all.sh"),
        (["python", "train.py"], None),
        (["python", "models"], None),
        (["python", "-m", "trian"], None),
        (["python", "/opt/lab/train.py"], None),
        (["lab-train", "config.json"], None),
        (["python", "{spec}"], None),
        (["python"], None),
    ],
)
def test_script_that_is_not_there_is_told_before_anything_is_written(
    lab: Path, command: list[str], missing: str | None
) -> None:
    if missing is None:
        check_commands(lab / "study.toml", [command])
    else:
        with pytest.raises(UsageError, match=f"names {missing!r}, which is not in"):
            check_commands(lab / "study.toml", [command])


def test_trainer_that_is_too_large_is_refused(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TRAINER_BYTES", 10)
    with pytest.raises(UsageError, match="too large to freeze with its trainer; allowed: 5,000 files"):
        take_snapshot(lab / "runs", lab / "study.toml", [["python", "train.py"]])
    assert list((lab / "runs").iterdir()) == [lab / "runs" / "big"]
