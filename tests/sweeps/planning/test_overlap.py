"""Plans whose budgets leave gaps say so."""

from __future__ import annotations

from sweeps.planning.overlap import gaps
from sweeps.planning.plan import make_plan
from sweeps.study.study import parse_study

STUDY = """[study]
name = "gap"
[generator]
warmup_images = 1024
[[grid]]
product = {{ "tokenizer.quantizer.codebook_size" = [16, 1024] }}
list = [
  {{ "generator.size" = "XS", "generator.train_images" = {small} }},
  {{ "generator.size" = "S", "generator.train_images" = [16384, 131072] }},
]
"""


def test_a_size_that_ends_before_the_next_begins_is_named():
    notes = gaps(make_plan(parse_study(STUDY.format(small="[8192, 65536]"), "gap")).runs)
    assert len(notes) == 1 and notes[0].startswith("K16-T16: XS ends at 9.3e10 FLOPs, S begins at 1.8e11")


def test_budgets_that_overlap_are_not():
    assert gaps(make_plan(parse_study(STUDY.format(small="[8192, 131072]"), "gap")).runs) == []
