"""Jobs of several tasks on two nodes, and jobs that run a trainer of one's own, submitted like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sweeps.record.attempts import Heartbeat
from tests.sweeps.rooted_study import tiny_study

from .cluster import Cluster
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow

OWN = """
[study]
name = "own"
[worker]
command = ["python", "trainer.py", "steps=4"]
[run]
width = 8
[seeds]
run = [0, 1, 2]
[resources.run]
memory_gb = 0.5
hours = 1
"""


@pytest.mark.usefixtures("fashion_mnist")
def test_two_tasks_on_two_nodes_train_one_tokenizer(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 1, 0)
    lab.path.write_text(tiny_study(1024, more="[resources.tokenizer]\nnodes = 2\nmemory_gb = 2\nhours = 1\n"))
    lab.real = True
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    (row,) = lab.store.read("runs").to_pylist()
    assert (row["status"], row["attempt"]) == ("done", 1)
    losses = [r["value"] for r in lab.store.read("curves").to_pylist() if r["split"] == "train"]
    assert losses and all(value == value for value in losses)
    (log,) = lab.root.glob("attempts/*/1/log.txt")
    assert "rank 0 of 2" in log.read_text()


def _own(labs: MakeLab, cluster: Cluster, text: str) -> Lab:
    """A lab of a study with a trainer of one's own."""
    lab = labs(cluster, 1, 0)
    script = Path(__file__).parent.parent / "sweeps" / "scripted_trainer.py"
    shutil.copy(script, lab.path.parent / "trainer.py")
    lab.path.write_text(text)
    lab.real = True
    return lab


def test_trainer_of_ones_own_runs_from_the_snapshot(cluster: Cluster, labs: MakeLab) -> None:
    lab = _own(labs, cluster, OWN)
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    assert {row["stage"] for row in lab.store.read("runs").to_pylist()} == {"run"}
    assert len(lab.store.finished()) == 3
    for log in lab.root.glob("attempts/*/1/log.txt"):
        assert "beginning after step 0" in log.read_text() and "snapshots" in log.read_text()


def test_a_warning_of_slurm_lets_a_trainer_on_two_nodes_save_and_go_on(cluster: Cluster, labs: MakeLab) -> None:
    """SLURM sends USR2 to every process of the step; this trainer handles TERM alone, and writes rows in each rank."""
    text = OWN.replace('"steps=4"', '"steps=150", "seconds=0.1", "handles=SIGTERM"').replace("[0, 1, 2]", "[0]")
    lab = _own(labs, cluster, text.replace("memory_gb", "nodes = 2\nmemory_gb"))
    code, output = lab.submit()
    assert code == 0, output
    logs = [lab.root / "attempts" / lab.plan.runs[0].run_id / "1" / name for name in ("log.txt", "log-1.txt")]
    cluster.wait_for(lambda: all(log.exists() and "beginning" in log.read_text() for log in logs), "both ranks")
    cluster.wait_for(lambda: (lab.statuses()["width=8,s0"].heartbeat or Heartbeat()).done > 0.1, "progress")
    (job,) = cluster.queue()
    cluster.run(["scancel", "--signal=USR2", job])
    lab.drained()
    (row,) = lab.store.read("runs").to_pylist()
    assert (row["status"], row["attempt"]) == ("done", 2), lab.logs()
    for log in logs:
        assert "asking the trainer to save and stop (SIGTERM)" in log.read_text() and "saved" in log.read_text()
    again = logs[0].parent.parent / "2" / "log.txt"
    assert "beginning after step 0" not in again.read_text()
    curves = lab.store.read("curves").to_pylist()
    assert sorted(row["step"] for row in curves) == list(range(1, 151))
