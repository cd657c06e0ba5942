"""Laws stated in a study file, and studies in the place of tables: fit, validate and compare on what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import Store
from results.errors import DataError, SpecError, UsageError
from results.importing.importer import import_file
from sweeps.study.study import load_study, parse_study
from tests.sweeps.cli.test_own_trainer import execute

from .fit_commands import run, run_json

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "published"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/published")
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


def test_tokenizer_seeds_are_the_clusters_of_a_study() -> None:
    """Three are too few for an interval, and that is said; rows are resampled only where it is asked for."""
    words = ("fit", FASHION, "--law", "A/C^a", "--column", "C=path_flops", "--metric", "gfid", "--bootstrap", 100)
    for group in run_json(*words, "--group", "family")["groups"].values():
        assert group["parameters"]["a"]["low"] is None
        assert "3 clusters are fewer than 6: no interval is given" in group["warnings"]
        assert any("tokenizer seed" in note and "--cluster none" in note for note in group["notes"])
    whole, rows = run_json(*words), run_json(*words, "--cluster", "none")
    # Seeds of two families are different tokenizers: there are nine.
    assert whole["interval_method"] == "bootstrap over clusters" and whole["parameters"]["a"]["low"] is not None
    assert rows["interval_method"] == "bootstrap over rows" and not rows["notes"]
    assert whole["parameters"]["a"]["se"] > rows["parameters"]["a"]["se"]
    ranked = run_json("compare", FASHION, "--laws", "power,m1", "--x", "path_flops", "--metric", "gfid")
    assert any("tokenizer seed" in note for note in ranked["notes"])


@pytest.mark.parametrize(
    ("options", "values", "words"),
    [
        ((), [20.0, 17.0, 14.0], ["left out 1 of 4 rows: gFID was not measured there"]),
        (("--guidance", "best"), [9.0, 7.0, 6.0, 4.0], ["gfid is gFID at best guidance", "too low"]),
    ],
)
def test_a_metric_is_at_the_guidance_that_reports_have(
    tmp_path: Path, options: tuple[str, ...], values: list[float], words: list[str]
) -> None:
    root = _guided(tmp_path)
    base = (root, "--law", "a*C^-b", "--column", "C=path_flops", "--metric", "gfid", *options)
    fitted = run_json("fit", *base, "--bootstrap", 0)
    assert fitted["rows"] == len(values)
    held = math.exp(np.log(values).mean())
    level = run_json("fit", root, *base[1:], "--bootstrap", 0, "--fix", "b=0", "--loss", "squares")
    assert level["parameters"]["a"]["value"] == pytest.approx(held, rel=1e-6)
    said = [fitted["notes"], run_json("validate", *base, "--bootstrap", 0, "--holdout-above", "5e18")["notes"]]
    laws = ("--laws", "power,product", "--x", "path_flops", "--metric", "gfid")
    said.append(run_json("compare", root, *laws, *options)["notes"])
    assert all(any(word in note for note in notes) for notes in said for word in words)


def test_a_metric_that_no_run_has_is_named(tmp_path: Path, csv: Path) -> None:
    root = _guided(tmp_path)
    words = ("fit", root, "--law", "power", "--x", "path_flops", "--metric")
    with pytest.raises(DataError, match=r"guidance = 1.5: gfid was not measured so; measured: 1, best"):
        run(*words, "gfid", "--guidance", "1.5")
    with pytest.raises(DataError, match="extractor = 'dino' measured nothing here"):
        run(*words, "gfid", "--extractor", "dino")
    (tmp_path / "nats.csv").write_text(NATS)
    import_file(Store(tmp_path / "nats"), tmp_path / "nats.csv", columns={}, keep=True)
    with pytest.raises(DataError, match=r"metric = 'gfid': gFID was measured of no run .*; measured: nats_per_token$"):
        run("fit", tmp_path / "nats", *words[2:], "gfid")
    for option, value in (("--guidance", "best"), ("--extractor", "dino")):
        with pytest.raises(UsageError, match=f"{option} {value} belongs to a study, which .* is not"):
            run("fit", csv, "--law", "power", "--x", "C", option, value)


@needs_data
def test_published_gfid_is_fitted_with_and_without_guidance(tmp_path: Path) -> None:
    import_file(Store(tmp_path), DATA / "llamagen.csv", columns={"guided": "guidance"}, keep=True)
    words = ("fit", tmp_path, "--law", "power", "--x", "path_flops", "--metric", "gfid", "--bootstrap", 0)
    plain, best = run_json(*words), run_json(*words, "--guidance", "best")
    assert (plain["rows"], best["rows"]) == (12, 14)
    assert best["parameters"]["E"]["value"] < 3 < plain["parameters"]["E"]["value"]


GUIDED = """tokenizer,codebook_size,tokens_per_image,generator,path_flops,guided,rfid,gfid
A,1024,16,S,1e18,best,3.0,9.0
A,1024,16,S,1e18,none,3.0,20.0
A,1024,16,S,3e18,best,3.0,7.0
A,1024,16,S,3e18,none,3.0,17.0
A,1024,16,S,1e19,best,3.0,6.0
A,1024,16,S,1e19,none,3.0,14.0
B,1024,64,S,1e19,best,2.0,4.0
"""
NATS = """tokenizer,codebook_size,tokens_per_image,generator,path_flops,nats_per_token
A,1024,16,S,1e18,5.0
A,1024,16,S,1e19,4.0
"""


def _guided(folder: Path) -> Path:
    (folder / "guided.csv").write_text(GUIDED)
    import_file(Store(folder / "root"), folder / "guided.csv", columns={"guided": "guidance"}, keep=True)
    return folder / "root"


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
