"""Fixtures: a SLURM cluster for a whole test file, with variants for preemption and accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from os import environ
from pathlib import Path
from typing import Any

import pytest

from results import TokenlawError
from scaling.data.sources.builtin.catalogue_files import locate

from .cluster import Cluster, why_not
from .lab import Lab, study_text


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever runs on a cluster starts processes; pytest offers this hook the tests below this folder alone."""
    item.add_marker(pytest.mark.processes)


def _up(factory: pytest.TempPathFactory, **options: Any) -> Iterator[Cluster]:
    reason = why_not(accounting=options.get("accounting", False))
    if reason is not None and environ.get("TOKENLAW_EXPECT_SLURM") == "1":
        pytest.fail(f"SLURM is expected here (TOKENLAW_EXPECT_SLURM=1): {reason}")
    if reason is not None:
        pytest.skip(f"SLURM: {reason}")
    with Cluster(factory.mktemp("slurm"), **options) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes, no accounting, MaxArraySize 1001."""
    yield from _up(tmp_path_factory)


@pytest.fixture(scope="module")
def preempting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with a partition `urgent` whose jobs preempt those of `main`."""
    yield from _up(tmp_path_factory, preemption=True)


@pytest.fixture(scope="module")
def accounting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with slurmdbd, so that sacct works."""
    yield from _up(tmp_path_factory, accounting=True)


@pytest.fixture
def full_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that takes 60 jobs in all, and starts none."""
    for running in _up(tmp_path_factory, max_job_count=60):
        running.run(["scontrol", "update", "PartitionName=main", "State=DOWN"])
        yield running


@pytest.fixture
def closed_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with a partition that takes jobs and starts none, and an empty queue in the end."""
    cluster.run(["scontrol", "update", "PartitionName=main", "State=DOWN"])
    yield cluster
    if left := cluster.queue():
        cluster.run(["scancel", *{identity.partition("_")[0] for identity in left}])
    cluster.run(["scontrol", "update", "PartitionName=main", "State=UP"])


@pytest.fixture
def clients(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process a client of the cluster; the path of its slurm.conf."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    return cluster.configuration


@pytest.fixture
def fashion_mnist() -> None:
    """Skips a test by name where the images are neither there nor can be had."""
    try:
        locate("fashion-mnist", lambda line: None)
    except TokenlawError as error:
        pytest.skip(f"Fashion-MNIST: {error}")


MakeLab = Callable[..., Lab]


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeLab]:
    """Makes labs on a cluster: labs(cluster, tokenizers, generators, ...) as study_text takes them.

    This process becomes a client of that cluster, as whoever looks at a status is.
    """
    started: list[Lab] = []

    def make(on: Cluster, tokenizers: int, generators: int, *, root: Path | None = None, **options: Any) -> Lab:
        monkeypatch.setenv("SLURM_CONF", str(on.configuration))
        root = root or tmp_path / f"root{len(started)}"
        root.mkdir(exist_ok=True)
        path = tmp_path / f"study{len(started)}.toml"
        path.write_text(study_text(tokenizers, generators, **options))
        started.append(Lab(root, path, on))
        return started[-1]

    yield make
    for lab in started:
        with suppress(RuntimeError):
            lab.clean_up()
