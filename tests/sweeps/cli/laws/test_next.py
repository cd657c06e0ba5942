"""The commands joint and next, and what optimum predicts, on the committed study and on a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from results.errors import SpecError
from results.store.store import Store
from sweeps.cli.app import app
from sweeps.study.study import load_study
from sweeps.study.writing import Wanted, study_text

STUDY = Path(__file__).parents[4] / "docs" / "studies" / "fashion"


def invoke(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_what_next_writes_is_planned_and_repeats_nothing_that_is_done(tmp_path: Path) -> None:
    out = tmp_path / "more.toml"
    text = invoke("next", STUDY, "--flops", "1e13", "--budget", "3e13", "--trained-only", "--out", out)
    assert "expected regret of the decision (of gFID)" in text and str(out) in text
    assert "generators: " in invoke("plan", out, "--root", tmp_path / "root")
    runs = load_study(str(out), root=tmp_path).runs()
    done = Store.open_folder(STUDY).read("runs").to_pandas()
    generators = [run for run in runs if run.stage == "generator"]
    assert generators and not {run.run_id for run in generators} & set(done["run_id"])
    # Longer runs on seeds that are there need no new tokenizer.
    known = {run.run_id for run in runs if run.stage == "tokenizer"} & set(done["run_id"])
    assert known
    again = invoke("next", STUDY, "--flops", "1e13", "--budget", "3e13", "--trained-only", "--out", out, code=2)
    assert f"--out {out} exists" in again


def test_next_as_json_stays_within_its_budget_and_names_tokenizers_not_trained(tmp_path: Path) -> None:
    answer = json.loads(
        invoke("next", STUDY, "--flops", "1e13", "--budget", "3e13", "--json", "--out", tmp_path / "n.toml")
    )
    assert sum(run["cost"] for run in answer["runs"]) <= 3e13
    assert answer["after"] == sorted(answer["after"], reverse=True)
    new = [run for run in answer["runs"] if run["family"] != run["like"]]
    assert new and all(run["trains_tokenizer"] for run in new)
    codes = {
        run.quantizer.codebook_size
        for run in load_study(answer["file"], root=tmp_path).runs()
        if run.stage == "tokenizer"
    }
    assert {int(run["codes"]) for run in new} <= codes
    rate = json.loads(invoke("next", STUDY, "--flops", "1.6e11", "--budget", "1e13", "--target", "rate", "--json"))
    assert rate["criterion"] == "variance" and rate["after"][-1] < rate["now"]


def test_what_is_planned_costs_what_next_said_with_the_regulariser_and_whole_batches(tmp_path: Path) -> None:
    out = tmp_path / "more.toml"
    words = ("next", STUDY, "--flops", "1.6e11", "--out", out, "--json", "--budget")
    chosen = json.loads(invoke(*words, "8.6e12"))
    assert any(run["weight"] and run["trains_tokenizer"] for run in chosen["runs"])
    assert all(run["images"] % 64 == 0 for run in chosen["runs"])
    planned = json.loads(invoke("plan", out, "--root", tmp_path / "root", "--json"))["totals"]["flops"]
    assert planned <= 8.6e12
    # The tokenizers' FLOPs are interpolated between codebooks.
    assert planned == pytest.approx(sum(run["cost"] for run in chosen["runs"]), rel=0.005)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "1e12"), "needs --flops"),
        (("--budget", "-1", "--flops", "1e12"), "budget = -1.0 is not allowed"),
        (("--budget", "1e12", "--flops", "1e12", "--target", "x"), "allowed: regret, rate"),
        (("--budget", "1e12", "--flops", "1e12", "--cost", "N"), "--cost belongs to a table"),
        (("--budget", "1e12", "--law", "power"), "--candidates FILE, --cost FORMULA and --target FILE"),
    ],
)
def test_what_next_is_not_given_right(words: tuple[str, ...], message: str) -> None:
    assert message in " ".join(invoke("next", STUDY, *words, code=2).split())


def test_next_rows_of_a_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    n, d = (np.geomspace(1e7, 1e9, 5)[:, None] * np.ones(4)).ravel(), np.tile(np.geomspace(1e9, 1e11, 4), 5)
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(0.002 * random.standard_normal(20))
    pd.DataFrame({"n": n, "d": d, "loss": loss}).to_csv(tmp_path / "points.csv", index=False)
    pd.DataFrame({"n": [1e7, 1e9, 4e9], "d": [1e10, 1e11, 4e11]}).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame({"n": [1e10], "d": [1e12]}).to_csv(tmp_path / "target.csv", index=False)
    words = (
        "next", tmp_path / "points.csv", "--law", "E + A/n^alpha + B/d^beta", "--column", "n", "--column", "d",
        "--candidates", tmp_path / "rows.csv", "--cost", "6*n*d", "--target", tmp_path / "target.csv",
    )  # fmt: skip
    answer = json.loads(invoke(*words, "--budget", "1.1e22", "--json"))
    assert 2 in answer["rows"] and answer["after"][-1] < answer["now"]
    assert "no row fits: the cheapest costs 6e+17" in invoke(*words, "--budget", "1e10")


def test_optimum_predicts_tokenizers_that_were_not_trained() -> None:
    words = ("optimum", STUDY, "--flops", "1.6e11", "--candidate", "codes=128,tokens=16")
    text = invoke(*words)
    assert "expected regret" in text and "R* =" in text and "of tokenizers not trained K128-T16 + XS" in text
    line = next(line for line in text.splitlines() if "R* =" in line)
    assert re.search(r"gFID [\d.]+ \([\d.]+ to [\d.]+\), stage 1 [\d.]+% \([\d.]+% to [\d.]+%\) of both stages$", line)
    assert re.search(r"K16-T16 +XS +measured +[\d.]+% +[\d.]+%", text)
    assert re.search(r"K128-T16 +XS +law +[\d.]+% +[\d.]+%", text)
    assert "expected regret of the best measured, K16-T16 + XS" in text and "judged among themselves" in text
    answer = json.loads(invoke(*words, "--json"))
    [prediction] = answer["predictions"]
    assert {p["family"] for p in prediction["untrained"]} == {"K128-T16"}
    assert answer["optima"][0]["pairs"][0]["regret"] >= 0
    assert {"probability", "regret"} <= set(prediction["measured"][0])
    assert prediction["measured"][0]["regret"] > answer["optima"][0]["pairs"][0]["regret"]
    assert answer["joint"]["comparison"]["best"]
    assert "candidate = 'codes=3' is not allowed" in invoke(*words[:-1], "codes=3", code=2)


def test_joint_tells_what_it_cannot_tell() -> None:
    text = invoke("joint", STUDY, "--bootstrap", "40")
    assert "lowest error over all cases" in text and "not told" in text
    assert "all tokenizers have one number of tokens" in text and "nan" not in text
    answer = json.loads(invoke("joint", STUDY, "--bootstrap", "40", "--json"))
    assert answer["estimates"]["q"]["value"] is None and answer["estimates"]["p"]["low"] is not None


def test_a_study_is_written_of_what_a_study_file_can_describe() -> None:
    spec = {"tokenizer": {"data": {"name": "x"}, "evaluation": {}}, "trainer": ["train"], "batch_size": 1}
    with pytest.raises(SpecError, match="trainer of one's own"):
        study_text("a", "b", [Wanted(spec, 0, 1)])
    with pytest.raises(SpecError, match="a study needs a run"):
        study_text("a", "b", [])
