"""Trainers of one's own from the command line to the store; the example of docs/own-trainer.md is in tests/docs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from results import Store


def execute(command: str, folder: Path) -> str:
    """Standard output of a command that succeeds."""
    words = shlex.split(command)
    assert words[0] == "tokenlaw"
    # What the console script does; `python` is this one.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    code = "import sys; from sweeps.cli.app import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words[1:]],
        cwd=folder,
        env={**os.environ, "PATH": path, "TOKENLAW_ROOT": str(folder / "root"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_log_of_a_trainer_that_fails_is_its_own(tmp_path: Path) -> None:
    """What the trainer printed is not buried under where we noticed it."""
    worker = '[worker]\ncommand = ["python", "t.py"]\nstage = "run"\n[limits]\nretries = 0\n'
    (tmp_path / "study.toml").write_text(f'[study]\nname = "f"\n{worker}')
    (tmp_path / "t.py").write_text("raise ValueError('the sky fell')\n")
    with pytest.raises(AssertionError, match="python ended with exit code 1: ValueError: the sky fell"):
        execute("tokenlaw submit study.toml --wait", tmp_path)
    (log,) = (tmp_path / "root").glob("attempts/*/1/log.txt")
    assert log.read_text().count("Traceback") == 1
    assert "RunError" not in log.read_text()


ROW = "from results import open_rows\nopen_rows().evaluation('gfid', 1.0, step=1, n=10)\n"


@pytest.mark.parametrize(
    ("code", "words", "mended"),
    [
        (ROW.replace("gfid", "gFID"), "did you mean 'gfid'", {"t.py": ROW}),
        (f"import net\n{ROW}", "No module named 'net'", {"net.py": ""}),
    ],
)
def test_a_mistake_of_a_trainer_is_made_once(tmp_path: Path, code: str, words: str, mended: dict[str, str]) -> None:
    """The same would happen again, whatever the retries; with other code the next submission tries it again."""
    worker = '[worker]\ncommand = ["python", "t.py"]\nstage = "run"\n[limits]\nretries = 0\n'
    (tmp_path / "study.toml").write_text(f'[study]\nname = "f"\n{worker}')
    (tmp_path / "t.py").write_text(code)
    for _ in range(2):
        with pytest.raises(AssertionError, match=words):
            execute("tokenlaw submit study.toml --wait", tmp_path)
    store = Store(tmp_path / "root")
    ((failure,),) = store.failures().values()
    assert (failure.attempt, failure.cause) == (1, "mistake")
    for name, content in mended.items():
        (tmp_path / name).write_text(content)
    execute("tokenlaw submit study.toml --wait", tmp_path)
    assert [result.attempt for result in store.results().values()] == [2]


STAGES = """
[study]
name = "theirs"
[worker]
command = ["python", {script}, "first=exit", "at=5", "look={{tokenizer}}"]
stage = "generator"
[tokenizer]
train_images = 2048
trainer = ["python", {script}]
[generator]
warmup_images = 1024
train_images = [2048]
[limits]
retries = 0
[[grid]]
product = {{ "generator.size" = ["XS"] }}
"""


@pytest.mark.slow
def test_both_stages_by_trainers_of_ones_own(tmp_path: Path) -> None:
    """The generator fails once, is tried again from its checkpoint, and finds what its tokenizer left."""
    script = json.dumps(str(Path(__file__).parents[1] / "scripted_trainer.py"))
    (tmp_path / "study.toml").write_text(STAGES.format(script=script))
    with pytest.raises(AssertionError, match="exit code 3: the wheel came off"):
        execute("tokenlaw submit study.toml --wait", tmp_path)
    store = Store(tmp_path / "root")
    (tokenizer,) = store.results().values()
    assert tokenizer.stage == "tokenizer" and (tmp_path / "root/artifacts" / tokenizer.run_id / "model.txt").exists()
    execute("tokenlaw retry study.toml --wait", tmp_path)
    rows = {row["stage"]: row for row in store.read("runs").to_pylist()}
    generator = rows["generator"]
    assert (generator["attempt"], generator["parent"]) == (2, tokenizer.run_id)
    assert (generator["codebook_size"], generator["parameters_other"]) == (rows["tokenizer"]["codebook_size"], 77)
    curves = [row for row in store.read("curves").to_pylist() if row["run_id"] == generator["run_id"]]
    assert [row["step"] for row in curves] == [1, 2, 3, 4, 5, 6] and {row["attempt"] for row in curves} == {2}
    log = (tmp_path / "root/attempts" / generator["run_id"] / "2" / "log.txt").read_text()
    assert "beginning after step 4" in log and f"artifacts/{tokenizer.run_id}" in log
    from analysis.tokenizers.frames import load

    points = load(store).points
    assert points["gfid"].tolist() == [2.5] and points["path_flops"].tolist() == [6 * 64 * 10.0]
