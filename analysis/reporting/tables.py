"""All tables of a study, in the order of the report."""

from __future__ import annotations

from analysis.tokenizers.frames import StudyFrames

from .answer import Answer
from .derived_tables import crossing_detail_table, crossover_table, law_table, pair_table, regulariser_table
from .measured_tables import (
    exclusion_table,
    generator_table,
    guidance_table,
    own_table,
    protocol_table,
    run_table,
    tokenizer_table,
)
from .rendering import Table


def all_tables(frames: StudyFrames, answer: Answer) -> list[Table]:
    """Every table for which the study has data, in the order of the report."""
    derived = [make(answer) for make in (crossover_table, crossing_detail_table, regulariser_table, pair_table)]
    makers = (generator_table, own_table, guidance_table, protocol_table, exclusion_table, run_table)
    measured = [make(frames) for make in makers]
    tables = [tokenizer_table(frames), *derived, measured[0], law_table(answer), *measured[1:]]
    return [table for table in tables if table is not None]
