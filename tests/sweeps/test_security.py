"""What must not happen: code executed from data, files that others may write, shells fed with names, secrets kept."""

from __future__ import annotations

import ast
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import sweeps
from results import DataError, Recorder
from results.provenance import provenance
from scaling.data.tokens import load_tokens
from scaling.specification.spec import TokenizerRun, canonical_json
from scaling.tokenizer.model import Tokenizer
from scaling.training import checkpoint
from sweeps.worker.worker import work

if TYPE_CHECKING:
    from .conftest import Sweep

CODE = Path(sweeps.__file__).resolve().parent.parent
SOURCES = sorted(path for name in ("results", "analysis", "scaling", "sweeps") for path in (CODE / name).rglob("*.py"))


class _Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _armed(path: Path, mark: Path, form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Bomb(mark)))
    else:
        torch.save({"weights": _Bomb(mark)}, path)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_weights_caches_and_checkpoints_execute_nothing(form: str, tmp_path: Path) -> None:
    mark, spec = tmp_path / "went off", TokenizerRun()
    _armed(tmp_path / "model.safetensors", mark, form)
    with pytest.raises(DataError):
        Tokenizer.load(spec, tmp_path / "model.safetensors")
    for name in ("tokens.safetensors", "tokens/tokens.json"):
        _armed(tmp_path / name, mark, form)
        with pytest.raises(DataError):
            load_tokens(spec, tmp_path)
    saved = checkpoint.save(
        tmp_path / "checkpoints", checkpoint.Position(0, 64), {"a": torch.ones(1)}, Recorder("run", 1)
    )
    state = saved / "state.safetensors"
    _armed(state, mark, form)
    # Even with a manifest that agrees.
    manifest = json.loads((saved / "manifest.json").read_text()) | {state.name: checkpoint._sha256(state)}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoint.load_newest([tmp_path / "checkpoints"], Recorder("run", 1)) is None
    assert not mark.exists()
    # The bomb is real.
    pickle.loads(pickle.dumps(_Bomb(mark)))  # noqa: S301
    assert mark.exists()


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CODE)))
def test_no_source_unpickles_evaluates_or_uses_a_shell(path: Path) -> None:
    for name, call in _calls(ast.parse(path.read_text())):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in ("eval", "exec", "os.system", "os.popen", "subprocess.getoutput"), name
        assert name.split(".")[0] not in ("pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"), name
        assert keywords.get("shell", "False") == "False", ast.unparse(call)
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", ast.unparse(call)
        if name in ("numpy.load", "np.load"):
            assert keywords.get("allow_pickle", "False") == "False", ast.unparse(call)
        if name.startswith("subprocess.") and call.args:
            # A text would be one program's name at best, and a shell's line at worst.
            assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), ast.unparse(call)


def test_nothing_is_writable_for_everybody_under_the_usual_mask(sweep: Sweep) -> None:
    def train(spec: Any, workspace: Any, recorder: Recorder, report: Any, stop: Any) -> None:
        workspace.artifacts.mkdir()
        (workspace.artifacts / "model.txt").write_text("x")
        checkpoint.save(workspace.checkpoints, checkpoint.Position(0, 1), {"a": torch.ones(1)}, recorder)

    before = os.umask(0o022)
    try:
        assert work(sweep.root, sweep.plan.runs[0].spec, execute=train).result == "done"
        assert sweep.submit(only={sweep.plan.runs[2].run_id}).exit_code == 0
    finally:
        os.umask(before)
    found = [path for path in sweep.root.rglob("*") if not path.is_symlink()]
    assert len(found) > 10
    for path in found:
        mode = path.stat().st_mode
        assert not mode & (stat.S_IWOTH | stat.S_IWGRP), path
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path


def test_nothing_is_writable_for_everybody_whatever_the_mask(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        '[study]\nname = "open"\n[worker]\ncommand = ["python", "train.py"]\nstage = "run"\n'
    )
    (tmp_path / "train.py").write_text(
        "import os, pathlib\n"
        "for name in ('OUT', 'CHECKPOINTS'): pathlib.Path(os.environ[f'TOKENLAW_{name}'], 'x').write_text('x')\n"
        "pathlib.Path(os.environ['TOKENLAW_ROWS']).write_text('{\"step\": 1, \"loss\": 1.0}\\n')\n"
    )
    code = "import sys; from sweeps.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "submit", "study.toml", "--wait", "--root", "runs"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, umask=0, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [path for path in (tmp_path / "runs").rglob("*") if not path.is_symlink()]
    assert any(path.match("artifacts/*/x") for path in found)
    assert not [path for path in [tmp_path / "runs", *found] if path.stat().st_mode & stat.S_IWOTH]


def test_names_with_a_shell_in_them_stay_names(tmp_path: Path) -> None:
    """A study's name ends up in the names of folders and jobs."""
    study = tmp_path / "s.toml"
    for name in ("a; touch pwned", "$(touch pwned)", "../escape", "a`touch pwned`", "a\nb"):
        study.write_text(f"[study]\nname = {json.dumps(name)}\n[tokenizer]\ntrain_images = 2048\n")
        command = [sys.executable, "-m", "sweeps.cli.app", "plan", str(study), "--root", str(tmp_path / "root")]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CODE)},
            check=False,
        )
        assert done.returncode == 2, (name, done.stdout, done.stderr)
        assert "name" in done.stderr and "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.toml"]


def test_secrets_of_the_environment_are_nowhere_below_the_root(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_q8zT-not-for-anybody"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "MY_PASSWORD"):
        monkeypatch.setenv(name, secret)
    assert secret not in json.dumps(provenance())
    assert sweep.submit(only={sweep.plan.runs[0].run_id}).exit_code == 0
    assert sweep.store.read("runs").num_rows == 1
    files = [path for path in sweep.root.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert secret.encode() not in path.read_bytes(), path
    (row,) = sweep.store.read("runs").to_pylist()
    assert secret not in json.dumps(row, default=str)
    assert secret not in canonical_json(sweep.plan.runs[0].spec)


def test_provenance_has_no_user_home_or_remote() -> None:
    text = json.dumps(provenance())
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert not {"user", "environment", "remote", "path", "home"} & provenance().keys()
