"""Checkpoints: exact both ways, damaged ones recognised and passed over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from results.errors import RunError, StoreError
from results.recorder import Recorder
from scaling.training import checkpoint
from scaling.training.checkpoint import Position, load_newest, save

TENSORS = {"a": torch.tensor([1 / 3, float("1e-40")]), "b": torch.arange(4), "c": torch.tensor(2.5).bfloat16()}


def recorder(rows: int) -> Recorder:
    """A recorder with some rows of awkward floats."""
    found = Recorder("run", 1)
    for step in range(rows):
        found.curve(branch="trunk", step=step, images=step, tokens=step, flops=step / 3, loss=0.1 + step / 7)
    return found


def test_a_checkpoint_is_exact_and_brings_its_rows(tmp_path: Path) -> None:
    written = recorder(5)
    save(tmp_path, Position(2, 640), TENSORS, written)
    fresh = Recorder("run", 2)
    found = load_newest([tmp_path], fresh)
    assert found is not None
    path, position, tensors = found
    assert position == Position(2, 640) and path.parent == tmp_path
    assert fresh.rows == written.rows
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


def test_only_the_newest_are_kept_and_the_furthest_of_all_attempts_is_taken(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for images in (128, 256, 384):
        save(first, Position(0, images), TENSORS, recorder(1))
    save(second, Position(0, 200), TENSORS, recorder(1))
    assert len(list(first.iterdir())) == checkpoint.KEPT
    found = load_newest([second, first], Recorder("run", 3))
    assert found is not None and found[1].images == 384
    assert load_newest([tmp_path / "none"], Recorder("run", 1)) is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing file", "empty manifest", "rows", "half written"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "attempt" / "checkpoints"
    older = save(folder, Position(0, 128), TENSORS, recorder(1))
    newer = save(folder, Position(1, 256), TENSORS, recorder(2))
    state = newer / "state.safetensors"
    if damage == "truncate":
        state.write_bytes(state.read_bytes()[:-3])
    elif damage == "flip":
        content = bytearray(state.read_bytes())
        content[-1] ^= 1
        state.write_bytes(content)
    elif damage == "missing file":
        state.unlink()
    elif damage == "empty manifest":
        (newer / "manifest.json").write_text("")
    elif damage == "rows":
        (newer / "rows.jsonl").write_text((newer / "rows.jsonl").read_text().replace("0.1", "0.2"))
    else:
        (newer / "manifest.json").unlink()
    restored = Recorder("run", 2)
    found = load_newest([folder], restored)
    assert found is not None
    assert found[0] == older and found[1].images == 128
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and f"checkpoint {newer.name} of attempt attempt is passed over" in said[0]
    assert len(restored.rows["curves"]) == 1
    shutil.rmtree(older)
    assert load_newest([folder], Recorder("run", 2)) is None


def test_one_that_its_training_refuses_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = save(tmp_path, Position(0, 128), TENSORS, recorder(1))
    newer = save(tmp_path, Position(1, 256), TENSORS, recorder(2))

    def check(position: Position, tensors: dict[str, torch.Tensor]) -> None:
        assert tensors.keys() == TENSORS.keys()
        if position.segment:
            raise StoreError("no segment 1")

    restored = Recorder("run", 2)
    found = load_newest([tmp_path], restored, check)
    assert found is not None and found[0] == older
    assert restored.rows == recorder(1).rows
    shutil.rmtree(older)
    restored = Recorder("run", 2)
    assert load_newest([tmp_path], restored, check) is None
    # Nor are its rows kept, which would be measured anew.
    assert restored.rows == Recorder("run", 2).rows
    assert f"checkpoint {newer.name} of attempt" in capsys.readouterr().out


def test_one_of_another_run_is_an_error_that_names_both(tmp_path: Path) -> None:
    save(tmp_path, Position(0, 128), TENSORS, Recorder("other", 1))
    path = save(tmp_path, Position(0, 256), TENSORS, recorder(1))
    with pytest.raises(RunError, match=f"{path}.* belongs to run run, not to other; remove {path}") as error:
        load_newest([tmp_path], Recorder("other", 2))
    assert error.value.cause == "mistake"


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        save(blocked / "checkpoints", Position(0, 1), TENSORS, recorder(1))


def test_checkpoints_of_earlier_attempts_go_once_there_are_enough_of_its_own(tmp_path: Path) -> None:
    earlier, own = tmp_path / "1" / "checkpoints", tmp_path / "2" / "checkpoints"
    save(earlier, Position(0, 128), TENSORS, recorder(1))
    for images in range(200, 200 + checkpoint.KEPT):
        assert earlier.is_dir()
        save(own, Position(0, images), TENSORS, recorder(1))
        checkpoint.retire(own, [earlier])
    assert not earlier.exists()
    assert len(list(own.iterdir())) == checkpoint.KEPT
