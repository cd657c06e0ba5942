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


def test_budgets_meant_to_be_equal_leave_no_gap():
    """XS ends a few percent below where S begins: images are whole batches."""
    runs = make_plan(parse_study(STUDY.format(small="[8192, 65536]"), "gap")).runs
    each = {run.size: float(run.facts["flops_per_image"]) for run in runs if run.facts["tokenizer"] == "K16-T16"}
    meets = 16384 * each["S"] / each["XS"]
    for share, gap in ((0.999, False), (0.97, False), (0.9, True)):
        images = int(share * meets) // 64 * 64
        assert images * each["XS"] < 16384 * each["S"]
        notes = gaps(make_plan(parse_study(STUDY.format(small=f"[8192, {images}]"), "gap")).runs)
        assert any("K16-T16" in note for note in notes) == gap, share


def test_two_sizes_are_named_once_with_all_their_tokenizers():
    (note,) = gaps(make_plan(parse_study(STUDY.format(small="[2048, 4096]"), "gap")).runs)
    assert note.startswith("K16-T16, K1024-T16: XS ends at 5.8e09 to 1.9e10 FLOPs, S begins at 1.8e11 to 2.8e11: ")
    many = STUDY.replace("[16, 1024]", "[16, 32, 64, 128, 1024]").format(small="[2048, 4096]")
    (note,) = gaps(make_plan(parse_study(many, "gap")).runs)
    assert note.startswith("K16-T16, K32-T16, K64-T16 and 2 more: XS ends at")
