"""Laws stated in a study file, and studies in the place of tables: fit, validate and compare on what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from results.errors import SpecError, UsageError
from sweeps.study.study import load_study, parse_study
from tests.sweeps.cli.test_own_trainer import execute

from .fit_commands import run, run_json

FASHION = Path(__file__).parents[4] / "docs" / "studies" / "fashion"
STUDY = """
[study]
name = "stated"
[worker]
command = ["python", "t.py"]
stage = "run"
[run]
width = 1
[[grid]]
product = { "run.width" = [1, 2, 4, 8, 16, 32] }
[[fit]]
name = "own"
law = "E + A/w^a"
metric = "own_loss"
columns = { w = "`run.width`" }
bound = { a = [0, ""] }
[[fit]]
name = "of-file"
law = "law.py:Mine"
metric = "own_loss"
x = "`run.width`"
"""
TRAINER = """
import json, os
from pathlib import Path
from results import open_rows
width = json.loads(Path(os.environ["TOKENLAW_SPEC"]).read_text())["values"]["width"]
open_rows().evaluation("own_loss", 2 + 3 * width**-0.5, step=1, n=10)
"""
LAW = """
from analysis import Law, Parameter
class Mine(Law):
    name = "mine"
    formula = "L = a + b/x"
    columns = ("x",)
    parameters = (Parameter("a"), Parameter("b"))
    def predict(self, p, x):
        return p["a"] + p["b"] / x.value("x")
"""


def test_a_folder_of_tables_is_fitted_as_a_table() -> None:
    result = run_json(
        "fit", FASHION, "--law", "A/C^a", "--column", "C=path_flops", "--metric", "gfid", "--bootstrap", 0
    )
    assert result["parameters"]["a"]["value"] == pytest.approx(0.2, abs=0.1)
    names = run("compare", FASHION, "--laws", "power,m1", "--x", "path_flops", "--metric", "gfid")
    assert "power" in names
    with pytest.raises(UsageError, match=r"--law is missing, and .* has no .* blocks"):
        run("fit", FASHION)


def test_laws_of_pairs_tokenizers_and_fronts() -> None:
    """Of losses as of gFID, with the measured floor, along all points or their lower edge."""
    words = ("fit", FASHION, "--law", "power", "--x", "path_flops", "--bootstrap", 0)
    pairs = run_json(*words, "--metric", "nats_per_image", "--group", "pair")["groups"]
    assert {"K16-T16 + XS", "K1024-T16 + S"} <= set(pairs)
    assert all(pair["status"] == "converged" and pair["parameters"]["alpha"]["value"] > 0 for pair in pairs.values())
    of_gfid = (*words, "--metric", "gfid", "--floor", "rfid_floor", "--group", "family")
    edges, middles = run_json(*of_gfid, "--loss", "envelope")["groups"], run_json(*of_gfid)["groups"]
    for family, edge in edges.items():
        assert _at(edge, 1e11) < _at(middles[family], 1e11)


def _at(fit: dict[str, Any], flops: float) -> float:
    """What a law of the excess says at a compute."""
    values = {name: estimate["value"] for name, estimate in fit["parameters"].items()}
    return float(values["A"] * flops ** -values["alpha"])


def test_a_table_needs_a_law(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,loss\n1,2\n")
    with pytest.raises(UsageError, match=r"--law is missing: a table needs one; allowed: power"):
        run("fit", tmp_path / "t.csv", "--x", "x")


@pytest.mark.slow
def test_the_laws_of_a_study_are_fitted_to_its_runs(tmp_path: Path) -> None:
    for name, content in (("stated.toml", STUDY), ("t.py", TRAINER), ("law.py", LAW)):
        (tmp_path / name).write_text(content)
    execute("tokenlaw submit stated.toml --wait", tmp_path)
    both = execute("tokenlaw fit stated.toml --bootstrap 0", tmp_path)
    assert "== own" in both and "== of-file" in both
    own = json.loads(execute("tokenlaw fit stated.toml --law own --bootstrap 0 --json", tmp_path))
    assert {name: value["value"] for name, value in own["parameters"].items()} == pytest.approx(
        {"E": 2, "A": 3, "a": 0.5}, rel=1e-6
    )
    held = execute("tokenlaw fit stated.toml --law own --fix E=2 --bootstrap 0 --out own.json", tmp_path)
    assert "wrote own.json" in held
    with pytest.raises(AssertionError, match="--json takes one fit; choose by --law: own, of-file"):
        execute("tokenlaw fit stated.toml --json", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("E + A/w^a", "E + A/w^"), "law"),
        (("{ w =", "{ v ="), "columns.v does not occur in law"),
        (('[0, ""]', "0"), 'bound.a = 0 is not .lower, upper.; "" leaves an end open'),
        (("bound =", "bounds ="), "'bounds' is not a key of .*did you mean 'bound'"),
        (('name = "of-file"', 'name = "own"'), "two .* blocks have name = 'own'"),
        (('metric = "own_loss"\ncolumns', "columns"), "metric"),
    ],
)
def test_a_wrong_block_is_refused_when_the_file_is_read(change: tuple[str, str], words: str) -> None:
    assert change[0] in STUDY
    with pytest.raises(SpecError, match=words):
        parse_study(STUDY.replace(*change), "stated.toml")


def test_a_study_without_blocks_has_no_laws() -> None:
    assert load_study("fashion").fits == ()
