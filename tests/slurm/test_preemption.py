"""A partition of higher priority takes the nodes: runs save, make room, and go on afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps.rooted_study import GO

from .cluster import CPUS, NODES, Cluster
from .conftest import MakeLab

pytestmark = pytest.mark.slow


def test_preempted_runs_go_on(preempting_cluster: Cluster, labs: MakeLab, tmp_path: Path) -> None:
    cluster = preempting_cluster
    lab = labs(cluster, 2, 1)
    lab.behave(all={"steps": 12, "seconds": 0.2, "until": GO})
    process = lab.start("--wait")
    lab.wait_until_at_work(2)
    urgent = [
        "sbatch", "--parsable", "--partition=urgent", f"--nodes={len(NODES)}", "--exclusive", "--ntasks-per-node=1",
        f"--cpus-per-task={CPUS}", "--mem=100M", f"--output={lab.root}/urgent", "--wrap=sleep 3",
    ]  # fmt: skip
    job = cluster.run(urgent).strip()
    cluster.wait_for(lambda: cluster.queue().get(job) == "RUNNING", "the urgent job", 120)
    lab.go()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output + lab.logs()
    lab.assert_complete()
    lab.assert_equals(lab.undisturbed(tmp_path / "undisturbed"))
    assert lab.store.failures() == {}
    rows = lab.store.read("runs").to_pylist()
    assert {row["attempt"] for row in rows if row["stage"] == "tokenizer"} == {2}
    assert len(list(lab.root.glob("submissions/*/submission.json"))) == 1
    logs = [path.read_text() for path in lab.root.glob("attempts/*/2/log.txt")]
    assert logs
    assert all("beginning at step" in log and "beginning at step 0" not in log for log in logs)
