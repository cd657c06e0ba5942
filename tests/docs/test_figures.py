"""docs/figures.md is the gallery as it is now, with its pictures small."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from analysis.reporting.figures.registry import from_file

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def page(monkeypatch):
    specification = importlib.util.spec_from_file_location("docs_figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "docs_figures", module)
    specification.loader.exec_module(module)
    return module.gallery()


def test_the_gallery_is_that_of_the_code(page):
    assert (DOCS / "figures.md").read_text(encoding="utf-8") == page, "write it anew: python docs/figures.py"


def test_pictures_are_shown_and_small(page):
    pictures = sorted((DOCS / "pictures" / "figures").glob("*.png"))
    assert len(pictures) > 20 and sum(path.stat().st_size for path in pictures) < 400_000
    assert all(f"(pictures/figures/{path.name})" in page for path in pictures)


def test_the_figure_of_ones_own_that_the_page_shows_is_one(page, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(page.split("```python\n")[1].split("```")[0])
    plot = from_file(f"{file}:quality_by_size")
    assert plot.needs == ("gfid", "parameters_other") and plot.summary.startswith("gFID against parameters")
