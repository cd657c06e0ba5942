"""tokenlaw figures: what is drawn and what is not, by name and of one's own; in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sweeps.cli.app import app

FASHION = str(Path(__file__).parents[3] / "docs" / "studies" / "fashion")
OWN = '''
def bits(rows, page):
    """Bits per pixel."""
    axis = page.axes()
    axis.loglog(rows["path_flops"], rows["bits_per_pixel"], "o")
    return axis
'''


def test_figures_by_name_and_of_ones_own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    chosen = ["--figure", "rate-distortion", "--figure", "samples", "--figure", f"{file}:bits"]
    command = ["figures", FASHION, "--out", str(tmp_path / "out"), *chosen]
    result = CliRunner().invoke(app, [*command, "--style", "icml", "--columns", "1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"2 figures in {tmp_path / 'out'} (pdf, csv, json, txt, tex)"
    assert lines[1:3] == ["  rate-distortion", "  bits"]
    assert lines[3:] == [
        "not drawn:",
        "  samples: no picture of a generator lies beside its rows (artifacts/RUN/preview.png)",
    ]
    as_json = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert list(as_json["drawn"]) == ["rate-distortion", "bits"] and list(as_json["not_drawn"]) == ["samples"]
    assert all(Path(path).is_file() for paths in as_json["drawn"].values() for path in paths)


def test_unknown_names_are_refused(tmp_path):
    result = CliRunner().invoke(app, ["figures", FASHION, "--out", str(tmp_path), "--figure", "rate"])
    assert result.exit_code == 2 and "figure = 'rate' is unknown; allowed: worse-is-better" in result.output
    result = CliRunner().invoke(app, ["figures", FASHION, "--out", str(tmp_path), "--columns", "3"])
    assert result.exit_code == 2 and "columns = 3 is not allowed; allowed: 1, 2" in result.output
