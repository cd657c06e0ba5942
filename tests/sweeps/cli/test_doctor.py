"""What doctor says of a cluster: from sinfo's and scontrol's texts, and of one that is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sweeps.cli import doctor
from sweeps.cli.doctor import examine_cluster, file_system
from sweeps.record.slurm_client import SlurmError

OWN = doctor.HOME
CONFIG = """Configuration data as of 2026-11-22T12:00:00
ClusterName             = lab
SLURM_VERSION           = 22.05.8
MaxArraySize            = 1001
MaxJobCount             = 10000
AccountingStorageType   = accounting_storage/none
MinJobAge               = 300 sec
JobRequeue              = 1
PreemptType             = preempt/partition_prio
PreemptMode             = REQUEUE
SlurmctldParameters     = preempt_send_user_signal
"""
PARTITIONS = """main*|up|7-00:00:00|4|1/3|4|4000|gpu:2
urgent|up|5:00|4|1/3|4|4000|(null)
old|down|infinite|1|0/1|4|4000|(null)
"""


def _cluster(monkeypatch: pytest.MonkeyPatch, probe: dict[str, object] | None, **changes: str) -> None:
    config = CONFIG
    for key, value in changes.items():
        config = "\n".join(f"{key} = {value}" if line.startswith(key) else line for line in config.splitlines())

    def slurm(command: list[str], timeout: float = 60.0) -> str:
        if command[0] == "scontrol":
            return config
        if command[0] == "sinfo":
            return PARTITIONS
        if probe is None:
            raise SlurmError("srun: Unable to allocate resources: Requested nodes are busy")
        root, name = Path(command[-2]), command[-1]
        if probe.get("seen"):
            (root / f"{name}-back").write_text("")
        import time

        return json.dumps({"time": time.time(), "host": "n1", "python": "3.11.7"} | probe)

    monkeypatch.setattr("sweeps.record.slurm_client.slurm", slurm)
    monkeypatch.setattr(doctor, "slurm", slurm)


def _found(root: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in examine_cluster(root):
        found.setdefault(one.subject, []).append((one.verdict, one.detail))
    return found


GOOD = {name: str(OWN / name / "__init__.py") for name in ("results", "analysis", "scaling", "sweeps")} | {
    "torch": "/x/torch/__init__.py", "pyarrow": "/x", "pydantic": "/x",
}  # fmt: skip


def test_a_good_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cluster(monkeypatch, {"seen": True, "found": GOOD})
    found = _found(tmp_path)
    assert found["cluster"] == [("ok", "lab, SLURM 22.05.8")]
    ((verdict, partitions),) = found["partitions"]
    assert verdict == "warning" and "old is down" in partitions
    assert "main* (4 nodes, 3 idle, 4 CPUs and 4000 MB each, gpu:2, at most 7-00:00:00)" in partitions
    assert "urgent ends jobs after 5:00" in found["time limits"][0][1]
    assert "1001" in found["arrays"][0][1] and "10000 jobs" in found["arrays"][0][1]
    assert found["accounting"][0][0] == "ok" and "no sacct" in found["accounting"][0][1]
    assert "warning signal" in found["preemption"][0][1]
    assert [verdict for verdict, _ in found["clock"]] == ["ok", "ok"]
    assert found["Python of the jobs"] == [("ok", f"{sys.executable} (3.11.7) on n1, with torch")]
    assert found["root on the nodes"][0][0] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_nodes_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = GOOD | {"results": "/elsewhere/results/__init__.py", "pydantic": None}
    _cluster(monkeypatch, {"seen": False, "found": packages, "time": 1000.0})
    found = _found(tmp_path)
    verdict, detail = found["Python of the jobs"][0]
    assert verdict == "problem"
    assert "import results finds /elsewhere" in detail and "pydantic is missing" in detail
    assert found["root on the nodes"][0][0] == "problem"
    assert found["clock"][-1][0] == "problem" and "held for dead" in found["clock"][-1][1]
    assert list(tmp_path.iterdir()) == []


def test_settings_that_need_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cluster(monkeypatch, None, MinJobAge="2 sec", JobRequeue="0", PreemptMode="CANCEL")
    found = _found(tmp_path)
    assert found["accounting"][0][0] == "warning"
    assert found["requeue"][0][0] == "warning"
    assert found["preemption"][0][0] == "warning" and "resumes them" in found["preemption"][0][1]
    verdict, detail = found["Python of the jobs"][0]
    assert verdict == "warning" and "Requested nodes are busy" in detail


def test_no_cluster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (finding,) = examine_cluster(tmp_path)
    assert finding.verdict == "ok" and "not installed" in finding.detail


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/scratch/me/runs", ("/scratch", "lustre")),
        ("/home/me/my runs/x", ("/home/me/my runs", "nfs4")),
        ("/scratchy", ("/", "ext4")),
        ("/", ("/", "ext4")),
    ],
)
def test_file_system_of_a_path(path: str, expected: tuple[str, str]) -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/s /scratch lustre rw 0 0\nserver:/h /home/me/my\\040runs nfs4 rw 0 0\n\n"
    assert file_system(Path(path), mounts) == expected


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("5:00", 5.0), ("7-00:00:00", 10_080.0), ("1:30:00", 90.0), ("infinite", None), ("0:30", 0.5), ("2-x", None)],
)
def test_time_limits(text: str, minutes: float | None) -> None:
    assert doctor._minutes(text) == minutes
