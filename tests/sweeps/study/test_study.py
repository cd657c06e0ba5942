"""Study files: what they mean, and one clear message for everything that is wrong with one."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from results import SpecError, UsageError
from scaling.specification.catalogue import DATASETS
from scaling.specification.ladder import SIZES, transformer
from scaling.specification.learning_rates import learning_rate
from scaling.specification.spec import FiniteScalarQuantizerSpec, GeneratorRun, TokenizerRun, TransformerSpec
from sweeps.planning.plan import make_plan
from sweeps.study.resources import Resources
from sweeps.study.study import _SECTIONS, MAX_COMBINATIONS, Limits, Run, built_in, load_study, parse_study

BASE = """
[study]
name = "test"
[tokenizer]
train_images = 2048
[generator]
size = "XS"
warmup_images = 1024
train_images = [2048]
"""


def _runs(text: str, *overrides: str) -> list[Run]:
    return parse_study(text, "test.toml", overrides).runs()


def _generators(text: str, *overrides: str) -> list[GeneratorRun]:
    return [run for run in _runs(text, *overrides) if isinstance(run, GeneratorRun)]


def test_one_run_of_each_stage_without_grid() -> None:
    tokenizer, generator = _runs(BASE)
    assert isinstance(tokenizer, TokenizerRun) and isinstance(generator, GeneratorRun)
    assert tokenizer == TokenizerRun(train_images=2048)
    assert generator.tokenizer == tokenizer
    assert generator.transformer == SIZES["XS"]
    assert generator.optimiser.learning_rate == learning_rate(SIZES["XS"])
    assert generator.optimiser.warmup_images == 1024


def test_same_text_same_ids() -> None:
    assert [run.run_id for run in _runs(BASE)] == [run.run_id for run in _runs(BASE)]


def test_tokenizers_alone() -> None:
    runs = _runs('[study]\nname = "t"\n[seeds]\ntokenizer = [3, 4]\n')
    assert [(run.stage, run.seed) for run in runs] == [("tokenizer", 3), ("tokenizer", 4)]


def test_seeds_same_or_each() -> None:
    same = _generators(BASE + "[seeds]\ntokenizer = [1, 2]\n")
    assert [(g.tokenizer.seed, g.seed) for g in same] == [(1, 1), (2, 2)]
    each = _generators(BASE + "[seeds]\ntokenizer = [1, 2]\ngenerator = [5, 6]\n")
    assert [(g.tokenizer.seed, g.seed) for g in each] == [(1, 5), (1, 6), (2, 5), (2, 6)]


def test_blocks_are_united_each_run_once_and_may_have_seeds_of_their_own() -> None:
    text = (
        BASE
        + """
[seeds]
tokenizer = [0]
[[grid]]
product = { "tokenizer.quantizer.codebook_size" = [256, 512] }
[[grid]]
product = { "tokenizer.quantizer.codebook_size" = [512, 1024] }
seeds = { tokenizer = [0, 1] }
"""
    )
    runs = _runs(text)
    assert len({run.run_id for run in runs}) == len(runs)
    found = [(t.codebook_size, t.seed) for t in runs if isinstance(t, TokenizerRun)]
    assert found == [(256, 0), (512, 0), (512, 1), (1024, 0), (1024, 1)]


def test_every_tokenizer_comes_before_its_generators() -> None:
    for name in built_in():
        seen = set()
        for run in load_study(name).runs():
            seen.add(run.run_id)
            assert not isinstance(run, GeneratorRun) or run.tokenizer.run_id in seen


def test_learning_rate_by_rule_by_multiplier_or_given() -> None:
    rule = learning_rate(transformer("M"))
    assert _generators(BASE, "generator.size=M")[0].optimiser.learning_rate == rule
    text = BASE.replace('size = "XS"', 'size = "M"\nlearning_rate_multiplier = 0.5')
    assert _generators(text)[0].optimiser.learning_rate == rule * 0.5
    text = BASE + "[generator.optimiser]\nlearning_rate = 1e-3\nbeta2 = 0.99\n"
    optimiser = _generators(text)[0].optimiser
    assert (optimiser.learning_rate, optimiser.beta2, optimiser.warmup_images) == (1e-3, 0.99, 1024)


def test_shape_in_place_of_a_size() -> None:
    text = BASE.replace('size = "XS"', "transformer = { width = 128, layers = 3 }")
    assert _generators(text)[0].transformer == TransformerSpec(width=128, layers=3)


def test_table_replaces_the_fields_of_its_default_that_it_names() -> None:
    run = _runs(BASE + "[tokenizer.optimiser]\nwarmup_images = 512\n")[0]
    default = TokenizerRun().optimiser
    assert run.optimiser == default.model_copy(update={"warmup_images": 512})


def test_data_sets_of_other_names_take_nothing_from_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its fingerprint nor another field, whichever of several a grid names."""
    for name in ("first", "second"):
        other = replace(DATASETS["fashion-mnist"], name=name, fingerprint=f"of {name}")
        monkeypatch.setitem(DATASETS, name, other)
    names = ["fashion-mnist", "first", "second"]
    text = f'{BASE}[data]\nimage_size = 40\n[[grid]]\nproduct = {{ "data.name" = {names} }}\n'
    data = [run.data for run in _runs(text) if isinstance(run, TokenizerRun)]
    assert [(each.name, each.image_size) for each in data] == [(name, 40) for name in names]
    assert [each.fingerprint for each in data[1:]] == ["of first", "of second"]


def test_table_of_another_kind_replaces_its_default_whole() -> None:
    run = _runs(BASE + '[tokenizer.quantizer]\nkind = "fsq"\nlevels = [8, 5, 5]\n')[0]
    assert isinstance(run, TokenizerRun)
    assert run.quantizer == FiniteScalarQuantizerSpec(levels=(8, 5, 5))


def test_none_stands_for_no_value() -> None:
    text = (
        BASE
        + """
[[grid]]
product = { "tokenizer.regulariser" = ["none", { weight = 0.5 }], "tokenizer.input_size" = ["none", 40] }
"""
    )
    found = [t for t in _runs(text) if isinstance(t, TokenizerRun)]
    assert [(t.regulariser.weight if t.regulariser else None, t.input_size) for t in found] == [
        (None, None), (None, 40), (0.5, None), (0.5, 40),
    ]  # fmt: skip


def test_overrides_are_toml_values_or_bare_words() -> None:
    overrides = [
        "generator.size=S",
        "seeds.tokenizer=[7]",
        "evaluation.samples=256",
        "tokenizer.regulariser.weight=2.0",
    ]
    tokenizer, generator = _runs(BASE, *overrides)
    assert isinstance(tokenizer, TokenizerRun) and isinstance(generator, GeneratorRun)
    assert generator.transformer == SIZES["S"]
    assert tokenizer.seed == 7
    assert tokenizer.evaluation.samples == generator.evaluation.samples == 256
    assert tokenizer.regulariser is not None and tokenizer.regulariser.weight == 2.0


def test_data_and_evaluation_reach_both_stages() -> None:
    for run in _runs(BASE + "[data]\nimage_size = 40\n[evaluation]\nguidance = [1.5]\n"):
        tokenizer = run if isinstance(run, TokenizerRun) else run.tokenizer
        assert tokenizer.data.image_size == 40
        assert run.evaluation.guidance == (1.0, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[study", "is not TOML"),
        ('[studdy]\nname = "x"', "'studdy' is not a key of study test.toml; did you mean 'study'?"),
        ("[study]\n", "[study] name"),
        ('[study]\nname = "a/b"', "[study] name = 'a/b'"),
        ('[study]\nname = "x"\ncolour = 1', "'colour' is not a key of [study]; allowed: description, name"),
        (BASE + "[tokenizer.quantiser]\ncodebook_size = 8", "did you mean 'quantizer'?"),
        (BASE + "[tokenizer.quantizer]\ncodebok_size = 8", "did you mean 'codebook_size'?"),
        (BASE + "[tokenizer.quantizer]\ncodebook_size = 1", "greater than or equal to 2"),
        (BASE + "[tokenizer.quantizer]\ncodebook_size = 2.5", "codebook_size = 2.5"),
        (BASE + '[tokenizer.quantizer]\ncodebook_size = "many"', "codebook_size = 'many'"),
        (BASE + '[tokenizer.quantizer]\nkind = "pq"', "kind"),
        (BASE.replace("train_images = 2048", "train_images = -5", 1), "train_images = -5"),
        (BASE.replace("train_images = 2048", "seed = 3", 1), "[tokenizer] sets tokenizer.seed; allowed: [seeds]"),
        (BASE.replace("train_images = 2048", "train_images.deep = 1", 1), "tokenizer.train_images is a single value"),
        (BASE + "[data]\nname = 'cifar'", "data.name = 'cifar' is unknown; allowed: fashion-mnist"),
        (BASE + "[data]\nimage_size = 20", "data.image_size = 20 is below the 28 pixels"),
        (BASE.replace("train_images = 2048", "input_size = 33", 1), "does not divide the image side 33"),
        (BASE.replace('"XS"', '"XXS"'), "generator.size = 'XXS' is unknown; allowed: XS, S, M"),
        (BASE.replace('size = "XS"', ""), "exactly one of generator.size, generator.transformer"),
        (BASE.replace("[2048]", "[2001]"), "train_images = [2001] are not multiples of batch_size = "),
        (BASE.replace("[2048]", "[]"), "names no budget"),
        (BASE.replace("warmup_images = 1024", ""), "exactly one of generator.warmup_images"),
        (BASE.replace("1024", "4096"), "warmup_images = 4096 reaches past"),
        (BASE.replace('size = "XS"', 'size = "XS"\nlearning_rate_multiplier = -1'), "learning_rate_multiplier = -1"),
        (BASE + "[evaluation]\nsamples = 5", "samples = 5"),
        (BASE + "[evaluation]\nguidance = [nan]", "guidance"),
        (BASE + "[seeds]\ntokenizer = []", "[seeds] tokenizer = []"),
        (BASE + f"[seeds]\ntokenizer = [{2**63}]", f"[seeds] tokenizer.0 = {2**63}"),
        (BASE + "[seeds]\ntokenizer = [-1]", "tokenizer.0 = -1"),
        (BASE + '[seeds]\ngenerator = "other"', "[seeds] generator"),
        (BASE + "[limits]\nruns = 0", "[limits] runs = 0"),
        (BASE + "[limits]\nflop = 1", "did you mean 'flops'?"),
        (BASE + "[grid]\nproduct = {}", "[[grid]] blocks, with two brackets"),
        (BASE + "[[grid]]\nprodukt = {}", "did you mean 'product'?"),
        (BASE + "[[grid]]\nproduct = { generator.size = ['S'] }", "quote the dotted path"),
        (BASE + '[[grid]]\nproduct = { "generator.sise" = ["S"] }', "did you mean 'size'?"),
        (BASE + '[[grid]]\nproduct = { "generator.size" = "S" }', "a list of at least one value"),
        (BASE + '[[grid]]\nproduct = { "generator.size" = [] }', "a list of at least one value"),
        (BASE + '[[grid]]\nproduct = { "sampler.size" = [1] }', "'sampler' is not a key of [[grid]] block 1.product"),
        (BASE + '[[grid]]\nzip = { "generator.size" = ["S"], "tokenizer.batch_size" = [1, 2] }', "different lengths"),
        (
            BASE + '[[grid]]\nproduct = { "generator.size" = ["S"] }\nlist = [{ "generator.size" = "M" }]',
            "sets generator.size twice",
        ),
        (
            BASE + '[[grid]]\nproduct = { "tokenizer.quantizer" = [{ codebook_size = 8 }], '
            '"tokenizer.quantizer.code_dim" = [4] }',
            "sets both tokenizer.quantizer and tokenizer.quantizer.code_dim",
        ),
        (
            BASE + '[[grid]]\nproduct = { "tokenizer.regulariser" = [{ wieght = 1.0 }] }',
            "did you mean 'weight'?",
        ),
        (
            BASE + '[[grid]]\nproduct = { "generator.size" = ["S"] }\nexclude = [{ "tokenizer.threads" = 2 }]',
            "which neither an axis of the block nor a section sets",
        ),
        (
            BASE + '[[grid]]\nproduct = { "generator.size" = ["S"] }\nexclude = [{ "generator.size" = "S" }]',
            "exclusions leave nothing",
        ),
        (
            BASE + '[[grid]]\nproduct = { "generator.threads" = [2] }\n'
            + 'exclude = [{ "generator.threads" = "< x" }]',
            "compares with 'x'; allowed: a number",
        ),
        (BASE + '[[grid]]\nseeds = { tokenizers = [1] }', "did you mean 'tokenizer'?"),
        ('[study]\nname = "x"\n[[grid]]\nproduct = { "generator.size" = ["S"] }', "there is no [generator]"),
    ],
)  # fmt: skip
def test_bad_study_ends_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        _runs(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generator", "--set 'generator' is not allowed"),
        ("generator.size=", "is not allowed"),
        ("generator.sise=S", "did you mean 'size'?"),
        ("grid.product=1", "--set grid.product is not allowed; allowed sections"),
        ("seeds.tokenizers=[1]", "did you mean 'tokenizer'?"),
        ("seeds.tokenizer=[1", "is not a TOML value"),
        ("tokenizer.batch_size=0", "batch_size = 0"),
    ],
)
def test_bad_override_ends_in_one_line(override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        _runs(BASE, override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_override_that_the_grid_would_undo_is_refused() -> None:
    text = (
        BASE + '[[grid]]\nproduct = { "tokenizer.quantizer" = [{ codebook_size = 8 }] }\nseeds = { tokenizer = [1] }\n'
    )
    for override in ("tokenizer.quantizer.codebook_size=16", "seeds.tokenizer=[0]"):
        with pytest.raises(SpecError, match="has no effect"):
            _runs(text, override)


def test_grid_of_a_billion_runs_is_refused_before_it_is_expanded() -> None:
    axes = ", ".join(
        f'"tokenizer.{name}" = {list(range(1, 1001))}' for name in ("batch_size", "threads", "train_images")
    )
    with pytest.raises(SpecError, match=rf"1,000,000,000 combinations; allowed: up to {MAX_COMBINATIONS:,}"):
        parse_study(f"{BASE}[[grid]]\nproduct = {{ {axes} }}\n", "test.toml")
    with pytest.raises(SpecError, match="combinations; allowed"):
        parse_study(f"{BASE}[seeds]\ntokenizer = {list(range(500))}\ngenerator = {list(range(500))}\n", "test.toml")


def test_more_runs_than_the_cap_are_refused() -> None:
    text = BASE + "[seeds]\ntokenizer = [0, 1, 2, 3]\n[limits]\nruns = 7\n"
    with pytest.raises(SpecError, match=r"more than 7 runs; allowed by limits\.runs: 7"):
        _runs(text)
    assert len(_runs(text.replace("runs = 7", "runs = 8"))) == 8


def test_combination_is_named_when_it_is_invalid() -> None:
    text = BASE + '[[grid]]\nproduct = { "tokenizer.input_size" = [32, 33] }\n'
    with pytest.raises(SpecError, match=r"study test \(tokenizer.input_size = 33\), \[tokenizer\]"):
        _runs(text)


def test_unknown_study_lists_the_built_in_ones() -> None:
    with pytest.raises(
        UsageError,
        match=r"did you mean 'fashion'\? allowed: cluster, fashion, fashion-crt, fashion-crt-weights, .*smoke",
    ):
        load_study("fashon")


def test_study_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BASE)
    assert load_study(str(path)).name == "test"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_study(str(tmp_path / "other.toml"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        load_study(str(path))


@pytest.mark.parametrize("name", built_in())
def test_built_in_studies_are_valid_and_documented(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert study.about.description
    assert len(study.runs()) > 3 or name == "headline"
    header = (Path(__file__).parents[3] / "sweeps" / "study" / "built_in" / f"{name}.toml").read_text().splitlines()
    comments = "\n".join(line for line in header if line.startswith("#"))
    for word in ("command", "cost", "expected"):
        assert word in comments


def test_cluster_study_shows_every_section_and_field_and_its_cost() -> None:
    path = Path(__file__).parents[3] / "sweeps" / "study" / "built_in" / "cluster.toml"
    text = path.read_text()
    document = tomllib.loads(text)
    # A study has runs of our stages or of none, so [run] is documented elsewhere; the trainer stands in comments.
    assert set(document) == set(_SECTIONS) - {"run", "worker"}
    assert set(document["limits"]) == set(Limits.model_fields)
    asked = document["resources"]
    named = {name for section in asked.values() for table in (section, *section.get("rules", ())) for name in table}
    assert named == set(Resources.model_fields) | {"rules", "where"}
    assert {name for block in document["grid"] for name in block} == {
        "product", "zip", "list", "exclude", "isoflop", "seeds",
    }  # fmt: skip
    plan = make_plan(load_study("cluster"))
    assert f"{len(plan.runs)} runs, {plan.flops:.1e} FLOPs".replace("e+", "e") in text
    plan.check_limits()
    assert plan.study.notes
    with_trainer = parse_study(re.sub(r"(?m)^#(?=\[worker\]|command =|stage =)", "", text), "cluster")
    assert {run.stage: run.trainer is not None for run in with_trainer.runs()} == {
        "tokenizer": False,
        "generator": True,
    }


def test_cost_in_the_header_of_fashion_full_is_that_of_its_plan() -> None:
    plan = make_plan(load_study("fashion-full"))
    hours = sum(run.seconds for run in plan.runs) / 3600
    text = (Path(__file__).parents[3] / "sweeps" / "study" / "built_in" / "fashion-full.toml").read_text()
    assert f"cost       {hours:.0f} core-hours by `tokenlaw plan fashion-full`" in text
