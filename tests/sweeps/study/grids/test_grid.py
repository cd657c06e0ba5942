"""Grid blocks: counting without expanding, order, exclusions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.study.grids.grid import parse_block

AXES = ("tokenizer.batch_size", "tokenizer.threads", "tokenizer.train_images", "generator.batch_size")

blocks = st.builds(
    lambda product, zipped, rows: {
        "product": dict(zip(AXES[:2], product, strict=False)),
        "zip": {AXES[2]: zipped} if zipped else {},
        "list": [{AXES[3]: value} for value in rows],
    },
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True), max_size=2),
    st.lists(st.integers(1, 9), max_size=3, unique=True),
    st.lists(st.integers(1, 9), max_size=3, unique=True),
)


@settings(deadline=None)
@given(blocks)
def test_size_is_the_number_of_combinations(table: dict[str, Any]) -> None:
    block = parse_block(table, 1, {})
    found = list(block.combinations({}))
    assert len(found) == block.size
    assert len({tuple(sorted(settings.items())) for settings in found}) == block.size
    assert all(set(settings) == block.paths for settings in found)


@settings(deadline=None)
@given(blocks, st.integers(1, 9))
def test_exclusion_keeps_exactly_what_does_not_match(table: dict[str, Any], bound: int) -> None:
    if AXES[0] not in table["product"]:
        return
    everything = list(parse_block(table, 1, {}).combinations({}))
    kept = list(parse_block({**table, "exclude": [{AXES[0]: f">= {bound}"}]}, 1, {}).combinations({}))
    assert kept == [settings for settings in everything if settings[AXES[0]] < bound]


def test_order_is_that_of_nested_loops() -> None:
    block = parse_block({"product": {AXES[0]: [1, 2], AXES[1]: [3, 4]}}, 1, {})
    assert [tuple(s.values()) for s in block.combinations({})] == [(1, 3), (1, 4), (2, 3), (2, 4)]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({"generator.size": "S"}, ["XS", "M"]),
        ({"generator.size": ["S", "M"]}, ["XS"]),
        ({"generator.size": "!= S"}, ["S"]),
        ({"generator.size": "S", "tokenizer.quantizer.codebook_size": 256}, ["XS", "M"]),
        ({"generator.size": "S", "tokenizer.quantizer.codebook_size": 512}, ["XS", "S", "M"]),
        ({"tokenizer.quantizer.codebook_size": "<= 256"}, []),
        ({"tokenizer.quantizer.codebook_size": "> 256"}, ["XS", "S", "M"]),
    ],
)
def test_conditions_on_axes_and_sections(condition: dict[str, Any], left: list[str]) -> None:
    base = {"tokenizer": {"quantizer": {"codebook_size": 256}}}
    table = {"product": {"generator.size": ["XS", "S", "M"]}, "exclude": [condition]}
    assert [s["generator.size"] for s in parse_block(table, 1, base).combinations(base)] == left


def test_condition_on_a_field_of_a_table_on_an_axis() -> None:
    values = ["none", {"weight": 0.5}, {"weight": 4.0}]
    table = {"product": {"tokenizer.regulariser": values}, "exclude": [{"tokenizer.regulariser.weight": "> 1"}]}
    assert [s["tokenizer.regulariser"] for s in parse_block(table, 1, {}).combinations({})] == values[:2]


def test_condition_on_a_value_that_is_a_list() -> None:
    table = {
        "product": {"generator.train_images": [[128], [128, 256]]},
        "exclude": [{"generator.train_images": [128]}],
    }
    assert [s["generator.train_images"] for s in parse_block(table, 1, {}).combinations({})] == [[128, 256]]
