"""What becomes of runs that fail, run out of memory, diverge or time out, and of the rest of their study."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow


def _memory(lab: Lab, run_id: str) -> list[float]:
    """Gigabytes that the jobs of a run asked for, in order of submission."""
    asked: list[tuple[str, Any]] = []
    for path in lab.root.glob("submissions/*/arrays/*/array.json"):
        values = json.loads(path.read_text())
        if run_id in values["members"]:
            asked.append((path.parent.parent.parent.name, values["resources"]["memory_gb"]))
    return [memory for _, memory in sorted(asked)]


def test_every_cause_is_named_and_the_rest_completes(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 5, 1, memory_gb=0.2, hours=1 / 60, retries=1)
    lab.behave(
        all={"steps": 5, "seconds": 0.05},
        K256_T16_s1={"ending": "error", "always": True},
        K256_T16_s2={"ending": "diverged"},
        K256_T16_s3={"ending": "hog", "bytes": 600_000_000, "always": True},
        K256_T16_XS_s4_0={"steps": 2, "seconds": 600},
    )
    code, output = lab.submit("--wait", seconds=500)
    assert code == 1, output + lab.logs()
    statuses = {label: (status.status, status.cause) for label, status in lab.statuses().items()}
    assert statuses == {
        "K256-T16-s0": ("done", None),
        "K256-T16-XS-s0.0": ("done", None),
        "K256-T16-s1": ("failed", "error"),
        "K256-T16-XS-s1.0": ("pending", "blocked"),
        "K256-T16-s2": ("diverged", "diverged"),
        "K256-T16-XS-s2.0": ("pending", "blocked"),
        "K256-T16-s3": ("failed", "out_of_memory"),
        "K256-T16-XS-s3.0": ("pending", "blocked"),
        "K256-T16-s4": ("done", None),
        "K256-T16-XS-s4.0": ("failed", "timeout"),
    }, output + lab.logs()
    for text in (
        "a wheel came off and rolled away",
        "loss is nan",
        "no progress in 2 starts",
        "3 done, 1 diverged, 3 failed",
    ):
        assert text in output, output
    # An error and lack of memory are tried again once, with more memory; what diverged is not.
    ids = {run.label: run.run_id for run in lab.plan.runs}
    failures = lab.store.failures()
    assert len(failures[ids["K256-T16-s1"]]) == 2
    assert _memory(lab, ids["K256-T16-s1"]) == [0.2, 0.2]
    assert _memory(lab, ids["K256-T16-s3"]) == [0.2, pytest.approx(0.3)]
    assert _memory(lab, ids["K256-T16-s2"]) == [0.2]
    # The next submit leaves them alone; retry does not, and with a better world everything comes to its end.
    code, output = lab.submit()
    assert code == 1
    assert "`tokenlaw retry` tries again" in output
    lab.behave(all={"steps": 4, "seconds": 0.05})
    code, output = lab.submit("--retry", "--wait")
    assert code == 0, output + lab.logs()
    assert {label for label, status in lab.statuses().items() if status.status != "done"} == {
        "K256-T16-s2",
        "K256-T16-XS-s2.0",
    }


def test_disk_that_fills_up_costs_nothing_but_time(cluster: Cluster, small_disk: Path, labs: MakeLab,
                                                    tmp_path: Path) -> None:  # fmt: skip
    lab = labs(cluster, 2, 1, root=small_disk)
    lab.behave(all={"steps": 20, "seconds": 0.2})
    assert lab.submit()[0] == 0
    lab.wait_until_at_work(2)
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    lab.drained()
    statuses = {label: (status.status, status.cause) for label, status in lab.statuses().items()}
    assert {statuses[f"K256-T16-s{seed}"] for seed in (0, 1)} == {("failed", "storage")}
    assert lab.store.finished() == set()
    assert lab.store.failures() == {}
    code, output = lab.submit()
    assert code == 1
    assert output.startswith("error: cannot write ")
    assert output.endswith("the disk is full; free some space and run the same command again\n")
    (small_disk / "ballast").unlink()
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    lab.assert_complete()
    assert lab.resumed() > 0
    lab.assert_equals(lab.undisturbed(tmp_path / "undisturbed"))


def test_job_without_a_worker_is_a_failure_with_the_last_line_of_its_log(cluster: Cluster, labs: MakeLab) -> None:
    lab = labs(cluster, 1, 0, retries=0)
    lab.behave(all={"steps": 4, "seconds": 0.05})
    code, output = lab.submit("--wait", "--broken")
    assert code == 1, output
    (status,) = lab.statuses().values()
    assert (status.status, status.cause) == ("failed", "error")
    assert "before it began" in str(status.message)


def test_time_limit_is_a_pause(cluster: Cluster, labs: MakeLab) -> None:
    """A run of more than its time limit is warned, saves, is requeued in place and resumes; nothing counts."""
    lab = labs(cluster, 1, 1, hours=1 / 60, retries=0)
    lab.behave(all={"steps": 4, "seconds": 0.05}, K256_T16_s0={"steps": 40, "seconds": 1.0})
    code, output = lab.submit("--wait", seconds=400)
    assert code == 0, output + lab.logs()
    lab.assert_complete()
    assert lab.store.failures() == {}
    assert max(row["attempt"] for row in lab.store.read("runs").to_pylist()) > 1
    assert len(list(lab.root.glob("submissions/*/submission.json"))) == 1
    logs = lab.logs()
    assert "requeued" in logs
