"""All tables of a study, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.tokenizers.frames import StudyFrames
from results.errors import DataError

from .answer import Answer
from .derived_tables import crossing_detail_table, crossover_table, law_table, pair_table, regulariser_table
from .measured_tables import (
    exclusion_table,
    generator_table,
    guidance_table,
    protocol_table,
    run_table,
    tokenizer_table,
)
from .rendering import Table


def all_tables(frames: StudyFrames, answer: Answer) -> list[Table]:
    """Every table for which the study has data, in the order of the report."""
    found = [
        tokenizer_table(frames),
        crossover_table(answer),
        crossing_detail_table(answer),
        regulariser_table(answer),
        pair_table(answer),
        generator_table(frames),
        law_table(answer),
        guidance_table(frames),
        protocol_table(frames),
        exclusion_table(frames),
        run_table(frames),
    ]
    return [t for t in found if t is not None]


def table_named(tables: Sequence[Table], name: str) -> Table:
    """One of the tables. Raises DataError if the study has no such table."""
    for table in tables:
        if table.name == name:
            return table
    raise DataError(f"the study has no table {name!r}; it has {', '.join(t.name for t in tables)}")
