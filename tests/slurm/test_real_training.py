"""Real training, tiny, on a cluster that disturbs it: losses and weights equal an undisturbed study's bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.backends.base import Request
from tests.sweeps.rooted_study import RootedStudy, submit_here, tiny_study

from .cluster import NODES, Cluster
from .conftest import MakeLab

pytestmark = pytest.mark.slow

LIMITS = """
[resources.tokenizer]
memory_gb = 2
hours = 1
[resources.generator]
memory_gb = 2
hours = 1
[limits]
retries = 10
"""


@pytest.mark.usefixtures("fashion_mnist")
def test_disturbed_study_equals_an_undisturbed_one(cluster: Cluster, labs: MakeLab, tmp_path: Path) -> None:
    lab = labs(cluster, 1, 1)
    lab.path.write_text(tiny_study(2048, (1024, 2048), LIMITS))
    lab.real = True
    reference = RootedStudy(tmp_path / "undisturbed", lab.path)
    reference.root.mkdir()
    assert submit_here(Request(reference.plan, reference.root, jobs=1)).exit_code == 0
    # What is cached can be computed again, at the cost of time that this test does not need to take.
    shutil.copytree(reference.root / "cache", lab.root / "cache")

    process = lab.start("--wait")
    for disturbance in range(3):
        at_work = set(lab.workers())
        cluster.wait_for(
            lambda known=at_work: bool(set(lab.workers()) - known) or process.poll() is not None, "a worker", 200
        )
        time.sleep(6)
        victims = lab.workers()
        if not victims:
            break
        if disturbance == 0:
            with suppress(ProcessLookupError):
                os.kill(next(iter(victims)), signal.SIGKILL)
        elif disturbance == 1:
            running = [identity for identity, state in cluster.queue().items() if state == "RUNNING"]
            with suppress(RuntimeError):
                cluster.run(["scontrol", "requeue", *running])
        else:
            # Its process stays alive beside its successor.
            node = next(iter(victims.values()))
            cluster.lose_node(node, leave_jobs=True)
            cluster.wait_for(lambda: "down" in " ".join(cluster.node_states()), "a lost node", 60)
            cluster.start_node(node)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output + lab.logs()
    lab.assert_complete()
    assert max(row["attempt"] for row in lab.store.read("runs").to_pylist()) > 1
    lab.assert_equals(reference)
    cluster.wait_for(lambda: cluster.node_states() == ["idle"] * len(NODES), "idle nodes")
