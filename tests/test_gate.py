"""The gate itself: what needed a second run is named and judged, and a test that leaves something changed fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
FAILS_ONCE = """
import pathlib, pytest

@pytest.mark.{mark}
def test_once():
    flag = pathlib.Path({flag!r})
    first, _ = not flag.exists(), flag.touch()
    assert not first
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of a pytest of its own with this project's conftest."""
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  processes: x\n  slow: x\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("mark", "code"), [("processes", 0), ("slow", 1)])
def test_what_passes_only_on_its_second_run_is_named(mark: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILS_ONCE.format(mark=mark, flag=str(tmp_path / "flag")))
    first, output = run(tmp_path, "--gate", "first")
    assert first == 1 and "a second run is needed by: test_it.py::test_once" in output
    second, output = run(tmp_path, "--gate", "second", "--last-failed")
    assert second == code
    assert "passed only on their second run: test_it.py::test_once" in output
    assert ("which fails the gate" in output) is bool(code)
    assert run(tmp_path, "--gate", "first")[1].count("no test needed a second run") == 1


@pytest.mark.parametrize(
    "change",
    [
        "import os; os.environ['TOKENLAW_ROOT'] = '/elsewhere'",
        "import os; os.chdir('/')",
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "from results import schema; schema.TABLES = ()",
    ],
)
def test_a_test_that_leaves_something_changed_fails(change: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(f"import results.schema\ndef test_it():\n    {change}\n")
    code, output = run(tmp_path)
    assert code == 1 and "the test leaves changed:" in output
