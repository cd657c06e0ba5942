"""Whole studies with toy training on a real cluster."""

from __future__ import annotations

import json

import pytest

from tests.sweeps.rooted_study import GO

from .cluster import Cluster
from .conftest import MakeLab

pytestmark = pytest.mark.slow


def test_two_stages(cluster: Cluster, labs: MakeLab) -> None:
    """3 tokenizers with 12 generators each: all rows once, and each generator starts when its own tokenizer is done."""
    lab = labs(cluster, 3, 12)
    lab.behave(all={"steps": 3, "seconds": 0.05}, K256_T16_s2={"steps": 3, "seconds": 0.05, "until": GO})
    slow = next(run.run_id for run in lab.plan.runs if run.label == "K256-T16-s2")
    early = {run.run_id for run in lab.plan.runs if run.parent not in (None, slow)}
    assert len(early) == 24
    process = lab.start("--wait")
    # The third tokenizer ends only when all generators of the other two are done.
    cluster.wait_for(lambda: early <= lab.store.finished(), "the generators of two tokenizers", 300)
    assert slow not in lab.store.finished()
    assert not {run.run_id for run in lab.plan.runs if run.parent == slow} & set(lab.begun())
    lab.go()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output + lab.logs()
    lab.assert_complete()
    assert sorted(lab.begun()) == sorted(lab.plan.by_id)
    begins = {run: at for at, what, run, _, _ in lab.log() if what == "begin"}
    ends = {run: at for at, what, run, _, _ in lab.log() if what == "end"}
    for run in lab.plan.runs:
        assert run.parent is None or begins[run.run_id] > ends[run.parent]
    # One submission, four arrays: the tokenizers, and the generators of each.
    (submission,) = (path for path in (lab.root / "submissions").iterdir() if not path.name.startswith("."))
    arrays = [json.loads(path.read_text()) for path in sorted(submission.glob("arrays/*/array.json"))]
    assert [(len(array["members"]), array["parent"] is None) for array in arrays] == [(3, True), *[(12, False)] * 3]
