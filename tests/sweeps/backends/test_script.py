"""The batch script of an array, and the one private function of submitit that writes it."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from submitit.slurm.slurm import _make_sbatch_string

from sweeps.backends.slurm.arrays import Array
from sweeps.backends.slurm.entries import ArrayEntry, content
from sweeps.backends.slurm.script import parameters, write_script
from sweeps.record.code_snapshot import CodeSnapshot
from sweeps.record.ledger import new_submission
from sweeps.study.resources import Resources

RICH = Resources(
    gpus_per_node=2, nodes=2, cpus_per_task=4, memory_gb=1.5, hours=2.0, partition="long", account="lab", qos="high",
    constraint="a100", options=(("exclusive", ""), ("reservation", "spring")),
)  # fmt: skip


def _script(folder: Path, resources: Resources, members: int = 4, dependency: str | None = None, jobs: int = 0) -> str:
    entry = _entry(folder, Array(0, tuple(f"run{n}" for n in range(members)), resources))
    snapshot = CodeSnapshot(folder / "code")
    return write_script(new_submission("toy", jobs), snapshot, entry, ["python", "a b"], dependency).read_text()


def _entry(folder: Path, array: Array) -> ArrayEntry:
    (folder / "array.json").write_bytes(content(array))
    return ArrayEntry(folder)


def test_the_private_function_of_submitit_is_the_one_that_was_tested(tmp_path: Path) -> None:
    """Where this fails submitit has moved: look at its function, test on a cluster, and widen the range."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (needed,) = (r for line in project["dependencies"] if (r := Requirement(line)).name == "submitit")
    assert needed.specifier.contains(version("submitit")), needed
    assert str(needed.specifier) == "<1.6,>=1.5"
    signature = inspect.signature(_make_sbatch_string)
    assert list(signature.parameters)[:2] == ["command", "folder"]
    entry = _entry(tmp_path, Array(0, ("a",), RICH))
    given = parameters(new_submission("toy", 0), CodeSnapshot(Path("/code")), entry, "afterok:1")
    assert given.keys() <= signature.parameters.keys()


def test_everything_that_was_asked_for_stands_in_the_script(tmp_path: Path) -> None:
    lines = _script(tmp_path, RICH, dependency="afterok:17_3", jobs=2).splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in (
        "#SBATCH --array=0-3%2", "#SBATCH --time=120", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gpus-per-node=2", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=1500M", "#SBATCH --partition=long",
        "#SBATCH --account=lab", "#SBATCH --qos=high", "#SBATCH --constraint=a100", "#SBATCH --exclusive",
        "#SBATCH --reservation=spring", "#SBATCH --dependency=afterok:17_3", "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --requeue", "#SBATCH --signal=USR2@240", "#SBATCH --open-mode=append", "exec python 'a b'",
    ):  # fmt: skip
        assert line in lines, line
    text = "\n".join(lines)
    assert f"#SBATCH --output={tmp_path}/%a.log" in lines
    assert "export PYTHONPATH=" in text and str(tmp_path / "code") in text
    assert "wckey" not in text and "--error" not in text and "srun" not in text.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("pack", "parallel", "last", "tasks", "memory"), [(1, 1, 6, 1, "500M"), (3, 1, 2, 1, "500M"), (4, 2, 1, 2, "1000M")]
)
def test_a_pack_is_one_job_that_asks_for_what_runs_side_by_side(
    tmp_path: Path, pack: int, parallel: int, last: int, tasks: int, memory: str
) -> None:
    lines = _script(tmp_path, Resources(memory_gb=0.5, pack=pack, pack_parallel=parallel), members=7).splitlines()
    assert f"#SBATCH --array=0-{last}" in lines
    assert f"#SBATCH --ntasks-per-node={tasks}" in lines
    assert f"#SBATCH --mem={memory}" in lines
