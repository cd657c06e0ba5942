"""The command fit, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.errors import FitError, UsageError

from .fit_commands import run, run_json


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
    alone, within = (one["parameters"]["alpha"]["value"] for one in (some, groups["VQ"]))
    assert alone == pytest.approx(within, rel=1e-9)  # side by side changes rounding alone
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


def test_rows_that_repeat_others_are_noted(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    table = pd.read_csv(csv)
    pd.concat([table, table.head(3)]).to_csv(path, index=False)
    base = ("--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    assert "note: 3 of 83 rows repeat an earlier one exactly (first: row 80)" in run("fit", path, *base)
    assert run_json("fit", csv, *base)["notes"] == []


def test_not_identified_prints_no_number(tmp_path: Path) -> None:
    path, out = tmp_path / "one.csv", tmp_path / "one.json"
    tokens = np.array([1e9, 4e9, 2e10])
    pd.DataFrame({"N": 1e8, "D": tokens, "loss": 1.7 + 2000 / tokens**0.37}).to_csv(path, index=False)
    text = run("fit", path, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0, "--out", out)
    assert "not identified" in text
    assert json.loads(out.read_text())["parameters"]["alpha"] == {"value": None, "se": None, "low": None, "high": None}
    with pytest.raises(FitError, match="alpha"):
        run("optimum", "--fit", out, "--flops", "1e20")


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
        "import sys; from sweeps.cli.app import app; from sweeps.record.memory import peak_memory\n"
        f"app(['fit', {str(path)!r}, '--law', 'chinchilla', '--params', 'N', '--tokens', 'D', '--json'],"
        " standalone_mode=False)\n"
        "print(peak_memory(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["status"] == "converged"
    assert found["parameters"]["alpha"]["value"] == pytest.approx(0.34, abs=5 * found["parameters"]["alpha"]["se"])
    assert any("too many to resample" in warning for warning in found["warnings"])
    assert int(done.stderr.strip().splitlines()[-1]) < 1.2e9


def test_importing_the_commands_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "scipy", "torch")
    code = f"import sys, sweeps.cli.laws.fit; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_fitting_never_imports_torch(csv: Path) -> None:
    code = (
        "import sys; from sweeps.cli.app import app\n"
        f"app(['fit', {str(csv)!r}, '--law', 'chinchilla', '--params', 'N', '--tokens', 'D', '--bootstrap', '40'],"
        " standalone_mode=False); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


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
