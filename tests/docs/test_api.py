"""docs/api.md is what the docstrings of the public names say now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    pytest.importorskip("pdoc", reason="the page is written with it")
    spec = importlib.util.spec_from_file_location("docs_api", DOCS / "api.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.render()
    assert "### Store" in page
    assert (DOCS / "api.md").read_text(encoding="utf-8") == page, "write it anew: python docs/api.py"
