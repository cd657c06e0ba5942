"""The commands `store ...`: what they print, their exit codes, and errors in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from results import Store
from sweeps.cli.app import app

TABLE = "size,gFID,N,images\nS,9.5,1e6,1000\nM,8.5,2e6,1000\n"
MAPS = ("--map", "size=generator", "--map", "N=parameters_other")


class Line:
    """The command line on a root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "t.csv").write_text(TABLE)
        self.file = str(folder / "t.csv")

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["store", *words, "--root", str(self.folder / "root")])


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_import_compact_check_export(line: Line) -> None:
    done = line("import", line.file, "--source", "a paper", *MAPS)
    assert (done.exit_code, done.stdout) == (0, "2 runs added, 0 replaced, 0 there before; 2 rows added\n")
    assert "0 runs added, 0 replaced, 2 there before" in line("import", line.file, "--source", "a paper", *MAPS).stdout
    assert line("compact").stdout.startswith("0 sets merged, 0 folders removed; 2 sets in 1 segments, ")
    assert line("check").stdout == "2 sets checked, 0 damaged\n"
    out = line.folder / "new" / "all.csv"
    assert line("export", "--joined", "--out", str(out)).stdout == f"{out}\n"
    rows = list(csv.DictReader(out.open()))
    assert {(row["generator"], row["value"], row["parameters_other"], row["source"]) for row in rows} == {
        ("S", "9.5", "1000000", "a paper"), ("M", "8.5", "2000000", "a paper"),
    }  # fmt: skip
    folder = line.folder / "tables"
    assert len(line("export", "--out", str(folder), "--source", "a paper").stdout.splitlines()) == 3
    assert len(Store.open_folder(folder).finished()) == 2
    # The tables are taken under another root; here they are known.
    elsewhere = CliRunner().invoke(app, ["store", "import", str(folder), "--root", str(line.folder / "elsewhere")])
    assert elsewhere.stdout == "2 runs added, 0 there before; 2 rows added\n"
    assert line("import", str(folder)).stdout == "0 runs added, 2 there before; 0 rows added\n"
    refused = line("import", str(folder), "--stage", "run")
    assert refused.exit_code == 2 and refused.stderr.startswith("error: --stage is for a FILE; ")


def test_damage_in_a_segment_is_told_with_the_runs_that_are_lost(line: Line) -> None:
    line("import", line.file, *MAPS)
    (path,) = (line.folder / "root" / "store" / ".compacted").glob("segment-*/evaluations.parquet")
    path.write_bytes(b"x" * path.stat().st_size)
    found = line("check")
    assert found.exit_code == 1
    assert "its checksum differs" in found.stdout and found.stdout.endswith("2 sets checked, 1 damaged\n")
    assert "lost: the rows of 2 runs; submit runs them again" in found.stdout
    assert line("check").exit_code == 0
    assert "2 runs added" in line("import", line.file, *MAPS).stdout


def test_a_data_root_is_a_source_and_what_measured_nothing_is_not(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.folder)
    line("import", line.file, *MAPS)
    (line.folder / "empty").mkdir()
    done = CliRunner().invoke(app, ["report", "root", "--out", "report"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("\nNo gFID was measured at known FLOPs")
    assert (line.folder / "report" / "index.html").is_file()
    for source, message in (("empty", "is missing"), ("not/there", "is no folder and no TOML file; allowed: a study")):
        done = CliRunner().invoke(app, ["report", source])
        assert done.exit_code == 2 and source in done.stderr and message in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "FILE"], "t.csv has columns without a meaning here: size, N; --map COLUMN=NAME"),
        (["import", "FILE", "--map", "size"], "--map 'size' is not allowed; allowed: COLUMN=NAME"),
        (["import", "FILE", *MAPS, "--stage", "x"], "stage = 'x' is not allowed"),
        (["import", "none.csv"], "cannot read none.csv: No such file or directory"),
        (["export", "--out", "all", "--joined"], "--out all with --joined is one file; allowed: a name that ends in"),
        (
            ["export", "--out", "all", "--source", "x"],
            "source = 'x' is unknown; allowed: none: nothing was",
        ),
        (["export", "--out", "all", "--format", "xlsx"], "format = 'xlsx' is not allowed; allowed: parquet, csv"),
        (["prune", "no-such-study"], "no-such-study"),
    ],
)
def test_bad_usage_ends_with_one_line_and_exit_code_2(line: Line, words: list[str], message: str) -> None:
    done = line(*[line.file if word == "FILE" else word for word in words])
    assert done.exit_code == 2
    assert message in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (line.folder / "root" / "store").exists()


def test_prune_as_json(line: Line) -> None:
    assert json.loads(line("prune", "--json").stdout) == {"removed": False, "folders": []}
