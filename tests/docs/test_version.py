"""The version is that of the file VERSION, wherever it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

HOME = Path(__file__).parents[2]
VERSION = (HOME / "VERSION").read_text(encoding="utf-8").strip()


def test_the_citation_has_it() -> None:
    stated = re.findall(r"^version: *\"?([^\"\s]+)", (HOME / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert stated == [VERSION], "CITATION.cff and VERSION differ"


def test_the_package_takes_it_from_there() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"file": "VERSION"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", VERSION)
