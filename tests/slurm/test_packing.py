"""Packs: many short runs in few jobs, each with its own attempt, retry and cause; a disturbed pack goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.sweeps.rooted_study import GO

from .cluster import Cluster
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow


def _packed(lab: Lab, pack: int, parallel: int = 1) -> Lab:
    """The lab's study with so many runs a job, `parallel` of them side by side."""
    text = lab.path.read_text().replace("cpus_per_task = 1\n", f"cpus_per_task = 1\npack = {pack}\n")
    lab.path.write_text(text.replace(f"pack = {pack}\n", f"pack = {pack}\npack_parallel = {parallel}\n"))
    return lab


def _jobs(lab: Lab) -> int:
    """Jobs that SLURM took of this study: one log each."""
    return len(list(lab.root.glob("submissions/*/arrays/*/[0-9]*.log")))


def test_200_runs_in_10_jobs(cluster: Cluster, labs: MakeLab) -> None:
    """All rows once; the wall time a run is printed, against that of 20 runs in 20 jobs."""
    seconds = {}
    for pack, runs, jobs in ((20, 200, 10), (1, 20, 20)):
        lab = _packed(labs(cluster, runs, 0, name=f"pack{pack}"), pack)
        lab.behave(all={"steps": 2, "seconds": 0.01})
        begun = time.monotonic()
        code, output = lab.submit("--wait", seconds=900)
        seconds[pack] = (time.monotonic() - begun) / runs
        assert code == 0, output + lab.logs()
        assert ("200 runs in 10 jobs, 1 arrays" in output) == (pack == 20)
        assert _jobs(lab) == jobs
        lab.assert_complete()
        assert sorted(lab.begun()) == sorted(lab.plan.by_id)
        assert {row["attempt"] for row in lab.store.read("runs").to_pylist()} == {1}
    print(f"a run of a pack of 20 takes {seconds[20]:.2f} s of wall time, a run in a job of its own {seconds[1]:.2f} s")


@pytest.mark.parametrize("disturbance", ["requeued", "killed", "job killed"])
def test_disturbed_pack_goes_on_with_what_is_left(
    cluster: Cluster, labs: MakeLab, tmp_path: Path, disturbance: str
) -> None:
    """In the middle of a pack of tokenizers, whose generators share a pack that waits for it."""
    lab = _packed(labs(cluster, 4, 2, retries=5), 4)
    lab.behave(K256_T16_s1={"steps": 10, "seconds": 0.1, "until": GO}, all={"steps": 3, "seconds": 0.05})
    process = lab.start("--wait")
    ids = {run.label: run.run_id for run in lab.plan.runs}
    cluster.wait_for(lambda: lab.at_work() == 1 and ids["K256-T16-s1"] in lab.begun(), "the second run", 100)
    if disturbance == "requeued":
        (job,) = [identity for identity, state in cluster.queue().items() if state == "RUNNING"]
        cluster.run(["scontrol", "requeue", job])
    elif disturbance == "killed":
        (worker,) = lab.workers()
        os.kill(worker, signal.SIGKILL)
    else:
        # The whole job dies without a word, batch step included.
        (job,) = [identity for identity, state in cluster.queue().items() if state == "RUNNING"]
        cluster.run(["scancel", "--full", "--signal=KILL", job])
    lab.go()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output + lab.logs()
    lab.assert_complete()
    lab.assert_equals(lab.undisturbed(tmp_path / "undisturbed"))
    # What had ended before is not executed again.
    assert lab.begun().count(ids["K256-T16-s0"]) == 1
    assert lab.resumed() == 1
    causes = {failure.cause for failures in lab.store.failures().values() for failure in failures}
    # SLURM says of a job that was killed through it that it was cancelled, which is no failure of its runs.
    assert causes == ({"killed"} if disturbance == "killed" else set())


def test_side_by_side(cluster: Cluster, labs: MakeLab) -> None:
    lab = _packed(labs(cluster, 6, 0), 6, parallel=3)
    lab.behave(all={"steps": 4, "seconds": 0.2})
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    assert _jobs(lab) == 1
    lab.assert_complete()
    change = {"begin": 1, "end": -1}
    now = most = 0
    for _, what, *_ in sorted(lab.log()):
        now += change[what]
        most = max(most, now)
    assert most == 3


def test_a_failure_in_a_pack_is_its_own(cluster: Cluster, labs: MakeLab) -> None:
    """The others go on, dependents of what is done begin, and only the failed run is tried again."""
    lab = _packed(labs(cluster, 3, 1, retries=1), 3)
    lab.behave(
        all={"steps": 3, "seconds": 0.02},
        K256_T16_s0={"ending": "error", "always": True},
        K256_T16_s1={"ending": "diverged"},
    )
    code, output = lab.submit("--wait")
    assert code == 1, output + lab.logs()
    statuses = {label: (status.status, status.cause) for label, status in lab.statuses().items()}
    assert statuses == {
        "K256-T16-s0": ("failed", "error"),
        "K256-T16-s1": ("diverged", "diverged"),
        "K256-T16-s2": ("done", None),
        "K256-T16-XS-s0.0": ("pending", "blocked"),
        "K256-T16-XS-s1.0": ("pending", "blocked"),
        "K256-T16-XS-s2.0": ("done", None),
    }, output + lab.logs()
    ids = {run.label: run.run_id for run in lab.plan.runs}
    assert [lab.begun().count(ids[f"K256-T16-s{seed}"]) for seed in range(3)] == [2, 1, 1]


def test_a_pack_longer_than_its_time_limit_pauses(cluster: Cluster, labs: MakeLab) -> None:
    lab = _packed(labs(cluster, 3, 0, hours=1 / 60, retries=0), 3)
    lab.behave(all={"steps": 20, "seconds": 1.0})
    code, output = lab.submit("--wait", seconds=400)
    assert code == 0, output + lab.logs()
    lab.assert_complete()
    assert lab.store.failures() == {}
    assert len(list(lab.root.glob("submissions/*/submission.json"))) == 1
    assert "requeued" in lab.logs()
