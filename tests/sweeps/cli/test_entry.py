"""The beginning of the command, where another package goes by one of our names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sweeps
from sweeps.cli.entry import shadowed

HOME = Path(sweeps.__file__).resolve().parent.parent
CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import sweeps
sys.path.insert(0, sys.argv.pop(1))
from sweeps.cli.entry import main
sys.exit(main())
"""


def test_nothing_is_shadowed_here() -> None:
    assert shadowed() is None


@pytest.mark.parametrize("form", ["package", "folder", "module"])
def test_another_package_of_our_name_is_named_at_once(form: str, tmp_path: Path) -> None:
    if form == "module":
        (tmp_path / "results.py").write_text("")
        other = tmp_path / "results.py"
    else:
        other = tmp_path / "results"
        other.mkdir()
        if form == "package":
            (other / "__init__.py").write_text("raise RuntimeError('not imported')\n")
    command = [sys.executable, "-P", "-c", CODE, str(HOME), str(tmp_path), "plan", "smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if form == "folder":
        # A folder without code hides nothing: a package further on wins.
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: import results finds {other}, which is not tokenlaw's; allowed: ")
        assert done.stderr.count("\n") == 1
