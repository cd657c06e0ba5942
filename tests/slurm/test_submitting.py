"""Submitting: in chunks, twice, by two at once, by one that dies in the middle, to a cluster that is full."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from sweeps.backends.base import Request
from sweeps.backends.slurm.backend import SlurmBackend
from sweeps.record.slurm_client import SlurmError
from tests.sweeps.rooted_study import GO

from .cluster import Cluster
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow


def _submissions(lab: Lab) -> list[str]:
    return sorted(path.name for path in (lab.root / "submissions").iterdir() if not path.name.startswith("."))


def test_1200_runs_in_chunks(closed_cluster: Cluster, labs: MakeLab) -> None:
    """By one submission of two arrays, however many runs there are: printed is how long it took (under 5 s, quiet)."""
    lab = labs(closed_cluster, 1200, 0, name="large")
    begun = time.monotonic()
    code, output = lab.submit()
    print(f"1,200 runs submitted in {time.monotonic() - begun:.1f} s")
    assert code == 0, output
    assert "1200 runs in 2 arrays" in output
    assert sorted(map(len, lab.arrays())) == [199, 1001]
    assert len(_submissions(lab)) == 1
    assert sorted(run for members in lab.arrays() for run in members) == sorted(lab.plan.by_id)
    queue = closed_cluster.queue()
    assert len(queue) == 1200
    # A second time nothing happens, and nothing is cancelled.
    code, output = lab.submit()
    assert code == 0
    assert "nothing to submit" in output
    assert "1200 under way" in output
    assert closed_cluster.queue() == queue
    assert len(_submissions(lab)) == 1


def test_many_small_arrays(closed_cluster: Cluster, labs: MakeLab) -> None:
    """One array for each of 60 tokenizers' generators; printed is how long it took (submitit's pauses alone: 12 s)."""
    lab = labs(closed_cluster, 60, 4)
    begun = time.monotonic()
    code, output = lab.submit()
    seconds = time.monotonic() - begun
    assert code == 0, output
    assert "300 runs in 61 arrays" in output
    waiting = closed_cluster.run(["squeue", "--noheader", "--array", "--format=%E"]).splitlines()
    assert sum("afterok" in line for line in waiting) == 240
    print(f"61 arrays submitted in {seconds:.1f} s")


def test_twice_and_two_at_once(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 2, 3)
    lab.behave(all={"steps": 3, "seconds": 0.3})
    processes = [lab.start() for _ in range(3)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum("nothing to submit" in output for output in outputs) == 2, outputs
    assert sorted(run for members in lab.arrays() for run in members) == sorted(lab.plan.by_id)
    code, output = lab.submit()
    assert code == 0
    assert "nothing to submit" in output
    lab.drained()
    lab.assert_complete()
    assert sorted(lab.begun()) == sorted(lab.plan.by_id)
    assert "all 8 runs are done" in lab.submit()[1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_submitter_killed(cluster: Cluster, labs: MakeLab, when: str) -> None:
    """Between ledger and sbatch, and between sbatch and writing down the job's id."""
    lab = labs(cluster, 2, 2)
    # Long enough that what was queued is there still when the next submitter looks.
    lab.behave(all={"steps": 3, "seconds": 3.0})
    code, _ = lab.submit("--die", when)
    assert code == -9
    assert len(_submissions(lab)) == 1
    queued = len(cluster.queue())
    assert queued == (2 if when == "after" else 0)
    code, output = lab.submit()
    assert code == 0, output
    # With jobs in the queue only the generators are left to submit. (A job that began has written down its own number;
    # of one that waits the submitter says that it found it.)
    assert f"{4 if when == 'after' else 6} runs in" in output
    lab.drained()
    lab.assert_complete()
    assert sorted(lab.begun()) == sorted(lab.plan.by_id)
    # The ledger still says which job each run was.
    assert sorted(run for members in lab.arrays() for run in members) == sorted(lab.plan.by_id)


def test_late_job_of_an_abandoned_array_does_nothing(cluster: Cluster, closed_cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 1, 0)
    assert lab.submit("--die", "after")[0] == -9
    (late,) = cluster.queue()
    (entry,) = lab.root.glob("submissions/*/arrays/0")
    # As if the job had not been in the queue yet when the next submitter looked.
    (entry / "abandoned").write_text("")
    assert "1 runs in 1 arrays" in lab.submit()[1]
    assert len(cluster.queue()) == 2
    cluster.run(["scontrol", "update", "PartitionName=main", "State=UP"])
    lab.drained()
    lab.assert_complete()
    assert len(lab.begun()) == 1
    assert "was submitted again by another job" in (entry / "0.log").read_text()
    assert late.endswith("_0")


def test_other_study_waits_for_the_same_tokenizer(cluster: Cluster, labs: MakeLab) -> None:
    first = labs(cluster, 1, 1)
    second = labs(cluster, 1, 3, name="other", root=first.root)
    first.behave(all={"steps": 3, "seconds": 0.05, "until": GO})
    assert first.submit()[0] == 0
    code, output = second.submit()
    assert code == 0
    assert "2 runs in 1 arrays" in output
    assert "2 under way of 4 runs" in output
    jobs = cluster.run(["squeue", "--noheader", "--array", "--format=%i %E %j"]).splitlines()
    assert ["afterok" in line for line in jobs if " other-" in line] == [True, True]
    first.go()
    second.drained()
    second.assert_complete()
    assert sorted(second.begun()) == sorted(second.plan.by_id)
    # What is stored is waited for by nobody.
    third = labs(cluster, 1, 4, name="third", root=first.root)
    third.submit()
    (array,) = third.root.glob("submissions/third-*/arrays/*/array.json")
    assert json.loads(array.read_text())["parent"] is None
    third.drained()
    third.assert_complete()


def test_cancel_saves_and_a_later_submit_goes_on(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 2, 1)
    lab.behave(all={"steps": 50, "seconds": 0.2, "until": GO})
    assert lab.submit()[0] == 0
    lab.wait_until_at_work(2)
    assert SlurmBackend().cancel(lab.plan, lab.root).startswith("cancelled 4 jobs")
    lab.drained()
    statuses = lab.statuses()
    assert {status.status for status in statuses.values()} == {"pending"}
    assert lab.store.failures() == {}
    lab.behave(all={"steps": 50, "seconds": 0.001})
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    lab.assert_complete()
    tokenizer = next(run.run_id for run in lab.plan.runs if run.parent is None)
    log = (lab.root / "attempts" / tokenizer / "2" / "log.txt").read_text()
    resumed = re.search(r"beginning at step (\d+)", log)
    assert resumed is not None
    assert int(resumed[1]) > 0


def test_what_slurm_refuses_is_told_and_the_rest_goes_on(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 1, 1)
    rule = '[[resources.tokenizer.rules]]\nwhere = { "tokenizer.quantizer.codebook_size" = 64 }\npartition = "no"\n'
    grid = '[[grid]]\nproduct = { "tokenizer.quantizer.codebook_size" = [64, 256] }\n'
    lab.path.write_text(lab.path.read_text().replace("[limits]", f"{rule}{grid}[limits]"))
    lab.behave(all={"steps": 2, "seconds": 0.01})
    code, output = lab.submit("--wait")
    assert code == 1
    assert "invalid partition specified: no" in output
    assert "its tokenizer was not taken" in output
    assert {label: status.status for label, status in lab.statuses().items()} == {
        "K256-T16-s0": "done",
        "K256-T16-XS-s0.0": "done",
        "K64-T16-s0": "pending",
        "K64-T16-XS-s0.0": "pending",
    }


def test_slurm_that_does_not_answer_writes_nothing(labs: MakeLab, cluster: Cluster, monkeypatch: pytest.MonkeyPatch,
                                                    clients: Path) -> None:  # fmt: skip
    lab = labs(cluster, 1, 0)
    cluster.stop_controller()
    try:
        with pytest.raises(SlurmError, match="squeue: "):
            SlurmBackend().submit(Request(lab.plan, lab.root))
        assert list(lab.root.iterdir()) == []
    finally:
        cluster.start_controller()
