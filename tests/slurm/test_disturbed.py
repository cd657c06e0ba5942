"""Jobs killed, requeued, lost with their node, left alive beside their successor: the tables are the same.

Toy training, whose rows depend on the specification alone, as real training's do (test_real_training.py).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.rooted_study import GO

from .cluster import NODES, Cluster
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow

STEPS = {"steps": 30, "seconds": 0.15}


def _finish(lab: Lab, process: Any, folder: Path) -> None:
    """The submitter ends well, and the store is that of an undisturbed study."""
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output + lab.logs()
    lab.assert_complete()
    assert "damaged" not in output
    lab.assert_equals(lab.undisturbed(folder))


def test_workers_killed_at_random(cluster: Cluster, labs: MakeLab, tmp_path: Path) -> None:
    lab = labs(cluster, 2, 3, retries=100)
    lab.behave(all=STEPS)
    process = lab.start("--wait")
    chance, killed = random.Random(5), 0
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.5, 2.0))
        workers = sorted(lab.workers())
        if workers and killed < 12:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
    _finish(lab, process, tmp_path / "undisturbed")
    assert killed >= 5
    assert lab.resumed() > 0
    causes = {failure.cause for failures in lab.store.failures().values() for failure in failures}
    assert causes == {"killed"}


def _requeue(lab: Lab) -> None:
    running = [identity for identity, state in lab.cluster.queue().items() if state == "RUNNING"]
    lab.cluster.run(["scontrol", "requeue", *running])


def _restart_controller(lab: Lab) -> None:
    lab.cluster.stop_controller()
    time.sleep(2)
    lab.cluster.start_controller()


def _lose_a_node(lab: Lab) -> None:
    node = next(iter(lab.workers().values()))
    lab.cluster.lose_node(node)
    lab.cluster.wait_for(lambda: "down" in " ".join(lab.cluster.node_states()), "a lost node", 60)
    lab.cluster.start_node(node)


@pytest.mark.parametrize(
    ("disturb", "resumes"),
    [(_requeue, True), (_restart_controller, False), (_lose_a_node, True)],
    ids=["requeued", "controller restarted", "node lost"],
)
def test_disturbance(
    cluster: Cluster, labs: MakeLab, tmp_path: Path, disturb: Callable[[Lab], None], resumes: bool
) -> None:
    lab = labs(cluster, 2, 1)
    lab.behave(all=STEPS | {"until": GO})
    process = lab.start("--wait")
    lab.wait_until_at_work(2)
    disturb(lab)
    lab.go()
    _finish(lab, process, tmp_path / "undisturbed")
    # Nothing of this counts as a failure, and dependents kept their place: one submission did it all.
    assert lab.store.failures() == {}
    assert len(list(lab.root.glob("submissions/*/submission.json"))) == 1
    assert (lab.resumed() > 0) == resumes
    cluster.wait_for(lambda: cluster.node_states() == ["idle"] * len(NODES), "idle nodes")


def test_old_process_left_alive_beside_its_successor(cluster: Cluster, labs: MakeLab, tmp_path: Path) -> None:
    lab = labs(cluster, 1, 1)
    # The old one has no end but to notice its successor, however late that comes on a busy machine.
    lab.behave(K256_T16_s0=STEPS | {"until": "never"}, all=STEPS)
    process = lab.start("--wait")
    lab.wait_until_at_work(1)
    ((old, node),) = lab.workers().items()
    assert old in cluster.lose_node(node, leave_jobs=True)
    lab.behave(all=STEPS)
    cluster.wait_for(lambda: len(lab.begun()) > 1, "its successor", 120)
    cluster.start_node(node)
    _finish(lab, process, tmp_path / "undisturbed")
    assert {row["attempt"] for row in lab.store.read("runs").to_pylist() if row["stage"] == "tokenizer"} == {2}
    # The old one notices by itself, and writes nothing.
    log = lab.root / "attempts" / lab.plan.runs[0].run_id / "1" / "log.txt"
    cluster.wait_for(lambda: "taken: a newer attempt has begun" in log.read_text(), "the end of the old one", 60)
    cluster.wait_for(lambda: cluster.node_states() == ["idle"] * len(NODES), "idle nodes")


def test_controller_that_crashes(cluster: Cluster, labs: MakeLab, tmp_path: Path) -> None:
    """It forgets its last seconds: that jobs began, or ended. Everything is done in the end all the same.

    The last test of its cluster: a controller that has forgotten jobs gives their numbers to others, and a node that
    remembers them is set aside (drained), also a while later.
    """
    lab = labs(cluster, 2, 1)
    lab.behave(all=STEPS)
    process = lab.start("--wait")
    lab.wait_until_at_work(2)
    cluster.stop_controller(crash=True)
    time.sleep(5)
    cluster.start_controller()

    def healthy() -> bool:
        # An operator's part: nodes that the controller set aside, for it found unknown jobs on them.
        for node, state in zip(NODES, cluster.node_states(), strict=True):
            if state.startswith(("drain", "drng", "down")):
                cluster.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"])
        return process.poll() is not None

    cluster.wait_for(healthy, "the end of the study", 300)
    _finish(lab, process, tmp_path / "undisturbed")
    assert lab.store.failures() == {}
    cluster.wait_for(lambda: cluster.node_states() == ["idle"] * len(NODES), "idle nodes")
