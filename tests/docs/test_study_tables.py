"""Tables of studies that the documentation prints are those that a report of the committed study writes."""

from __future__ import annotations

import pytest

from analysis.reporting.answer import answer
from analysis.reporting.tables.all_tables import all_tables
from analysis.tokenizers.frames import load

from .reader import HOME

SHOWN = [
    ("crt.md", "fashion-crt", "regulariser-forms"),
    ("crt.md", "unfinished/pictures-crt", "regulariser-forms"),
    ("quantizers.md", "quantizers-fashion", "tokenizers"),
    ("quantizers.md", "quantizers-pictures", "tokenizers"),
]


@pytest.mark.parametrize(("document", "study", "table"), SHOWN)
def test_table_is_that_of_the_report(document: str, study: str, table: str) -> None:
    frames = load(HOME / "docs" / "studies" / study)
    tables = {found.name: found for found in all_tables(frames, answer(frames))}
    rows = [line for line in tables[table].to_markdown().splitlines() if line.startswith("|")]
    assert "\n".join(rows) in (HOME / "docs" / document).read_text(encoding="utf-8")


def test_quoted_lines_are_sentences_of_the_reports() -> None:
    text = (HOME / "docs" / "study.md").read_text(encoding="utf-8")
    quoted = [line.removeprefix("> ") for line in text.splitlines() if line.startswith("> ")]
    said = [
        sentence
        for study in ("fashion", "fashion-crt")
        for sentence in answer(load(HOME / "docs" / "studies" / study)).sentences
    ]
    assert len(quoted) >= 7
    for line in quoted:
        assert any(line in sentence for sentence in said), line
