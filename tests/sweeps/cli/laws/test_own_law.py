"""A law of one's own on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.errors import UsageError

from .fit_commands import run, run_json


def _documented_law() -> str:
    """The law of one's own that docs/fitting.md shows, as written."""
    text = (Path(__file__).parents[4] / "docs" / "fitting.md").read_text(encoding="utf-8")
    [block] = [b.partition("```")[0] for b in text.split("```python\n")[1:] if "class CodebookLaw" in b]
    return block


@pytest.fixture
def own_law(tmp_path: Path) -> Iterator[Path]:
    from analysis.fitting.laws.known_laws import LAWS

    path = tmp_path / "codebook_law.py"
    path.write_text(_documented_law())
    before = dict(LAWS)
    yield path
    LAWS.clear()
    LAWS.update(before)


def test_a_law_of_ones_own_on_the_command_line_as_documented(own_law: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, k = np.exp(rng.uniform(15, 20, 60)), 2.0 ** rng.integers(4, 14, 60)
    table = pd.DataFrame({"N": n, "K": k, "loss": 1.5 + 300 / n**0.35 + 2 / k**0.5})
    data, out = tmp_path / "points.csv", tmp_path / "fit.json"
    table.to_csv(data, index=False)
    law = f"{own_law}:CodebookLaw"
    words = [sys.executable, "-c", "from sweeps.cli.app import main; main()"]
    options = ["--params", "N", "--column", "codebook_size=K", "--bootstrap", "0", "--out", str(out), "--json"]
    done = subprocess.run(
        [*words, "fit", str(data), "--law", law, *options], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["law"] == "codebook" and found["parameters"]["gamma"]["value"] == pytest.approx(0.5)
    at = ["--params", "1e8", "--column", "codebook_size=1024"]
    with pytest.raises(UsageError, match=r"law 'codebook', which is not tokenlaw's: add --law FILE.py:CLASS"):
        run("predict", out, *at)
    [one] = run_json("predict", out, "--law", law, *at)["predictions"]
    assert one["value"] == pytest.approx(1.5 + 300 / 1e8**0.35 + 2 / 1024**0.5)
    base = ("compare", data, "--laws", "codebook,power", "--params", "N", "--column", "codebook_size=K")
    table["C"] = n * 1e9
    table.to_csv(data, index=False)
    assert "warning: no held-out error: the points have no compute" in run(*base)
    assert [row["holdout_rmsle"] is not None for row in run_json(*base, "--flops", "C")["laws"]] == [True, True]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (None, "Mine", "does not exist"),
        ("import nowhere_at_all", "Mine", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1", "Mine", "has no law 'Mine'"),
        ("Mine = 3", "Mine", "has no law 'Mine'"),
        (
            "from analysis.fitting.laws.known_laws import Chinchilla\nclass Mine(Chinchilla): pass",
            "Mine",
            "exists already",
        ),
        ("from analysis.fitting.laws.law import Law\nclass Mine(Law): pass", "Mine", "TypeError"),
        (
            "from analysis.fitting.laws.known_laws import Kaplan\nclass Mine(Kaplan):\n    name = 'My_Law'",
            "Mine",
            "'My_Law' is not",
        ),
    ],
)
def test_a_file_without_a_law(csv: Path, tmp_path: Path, content: str | None, name: str, words: str) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=words) as caught:
        run("fit", csv, "--law", f"{path}:{name}", "--params", "N", "--tokens", "D")
    assert "\n" not in str(caught.value)
