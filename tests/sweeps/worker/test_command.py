"""A trainer of one's own as a command: rows, progress, signals, endings and their causes, resuming, orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import Recorder, RunError
from results.schema import missing_fact
from scaling.ranks import Place
from scaling.specification.spec import GeneratorRun, TokenizerRun
from scaling.specification.workspace import Progress, Workspace
from sweeps.study.external_run import ExternalRun, facts_of
from sweeps.worker import command
from sweeps.worker.command import run_command

SCRIPT = str(Path(__file__).parents[1] / "scripted_trainer.py")


class Scene:
    """A run with its attempts' folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempts: list[Path] = []
        self.progress: list[Progress] = []
        self.recorder = Recorder("none", 1)

    def run(self, stop: Callable[[], bool] = lambda: False, base: Any = None, **options: Any) -> Recorder:
        """Make one attempt."""
        words = tuple(f"{name}={value}" for name, value in options.items())
        trainer = (sys.executable, SCRIPT, *words)
        spec = ExternalRun(trainer=trainer) if base is None else base.model_copy(update={"trainer": trainer})
        attempt = self.folder / str(len(self.attempts) + 1)
        attempt.mkdir()
        (attempt / "spec.json").write_text("{}")
        parent = self.folder / "parent" if isinstance(spec, GeneratorRun) else None
        workspace = Workspace(attempt, tuple(reversed(self.attempts)), parent, self.folder)
        self.attempts.append(attempt)
        self.recorder = Recorder(spec.run_id, len(self.attempts))
        self.progress = []
        run_command(spec, attempt / "spec.json", workspace, self.recorder, self.progress.append, stop)
        return self.recorder

    @property
    def losses(self) -> dict[int, float]:
        return {row["step"]: row["value"] for row in self.recorder.rows["curves"]}

    @property
    def log(self) -> str:
        return (self.attempts[-1] / "log.txt").read_text()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def stop_when(condition: Callable[[], bool], number: int = signal.SIGTERM) -> Any:
    """A request to stop as the worker's: signals in the order in which they came."""

    class Asked:
        def __init__(self) -> None:
            self.signals: list[int] = []

        def __call__(self) -> bool:
            if not self.signals and condition():
                self.signals = [number]
            return bool(self.signals)

    return Asked()


def test_rows_facts_progress_and_artifacts(scene: Scene) -> None:
    recorder = scene.run()
    assert scene.losses == {step: 1 / step for step in range(1, 7)}
    (evaluation,) = recorder.rows["evaluations"]
    assert (evaluation["metric"], evaluation["value"], evaluation["n"], evaluation["step"]) == ("gfid", 2.5, 100, 6)
    assert '"extractor":"toy"' in evaluation["protocol_json"]
    # FLOPs follow from the images and what the trainer said of its model.
    assert evaluation["path_flops"] == 6 * 64 * 10.0
    assert recorder.known_facts["parameters_other"] == 77
    assert recorder.known_facts["peak_memory_bytes"] > 2**20
    assert scene.progress[-1] == Progress("train", 1.0, "", 64 / 0.02)
    assert (scene.attempts[0] / "artifacts" / "model.txt").read_text() == recorder.run_id
    assert "beginning after step 0" in scene.log


def test_the_row_of_a_run_of_no_stage_is_complete(scene: Scene) -> None:
    recorder = scene.run(steps=1)
    spec = ExternalRun(trainer=("x",), values={"width": 3})
    row = facts_of(spec) | {"status": "done", "wall_seconds": 1.0, "finished_at": "2026-01-01", "provenance": "{}"}
    assert missing_fact(row | {"run_id": "a", "attempt": 1}) is None
    (stored,) = recorder.tables(row)["runs"].to_pylist()
    assert (stored["stage"], stored["parameters_other"], stored["codebook_size"]) == ("run", 77, None)


@pytest.mark.parametrize(
    ("options", "cause", "words"),
    [
        ({"ending": "exit"}, "error", "exit code 3: the wheel came off"),
        ({"ending": "memory"}, "out_of_memory", "CUDA out of memory"),
        ({"ending": "diverged"}, "diverged", "loss is nan at step 3"),
        (
            {"ending": "bad"},
            "mistake",
            r"rows\.jsonl line 7: metric = 'gFID' is unknown; did you mean 'gfid'\? allowed: rfid",
        ),
        ({"ending": "again"}, "interrupted", "exit code 75"),
        ({"ending": "cut"}, "error", "signal SIGKILL"),
        ({"ending": "silent", "steps": 0}, "mistake", "wrote no rows"),
    ],
)
def test_endings_and_causes(scene: Scene, options: dict[str, Any], cause: str, words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(RunError, match=words) as error:
        scene.run(**options)
    assert error.value.cause == cause
    assert time.monotonic() - begun < 30
    if "steps" not in options:
        assert set(scene.losses) == {1, 2, 3}


def test_a_line_that_a_kill_cut_short_is_reported(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError):
        scene.run(ending="cut")
    assert "rows.jsonl line 7 is cut short and left out" in capsys.readouterr().out


def test_a_program_that_is_not_there(scene: Scene) -> None:
    spec = ExternalRun(trainer=("no-such-program",))
    attempt = scene.folder / "1"
    attempt.mkdir()
    with pytest.raises(RunError, match=r"trainer 'no-such-program' cannot be started in .*: No such file") as error:
        workspace = Workspace(attempt, (), None, scene.folder)
        run_command(spec, attempt / "s", workspace, Recorder("a", 1), lambda p: None, lambda: False)
    assert error.value.cause == "mistake"


@pytest.mark.parametrize(
    ("code", "cause", "words"),
    [
        ("from results import open_rows; open_rows().evaluation('fid', 1.0, step=1)", "mistake", "'gfid' or 'own_fid'"),
        ("import no_such_module", "mistake", "No module named"),
        ("def", "mistake", "SyntaxError"),
        ("import sys; sys.exit(127)", "mistake", "exit code 127"),
        ("raise ValueError('once')", "error", "once"),
    ],
)
def test_what_would_happen_again_is_a_mistake(scene: Scene, code: str, cause: str, words: str) -> None:
    attempt = scene.folder / "1"
    attempt.mkdir()
    spec = ExternalRun(trainer=(sys.executable, "-c", code))
    workspace = Workspace(attempt, (), None, scene.folder)
    with pytest.raises(RunError, match=words) as error:
        run_command(spec, attempt / "s", workspace, Recorder("a", 1), lambda p: None, lambda: False)
    assert error.value.cause == cause


def test_resumed_rows_equal_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, parts = Scene(tmp_path / "a"), Scene(tmp_path / "b")
    whole.run(steps=9)
    for at in (3, 6):
        with pytest.raises(RunError):
            parts.run(steps=9, ending="exit", at=at)
    parts.run(steps=9)
    assert "beginning after step 6" in parts.log
    assert parts.losses == whole.losses
    assert parts.recorder.rows["evaluations"] == whole.recorder.rows["evaluations"]


def test_an_attempt_that_died_before_its_checkpoint_hides_no_earlier_one(scene: Scene) -> None:
    with pytest.raises(RunError):
        scene.run(steps=9, ending="exit", at=5)
    # Resumes after step 4 and dies at once, without a checkpoint of its own.
    with pytest.raises(RunError):
        scene.run(steps=9, ending="exit", at=5)
    scene.run(steps=9)
    assert "beginning after step 4" in scene.log
    assert set(scene.losses) == set(range(1, 10))


@pytest.mark.parametrize(("sent", "handled"), [("SIGTERM", "SIGTERM"), ("SIGUSR2", "SIGUSR2"), ("SIGUSR2", "SIGTERM")])
def test_asked_to_stop_it_saves_and_is_resumed(scene: Scene, sent: str, handled: str) -> None:
    stop = stop_when(lambda: bool(scene.progress), getattr(signal, sent))
    with pytest.raises(RunError, match="asked to stop") as error:
        scene.run(stop, steps=500, handles=handled)
    assert error.value.cause == "interrupted"
    assert "saved" in scene.log
    reached = max(scene.losses)
    scene.run(steps=reached + 2)
    assert f"beginning after step {reached}" in scene.log
    assert set(scene.losses) == set(range(1, reached + 3))


@pytest.mark.parametrize("handled", ["SIGTERM", "SIGUSR2"])
def test_a_warning_that_reaches_the_trainer_itself_does_not_kill_it(scene: Scene, handled: str) -> None:
    """SLURM sends USR2 to every process of a step, some time before the worker passes it on."""

    def warned() -> bool:
        if not scene.progress:
            return False
        os.kill(int(scene.log.rpartition(", pid ")[2].split()[0]), signal.SIGUSR2)
        time.sleep(0.3)
        return True

    with pytest.raises(RunError, match=r"asked to stop and ended \(exit code 0\)"):
        scene.run(stop_when(warned, signal.SIGUSR2), steps=500, handles=handled)
    assert "saved" in scene.log


def test_a_trainer_without_handlers_is_ended_by_a_warning(scene: Scene) -> None:
    begun = time.monotonic()
    with pytest.raises(RunError, match="signal SIGTERM") as error:
        scene.run(stop_when(lambda: bool(scene.progress), signal.SIGUSR2), steps=5000)
    assert error.value.cause == "interrupted"
    assert time.monotonic() - begun < 30


def test_ranks_have_torchruns_variables_and_files_of_their_own(scene: Scene) -> None:
    """A trainer that writes the same rows in each of its processes needs no change."""
    code = (
        "import json, os; print(*(os.environ[n] for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR',"
        " 'MASTER_PORT'))); rank = os.environ['RANK'];"
        "open(os.environ['TOKENLAW_ROWS'], 'a').write(json.dumps({'step': 1, 'loss': float(rank)}) + '\\n')"
    )
    attempt = scene.folder / "1"
    attempt.mkdir()
    spec = ExternalRun(trainer=(sys.executable, "-c", code))
    workspace = Workspace(attempt, (), None, scene.folder)
    losses = []
    for rank in (1, 0):
        recorder = Recorder(spec.run_id, 1)
        place = Place(rank, 2, rank, "n1", 29999)
        run_command(spec, attempt / "s", workspace, recorder, lambda p: None, lambda: False, place=place)
        losses += [row["value"] for row in recorder.rows["curves"]]
    assert losses == [1.0, 0.0]
    assert "1 2 1 n1 29999" in (attempt / "log-1.txt").read_text()
    assert "0 2 0 n1 29999" in (attempt / "log.txt").read_text()
    assert [line["loss"] for line in map(json.loads, (attempt / "rows.jsonl").read_text().splitlines())] == [0.0]


def test_a_run_that_ends_while_it_is_asked_to_stop_is_done_if_it_says_so(scene: Scene) -> None:
    stop = stop_when(lambda: bool(scene.progress))
    scene.run(stop, steps=500, handles="SIGTERM", finishes="yes")
    assert scene.recorder.rows["evaluations"]


def test_one_that_ignores_the_request_is_killed_after_the_grace_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.5)
    with pytest.raises(RunError, match="signal SIGKILL") as error:
        scene.run(stop_when(lambda: bool(scene.progress)), steps=5000, ignores="TERM")
    assert error.value.cause == "interrupted"


def test_stages_get_their_placeholders(scene: Scene) -> None:
    tokenizer = TokenizerRun()
    out = scene.folder / "said.txt"
    code = (
        "import os, json; open(os.environ['TOKENLAW_ROWS'], 'w').write(json.dumps("
        "{'metric': 'gfid', 'value': 1.0, 'step': 1, 'images': 2048, 'n': 10}))"
        f"; import sys; open({str(out)!r}, 'w').write('|'.join(sys.argv[1:]))"
    )
    words = ["{tokenizer}", "{seed}", "{run_id}", "{stage}", "{spec}", "{earlier}"]
    spec = GeneratorRun.model_validate(
        {
            "tokenizer": tokenizer.model_dump(),
            "transformer": {"width": 32, "layers": 1},
            "optimiser": {"learning_rate": 1e-3, "warmup_images": 64},
            "train_images": [2048],
            "trainer": [sys.executable, "-c", code, *words],
        }
    )  # fmt: skip
    attempt = scene.folder / "1"
    attempt.mkdir()
    recorder = Recorder(spec.run_id, 1)
    workspace = Workspace(attempt, (), scene.folder / "parent", scene.folder)
    run_command(spec, attempt / "spec.json", workspace, recorder, lambda p: None, lambda: False)
    expected = [scene.folder / "parent", 0, spec.run_id, "generator", attempt / "spec.json", ""]
    assert out.read_text() == "|".join(map(str, expected))
    # What the specification says of the cost of an image fills the FLOPs.
    assert recorder.rows["evaluations"][0]["path_flops"] == 2048 * facts_of(spec)["flops_per_image"]


def test_facts_that_the_specification_says_are_refused(scene: Scene) -> None:
    code = "import os; open(os.environ['TOKENLAW_ROWS'], 'w').write('{\"facts\": {\"codebook_size\": 5}}\\n')"
    spec = TokenizerRun(trainer=(sys.executable, "-c", code))
    attempt = scene.folder / "1"
    attempt.mkdir()
    with pytest.raises(RunError, match=r"line 1: fact codebook_size is not allowed, the specification says it"):
        workspace = Workspace(attempt, (), None, scene.folder)
        run_command(spec, attempt / "s", workspace, Recorder(spec.run_id, 1), lambda p: None, lambda: False)


def test_the_trainer_dies_with_its_worker(tmp_path: Path) -> None:
    """A worker killed without a word leaves no trainer behind that would go on beside the next attempt."""
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    worker = f"""
from pathlib import Path
from results import Recorder
from scaling.specification.workspace import Workspace
from sweeps.worker.command import run_command
from sweeps.study.external_run import ExternalRun
import sys
spec = ExternalRun(trainer=(sys.executable, "-c", {child!r}))
folder = Path({str(tmp_path)!r}) / "1"
folder.mkdir()
run_command(spec, folder / "s", Workspace(folder, (), None, folder), Recorder("a", 1), print, lambda: False)
"""
    process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.DEVNULL)
    _wait(lambda: pid.exists() and pid.read_text().isdigit())
    process.kill()
    process.wait()
    _wait(lambda: not _alive(int(pid.read_text())))


def test_what_the_trainer_started_does_not_outlive_it(scene: Scene, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
        f"open({str(pid)!r}, 'w').write(str(p.pid));"
        "open(os.environ['TOKENLAW_ROWS'], 'w').write('{\"step\": 1, \"loss\": 1.0}\\n')"
    )
    attempt = scene.folder / "1"
    attempt.mkdir()
    spec = ExternalRun(trainer=(sys.executable, "-c", code))
    workspace = Workspace(attempt, (), None, scene.folder)
    run_command(spec, attempt / "s", workspace, Recorder("a", 1), lambda p: None, lambda: False)
    _wait(lambda: not _alive(int(pid.read_text())))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
