"""The same with accounting: sacct remembers what the controller forgot."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.record.slurm_client import Queue, slurm
from sweeps.record.slurm_client import _accounted as accounted

from .cluster import Cluster
from .conftest import MakeLab

pytestmark = pytest.mark.slow


def test_study_and_endings_from_the_database(
    accounting_cluster: Cluster, labs: MakeLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = accounting_cluster
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    lab = labs(cluster, 1, 2, retries=0)
    lab.behave(all={"steps": 3, "seconds": 0.05})
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    lab.assert_complete()
    assert sorted(lab.begun()) == sorted(lab.plan.by_id)
    number = slurm(["sbatch", "--parsable", "--array=0-1", f"--output={tmp_path}/out", "--wrap", "exit 3"]).strip()
    cluster.wait_for(lambda: not cluster.queue(), "the end of the job")
    # As if the controller had forgotten them.
    wanted = {f"{number}_0", f"{number}_1"}
    cluster.wait_for(lambda: accounted(wanted).keys() == wanted, "endings in the database")
    assert {(e.state, e.exit_code) for e in accounted(wanted).values()} == {("FAILED", 3)}
    monkeypatch.setattr("sweeps.record.slurm_client._remembered", lambda ids: {})
    assert Queue().endings(wanted) == accounted(wanted)
