"""Training that resumes across attempts where checkpoints are damaged: the one before, and a line in the log."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from results.errors import RunError
from results.recorder import Recorder
from scaling.ranks import Place
from scaling.specification.workspace import Workspace
from scaling.training import checkpoint
from scaling.training.distributed import connected
from scaling.training.loop import TrainingLoop
from scaling.training.schedule import segments

from .rank_process import SPECS, build, run

SPEC = SPECS["generator"]


def attempt(root: Path, number: int, steps: int | None) -> tuple[Recorder, dict[str, torch.Tensor]]:
    """One attempt, stopped after so many steps; it saves at every row of the curves."""
    folders = [root / str(n) for n in range(number, 0, -1)]
    folders[0].mkdir(parents=True)
    recorder, left = Recorder(SPEC.run_id, number), steps

    def stop() -> bool:
        nonlocal left
        left = left - 1 if left is not None else None
        return left == 0

    workspace = Workspace(folders[0], tuple(folders[1:]), None, root)
    with connected(Place(), 1) as ranks:
        training = build("generator", ranks, None)
        try:
            TrainingLoop(training, segments(SPEC), workspace, recorder, lambda p: None, stop, 0.1, 0.0, ranks).run()
        except RunError as error:
            assert error.cause == "interrupted" and steps is not None
        else:
            assert steps is None
        return recorder, training.state()


def checkpoints(root: Path) -> list[Path]:
    """All of all attempts, furthest first."""
    found = [path for folder in root.glob("*/checkpoints") for path in folder.iterdir()]
    return sorted(found, key=lambda path: path.name, reverse=True)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "without its manifest", "other tensors"])
def test_the_checkpoint_before_is_used_and_the_end_is_the_same(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, state, _ = run("generator", Place(), tmp_path / "whole")
    root = tmp_path / "attempts"
    attempt(root, 1, 13)
    newest, before = checkpoints(root)[:2]
    weights = newest / "state.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0x10
        weights.write_bytes(content)
    elif damage == "without its manifest":
        (newest / "manifest.json").unlink()
    else:
        weights.write_bytes(b"\x80\x04\x95not tensors")
    # Across attempts, and more than once.
    attempt(root, 2, 2)
    said = capsys.readouterr().out
    assert f"checkpoint {newest.name} of attempt 1 is passed over" in said
    recorder, found = attempt(root, 3, None)
    assert recorder.rows == whole.rows
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert before.name < newest.name


def test_one_within_a_fork_without_the_trunk_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trunk would go on from decayed weights."""
    whole, state, _ = run("generator", Place(), tmp_path / "whole")
    root = tmp_path / "attempts"
    attempt(root, 1, 9)
    newest, before = checkpoints(root)[:2]
    position, tensors = checkpoint.load(newest, Recorder(SPEC.run_id, 1))
    fork = segments(SPEC)[position.segment]
    assert fork.decays and fork.start < position.images < fork.end
    trunkless = {name: value for name, value in tensors.items() if not name.startswith("fork.")}
    assert 0 < len(trunkless) < len(tensors)
    rows = Recorder(SPEC.run_id, 1)
    rows.restore(newest / "rows.jsonl")
    checkpoint.save(newest.parent, position, trunkless, rows)
    recorder, found = attempt(root, 2, None)
    said = capsys.readouterr().out
    assert f"checkpoint {newest.name} of attempt 1 is passed over: it is of {fork.branch} at" in said
    assert before.name not in said
    assert recorder.rows == whole.rows
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_without_any_valid_one_it_starts_over(tmp_path: Path) -> None:
    whole, _, _ = run("generator", Place(), tmp_path / "whole")
    root = tmp_path / "attempts"
    attempt(root, 1, 13)
    for path in checkpoints(root):
        (path / "rows.jsonl").write_text("")
    recorder, _ = attempt(root, 2, None)
    assert recorder.rows == whole.rows


def test_a_stop_in_an_evaluation_keeps_the_moment_before_it(tmp_path: Path) -> None:
    """An evaluation may take longer than the grace time; what it recorded so far does not count."""
    whole, _, _ = run("generator", Place(), tmp_path / "whole")

    def measured(recorder: Recorder, images: int) -> None:
        recorder.curve(branch="trunk", step=images, images=images, tokens=1, flops=1.0, split="validation", loss=1.0)

    def go(number: int, stopped: bool) -> Recorder:
        folder = tmp_path / str(number)
        folder.mkdir()
        recorder = Recorder(SPEC.run_id, number)

        def evaluation(model: object, branch: str, images: int, rows: Recorder) -> None:
            measured(rows, images)
            if stopped:
                raise RunError("stopped while evaluating", cause="interrupted")

        workspace = Workspace(folder, (tmp_path / "1",) if number > 1 else (), None, tmp_path)
        with connected(Place(), 1) as ranks:
            training = build("generator", ranks, None)
            training.evaluation = evaluation
            TrainingLoop(
                training, segments(SPEC), workspace, recorder, lambda p: None, lambda: False, 0.1, 1e9, ranks
            ).run()
        return recorder

    with pytest.raises(RunError, match="stopped while evaluating"):
        go(1, stopped=True)
    *_, saved = sorted((tmp_path / "1" / "checkpoints").iterdir())
    assert saved.name.endswith(f"{310:015d}")
    rows = go(2, stopped=False).rows["curves"]
    assert [row for row in rows if row["split"] == "train"] == whole.rows["curves"]
    assert [row["images"] for row in rows if row["split"] == "validation"] == [310, 620]
