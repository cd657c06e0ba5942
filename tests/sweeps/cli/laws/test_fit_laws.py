"""Fits of rising, negative and scheduled quantities as they are typed, and optima from what their files know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sweeps.cli.app import app as whole
from sweeps.cli.entry import main

from .fit_commands import run, run_json


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    c = np.geomspace(1e17, 1e21, 12)
    path = tmp_path / "rising.csv"
    table = {"C": c, "N_opt": 0.11 * c**0.5, "accuracy": 0.8 - 40 * c**-0.12, "nll": -2 + 30 * c**-0.1}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_a_falling_law_of_a_rising_metric_is_one_sentence(
    rising: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tokenlaw", "fit", str(rising), "--law", "power", "--x", "C", "--metric", "N_opt"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.count("\n") == 1
    assert "law power only falls with x, but 'N_opt' rises with 'C'" in error and "law product" in error


def test_rising_and_negative_metrics(rising: Path, tmp_path: Path) -> None:
    base = ("fit", rising, "--x", "C", "--bootstrap", "0")
    product = run_json(*base, "--law", "product", "--metric", "N_opt", "--out", tmp_path / "n.json")
    assert product["parameters"]["a"]["value"] == pytest.approx(0.5)
    [one] = run_json("predict", tmp_path / "n.json", "--x", "1e24")["predictions"]
    assert one["value"] == pytest.approx(0.11e12)
    accuracy = run_json(*base, "--law", "signed-power", "--metric", "accuracy")
    assert accuracy["parameters"]["E"]["value"] == pytest.approx(0.8)
    negative = run_json(*base, "--law", "power", "--metric", "nll", "--residual", "raw", "--out", tmp_path / "e.json")
    assert negative["parameters"]["E"]["value"] == pytest.approx(-2) and negative["law_options"]["signed_floor"]
    [one] = run_json("predict", tmp_path / "e.json", "--x", "1e24")["predictions"]
    assert one["value"] == pytest.approx(-2 + 30 * 1e24**-0.1)


def test_optimum_by_the_measured_cost(csv: Path, tmp_path: Path) -> None:
    table = pd.read_csv(csv)
    table["C"] = 13.2 * table["N"] * table["D"]
    table.to_csv(csv, index=False)
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
        "0",
        "--out",
        out,
    )
    shown = run("optimum", "--fit", out, "--flops", "1e22")
    assert "cost: C = 13.2 N D (through the FLOPs of the fitted rows" in shown
    [measured] = run_json("optimum", "--fit", out, "--flops", "1e22")["optima"]
    assert measured["cost_source"] == "measured"
    assert 13.2 * measured["params"]["value"] * measured["tokens"]["value"] == pytest.approx(1e22)
    [given] = run_json("optimum", "--fit", out, "--flops", "1e22", "--cost", "6*N*D")["optima"]
    assert any("2.2 times" in warning for warning in given["warnings"])


def test_the_best_vocabulary(tmp_path: Path) -> None:
    n, v, d = np.exp(np.random.default_rng(2).uniform([[17], [14], [20]], [[22], [19], [25]], (3, 60)))
    table = pd.DataFrame({"Nnv": n, "Nv": v, "D": d, "loss": -5 + 400 / n**0.34 + 60 / v**0.25 + 900 / d**0.33})
    table.to_csv(tmp_path / "v.csv", index=False)
    out = tmp_path / "fit.json"
    columns = ("--column", "params_non_vocabulary=Nnv", "--column", "params_vocabulary=Nv", "--tokens", "D")
    run(
        "fit",
        tmp_path / "v.csv",
        "--law",
        "vocabulary",
        *columns,
        "--residual",
        "raw",
        "--bootstrap",
        "0",
        "--out",
        out,
    )
    [best] = run_json("optimum", "--fit", out, "--flops", "1e21")["optima"]
    spent = 6 * (best["params"]["value"] + best["params_vocabulary"]["value"]) * best["tokens"]["value"]
    assert spent == pytest.approx(1e21)
    assert "Nv*" in run("optimum", "--fit", out, "--flops", "1e21")
    [given] = run_json("optimum", "--fit", out, "--flops", "1e21", "--column", "params_vocabulary=1e8")["optima"]
    assert "params_vocabulary" not in given


def test_laws_are_listed_in_help() -> None:
    shown = CliRunner().invoke(whole, ["fit", "--help"], env={"COLUMNS": "200"}).output
    for name in ("product", "signed-power", "logistic", "routed", "farseer", "multi-power", "SIGNED"):
        assert name in shown
