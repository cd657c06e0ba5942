"""Files as people have them, given to the commands: each is read as meant, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results.errors import DataError, UsageError

from .fit_commands import run, run_json

LAW = ("--law", "chinchilla", "--bootstrap", 0)
COLUMNS = ("--params", "N", "--tokens", "D")


def values(document: Any) -> dict[str, float]:
    return {name: estimate["value"] for name, estimate in document["parameters"].items()}


@pytest.fixture
def known(csv: Path) -> dict[str, float]:
    return values(run_json("fit", csv, *LAW, *COLUMNS))


@pytest.mark.parametrize("form", ["trailing", "semicolon", "decimal", "json", "jsonl", "index", "zst"])
def test_every_form_gives_the_fit_of_the_plain_file(
    csv: Path, tmp_path: Path, known: dict[str, float], form: str
) -> None:
    table = pd.read_csv(csv)
    path = tmp_path / f"table.{form if form in ('json', 'jsonl') else 'csv'}"
    if form == "trailing":
        header, *rows = csv.read_text().splitlines()
        path.write_text("\n".join([header, *(row + "," for row in rows)]))
    elif form in ("semicolon", "decimal"):
        table.to_csv(path, sep=";", index=False, decimal="," if form == "decimal" else ".")
    elif form in ("json", "jsonl"):
        table.to_json(path, orient="records", lines=form == "jsonl", double_precision=15)
    elif form == "index":
        path = path.with_suffix(".parquet")
        table.set_index(["N", "D"]).to_parquet(path)
    else:
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(csv.read_bytes())
    assert values(run_json("fit", path, *LAW, *COLUMNS)) == pytest.approx(known, rel=1e-5)


def test_a_name_that_occurs_twice_is_an_error_where_it_is_used(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text(csv.read_text().replace("times", "loss", 1))
    with pytest.raises(DataError, match="column 'loss' occurs more than once"):
        run("fit", path, *LAW, *COLUMNS)
    run("fit", path, "--law", "power", "--x", "N", "--metric", "D")  # every other column is as it was


def test_units_and_arithmetic(csv: Path, tmp_path: Path, known: dict[str, float]) -> None:
    table = pd.read_csv(csv)
    table["size"], table["worse"] = [f"{n / 1e6:.17g}M" for n in table["N"]], -table["loss"]
    path = tmp_path / "units.csv"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"row 0, column 'size': '.*M' is not a number \(--units reads it as"):
        run("fit", path, *LAW, "--params", "size", "--tokens", "D")
    words = ("--params", "size", "--tokens", "D*1e9/10^9", "--metric", "0 - worse")
    document = run_json("fit", path, *LAW, *words, "--units")
    assert values(document) == pytest.approx(known, rel=1e-5)
    assert any("80 of 80 values of 'size'" in note for note in document["notes"])
    assert "note: --units: 80 of 80" in run("validate", path, *LAW, *words, "--units", "--windows", 1)
    with pytest.raises(UsageError, match=r"no column 'wors', at character 5: 0 - \[wors\]; the data have: N, D"):
        run("fit", path, *LAW, *COLUMNS, "--metric", "0 - wors")
    held = run_json("validate", path, *LAW, *COLUMNS, "--holdout-column", "late*2")["parts"]
    assert held[0]["held"] == 10


def test_rows_with_holes_are_left_out_on_demand_and_said(csv: Path, tmp_path: Path) -> None:
    table = pd.read_csv(csv)
    table.loc[3, "loss"], table.loc[5, "D"] = None, 0
    path = tmp_path / "holes.csv"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"row 3, column 'loss': nan .*\(--skip-missing leaves such rows out\)"):
        run("fit", path, *LAW, *COLUMNS)
    note = "left out 2 of 80 rows: 1 where 'loss' is empty or NaN, 1 where 'D' is 0"
    for words in (
        ("fit", path, *LAW, *COLUMNS),
        ("validate", path, *LAW, *COLUMNS, "--windows", 1),
        ("compare", path, "--laws", "chinchilla", *COLUMNS),
    ):
        assert f"note: {note}\n" in run(*words, "--skip-missing")
        assert note in run_json(*words, "--skip-missing")["notes"]


def test_groups_are_named_as_numbers(csv: Path, tmp_path: Path) -> None:
    table = pd.read_csv(csv)
    table["budget"] = [1e18] * 40 + [3e18] * 40
    table.to_csv(tmp_path / "groups.csv", index=False)
    out = tmp_path / "fit.json"
    run("fit", tmp_path / "groups.csv", *LAW, *COLUMNS, "--group", "budget", "--out", out)
    assert set(json.loads(out.read_text())["groups"]) == {"1e+18", "3e+18"}
    at = ("--params", "1e8", "--tokens", "1e9")
    assert run("predict", out, *at, "--group", "1e18") == run("predict", out, *at, "--group", "1e+18")
    assert "FLOPs" in run("optimum", "--fit", out, "--flops", "1e19", "--group", "3000000000000000000")
    with pytest.raises(UsageError, match=r"--group '2e18' is not one of the file's: 1e\+18, 3e\+18"):
        run("predict", out, *at, "--group", "2e18")


def test_isoflop_takes_arithmetic_and_leaves_holes_out(tmp_path: Path) -> None:
    rows = []
    for budget in (1e18, 1e19, 1e20):
        for share in (0.2, 0.5, 1, 2, 5):
            n = share * (budget / 120) ** 0.5
            rows.append((n / 1e6, budget, 1.8 + 400 / n**0.34 + 410 / (budget / 6 / n) ** 0.28))
    table = pd.DataFrame(rows, columns=["mparams", "C", "loss"])
    table.loc[len(table)] = [5.0, 1e18, None]
    table.to_csv(tmp_path / "iso.csv", index=False)
    words = ("isoflop", tmp_path / "iso.csv", "--params", "mparams*1e6", "--flops", "C")
    with pytest.raises(DataError, match="row 15, column 'loss'"):
        run(*words)
    assert "note: left out 1 of 16 rows: 1 where 'loss' is empty or NaN" in run(*words, "--skip-missing")
