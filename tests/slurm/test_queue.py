"""Reading the queue of a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.record.slurm_client import Cluster as Facts
from sweeps.record.slurm_client import Queue, SlurmError, SlurmMissing, slurm

from .cluster import Cluster


@pytest.mark.slow
def test_jobs_with_their_states_and_endings(cluster: Cluster, clients: Path, tmp_path: Path) -> None:
    facts = Facts.read()
    assert (facts.name, facts.max_array) == ("tests", 1001)
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\ncase $SLURM_ARRAY_TASK_ID in 0) sleep 60;; 1) exit 3;; 2) kill -9 $$;; 3) exit 0;; esac\n"
    )
    options = [f"--output={tmp_path}/out", "--job-name=study-20260101-abc"]
    number = slurm(["sbatch", "--parsable", "--array=0-3", *options, str(script)]).strip()
    waits = slurm(["sbatch", "--parsable", f"--dependency=afterok:{number}_0", *options, str(script)]).strip()
    queue = Queue()
    cluster.wait_for(lambda: set(queue.read(0)) == {f"{number}_0", waits}, "two jobs in the queue")
    job = queue.read(0)[f"{number}_0"]
    cluster.wait_for(lambda: queue.read(0)[f"{number}_0"].state == "RUNNING", "a running job")
    job = queue.read(0)[f"{number}_0"]
    assert (job.name, job.reason, job.restarts, job.script) == ("study-20260101-abc", None, 0, str(script))
    assert job.node in ("n1", "n2", "n3", "n4")
    assert job.time_left is not None
    assert 500 < job.time_left <= 600
    assert job.started is not None
    other = queue.read(0)[waits]
    assert (other.state, other.reason, other.waiting) == ("PENDING", "Dependency", True)
    assert len(queue.named("study-20260101-abc")) == 2
    assert queue.read() is queue.read()
    slurm(["scontrol", "requeue", f"{number}_0"])
    cluster.wait_for(lambda: queue.read(0)[f"{number}_0"].restarts == 1, "a requeued job")
    slurm(["scancel", f"{number}_0"])
    cluster.wait_for(lambda: f"{number}_0" not in queue.read(0), "the end of the job")
    cluster.wait_for(lambda: queue.read(0)[waits].stranded, "a dependency that is never satisfied")
    slurm(["scancel", waits])
    endings = queue.endings(f"{number}_{index}" for index in range(4))
    assert {i: (e.state, e.exit_code, e.signal) for i, e in endings.items()} == {
        f"{number}_0": ("CANCELLED", 0, endings[f"{number}_0"].signal),
        f"{number}_1": ("FAILED", 3, 0),
        f"{number}_2": ("FAILED", 0, 9),
        f"{number}_3": ("COMPLETED", 0, 0),
    }


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(cluster: Cluster, clients: Path) -> None:
    with pytest.raises(SlurmError, match=r"^sbatch: .*partition.*$"):
        slurm(["sbatch", "--partition=nowhere", "--wrap", "true"])


def test_slurm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlurmMissing, match="squeue is not installed here") as caught:
        Queue().read()
    assert caught.value.exit_code == 2
