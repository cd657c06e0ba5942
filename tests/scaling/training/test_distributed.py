"""Several processes and microbatches against one process: the same rows and weights up to the order of additions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from results.errors import UsageError
from scaling.ranks import FIRST_PORT, PORTS, Place, parse_first_host
from scaling.training.distributed import ALONE, Ranks

from .rank_process import SPECS, run

PROGRAM = Path(__file__).with_name("rank_process.py")
ROOT = Path(__file__).parents[3]


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(program: Path, size: int, folder: Path, before: Sequence[str] = (), after: Sequence[str] = ()) -> None:
    """Run a program as `size` processes to their good end: [before ...] RANK SIZE PORT FOLDER [after ...]."""
    port = str(_port())
    # A program run by its path finds its own folder only; it imports `tests` as pytest does.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), *before, str(rank), str(size), port, str(folder), *after],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, outputs


def together(what: str, size: int, folder: Path, *rest: str) -> list[dict[str, Any]]:
    """What each of `size` processes left."""
    run_ranks(PROGRAM, size, folder, [what], rest)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def assert_alike(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Rows of the curves: equal but for values, which agree to float32's rounding as training amplifies it."""
    assert [{**row, "value": 0} for row in rows] == [{**row, "value": 0} for row in expected]
    assert len(rows) > 0
    for row, other in zip(rows, expected, strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=2e-3, abs=2e-4), row
    first = expected[0]["step"]
    # A latent between two codes falls to the other one whole: what counts codes moves by more than rounding.
    loose = {"gradient_norm", "codebook_perplexity", "codebook_utilisation"}
    for row, other in zip(rows, expected, strict=True):
        if row["step"] == first and row["term"] not in loose:
            assert row["value"] == pytest.approx(other["value"], rel=1e-4, abs=1e-5), row


def test_parts_cover_a_batch_once_in_order() -> None:
    for size in (1, 2, 3, 7):
        for microbatch in (None, 1, 4, 100):
            covered = []
            for rank in range(size):
                parts = Ranks(Place(rank, size), torch.device("cpu")).parts(31, microbatch)
                assert all(part.stop - part.start <= (microbatch or 31) for part in parts)
                covered += [i for part in parts for i in range(part.start, part.stop)]
            assert covered == list(range(31))
    assert ALONE.parts(31) == [slice(0, 31)]
    with pytest.raises(UsageError, match="processes = 32 are more than batch_size = 31"):
        Ranks(Place(0, 32), torch.device("cpu")).parts(31)


def test_a_process_alone_needs_nobody() -> None:
    value = torch.tensor([1.5])
    assert ALONE.sum(value) is value and ALONE.gather(value, 1) is value and ALONE.equal(value) is value
    assert ALONE.any(True) and not ALONE.any(False) and ALONE.told([1]) == [1]
    done = []
    ALONE.by_first(lambda: done.append(1))
    assert done == [1]


@pytest.mark.parametrize("what", sorted(SPECS.keys() - {"adversarial"}))
def test_microbatches_change_nothing_but_rounding(what: str, tmp_path: Path) -> None:
    whole, whole_state, ending = run(what, Place(), tmp_path / "whole")
    assert ending == "done"
    split, split_state, _ = run(what, Place(), tmp_path / "split", microbatch=9)
    assert_alike(split.rows["curves"], whole.rows["curves"])
    assert split_state.keys() == whole_state.keys()
    # At once: the first step's gradients are those of the batch.
    large, large_state, _ = run(what, Place(), tmp_path / "large", microbatch=31)
    assert large.rows == whole.rows
    assert all(torch.equal(large_state[name], value) for name, value in whole_state.items())


@pytest.mark.slow
@pytest.mark.parametrize("what", sorted(SPECS))
def test_two_processes_train_as_one(what: str, tmp_path: Path) -> None:
    alone, _, _ = run(what, Place(), tmp_path / "alone")
    found = together(what, 2, tmp_path / "two", *([] if what == "adversarial" else ["8"]))
    assert [one["ending"] for one in found] == ["done", "done"]
    assert_alike(found[0]["rows"], alone.rows["curves"])
    assert found[0]["rows"] == found[1]["rows"]
    for name, value in found[0]["state"].items():
        if not name.endswith("chosen"):
            assert torch.equal(value, found[1]["state"][name]), name
    counts = [one["state"].get("model.quantizer.chosen") for one in found]
    assert counts[0] is None or torch.equal(counts[0], counts[1])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["adversarial", "adversarial-parts", "scalar", "ibq", "lfq"])
def test_in_double_precision_two_processes_are_one(what: str, tmp_path: Path) -> None:
    """Nothing but rounding differs: 20 steps, batch norm and adaptive weight of the discriminator, and entropies of the
    whole batch included."""
    for size in (1, 2):
        run_ranks(PROGRAM.with_name("double_process.py"), size, tmp_path / str(size), [what])
    alone, two = (torch.load(tmp_path / size / "0.pt", weights_only=True) for size in "12")
    assert len(alone) == len(two) == 20
    for row, other in zip(alone, two, strict=True):
        assert row == pytest.approx(other, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_a_stop_that_reaches_one_process_stops_both_with_one_checkpoint(tmp_path: Path) -> None:
    found = together("vector", 2, tmp_path, "-", "1")
    assert [one["ending"] for one in found] == [
        f"interrupted: stopped at {7 * 31} images of trunk; a checkpoint is kept"
    ] * 2
    assert [path.name for path in (tmp_path / "1" / "checkpoints").iterdir()] == [f"0000-{7 * 31:015d}"]
    # Resumed, by one process or two, it ends as if it had not stopped.
    alone, _, _ = run("vector", Place(), tmp_path / "alone")
    again = together("vector", 2, tmp_path)
    assert [one["ending"] for one in again] == ["done", "done"]
    assert_alike(again[0]["rows"], alone.rows["curves"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_twenty_steps_of_two_processes_are_those_of_one(strategy: str, tmp_path: Path) -> None:
    """Without dropout losses agree to 1e-5 at every row, and so do the norms of gradients, forks included."""
    alone, _, _ = run("generator-alike", Place(), tmp_path / "alone")
    pair = together("generator-alike", 2, tmp_path / "two", "4", "-", strategy)
    assert [process["ending"] for process in pair] == ["done", "done"]
    rows, expected = pair[0]["rows"], alone.rows["curves"]
    assert max(row["step"] for row in expected) == 20
    assert [{**row, "value": 0} for row in rows] == [{**row, "value": 0} for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-5), row


@pytest.mark.slow
def test_what_two_sharded_processes_saved_one_process_goes_on_with(tmp_path: Path) -> None:
    found = together("generator-alike", 2, tmp_path, "-", "1", "fsdp2")
    assert [process["ending"].partition(":")[0] for process in found] == ["interrupted"] * 2
    again, state, ending = run("generator-alike", Place(), tmp_path)
    alone, expected, _ = run("generator-alike", Place(), tmp_path / "alone")
    assert ending == "done" and state.keys() == expected.keys()
    for row, other in zip(again.rows["curves"], alone.rows["curves"], strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-5), row
    # And the other way round: two go on with what one has saved.
    _, _, ending = run("generator-alike", Place(0, 1), tmp_path / "back", stop_rank=0)
    assert ending.startswith("interrupted")
    pair = together("generator-alike", 2, tmp_path / "back", "-", "-", "fsdp2")
    assert [process["ending"] for process in pair] == ["done", "done"]
    for row, other in zip(pair[0]["rows"], alone.rows["curves"], strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-5), row


def test_place_from_torchrun_and_slurm() -> None:
    torchrun = {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "abc",
    }  # fmt: skip
    place = Place.from_environment(torchrun)
    assert (place.rank, place.size, place.local, place.address, place.port) == (3, 4, 1, "n1", 29500)
    slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "gpu[07-09]"}
    # A shell of an allocation has these too; only the worker of a job is one of several.
    assert Place.from_environment(slurm) == Place()
    place = Place.from_environment(slurm, job="17_3")
    assert (place.rank, place.size, place.local, place.address) == (2, 4, 0, "gpu07")
    assert FIRST_PORT <= place.port < FIRST_PORT + PORTS
    restarted = Place.from_environment(slurm | {"SLURM_RESTART_COUNT": "1"}, job="17_3")
    assert restarted.key != place.key and restarted.port != place.port
    with pytest.raises(UsageError, match="rank = 4 is not below"):
        Place.from_environment(slurm | {"SLURM_PROCID": "4"}, job="17_3")
    with pytest.raises(UsageError, match="SLURM_PROCID = 'x'"):
        Place.from_environment(slurm | {"SLURM_PROCID": "x"}, job="17_3")


def test_rank_0_finds_an_address_and_a_port_that_are_there() -> None:
    place = Place(0, 2, address="no-such-node.invalid", port=1, key="17_3-0-0")
    with socket.socket() as taken:
        taken.bind(("", 0))
        busy = int(taken.getsockname()[1])
        hosted = replace(place, port=busy).hosted()
        assert hosted.port != busy
    socket.getaddrinfo(hosted.address, hosted.port)
    assert replace(place, address="localhost", port=hosted.port).hosted().address == "localhost"
    # One process needs none, and torchrun's arrangement stays.
    assert Place(address="no-such-node.invalid").hosted().address == "no-such-node.invalid"
    torchrun = replace(place, key="torchrun-x")
    assert torchrun.hosted() == torchrun


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"), ("n1,n2", "n1"), ("gpu[003-004,007],login1", "gpu003"), ("a[1,3]b[02-09]-x", "a1b02-x"),
        ("rack-2-node[9]", "rack-2-node9"),
    ],
)  # fmt: skip
def test_first_host_of_a_list_of_nodes(nodes: str, first: str) -> None:
    assert parse_first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["", "gpu[", "[]", "]x"])
def test_what_is_no_list_of_nodes(nodes: str) -> None:
    with pytest.raises(UsageError, match="no list of nodes"):
        parse_first_host(nodes)
