"""Forks are resumed one by one: killed within one, a run goes on from where that one was forked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from results.recorder import Recorder
from scaling.specification.workspace import Workspace
from scaling.training.distributed import ALONE
from scaling.training.generator import GeneratorTraining
from scaling.training.loop import TrainingLoop
from scaling.training.schedule import ScheduleSegment, segments

from .rank_process import SPECS, build

SPEC = SPECS["generator-alike"]


class Killed(BaseException):
    """The end of a process, which nothing in it can answer."""


def train(folder: Path, attempt: int, kill: tuple[str, int] | None = None) -> tuple[GeneratorTraining, Recorder, list]:
    """An attempt, killed before so many images of a branch; the training, its rows, and the steps that it took."""
    training = build("generator-alike", ALONE, None)
    assert isinstance(training, GeneratorTraining)
    taken: list[tuple[str, int]] = []
    step = training.step

    def watched(segment: ScheduleSegment, images: int) -> dict[str, torch.Tensor]:
        if (segment.branch, images) == kill:
            raise Killed
        taken.append((segment.branch, images))
        return step(segment, images)

    training.step = watched  # type: ignore[method-assign]
    (folder / str(attempt)).mkdir(parents=True)
    earlier = tuple(folder / str(number) for number in range(attempt - 1, 0, -1))
    recorder = Recorder(SPEC.run_id, attempt)
    workspace = Workspace(folder / str(attempt), earlier, None, folder)
    loop = TrainingLoop(training, segments(SPEC), workspace, recorder, lambda p: None, lambda: False, 0.1, 0.0)
    if kill is None:
        loop.run()
    else:
        with pytest.raises(Killed):
            loop.run()
    return training, recorder, taken


def test_a_kill_within_a_fork_costs_that_fork_alone(tmp_path: Path) -> None:
    whole, rows, all_steps = train(tmp_path / "whole", 1)
    forks = [segment for segment in segments(SPEC) if segment.decays]
    assert len(forks) == 2
    for number, fork in enumerate(forks, start=1):
        train(tmp_path, number, (fork.branch, fork.end - 31))
    again, resumed, taken = train(tmp_path, 3)
    # Of the second fork every step, of all before it none.
    last = forks[-1]
    assert taken == [(last.branch, images) for images in range(last.start, last.end, 31)] == all_steps[-len(taken) :]
    assert resumed.rows == rows.rows
    for name, value in whole.state().items():
        assert torch.equal(again.state()[name], value), name


def test_after_a_kill_within_an_earlier_fork_the_trunk_is_not_trained_again(tmp_path: Path) -> None:
    _, rows, all_steps = train(tmp_path / "whole", 1)
    first = next(segment for segment in segments(SPEC) if segment.decays)
    train(tmp_path, 1, (first.branch, first.start + 31))
    _, resumed, taken = train(tmp_path, 2)
    assert taken == all_steps[all_steps.index((first.branch, first.start)) :]
    assert resumed.rows == rows.rows


def test_speed_and_its_share_of_the_machines_are_facts_of_a_run(tmp_path: Path) -> None:
    training, recorder, taken = train(tmp_path, 1)
    facts = recorder.known_facts
    assert 0 < facts["model_flops_share"] < 10
    peak = facts["images_per_second"] * training.flops_per_image / facts["model_flops_share"]
    assert 1e8 < peak < 1e14
    assert facts.keys() == {"images_per_second", "model_flops_share"}
    assert len(taken) * 31 == SPEC.executed_images
