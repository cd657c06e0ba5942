"""[generator]: sizes by name, by width and layers; rules of the learning rate, and what they bring."""

from __future__ import annotations

import pytest

from results.errors import SpecError
from scaling.specification.ladder import LLAMAGEN_SIZES, PAPER_SIZES, SIZES, generic, lattice, size_name, transformer
from scaling.specification.learning_rates import RULES, default_rule, followed_rule, learning_rate
from scaling.specification.spec import GeneratorRun
from scaling.training.schedule import generator_learning_rate, segments
from sweeps.study.grids.conditions import value_at
from sweeps.study.study import parse_study


def generators(section: str, optimiser: str = "", more: str = "") -> list[GeneratorRun]:
    """The generators of a study with this [generator]."""
    text = f'[study]\nname = "test"\n[generator]\n{section}\n[generator.optimiser]\nweight_decay = 0.0\n'
    text += f"{optimiser}\n{more}"
    return [run for run in parse_study(text, "test").runs() if isinstance(run, GeneratorRun)]


def test_the_papers_lattice_and_its_rule_below() -> None:
    for heads in range(9, 21):
        shape = lattice(heads)
        assert (shape.width, shape.layers, shape.heads) == (64 * heads, 3 * (heads - 8), heads)
        assert shape.hidden % 256 == 0
        assert 0 <= shape.hidden - 8 * shape.width / 3 < 256
    below = [lattice(heads) for heads in range(1, 10)]
    assert [shape.layers for shape in below] == [1, 1, 1, 1, 2, 2, 2, 3, 3]
    sizes = [shape.layers * (4 * shape.width**2 + 3 * shape.width * shape.hidden) for shape in below]
    assert sizes == sorted(sizes)


def test_sizes_are_called_by_the_names_that_make_them() -> None:
    for name, shape in (SIZES | PAPER_SIZES | LLAMAGEN_SIZES).items():
        assert transformer(name) == shape
        assert size_name(shape) == name
    assert size_name(transformer("h13")) == "h13"
    assert size_name(transformer("h9")) == "31M"
    assert size_name(generic(48, 3)) == "d48x3"
    for wrong in ("h0", "h65", "GPT-7B", "l"):
        with pytest.raises(SpecError, match=f"generator.size = '{wrong}'"):
            transformer(wrong)


def test_each_ladder_has_its_rule() -> None:
    rules = {name: default_rule(shape).name for name, shape in (SIZES | PAPER_SIZES | LLAMAGEN_SIZES).items()}
    assert rules == {
        **dict.fromkeys(SIZES, "measured"), **dict.fromkeys(PAPER_SIZES, "paper"),
        **dict.fromkeys(LLAMAGEN_SIZES, "llamagen"),
    }  # fmt: skip
    assert default_rule(lattice(8)).name == "measured"
    assert (learning_rate(transformer("775M")), learning_rate(transformer("GPT-XL"))) == (3e-3, 1e-4)
    assert learning_rate(transformer("S")) == 7e-3
    assert all(rule.statement and rule.checked_by for rule in RULES.values())


def test_the_papers_rule_brings_warm_up_and_cosine() -> None:
    (run,) = generators('size = "775M"\nlearning_rate_rule = "paper"\nbatch_size = 256\ntrain_images = 3_840_000')
    assert (run.schedule, run.optimiser.warmup_images) == ("cosine", 5_000 * 256)
    (segment,) = segments(run)
    rates = [generator_learning_rate(run, segment, 256 * step) for step in (0, 5_000, 10_000, 15_000)]
    assert rates == pytest.approx([3e-4, 3e-3, 1.5e-3, 0], abs=1e-12)


def test_llamagens_rule_is_constant_and_evaluated_on_the_trunk() -> None:
    (run,) = generators('size = "GPT-B"\nlearning_rate_rule = "llamagen"\nbatch_size = 256\ntrain_images = [512, 1024]')
    assert (run.schedule, run.optimiser.warmup_images, run.executed_images) == ("constant", 0, 1024)
    plan = segments(run)
    assert [(s.start, s.end, s.evaluated, s.decays) for s in plan] == [(0, 512, True, False), (512, 1024, True, False)]
    assert {generator_learning_rate(run, plan[1], images) for images in (0, 512, 768)} == {1e-4}


def test_a_study_overrides_what_a_rule_brings() -> None:
    (run,) = generators(
        'size = "111M"\nlearning_rate_rule = "paper"\ntrain_images = 6400\nschedule = "warmup-stable-decay"\n'
        "warmup_images = 640"
    )
    assert (run.schedule, run.optimiser.warmup_images) == ("warmup-stable-decay", 640)
    assert run.optimiser.learning_rate == 3e-3


def test_mup_is_in_the_shape_and_in_the_rate() -> None:
    (run,) = generators('size = "M"\nlearning_rate_rule = "mup"\nwarmup_images = 0\ntrain_images = 640\n'
                        "learning_rate_multiplier = 2.0")  # fmt: skip
    assert run.transformer.mup_base_width == 64
    assert run.optimiser.learning_rate == 1.4e-2
    assert value_at(run, "generator.learning_rate_multiplier") == 2
    assert value_at(run, "generator.size") == "M"
    assert followed_rule(run.transformer, 7e-3) == "mup"
    (plain,) = generators('size = "M"\nwarmup_images = 0\ntrain_images = 640')
    assert plain.run_id != run.run_id
    assert value_at(plain, "generator.learning_rate_rule") == "measured"


def test_width_and_layers_need_a_rate() -> None:
    (run,) = generators("width = 128\nlayers = 3\nwarmup_images = 0\ntrain_images = 640", "learning_rate = 1e-3")
    assert (run.transformer.width, run.transformer.layers, run.transformer.head_dim) == (128, 3, 64)
    assert value_at(run, "generator.width") == 128
    (ruled,) = generators('width = 128\nlayers = 3\nlearning_rate_rule = "measured"\nwarmup_images = 0\n'
                          "train_images = 640")  # fmt: skip
    assert ruled.optimiser.learning_rate == pytest.approx(7e-3 * 2**-1.5)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("width = 128\nlayers = 3\nwarmup_images = 0", "generator.width = 128 is on no ladder"),
        ("width = 128\nwarmup_images = 0", "generator.width with generator.layers"),
        ('size = "S"\nwidth = 64\nlayers = 2\nwarmup_images = 0', "exactly one of generator.size"),
        ('width = 100\nlayers = 2\nwarmup_images = 0\nlearning_rate_rule = "measured"', "multiples of 16"),
        ("width = 64.0\nlayers = 2\nwarmup_images = 0", "generator.width = 64.0 is not allowed"),
        ('size = "S"\nlearning_rate_rule = "adam"\nwarmup_images = 0', "allowed: measured, paper, llamagen, mup"),
        ('size = "S"\nlearning_rate_rule = "measured"', "needs a warm-up"),
        ('size = "S"\nwarmup_images = 1280\nschedule = "constant"', "reaches past the smallest budget, 640"),
    ],
)
def test_what_is_wrong_is_named(section: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        generators(f"{section}\ntrain_images = 640")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_rate_of_ones_own_beside_a_rule_is_refused() -> None:
    with pytest.raises(SpecError, match="sets the learning rate twice"):
        generators('size = "S"\nlearning_rate_rule = "paper"\ntrain_images = 640', "learning_rate = 1e-3")


def test_tied_factorised_heads_are_refused() -> None:
    with pytest.raises(SpecError, match="tied_embeddings = True has no matrix"):
        generators('warmup_images = 0\ntrain_images = 640\n[generator.transformer]\nwidth = 64\nlayers = 1\n'
                   'tied_embeddings = true\nhead = "factorised"')  # fmt: skip


BUDGET = "warmup_images = 0\ntrain_images = 640"


@pytest.mark.parametrize(("size", "name"), [("S", "S"), ("GPT-B", "GPT-B"), ("775M", "775M"), ("h20", "775M")])
def test_options_beside_a_size_are_set_over_its_shape(size: str, name: str) -> None:
    options = 'head = "factorised"\nresidual_dropout = 0.2\nclass_dropout = 0.0'
    (plain,) = generators(f'size = "{size}"\n{BUDGET}')
    (run,) = generators(f'size = "{size}"\n{BUDGET}', more=f"[generator.transformer]\n{options}\n")
    changes = {"head": "factorised", "residual_dropout": 0.2, "class_dropout": 0.0}
    assert run.transformer == transformer(size).model_copy(update=changes)
    assert run.optimiser == plain.optimiser and value_at(run, "generator.size") == name
    # What the size has already is no other run.
    (same,) = generators(f'size = "{size}"\n{BUDGET}', more='[generator.transformer]\nhead = "full"\n')
    assert same.run_id == plain.run_id != run.run_id


def test_options_beside_width_and_layers_and_as_an_axis() -> None:
    (run,) = generators(f"width = 128\nlayers = 3\n{BUDGET}", "learning_rate = 1e-3",
                        "[generator.transformer]\nhead_dim = 32\ntied_embeddings = true\n")  # fmt: skip
    assert run.transformer == generic(128, 3).model_copy(update={"head_dim": 32, "tied_embeddings": True})
    axis = '[[grid]]\nproduct = { "generator.transformer.head" = ["full", "factorised"] }\n'
    heads = [run.transformer.head for run in generators(f'size = "XS"\n{BUDGET}', more=axis)]
    assert heads == ["full", "factorised"]


@pytest.mark.parametrize(
    ("section", "table", "words"),
    [
        ('size = "S"', "width = 96", "sets both generator.size = 'S' and generator.transformer.width = 96"),
        ('size = "S"', "layers = 2", "sets both generator.size = 'S' and generator.transformer.layers = 2"),
        ('size = "S"', "head_dim = 16", "sets both generator.size = 'S' and generator.transformer.head_dim = 16"),
        ('size = "S"', "hidden_multiple = 64", "generator.size = 'S' and generator.transformer.hidden_multiple = 64"),
        ("width = 128\nlayers = 3", "layers = 4", "generator.layers = 3 and generator.transformer.layers = 4"),
        ('size = "GPT-B"', "qk_norm = true", "is called 111M; allowed: False"),
        ('size = "S"', 'head = "half"', "transformer head = 'half'"),
        ('size = "S"\ntransformer = 5', None, "generator.transformer = 5 is not allowed; allowed: a table"),
    ],
)
def test_what_a_size_gives_is_not_set_beside_it(section: str, table: str | None, words: str) -> None:
    with pytest.raises(SpecError) as error:
        generators(f"{section}\n{BUDGET}", more="" if table is None else f"[generator.transformer]\n{table}\n")
    assert words in str(error.value)
