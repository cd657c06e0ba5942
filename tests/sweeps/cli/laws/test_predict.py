"""The commands predict, optimum, validate and compare, as a user types them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.errors import DataError, TokenlawError, UsageError

from .fit_commands import run, run_json


def test_predict(fit_file: Path, csv: Path) -> None:
    found = run_json("predict", fit_file, "--params", "1e9,1e10", "--tokens", "2e10")["predictions"]
    assert [row["params"] for row in found] == [1e9, 1e10]
    truth = 1.7 + 400 / 1e9**0.34 + 2000 / 2e10**0.37
    assert found[0]["value"] == pytest.approx(truth, rel=0.01)
    assert found[0]["low"] < found[0]["value"] < found[0]["high"]
    same = run_json("predict", fit_file, "--params", "1e9", "--flops", 6 * 1e9 * 2e10)["predictions"]
    assert same[0]["value"] == pytest.approx(found[0]["value"])
    assert "predicted" in run("predict", fit_file, "--params", "1e9", "--tokens", "2e10")
    with pytest.raises(UsageError, match="needs --tokens"):
        run("predict", fit_file, "--params", "1e9")
    with pytest.raises(UsageError, match="'many' is not a number"):
        run("predict", fit_file, "--params", "many", "--tokens", "1")
    for words, said in (
        (("--params", "1e9", "--tokens", "2e10", "--flops", "1e20"), "two of --params, --tokens and --flops"),
        (("--params", "1.3B", "--tokens", "2e10"), r"--params '1.3B' is not a number; write 1.3e\+09"),
        (("--params", "-1", "--tokens", "2e10"), "--params -1 is not a positive number"),
        (("--params", "1e9", "--tokens", "2e10", "--x", "1"), "no column 'x'; its columns are params, tokens"),
        (("--params", "1e9", "--tokens", "2e10", "--column", "E"), "--column 'E' is not ROLE=VALUES"),
        (("--params", "1e9,2e9", "--tokens", "1,2,3"), "one each, or equally many"),
    ):
        with pytest.raises(UsageError, match=said):
            run("predict", fit_file, *words)


def test_predict_says_what_a_new_run_may_give_and_warns_beyond_the_data(fit_file: Path, csv: Path) -> None:
    table = pd.read_csv(csv)
    at = ("--params", ",".join(map(str, table["N"])), "--tokens", ",".join(map(str, table["D"])))
    found = run_json("predict", fit_file, *at)
    assert found["warnings"] == []
    rows = found["predictions"]
    assert all(row["observation_low"] < row["low"] < row["high"] < row["observation_high"] for row in rows)
    inside = [r["observation_low"] <= y <= r["observation_high"] for r, y in zip(rows, table["loss"], strict=True)]
    assert 0.88 <= np.mean(inside) <= 0.99
    beyond = run_json("predict", fit_file, "--params", "1e13", "--tokens", "2e10")["warnings"]
    assert len(beyond) == 1 and beyond[0].startswith("params 1e+13 lies outside the fitted rows")
    text = run("predict", fit_file, "--params", "1e13", "--tokens", "2e10")
    assert "95% low" in text and "warning: params 1e+13" in text


def test_predict_from_a_law_with_a_column_as_floor(tmp_path: Path) -> None:
    x = np.geomspace(1e15, 1e19, 12)
    path, out = tmp_path / "gfid.csv", tmp_path / "fit.json"
    rfid = np.repeat([2.0, 4.0], 6)
    pd.DataFrame({"C": x, "rfid": rfid, "gfid": rfid + 30 * (x / 1e15) ** -0.3}).to_csv(path, index=False)
    figure = tmp_path / "fit.PNG"
    run("fit", path, "--law", "power", "--flops", "C", "--metric", "gfid", "--floor", "rfid", "--bootstrap", 40,
        "--out", out, "--figure", figure)  # fmt: skip
    assert figure.read_bytes().startswith(b"\x89PNG")
    [one] = run_json("predict", out, "--flops", "1e17", "--column", "floor=3")["predictions"]
    assert one["value"] == pytest.approx(3 + 30 * 100**-0.3)
    with pytest.raises(UsageError, match="needs --column floor=VALUES; its columns are x, floor"):
        run("predict", out, "--flops", "1e17")


def test_few_clusters_give_no_interval_anywhere(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.json"
    base = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 60, "--out", out)
    assert "2 clusters are fewer than 6" in run(*base, "--cluster", "family")
    [one] = run_json("predict", out, "--params", "1e9", "--tokens", "2e10")["predictions"]
    assert one["value"] > 0
    assert one["low"] is one["high"] is one["observation_low"] is None
    [best] = run_json("optimum", "--fit", out, "--flops", "1e20")["optima"]
    assert best["params"]["value"] > 0
    assert best["params"]["low"] is None
    run(*base, "--cluster", "run")
    [one] = run_json("predict", out, "--params", "1e9", "--tokens", "2e10")["predictions"]
    assert one["low"] < one["value"]


def test_intervals_have_the_coverage_asked_for_everywhere(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.json"
    base = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 200, "--out", out)
    widths = []
    for interval in (0.5, 0.975):
        assert f"{100 * interval:g}% low" in run(*base, "--interval", interval)
        [best] = run_json("optimum", "--fit", out, "--flops", "1e20")["optima"]
        [at] = run_json("predict", out, "--params", "1e9", "--tokens", "2e10")["predictions"]
        widths.append((best["params"]["high"] - best["params"]["low"], at["high"] - at["low"]))
    assert all(wide > 2 * narrow for narrow, wide in zip(*widths, strict=True))
    assert "200 replicates leave 2.5 beyond each end" in run(*base, "--interval", 0.975)
    assert "beyond each end" not in run(*base, "--interval", 0.95)


@pytest.mark.parametrize(
    ("formula", "words"),
    [("D", "does not grow with N"), ("N", "does not grow with D"), ("min(N)", "only N, D"), ("log(N,D)", "only N, D"),
     ("log", "only N, D"), ("True*N*D", "only N, D"), ("1e400*N*D", "only N, D"), ("6*N*D*", "is not a formula"),
     ("-" * 5000 + "D", "5001 characters"), ("9**9**9**9*N*D", "does not grow"), ("6*N*D/0", "does not grow"),
     ("__import__('os')", "only N, D"), ("6ND", "is not a formula"), ("max(N, D, key=N)", "only N, D")],
)  # fmt: skip
def test_a_cost_that_is_none_is_an_error(fit_file: Path, formula: str, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=words):
            run("optimum", "--fit", fit_file, "--flops", "1e20", "--cost", formula)


def test_a_cost_without_an_inner_optimum_is_a_warning(fit_file: Path) -> None:
    [one] = run_json("optimum", "--fit", fit_file, "--flops", "1e20", "--cost", "log(N)*D")["optima"]
    assert any("end of the search" in warning for warning in one["warnings"])


def test_optimum(fit_file: Path) -> None:
    [one, two] = run_json("optimum", "--fit", fit_file, "--flops", "1e21,1e22")["optima"]
    assert 6 * one["params"]["value"] * one["tokens"]["value"] == pytest.approx(1e21)
    assert one["params"]["low"] < one["params"]["value"] < one["params"]["high"]
    assert two["loss"]["value"] < one["loss"]["value"]
    taxed = run_json("optimum", "--fit", fit_file, "--flops", "1e21", "--cost", "6*N*D+2e9*D")["optima"][0]
    assert not taxed["closed_form"]
    assert taxed["params"]["value"] > one["params"]["value"]
    assert "closed form" in run("optimum", "--fit", fit_file, "--flops", "1e21")
    with pytest.raises(UsageError, match="neither"):
        run("optimum", "--flops", "1e21")
    with pytest.raises(UsageError, match="both"):
        run("optimum", "fashion", "--fit", fit_file, "--flops", "1e21")
    with pytest.raises(UsageError, match="needs --flops"):
        run("optimum", "--fit", fit_file)
    with pytest.raises(UsageError, match="'unique_tokens' is not ROLE=VALUE"):
        run("optimum", "--fit", fit_file, "--flops", "1e21", "--column", "unique_tokens")


def test_optimum_under_the_cost_of_a_column_of_flops(csv: Path, tmp_path: Path) -> None:
    table = pd.read_csv(csv)
    table["real"] = 9.0 * table["N"] ** 0.97 * table["D"] ** 1.01
    table.to_csv(csv, index=False)
    out = tmp_path / "fit.json"
    base = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0, "--out", out)
    found = run_json(*base, "--flops", "real")
    assert found["cost"] == pytest.approx({"coefficient": 9.0, "params_power": 0.97, "tokens_power": 1.01})
    [one] = run_json("optimum", "--fit", out, "--flops", "1e21", "--cost", "column")["optima"]
    n, d = one["params"]["value"], one["tokens"]["value"]
    assert 9.0 * n**0.97 * d**1.01 == pytest.approx(1e21)
    assert one["closed_form"]
    run(*base)
    with pytest.raises(UsageError, match="--cost column"):
        run("optimum", "--fit", out, "--flops", "1e21", "--cost", "column")


STUDY = Path(__file__).parents[4] / "docs" / "studies" / "fashion"


def test_optimum_of_a_study_names_the_pair_to_train() -> None:
    found = run_json("optimum", STUDY, "--flops", "2e15,1e16")["optima"]
    assert [one["flops"] for one in found] == [2e15, 1e16]
    for one in found:
        assert one["pairs"] == sorted(one["pairs"], key=lambda p: p["gfid"])
        assert sum(p["probability"] for p in one["pairs"]) == pytest.approx(1, abs=1e-3)
        for p in one["pairs"]:
            assert p["low"] < p["gfid"] < p["high"]
        likely = max(one["pairs"], key=lambda p: p["probability"])
        assert one["best"] == f"{likely['family']} + {likely['size']}"
    text = run("optimum", STUDY)
    assert "best with probability" in text and "generator" in text
    assert text.count(" FLOPs: ") == 3
    with pytest.raises(UsageError, match="--cost belongs to --fit"):
        run("optimum", STUDY, "--flops", "1e15", "--cost", "6*N*D")
    with pytest.raises(TokenlawError):
        run("optimum", "no-such-study", "--flops", "1e15")


def test_validate(csv: Path) -> None:
    base = ("validate", csv, "--params", "N", "--tokens", "D", "--bootstrap", 60)
    [one, two] = run_json(*base, "--law", "chinchilla,kaplan", "--holdout-above", "3e19")["parts"]
    assert one["law"] == "chinchilla" and two["law"] == "kaplan"
    assert one["rmsle"] < two["rmsle"]
    assert 0 <= one["coverage"] <= 1
    [late] = run_json(*base, "--law", "chinchilla", "--holdout-column", "late")["parts"]
    assert (late["trained"], late["held"]) == (70, 10)
    assert len(run_json(*base, "--law", "chinchilla", "--group", "family")["parts"]) == 2
    assert len(run_json(*base, "--law", "chinchilla")["parts"]) == 4
    assert "RMSLE" in run(*base, "--law", "chinchilla")
    with pytest.raises(UsageError, match="one of"):
        run(*base, "--law", "chinchilla", "--group", "family", "--holdout-above", "1e19")


def test_compare(csv: Path) -> None:
    base = ("compare", csv, "--params", "N", "--tokens", "D")
    found = run_json(*base, "--laws", "kaplan,chinchilla")["laws"]
    assert [row["law"] for row in found] == ["chinchilla", "kaplan"]
    assert found[0]["holdout_rmsle"] < found[1]["holdout_rmsle"]
    assert "log-likelihood" in run(*base, "--laws", "kaplan,chinchilla")
    groups = run_json(*base, "--laws", "chinchilla", "--group", "family", "--bootstrap", 40)
    assert groups["shared"] == ["alpha", "beta"]
    assert 0.02 < groups["bootstrap_p_value"] <= 1
    assert "degrees of freedom" in run(*base, "--laws", "chinchilla", "--group", "family", "--bootstrap", 40)


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "not JSON"), ("[1]", "not an object"), ("{}", "'law' is missing"), ('{"law": "chinchilla"}', "is missing")],
)
def test_broken_fit_files(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "fit.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        run("predict", path, "--params", "1", "--tokens", "1")
    with pytest.raises(DataError, match="does not exist"):
        run("predict", tmp_path / "none.json", "--params", "1", "--tokens", "1")
