"""The table of distances in several feature spaces, side by side, where a study measured them so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import groups

from .. import wording
from ..rendering import Shown, Table

CHOSEN_ELSE = "protocol not chosen"
"""How frames begin the reason of a row that is whole but not of the space that answers read."""


def spaces_table(frames: StudyFrames) -> Table | None:
    """rFID and unguided gFID at the longest budget in each feature space; None where there is only one."""
    rows = frames.evaluations
    whole = rows["excluded"].isna() | rows["excluded"].astype("string").str.startswith(CHOSEN_ELSE).fillna(False)
    rows = rows[rows["metric"].isin(["rfid", "gfid"]) & whole & (rows["guidance"].isna() | (rows["guidance"] == 1.0))]
    rows = rows.assign(space=[json.loads(text).get("extractor") or "unknown" for text in rows["protocol_json"]])
    spaces = sorted(rows["space"].unique())
    if len(spaces) < 2:
        return None
    last = rows[rows["images"] == rows.groupby(["run_id", "metric"])["images"].transform("max")]
    facts: list[dict[str, Any]] = []
    for (metric, family, size), group in groups(last.fillna({"size": ""}), ["metric", "family", "size"]):
        means = group.assign(log=np.log(group["value"].to_numpy(dtype=float))).groupby("space")["log"].mean()
        values = {str(space): float(np.exp(mean)) for space, mean in means.items()}
        facts.append({"metric": metric, "family": family, "size": size or "–", **dict.fromkeys(spaces), **values})

    def shown(space: str) -> Shown:
        return lambda fact: wording.number(fact[space])

    columns: dict[str, Shown] = {"metric": "metric", "tokenizer": "family", "generator": "size"}
    columns |= {space: shown(space) for space in spaces}
    note = (
        "Geometric means over seeds at the longest budget. Each column has a unit of its own: compare down, not across."
    )
    return Table.of("spaces", "Distances by feature space", facts, columns, note)
