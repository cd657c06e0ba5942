"""Protocols: canonical text, identity, refusal of bad values."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import Protocol, UsageError
from results.schema import METRICS

protocols = st.builds(
    Protocol,
    metric=st.sampled_from(sorted(METRICS)),
    n=st.integers(1, 10**6),
    reference=st.none() | st.text(max_size=20),
    crop=st.none() | st.text(max_size=5),
    guidance=st.none() | st.floats(1, 10),
    microbatch=st.none() | st.integers(1, 4096),
    seed=st.none() | st.integers(0, 2**31),
)


@given(protocols)
def test_text_round_trip(protocol: Protocol) -> None:
    again = Protocol.from_json(protocol.json)
    assert again == protocol
    assert again.id == protocol.id
    assert len(protocol.id) == 8
    int(protocol.id, 16)


@given(protocols, protocols)
def test_id_follows_the_text(first: Protocol, other: Protocol) -> None:
    assert (first.json == other.json) == (first == other)
    if first.json != other.json:
        assert first.id != other.id


def test_every_field_changes_the_id() -> None:
    base = Protocol(metric="gfid", n=100)
    changed = {
        "metric": "rfid", "n": 101, "reference": "a", "reference_hash": "b", "crop": "pad32", "extractor": "c",
        "extractor_hash": "d", "guidance": 1.5, "microbatch": 8, "seed": 3,
        "resize": "none", "quantisation": "uint8", "settings": "k=3", "temperature": 0.9, "top_k": 5, "top_p": 0.8,
        "guidance_schedule": "cosine",
    }  # fmt: skip
    assert set(changed) == set(asdict(base))
    ids = {base.id} | {replace(base, **{name: value}).id for name, value in changed.items()}
    assert len(ids) == len(changed) + 1


def test_protocols_from_before_the_later_fields_keep_their_id() -> None:
    old = Protocol("gfid", 2_000, reference="fashion-mnist/train", crop="pad32", extractor="fid", guidance=1.0, seed=0)
    assert "resize" not in old.json and old.id == "319d5747"
    assert Protocol("gfid", 2_000, temperature=1).id == Protocol("gfid", 2_000, temperature=1.0).id


def test_whole_and_decimal_guidance_are_one_protocol() -> None:
    assert Protocol("gfid", 10, guidance=1).id == Protocol("gfid", 10, guidance=1.0).id


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"metric": "fid", "n": 1}, "metric"),
        ({"metric": "gfid", "n": 0}, "n"),
        ({"metric": "gfid", "n": True}, "n"),
        ({"metric": "gfid", "n": 1.5}, "n"),
        ({"metric": "gfid", "n": 1, "guidance": float("nan")}, "guidance"),
        ({"metric": "gfid", "n": 1, "microbatch": 0}, "microbatch"),
        ({"metric": "gfid", "n": 1, "seed": -1}, "seed"),
        ({"metric": "gfid", "n": 1, "reference": 3}, "reference"),
    ],
)
def test_bad_value_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=rf"protocol\.{field} = .* allowed: "):
        Protocol(**values)


@pytest.mark.parametrize("text", ["", "[]", '{"n": 1}', '{"metric": "gfid", "n": 1, "colour": 2}'])
def test_text_that_is_no_protocol(text: str) -> None:
    with pytest.raises(UsageError, match="protocol = "):
        Protocol.from_json(text)
