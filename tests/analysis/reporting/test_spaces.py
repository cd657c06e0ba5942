"""Distances in two feature spaces stand side by side in the report's tables, and the first one answers."""

from __future__ import annotations

import json

import pytest

from analysis.reporting.tables.spaces_table import spaces_table


def test_distances_of_two_spaces_are_columns_of_one_table(make_study, known) -> None:
    study = make_study((known["compressed"],), sizes=("S",), seeds=(0, 1), budgets=(16_000, 64_000))
    assert spaces_table(study.frames()) is None, "one space needs no table"
    for row in study.runs:
        row["spec"] = json.dumps(json.loads(row["spec"]) | {"evaluation": {"extractors": [{"sha256": "abc"}]}})
    for row in [row for row in study.evaluations if row["metric"] in ("gfid", "rfid", "rfid_floor", "real_fid")]:
        other = json.loads(row["protocol_json"]) | {"extractor_hash": "other", "extractor": "general"}
        protocol = {"protocol": f"g-{row['protocol']}", "protocol_json": json.dumps(other)}
        study.evaluations.append(row | {"value": 3 * row["value"]} | protocol)
    table = spaces_table(study.frames())
    assert table is not None
    (first,) = {*table.data.columns} - {"metric", "family", "size", "general"}
    gfid = table.data[table.data["metric"] == "gfid"].iloc[0]
    assert gfid["general"] == pytest.approx(3 * gfid[first])
    points = study.frames().points
    last = points[points["images"] == 64_000]["gfid"]
    assert gfid[first] == pytest.approx(float(last.product() ** (1 / len(last))))
    assert {*table.data["metric"]} == {"gfid", "rfid"}
