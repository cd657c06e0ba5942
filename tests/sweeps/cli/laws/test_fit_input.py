"""Wrong input to the fitting commands: one line that names what is wrong, or a right answer."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from results.errors import DataError, TokenlawError, UsageError

from .fit_commands import run, run_json


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
    with pytest.raises(DataError, match=r"group 'alone': row 7 is the only row .* \(--where leaves groups out\)$"):
        run("fit", path, *base)
    with pytest.raises(UsageError) as wrong:  # no group's fault
        run("fit", path, *base, "--loss", "cubes")
    assert "group" not in str(wrong.value)
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
    from sweeps.cli.app import app as whole

    path = tmp_path / "negative.csv"
    path.write_text("N,D,loss\n1e6,1e9,3\n2e6,1e9,-1\n")
    words = ["fit", str(path), "--law", "chinchilla", "--params", "N", "--tokens", "D"]
    result = CliRunner().invoke(whole, words)
    assert result.exit_code == 2
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: row 1, column 'loss': -1 is not a positive number")
    assert result.stdout == ""
