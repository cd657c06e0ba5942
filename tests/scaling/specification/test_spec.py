"""Specifications: identity is total and stable, and every bad value is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.errors import SpecError
from scaling.specification.ladder import size_name, transformer
from scaling.specification.spec import (
    AutoencoderSpec,
    CausalRegulariserSpec,
    FiniteScalarQuantizerSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    canonical_json,
    parse_run,
)


def generator(**changes: object) -> GeneratorRun:
    """A small generator run."""
    fields = {
        "tokenizer": TokenizerRun(),
        "transformer": transformer("S"),
        "optimiser": OptimiserSpec(learning_rate=1e-3, warmup_images=1280),
        "train_images": (12_800, 25_600),
    }
    return GeneratorRun(**(fields | changes))


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of all scalar fields in nested JSON."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    return [path]


def test_every_field_of_both_stages_is_part_of_the_identity() -> None:
    run = generator(tokenizer=TokenizerRun(regulariser=CausalRegulariserSpec()))
    plain = json.loads(canonical_json(run))
    changed = {
        bool: lambda v: not v,
        int: lambda v: v + 4,
        float: lambda v: v / 2 if v else 0.25,
        type(None): lambda v: 64,
    }
    tried = 0
    for path in leaves(plain):
        copy = json.loads(json.dumps(plain))
        node = copy
        for key in path[:-1]:
            node = node[key]
        if not isinstance(node[path[-1]], tuple(changed)):
            continue
        node[path[-1]] = changed[type(node[path[-1]])](node[path[-1]])
        try:
            other = parse_run(json.dumps(copy))
        except SpecError:
            continue  # Not every change is valid; those that are must show in the id.
        tried += 1
        assert other.run_id != run.run_id, path
    assert tried > 30


@given(st.integers(0, 10**6), st.sampled_from([64, 256, 4096]), st.floats(1e-6, 1, allow_nan=False))
def test_json_both_ways_keeps_the_run_and_its_id(seed: int, codes: int, rate: float) -> None:
    run = TokenizerRun(
        seed=seed,
        quantizer=VectorQuantizerSpec(codebook_size=codes),
        optimiser=OptimiserSpec(learning_rate=rate, warmup_images=0),
    )
    again = parse_run(canonical_json(run))
    assert again == run
    assert again.run_id == run.run_id


def test_the_id_is_the_same_in_every_process_and_release() -> None:
    """A golden id: if this changes, every store in the world is orphaned. Change it only with the schema version."""
    run = TokenizerRun.model_validate(
        {"losses": {"perceptual_weight": 0.0}, "regulariser": {"weight": 0.5}}, strict=False
    )
    fields = json.loads(canonical_json(run))
    assert set(fields) == {
        "stage", "data", "input_size", "autoencoder", "quantizer", "regulariser", "losses", "optimiser",
        "decay_fraction", "train_images", "batch_size", "ema_decay", "precision", "threads", "evaluation", "seed",
    }  # fmt: skip
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert canonical_json(run) == text


def test_families_ignore_the_seed_and_nothing_else() -> None:
    assert TokenizerRun(seed=1).family == TokenizerRun(seed=2).family
    assert TokenizerRun(seed=1).run_id != TokenizerRun(seed=2).run_id
    assert TokenizerRun(batch_size=32).family != TokenizerRun().family
    one, other = generator(seed=3), generator(seed=4, tokenizer=TokenizerRun(seed=9))
    assert one.family == other.family


def test_labels_name_what_people_compare() -> None:
    crt = TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=4096), regulariser=CausalRegulariserSpec(weight=0.5))
    assert crt.configuration_label == "K4096-T16-crt0.5"
    four = AutoencoderSpec(downsampling=4, channel_multipliers=(1, 2), residual_blocks=(1, 1))
    assert TokenizerRun(autoencoder=four, quantizer=FiniteScalarQuantizerSpec()).configuration_label == "K240-T64-fsq"
    assert generator(seed=2).label == "K256-T16-S-s0.2"
    assert size_name(transformer("111M")) == "111M"


@pytest.mark.parametrize(("side", "tokens"), [(32, 16), (40, 25), (48, 36), (56, 49), (64, 64)])
def test_token_count_follows_the_input_size(side: int, tokens: int) -> None:
    assert TokenizerRun(input_size=side).tokens_per_image == tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"stage": "tokenizer", "batch_size": 0}', ["batch_size", "0", "greater than 0"]),
        ('{"stage": "tokenizer", "batchsize": 5}', ["batchsize", "not a field"]),
        ('{"stage": "tokenizer", "input_size": 30}', ["downsampling", "30", "multiples of 8"]),
        ('{"stage": "tokenizer", "data": {"name": "imagenet"}}', ["imagenet", "fashion-mnist"]),
        ('{"stage": "tokenizer", "quantizer": {"kind": "vq", "codebook_size": 1}}', ["codebook_size", "1"]),
        ('{"stage": "tokenizer", "quantizer": {"kind": "lvq"}}', ["kind", "lvq", "vq"]),
        ('{"stage": "tokenizer", "regulariser": {"width": 50}}', ["head_dim", "50"]),
        ('{"stage": "tokenizer", "ema_decay": NaN}', ["ema_decay"]),
        ('{"stage": "painter"}', ["painter"]),
        ("[]", ["run = []", "object"]),
    ],
)
def test_bad_values_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        parse_run(text)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": ()}, ["train_images"]),
        ({"train_images": (1000,)}, ["1000", "batch_size = 64"]),
        ({"schedule": "cosine"}, ["cosine", "one budget"]),
        ({"optimiser": OptimiserSpec(learning_rate=1e-3, warmup_images=20_000)}, ["warmup_images", "20000"]),
    ],
)
def test_impossible_generators_are_refused(changes: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        generator(**changes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("12800", ["train_images = '12800'", "a valid array"]),  # as JSON calls it
        ([64 * 10**18], ["train_images.0 = 64000000000000000000", "less than or equal to 1000000000000000"]),
    ],
)
def test_budgets_that_are_no_numbers_of_images_are_refused(value: object, words: list[str]) -> None:
    plain = json.loads(canonical_json(generator())) | {"train_images": value}
    with pytest.raises(SpecError) as error:
        parse_run(json.dumps(plain))
    for word in words:
        assert word in str(error.value)


def test_one_budget_needs_no_brackets() -> None:
    plain = json.loads(canonical_json(generator(train_images=(12_800,))))
    assert parse_run(json.dumps(plain | {"train_images": 12_800})) == generator(train_images=(12_800,))


def test_unknown_sizes_list_what_is_allowed() -> None:
    with pytest.raises(SpecError, match=r"'tiny'.*XS, S, M, L, XL"):
        transformer("tiny")
