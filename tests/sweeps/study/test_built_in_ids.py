"""Ids of the built-in studies' runs: stores hold results by them, so a change must be meant.

`python -m tests.sweeps.study.test_built_in_ids` writes them anew; CHANGELOG then names the studies whose ids changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sweeps.study.study import built_in, load_study

IDS = Path(__file__).with_name("built_in_ids.json")


def ids_of(name: str) -> dict[str, object]:
    """How many runs a study has, the first id by name, and a hash of all."""
    ids = sorted(run.run_id for run in load_study(name).runs())
    return {"runs": len(ids), "first": ids[0], "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


@pytest.mark.parametrize("name", built_in())
def test_runs_keep_their_ids(name: str) -> None:
    assert ids_of(name) == json.loads(IDS.read_text())[name]


if __name__ == "__main__":
    IDS.write_text(json.dumps({name: ids_of(name) for name in built_in()}, indent=1) + "\n")
