"""Fields of specifications in which runs differ: which ones, under which names, and which are columns already."""

from __future__ import annotations

import json

from results.settings import differing, flat, parts, setting_columns


def _tokenizer(seed: int, perceptual: float, **fields: object) -> dict[str, object]:
    losses = {"perceptual_weight": perceptual, "squared_error_weight": 1.0}
    return {"stage": "tokenizer", "seed": seed, "losses": losses, "regulariser": None} | fields


def _parts(spec: object) -> dict[str, dict[str, object]]:
    return parts(json.dumps(spec))


def test_a_part_that_some_lack_is_told_by_its_kind_alone() -> None:
    causal = {"regulariser": {"kind": "causal", "layers": 2}}
    assert differing([flat({"regulariser": None}), flat(causal)]) == ["regulariser.kind"]
    deeper = {"regulariser": {"kind": "causal", "layers": 3}}
    assert differing([flat({}), flat(causal), flat(deeper)]) == ["regulariser.kind", "regulariser.layers"]
    assert differing([flat({"input_size": None}), flat({"input_size": 64})]) == ["input_size"]
    assert differing([flat({"deep": {"er": 1}}), flat({})]) == ["deep.er"]
    assert differing([]) == [] and differing([flat(causal)]) == []


def test_fields_of_a_generator_are_its_own_and_its_tokenizers() -> None:
    tokenizer = _tokenizer(0, 1.0)
    fields = _parts({"stage": "generator", "seed": 3, "tokenizer": tokenizer, "optimiser": {"learning_rate": 0.1}})
    assert fields["generator"] == {"seed": 3, "optimiser.learning_rate": 0.1}
    assert fields["tokenizer"] == _parts(tokenizer)["tokenizer"]
    assert _parts({"stage": "run", "values": {"stage": "x", "a": {"b": [1]}}}) == {"run": {"stage": "x", "a.b": [1]}}
    assert _parts("no object") == {} == parts("no JSON") and _parts({"imported": {"others": None}}) == {}


def test_columns_are_the_fields_that_differ_and_that_no_column_tells() -> None:
    rate = {"optimiser": {"learning_rate": 0.2}}
    first, second = _tokenizer(0, 1.0, **rate), _tokenizer(0, 0.0, **rate)
    generator = {"stage": "generator", "seed": 5, "tokenizer": second, "optimiser": {"learning_rate": 0.3}}
    other = generator | {"optimiser": {"learning_rate": 0.4}}
    free = {"stage": "run", "seed": 0, "values": {"width": 7}}
    specs = [json.dumps(spec) for spec in (first, second, generator, other, free)]
    known = {"learning_rate": [0.2, 0.2, 0.3, 0.4, None], "width": [None] * 4 + [7]}
    assert setting_columns(specs, known) == {
        "tokenizer.losses.perceptual_weight": [1.0, 0.0, 0.0, 0.0, None],
        "run.width": [None, None, None, None, 7],
    }
    assert set(setting_columns(specs, {})) >= {"generator.optimiser.learning_rate", "run.width"}
