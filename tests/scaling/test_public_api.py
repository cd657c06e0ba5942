"""The public names of `scaling` and `results`: all are there, and what needs no torch brings none."""

from __future__ import annotations

import subprocess
import sys

import pytest

import results
import scaling

HEAVY = ("torch", "pandas", "scipy", "pyarrow", "numpy")


@pytest.mark.parametrize("package", [results, scaling], ids=lambda package: package.__name__)
def test_all_names_are_there(package: object) -> None:
    assert all(hasattr(package, name) for name in package.__all__)
    assert sorted(package._MODULES) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'executee'"):
        package.executee  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import scaling, results",
        "from scaling import RunSpec, TokenizerRun, parse_run; parse_run(TokenizerRun().canonical).run_id",
        "from results import Protocol, Recorder, Store, open_rows",
    ],
)
def test_what_needs_no_torch_brings_none(code: str) -> None:
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_of_either_kind_is_a_run_spec() -> None:
    run = scaling.parse_run(scaling.TokenizerRun(seed=3).canonical)
    assert isinstance(run, scaling.RunSpec) and run == scaling.TokenizerRun(seed=3)
