"""Jobs of several tasks on two nodes, and jobs that run a trainer of one's own, submitted like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..sweeps.rooted_study import tiny_study
from .cluster import Cluster
from .conftest import MakeLab

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


def test_trainer_of_ones_own_runs_from_the_snapshot(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 1, 0)
    script = Path(__file__).parent.parent / "sweeps" / "scripted_trainer.py"
    shutil.copy(script, lab.path.parent / "trainer.py")
    lab.path.write_text(OWN)
    lab.real = True
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    assert {row["stage"] for row in lab.store.read("runs").to_pylist()} == {"run"}
    assert len(lab.store.finished()) == 3
    for log in lab.root.glob("attempts/*/1/log.txt"):
        assert "beginning after step 0" in log.read_text() and "snapshots" in log.read_text()
