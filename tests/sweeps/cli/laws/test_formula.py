"""Laws typed as formulas on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.errors import UsageError

from .fit_commands import run, run_json, write_points

FORMULA = "E + A/n^alpha + B/d^beta"
COLUMNS = ("--column", "n=N", "--column", "d=D")


def test_fit_and_what_follows(tmp_path: Path) -> None:
    points, out = write_points(tmp_path / "points.csv"), tmp_path / "fit.json"
    fitted = run_json(
        "fit", points, "--law", FORMULA, *COLUMNS, "--bootstrap", 40, "--out", out, "--figure", tmp_path / "f.svg"
    )
    right = run_json("fit", points, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    assert fitted["objective"] == pytest.approx(right["objective"], rel=1e-9)
    at = run_json("predict", out, "--column", "n=1e9", "--column", "d=2e10")["predictions"][0]
    assert at["low"] < at["value"] < at["high"]
    assert (tmp_path / "f.svg").stat().st_size > 1000
    assert "converged" in run("validate", points, "--law", FORMULA, *COLUMNS, "--bootstrap", 0)
    compared = run("compare", points, "--laws", f"chinchilla,{FORMULA}", "--params", "N", "--tokens", "D", *COLUMNS)
    assert FORMULA in compared


def test_names_that_agree(tmp_path: Path) -> None:
    points = write_points(tmp_path / "points.csv")
    fitted = run_json(
        "fit", points, "--law", "E + A/N^alpha", "--column", "N", "--bootstrap", 0, "--bound", "alpha=0:0.2"
    )
    assert fitted["parameters"]["alpha"]["value"] <= 0.2


def test_fix_and_tie(tmp_path: Path) -> None:
    points = write_points(tmp_path / "points.csv")
    common = ("fit", points, "--law", "chinchilla", "--params", "N", "--tokens", "D", "--bootstrap", 0)
    fixed = run_json(*common, "--fix", "A=406.4", "--fix", "alpha=0.34")
    assert fixed["parameters"]["A"]["value"] == pytest.approx(406.4)
    tied = run_json(*common, "--tie", "alpha=beta")
    assert "alpha" not in tied["parameters"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--law", "E + A/N^alpha"), r"'N' is a column of the data.*E \\+ A/\\[N\\]\\^alpha"),
        (("--law", "E + A/n^alpha"), "is a column"),
        (("--law", "E + A/n^", *COLUMNS[:2]), "missing"),
        (("--law", "E + foo(n)", *COLUMNS[:2]), "unknown function"),
        (("--law", "E + A/n^alpha", *COLUMNS[:2], "--bound", "alpha"), "NAME=LOWER:UPPER"),
        (("--law", "E + A/n^alpha", *COLUMNS[:2], "--fix", "q=1"), "no parameter 'q'"),
        (("--law", "E + A/n^alpha", *COLUMNS[:2], "--fix", "A=x"), "not a number"),
        (("--law", "E + A/n^alpha", *COLUMNS[:2], "--tie", "A=q"), "no parameter 'q'"),
        (("--law", "power", "--x", "N", "--bound", "alpha=0:1"), "bounds of its own"),
    ],
)
def test_wrong_requests(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    points = write_points(tmp_path / "points.csv")
    with pytest.raises(UsageError, match=words.replace("\\\\", "\\")) as caught:
        run("fit", points, *options)
    assert "\n" not in str(caught.value)


def test_figures_and_report_of_groups(tmp_path: Path) -> None:
    points, report = write_points(tmp_path / "points.csv"), tmp_path / "fit.md"
    options = (
        "--column",
        "n=N",
        "--group",
        "family",
        "--bootstrap",
        40,
        "--figure",
        tmp_path / "g.svg",
        "--beyond",
        10,
    )
    printed = run(
        "fit", points, "--law", "E + A/n^alpha", *options, "--report", report, "--style", "neurips", "--width", 3.25
    )
    assert {"g.svg", "g-VQ.svg", "g-CRT.svg"} <= {path.name for path in tmp_path.iterdir()}
    assert f"wrote {report}" in printed
    for name in ("g.svg", "g-VQ.svg"):
        assert f'width="{3.25 * 72:g}pt"' in (tmp_path / name).read_text()
    with pytest.raises(UsageError, match=r"--width 0\.2 is not between 1 and 50 inches"):
        run("fit", points, "--law", "power", "--x", "N", "--width", 0.2)
    text = report.read_text()
    assert "# Group CRT" in text
    assert "`L = E + A/n^alpha`" in text
    assert "starts" in text
    assert "(to be told by the authors)" in text
    with pytest.raises(UsageError, match=r"--beyond 0\.5"):
        run("fit", points, "--law", "power", "--x", "N", "--beyond", 0.5)
