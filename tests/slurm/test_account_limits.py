"""Limits of an account: what they refuse for now, what they refuse for ever, and what they leave in the queue."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sweeps.backends.slurm.entries import cluster_view
from sweeps.backends.status import collect

from .cluster import Cluster, why_not
from .conftest import MakeLab
from .lab import Lab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def limiting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One with accounting that enforces the limits of three qualities of service."""
    reason = why_not(accounting=True)
    if reason is not None:
        pytest.skip(f"SLURM: {reason}")
    with Cluster(
        tmp_path_factory.mktemp("slurm"), accounting=True, settings={"AccountingStorageEnforce": "limits,qos"}
    ) as running:
        limits = {
            "few": ["MaxSubmitJobsPerUser=3", "Flags=DenyOnLimit"],
            "short": ["MaxWall=10", "Flags=DenyOnLimit"],
            "narrow": ["MaxTRESPerJob=cpu=1"],
        }
        for name, fields in limits.items():
            running.run(["sacctmgr", "--immediate", "add", "qos", name, *fields])
        names = f"qos+={','.join(limits)}"
        running.run(["sacctmgr", "--immediate", "modify", "account", "lab", "set", names])
        running.run(["sacctmgr", "--immediate", "modify", "user", "root", "where", "account=lab", "set", names])
        yield running


def _lab(labs: MakeLab, cluster: Cluster, runs: int, more: str) -> Lab:
    lab = labs(cluster, runs, 0)
    lab.path.write_text(lab.path.read_text().replace("[resources.tokenizer]\n", f"[resources.tokenizer]\n{more}\n"))
    lab.behave(all={"steps": 3, "seconds": 0.05})
    return lab


def _untaken(lab: Lab) -> list[tuple[str, str]]:
    """Cause and message of the runs that SLURM did not take, as status has them."""
    statuses = collect(lab.plan, lab.root, cluster_view(lab.root))
    return [(s.cause, str(s.message)) for s in statuses if s.cause in ("refused", "no_room")]


def test_jobs_that_there_is_no_room_for_yet(limiting_cluster: Cluster, labs: MakeLab) -> None:
    lab = _lab(labs, limiting_cluster, 5, 'account = "lab"\nqos = "few"')
    code, output = lab.submit()
    assert code == 0, output
    assert "3 runs in 1 arrays" in output and "2 waiting for room of 5 runs" in output
    assert "`tokenlaw submit` again goes on with the rest" in output
    assert [cause for cause, message in _untaken(lab) if "QOSMaxSubmitJobPerUserLimit" in message] == ["no_room"] * 2
    code, output = lab.submit("--wait")
    assert code == 0, output + lab.logs()
    assert not _untaken(lab)
    assert sorted(lab.begun()) == sorted(lab.plan.by_id)


def test_jobs_that_may_never_be(limiting_cluster: Cluster, labs: MakeLab) -> None:
    lab = _lab(labs, limiting_cluster, 2, 'account = "lab"\nqos = "short"')
    code, output = lab.submit("--wait")
    assert code == 1
    assert output.count("): refused by SLURM: ") == 2
    assert "QOSMaxWallDurationPerJobLimit" in output and "room" not in output
    assert [cause for cause, message in _untaken(lab) if "QOSMaxWallDurationPerJobLimit" in message] == ["refused"] * 2
    # They have no log to look at, and what sbatch printed is said once.
    assert "tokenlaw logs" not in output and "sbatch: error" not in output


def test_jobs_that_wait_for_a_limit(limiting_cluster: Cluster, labs: MakeLab) -> None:
    lab = _lab(labs, limiting_cluster, 2, 'account = "lab"\nqos = "narrow"\nnodes = 2')
    process = lab.start("--wait")
    limiting_cluster.wait_for(lambda: len(limiting_cluster.queue()) == 2, "jobs")
    assert process.stdout is not None
    seen = ""
    while "QOSMaxCpuPerJobLimit" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    # The line on where the study stands follows.
    while "2 blocked" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    assert " left" not in seen.splitlines()[-1]
    for status in collect(lab.plan, lab.root, cluster_view(lab.root)):
        assert (status.status, status.cause) == ("pending", "queued")
        assert status.message == f"job {status.job} waits: QOSMaxCpuPerJobLimit"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "left while 2 runs have no end yet; the jobs go on without this command" in rest
    assert "same command goes on" not in rest
    assert len(limiting_cluster.queue()) == 2
