"""The commands fit, predict, optimum, validate and compare, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from results.errors import DataError, FitError, TokenlawError, UsageError
from sweeps.cli_fit import add_commands

app = typer.Typer()
add_commands(app)
runner = CliRunner()


@app.callback()
def _many_commands() -> None:
    """Keeps the app a group."""


def run(*words: object) -> str:
    result = runner.invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    params, tokens = np.exp(rng.uniform(16, 22, 80)), np.exp(rng.uniform(20, 26, 80))
    loss = 1.7 + 400 / params**0.34 + 2000 / tokens**0.37
    table = pd.DataFrame(
        {
            "N": params,
            "D": tokens,
            "C": 6 * params * tokens,
            "loss": loss * np.exp(0.005 * rng.normal(size=80)),
            "family": np.repeat(["VQ", "CRT"], 40),
            "run": np.arange(80) // 4,
            "times": rng.integers(1, 3, 80),
            "late": (np.arange(80) >= 70).astype(int),
        }
    )
    path = tmp_path / "points.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def fit_file(csv: Path, tmp_path: Path) -> Path:
    out = tmp_path / "fit.json"
    run(
        "fit",
        csv,
        "--law",
        "chinchilla",
        "--params",
        "N",
        "--tokens",
        "D",
        "--flops",
        "C",
        "--bootstrap",
        100,
        "--out",
        out,
    )
    return out


def test_fit_json_has_the_keys_that_it_promises(csv: Path) -> None:
    found = run_json("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 60)
    promised = "law status objective objective_mean gradient_norm starts starts_agreeing rows flagged"
    assert {*promised.split(), "parameters", "derived", "seconds"} <= set(found)
    assert found["status"] == "converged"
    assert found["rows"] == 80
    assert found["objective_mean"] == pytest.approx(found["objective"] / 80)
    assert set(found["parameters"]) == {"E", "A", "B", "alpha", "beta"}
    for e in [*found["parameters"].values(), *found["derived"].values()]:
        assert set(e) == {"value", "se", "low", "high"}
        assert e["low"] < e["value"] < e["high"]
    assert found["derived"]["a"]["value"] == pytest.approx(
        found["parameters"]["beta"]["value"]
        / (found["parameters"]["alpha"]["value"] + found["parameters"]["beta"]["value"])
    )


def test_fit_for_people_and_where_tokens_come_from(csv: Path) -> None:
    text = run("fit", csv, "--law", "chinchilla", "--params", "N", "--flops", "C", "--bootstrap", 60, "--drop-worst", 2)
    assert "D = C / (6 N)" in text
    assert "status: converged" in text
    assert "95% low" in text
    assert "flagged and left out: 2 rows" in text
    assert max(map(len, text.splitlines())) < 140


def test_json_goes_to_stdout_alone_and_is_the_file_without_draws(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.json"
    words = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 60, "--out", out)
    found, stored = run_json(*words), json.loads(out.read_text())
    assert len(stored.pop("draws")) == 60
    assert sorted(stored["noise"]) == stored.pop("noise")
    assert found == stored


def test_groups_clusters_weights_where_profile(csv: Path) -> None:
    base = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 60)
    groups = run_json(*base, "--group", "family")["groups"]
    assert set(groups) == {"VQ", "CRT"}
    assert [g["rows"] for g in groups.values()] == [40, 40]
    clustered = run_json(*base, "--cluster", "run")
    assert clustered["interval_method"] == "bootstrap over clusters"
    weighted = run_json(*base, "--weights", "times")
    assert weighted["parameters"]["alpha"]["value"] != clustered["parameters"]["alpha"]["value"]
    some = run_json(*base, "--where", "family == 'VQ'")
    assert some["parameters"]["alpha"]["value"] == groups["VQ"]["parameters"]["alpha"]["value"]
    profiled = run_json(*base, "--profile")
    assert profiled["interval_method"] == "profile likelihood"
    assert profiled["parameters"]["alpha"]["se"] is not None


@pytest.mark.parametrize("law", ["kaplan", "power"])
@pytest.mark.parametrize("loss", ["huber", "lad", "squares", "envelope"])
def test_every_loss_and_residual(csv: Path, law: str, loss: str) -> None:
    for residual in ("log", "raw"):
        names = ("--params", "N", "--tokens", "D") if law == "kaplan" else ("--x", "C")
        found = run_json("fit", csv, "--law", law, *names, "--loss", loss, "--residual", residual, "--bootstrap", 0)
        assert found["status"] in ("converged", "boundary")
        assert found["loss"]["kind"] == loss


def test_floors(tmp_path: Path) -> None:
    x = np.geomspace(1e15, 1e19, 10)
    path = tmp_path / "gfid.csv"
    pd.DataFrame({"C": x, "rfid": 2.21, "gfid": 2.21 + 30 * (x / 1e15) ** -0.6}).to_csv(path, index=False)
    base = ("fit", path, "--law", "power", "--flops", "C", "--metric", "gfid", "--bootstrap", 0)
    for floor in ("FREE", "2.21", "rfid"):
        found = run_json(*base, "--floor", floor)
        assert found["parameters"]["alpha"]["value"] == pytest.approx(0.6, rel=1e-6)
    assert run_json(*base, "--floor", 0)["parameters"]["alpha"]["value"] < 0.4
    for law, floor, words in (
        ("m4", "rfid", "law m4 takes FREE or a number"),
        ("m3", "rfid", "law m3 has no floor"),
        ("m1", "2", "law m1 has no floor"),
        ("m4", "-1", "e of law m4 is at least 0"),
        ("power", "nan", "'nan' is neither FREE nor a finite number"),
        ("m4", "inf", "'inf' is neither FREE nor a finite number"),
        ("power", "1e4", "row 0, column 'gfid': 32.21 is not above the floor 1e4, nor is any other row"),
    ):
        with pytest.raises(UsageError, match=words):
            run("fit", path, "--law", law, "--x", "C", "--metric", "gfid", "--floor", floor)
    some = run_json(*base, "--floor", "2.4")
    assert any("not above the floor" in note for note in some["notes"])
    assert run_json(*base, "--law", "m2", "--floor", "rfid")["formula"] == "L = floor + A x^-alpha"


def test_figures_are_written(csv: Path, tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        path = tmp_path / f"fit.{kind}"
        run("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 40, "--figure", path)
        assert path.stat().st_size > 10_000
    run(
        "fit", csv, "--law", "power", "--x", "C", "--group", "family", "--bootstrap", 40, "--figure", tmp_path / "g.png"
    )
    assert (tmp_path / "g-VQ.png").exists() and (tmp_path / "g-CRT.png").exists()


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


def test_rows_that_repeat_others_are_noted(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    table = pd.read_csv(csv)
    pd.concat([table, table.head(3)]).to_csv(path, index=False)
    base = ("--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    assert "note: 3 of 83 rows repeat an earlier one exactly (first: row 80)" in run("fit", path, *base)
    assert run_json("fit", csv, *base)["notes"] == []


@pytest.mark.parametrize("command", ["fit", "validate", "compare"])
def test_a_group_without_a_name_is_an_error_and_no_silent_loss(csv: Path, tmp_path: Path, command: str) -> None:
    path = tmp_path / "unnamed.csv"
    table = pd.read_csv(csv)
    table.loc[7, "family"] = None
    table.to_csv(path, index=False)
    law = "--laws" if command == "compare" else "--law"
    with pytest.raises(DataError, match="row 7, column 'family': empty"):
        run(command, path, law, "chinchilla", "--params", "N", "--tokens", "D", "--group", "family")


def test_a_group_of_one_row_is_named(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "alone.csv"
    table = pd.read_csv(csv)
    table.loc[7, "family"] = "alone"
    table.to_csv(path, index=False)
    base = ("--law", "chinchilla", "--params", "N", "--tokens", "D", "--group", "family", "--bootstrap", 0)
    with pytest.raises(DataError, match="group 'alone': row 7 is the only row"):
        run("fit", path, *base)
    assert set(run_json("fit", path, *base, "--where", "family != 'alone'")["groups"]) == {"VQ", "CRT"}
    held = run_json("validate", path, *base)["parts"]
    assert {part["name"]: part["held"] for part in held}["without alone"] == 1


def test_names_in_any_script_and_with_spaces(csv: Path, tmp_path: Path) -> None:
    names = {"N": "Größe der Modelle (N)", "D": "tokens seen, total", "loss": "损失"}
    path, figure = tmp_path / "punkte.csv", tmp_path / "bild.png"
    pd.read_csv(csv).rename(columns=names).to_csv(path, index=False)
    base = ("fit", path, "--law", "chinchilla", "--params", names["N"], "--tokens", names["D"], "--metric", "损失")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(*base, "--bootstrap", 0, "--figure", figure)
    some = run_json(*base, "--bootstrap", 0, "--where", "`Größe der Modelle (N)` > 1e8 and 损失 < 3")
    assert 10 < some["rows"] < 80


@pytest.mark.parametrize(
    "expression",
    ["1", "True", "N", "N + D", "N[0] > 1", "family = 'VQ'", "family = 3", "", " ", "nosuch > 1", "N.abs() > 1",
     "family > 3", "lambda: 1", "run"],
)  # fmt: skip
def test_what_is_no_condition_is_an_error(csv: Path, expression: str) -> None:
    with pytest.raises(UsageError, match="where=") as caught:
        run("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--where", expression)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "--law", "chinchilla", "--column", "token=D"), "takes no 'token'; it takes params, tokens"),
        (("fit", "--law", "chinchilla", "--seed", "-1"), "--seed -1 is negative"),
        (("fit", "--law", ","), "no law is named"),
        (("validate", "--law", "chinchilla", "--interval", "95"), "--interval 95.0 is not between 0 and 1"),
        (("validate", "--law", "chinchilla", "--bootstrap", "1"), "--bootstrap 1 is neither"),
        (("validate", "--law", "chinchilla", "--windows", "-2"), "windows=-2 is not at least 1"),
        (("validate", "--law", "chinchilla", "--seed", "-1"), "--seed -1 is negative"),
        (("compare", "--laws", ""), "no law is named"),
        (("compare", "--laws", "chinchilla", "--group", "family", "--bootstrap", "0"), "--bootstrap 0 is not at least"),
        (("compare", "--laws", "chinchilla,kaplan", "--group", "family"), "takes one law, not 2"),
        (("compare", "--laws", "chinchilla", "--shared", "alpha"), "--shared belongs to --group"),
    ],
)
def test_options_that_make_no_sense(csv: Path, words: tuple[str, ...], said: str) -> None:
    command, *rest = words
    with pytest.raises(UsageError, match=said):
        run(command, csv, "--params", "N", "--tokens", "D", *rest)


def test_outputs_are_checked_before_the_fit(csv: Path, tmp_path: Path) -> None:
    base = ("fit", csv, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    (tmp_path / "folder.json").mkdir()
    for option, name, words in (
        ("--out", "folder.json", "cannot be written"),
        ("--out", "none/fit.json", "the folder does not exist"),
        ("--out", "fit.txt", "does not end in .json"),
        ("--figure", "fit.gif", "does not end in .pdf or .png or .svg"),
    ):
        with pytest.raises(UsageError, match=words):
            run(*base, option, tmp_path / name)
    (tmp_path / "fit.json").write_text("an older fit")
    run(*base, "--out", tmp_path / "fit.json")
    assert json.loads((tmp_path / "fit.json").read_text())["law"] == "chinchilla"


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


STUDY = Path(__file__).parents[2] / "docs" / "studies" / "fashion"


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
    assert text.count("FLOPs: ") == 3
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


def test_not_identified_prints_no_number(tmp_path: Path) -> None:
    path, out = tmp_path / "one.csv", tmp_path / "one.json"
    tokens = np.array([1e9, 4e9, 2e10])
    pd.DataFrame({"N": 1e8, "D": tokens, "loss": 1.7 + 2000 / tokens**0.37}).to_csv(path, index=False)
    text = run("fit", path, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0, "--out", out)
    assert "not identified" in text
    assert json.loads(out.read_text())["parameters"]["alpha"] == {"value": None, "se": None, "low": None, "high": None}
    with pytest.raises(FitError, match="alpha"):
        run("optimum", "--fit", out, "--flops", "1e20")


BAD: list[tuple[str, str, list[str], type[TokenlawError], str]] = [
    ("", "empty.csv", [], DataError, "is empty"),
    ("N,D,loss\n", "header.csv", [], DataError, "no rows"),
    ("N,loss\n1e6,3\n2e6,2\n", "missing.csv", [], DataError, "column 'D' is missing"),
    ("N,D,loss\n1e6,1e9,3\n2e6,lots,2\n", "text.csv", [], DataError, "row 1, column 'D': 'lots' is not a number"),
    ("N,D,loss\n1e6,1e9,3\n2e6,1e9,0\n", "zero.csv", [], DataError, "row 1, column 'loss': 0 is not a positive"),
    ("N,D,loss\n1e6,1e9,3\n2e6,1e9,-1\n", "negative.csv", [], DataError, "row 1, column 'loss': -1 is not a positive"),
    ("N,D,loss\n1e6,1e9,3\n2e6,1e9,\n", "nan.csv", [], DataError, "row 1, column 'loss': nan"),
    ("N,D,loss\n1e6,1e9,3\n2e6,inf,2\n", "inf.csv", [], DataError, "row 1, column 'D': inf"),
    ("N,D,loss\n1e6,1e9,3\n", "one.csv", [], DataError, "row 0 is the only row"),
    ("N,D,loss\n" + "1e6,1e9,3\n" * 5, "equal.csv", [], DataError, "in every one of 5 rows"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "law.csv", ["--law", "chinchila"], UsageError, "chinchila"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "loss.csv", ["--loss", "l1"], UsageError, "loss='l1'"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "delta.csv", ["--delta", "-1"], UsageError, "delta"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "where.csv", ["--where", "N >"], UsageError, "where="),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "drop.csv", ["--drop-worst", "2"], UsageError, "drop-worst=2"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "interval.csv", ["--interval", "95"], UsageError, "--interval 95"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "draws.csv", ["--bootstrap", "5"], UsageError, "--bootstrap 5"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "figure.csv", ["--figure", "a.bmp"], UsageError, "--figure 'a.bmp'"),
    ("N,D,loss\n1e6,1e9,3\n2e6,2e9,2\n", "group.csv", ["--group", "kind"], DataError, "column 'kind' is missing"),
]


@pytest.mark.parametrize(("content", "name", "options", "error", "words"), BAD, ids=[case[1] for case in BAD])
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, content: str, name: str, options: list[str], error: type[TokenlawError], words: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    law = [] if "--law" in options else ["--law", "chinchilla"]
    with pytest.raises(error) as caught:
        run("fit", path, *law, "--params", "N", "--tokens", "D", *options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


PARQUET: list[tuple[str, dict[str, Any], str]] = [
    ("text", {"loss": ["3", "low", "2"]}, "row 1, column 'loss': 'low' is not a number"),
    ("null", {"loss": [3.0, None, 2.0]}, "row 1, column 'loss': nan is not a finite number"),
    ("inf", {"N": [1e6, np.inf, 3e6]}, "row 1, column 'N': inf is not a finite number"),
    ("zero", {"D": [1e9, 2e9, 0.0]}, "row 2, column 'D': 0 is not a positive number"),
    ("list", {"loss": [[3.0], [2.5], [2.0]]}, "row 0, column 'loss'"),
    ("no rows", {"N": [], "D": [], "loss": []}, "no rows"),
    ("negative", {"loss": [3.0, -2.5, 2.0]}, "row 1, column 'loss': -2.5 is not a positive number"),
    ("one row", {"N": [1e6], "D": [1e9], "loss": [3.0]}, "row 0 is the only row"),
    ("all equal", {"N": [1e6] * 3, "D": [1e9] * 3, "loss": [3.0] * 3}, "in every one of 3 rows"),
    ("other name", {"Loss": [3.0, 2.5, 2.2], "loss": None}, "metric is not named; the data have: N, D, Loss"),
    ("no column", {"tokens": [1e9, 2e9, 4e9], "D": None}, "column 'D' is missing; the data have: N, loss, tokens"),
    ("thousands", {"N": ["1,000", "2,000", "3,000"]}, "row 0, column 'N': '1,000' is not a number"),
    ("units", {"N": ["1M", "2M", "1.3B"]}, "row 0, column 'N': '1M' is not a number"),
    ("dates", {"N": pd.date_range("2026-01-01", periods=3)}, "row 0, column 'N'"),
    ("missing integer", {"N": pd.array([1, None, 3], dtype="Int64")}, "row 1, column 'N'"),
]


@pytest.mark.parametrize(("changed", "words"), [case[1:] for case in PARQUET], ids=[case[0] for case in PARQUET])
def test_bad_parquet_names_row_and_column(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    path = tmp_path / "points.parquet"
    columns = {"N": [1e6, 2e6, 3e6], "D": [1e9, 2e9, 4e9], "loss": [3.0, 2.5, 2.2], **changed}
    pd.DataFrame({name: values for name, values in columns.items() if values is not None}).to_parquet(path)
    with pytest.raises(UsageError) as caught:
        run("fit", path, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_empty_or_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "points.parquet"
    path.touch()
    with pytest.raises(DataError, match=r"points\.parquet' is empty"):
        run("fit", path, "--law", "power", "--x", "N")
    path.write_bytes(b"PAR1 but nothing else")
    with pytest.raises(DataError, match=r"cannot be read as \.parquet"):
        run("fit", path, "--law", "power", "--x", "N")


def test_float32_parquet_is_answered(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "points.parquet"
    table = pd.read_csv(csv)
    table[["N", "D", "loss"]].astype("float32").to_parquet(path)
    base = ("--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    single, double = run_json("fit", path, *base), run_json("fit", csv, *base)
    assert single["parameters"]["alpha"]["value"] == pytest.approx(double["parameters"]["alpha"]["value"], rel=1e-4)


def test_the_command_itself_ends_bad_input_in_one_line(tmp_path: Path) -> None:
    from sweeps.cli import app as whole

    path = tmp_path / "negative.csv"
    path.write_text("N,D,loss\n1e6,1e9,3\n2e6,1e9,-1\n")
    words = ["fit", str(path), "--law", "chinchilla", "--params", "N", "--tokens", "D"]
    result = CliRunner().invoke(whole, words)
    assert result.exit_code == 2
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: row 1, column 'loss': -1 is not a positive number")
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_million_rows_through_the_command_line_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    params, tokens = np.exp(rng.uniform(16, 22, n)), np.exp(rng.uniform(20, 26, n))
    loss = (1.7 + 400 / params**0.34 + 2000 / tokens**0.37) * np.exp(0.01 * rng.normal(size=n))
    table = pd.DataFrame({"N": params, "D": tokens, "loss": loss})
    path = tmp_path / f"points.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    code = (
        "import resource, sys; from sweeps.cli import app\n"
        f"app(['fit', {str(path)!r}, '--law', 'chinchilla', '--params', 'N', '--tokens', 'D', '--json'],"
        " standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["status"] == "converged"
    assert found["parameters"]["alpha"]["value"] == pytest.approx(0.34, abs=5 * found["parameters"]["alpha"]["se"])
    assert any("too many to resample" in warning for warning in found["warnings"])
    assert int(done.stderr.strip().splitlines()[-1]) < 1_200_000  # kilobytes


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


def test_importing_the_commands_imports_nothing_heavy() -> None:
    code = "import sys, sweeps.cli_fit; print([m for m in ('numpy', 'pandas', 'scipy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_fitting_never_imports_torch(csv: Path) -> None:
    code = (
        "import sys, typer; from sweeps.cli_fit import add_commands; app = typer.Typer(); add_commands(app)\n"
        f"app(['fit', {str(csv)!r}, '--law', 'chinchilla', '--params', 'N', '--tokens', 'D', '--bootstrap', '40'],"
        " standalone_mode=False); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def _documented_law() -> str:
    """The law of one's own that docs/fitting.md shows, as written."""
    text = (Path(__file__).parents[2] / "docs" / "fitting.md").read_text(encoding="utf-8")
    [block] = [b.partition("```")[0] for b in text.split("```python\n")[1:] if "class CodebookLaw" in b]
    return block


@pytest.fixture
def own_law(tmp_path: Path) -> Iterator[Path]:
    from analysis.laws import LAWS

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
    words = [sys.executable, "-c", "from sweeps.cli import main; main()"]
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
        ("from analysis.laws import Chinchilla\nclass Mine(Chinchilla): pass", "Mine", "exists already"),
        ("from analysis.formula import Law\nclass Mine(Law): pass", "Mine", "TypeError"),
        ("from analysis.laws import Kaplan\nclass Mine(Kaplan):\n    name = 'My_Law'", "Mine", "'My_Law' is not"),
    ],
)
def test_a_file_without_a_law(csv: Path, tmp_path: Path, content: str | None, name: str, words: str) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=words) as caught:
        run("fit", csv, "--law", f"{path}:{name}", "--params", "N", "--tokens", "D")
    assert "\n" not in str(caught.value)


def test_an_interval_end_at_the_end_of_what_the_law_allows_is_open(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 1e3, 40)
    path = tmp_path / "flat.csv"
    pd.DataFrame({"x": x, "loss": 2 * np.exp(0.02 * rng.normal(size=40))}).to_csv(path, index=False)
    found = run_json("fit", path, "--law", "m1", "--x", "x", "--bootstrap", 400)
    assert found["parameters"]["alpha"]["low"] is None
    assert found["parameters"]["alpha"]["high"] > found["parameters"]["alpha"]["value"]
    if found["status"] == "converged":
        assert any("alpha reach the end" in warning for warning in found["warnings"])
