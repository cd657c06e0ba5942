"""IsoFLOP grids: budgets are met within whole batches, what does not fit is left out and said, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import SpecError
from scaling.specification.costs import flops
from scaling.specification.spec import GeneratorRun, TokenizerRun
from sweeps.planning.plan import make_plan
from sweeps.study.study import Study, parse_study

BASE = """
[study]
name = "test"
[tokenizer]
train_images = 4096
[generator]
batch_size = 32
warmup_images = 512
{generator}
[[grid]]
product = {{ "generator.size" = ["XS", "S", "M"], "tokenizer.quantizer.codebook_size" = [64, 1024] }}
isoflop = {{ {isoflop} }}
"""


def _study(isoflop: str, generator: str = "") -> Study:
    return parse_study(BASE.format(isoflop=isoflop, generator=generator), "test")


def _generators(study: Study) -> list[GeneratorRun]:
    return [run for run in study.runs() if isinstance(run, GeneratorRun)]


def _cost(run: GeneratorRun, images: int) -> float:
    return flops.generator_training_flops(run, images)


def test_one_trunk_serves_all_budgets_of_a_size() -> None:
    runs = _generators(_study("flops = [3e11, 1e11]"))
    assert len(runs) == 6
    for run in runs:
        assert len(run.train_images) == 2
        for budget, images in zip((1e11, 3e11), run.train_images, strict=True):
            assert images % 32 == 0
            # Whole batches: at most half a batch off.
            assert abs(_cost(run, images) - budget) <= _cost(run, 16) * (1 + 1e-12)


@pytest.mark.parametrize(("isoflop", "generator"), [(", separate = true", ""), ("", 'schedule = "cosine"')])
def test_a_run_a_budget(isoflop: str, generator: str) -> None:
    runs = _generators(_study(f"flops = [1e11, 3e11]{isoflop}", generator))
    assert len(runs) == 12 == len({run.run_id for run in runs})
    assert {len(run.train_images) for run in runs} == {1}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(1e10, 1e14), min_size=1, max_size=4), st.floats(0.001, 0.2))
def test_budgets_are_met_within_the_tolerance_or_said(budgets: list[float], tolerance: float) -> None:
    study = _study(f"flops = {budgets}, tolerance = {tolerance}")
    try:
        runs = _generators(study)
    except SpecError as error:
        assert "none of its" in str(error)
        return
    met = 0
    for run in runs:
        for images in run.train_images:
            nearest = min(budgets, key=lambda budget: abs(_cost(run, images) / budget - 1))
            assert abs(_cost(run, images) / nearest - 1) <= tolerance * (1 + 1e-9)
            met += 1
    # Two budgets of one number of images are one point.
    assert met + len(study.notes) <= 6 * len(set(budgets))
    assert met + len(study.notes) == 6 * len(set(budgets)) or len(set(budgets)) > 1


def test_points_out_of_range_are_left_out_and_said() -> None:
    study = _study("flops = [1e9, 1e11, 1e13], min_images = 2048, max_images = 200_000")
    runs = _generators(study)
    assert all(2048 <= images <= 200_000 for run in runs for images in run.train_images)
    notes = make_plan(study).study.notes
    assert any("1e+09 FLOPs left out for K64-T16-XS" in note and "below min_images, 2,048" in note for note in notes)
    assert any("1e+13 FLOPs left out for K64-T16-XS" in note and "above max_images, 200,000" in note for note in notes)
    assert sum(len(run.train_images) for run in runs) + len(notes) == 18


def test_warm_up_must_fit_before_the_decay() -> None:
    study = _study("flops = [2e9, 1e11]")
    study.runs()
    assert any("the warm-up of 512 images does not fit into" in note for note in study.notes)


def test_budget_of_both_stages_pays_for_the_tokenizer() -> None:
    one, both = (_generators(_study(f'flops = [1e12], count = "{count}"')) for count in ("generator", "both"))
    for alone, joint in zip(one, both, strict=True):
        assert isinstance(joint.tokenizer, TokenizerRun)
        paid = flops.tokenizer_training_flops(joint.tokenizer, 4096)
        assert _cost(joint, joint.train_images[0]) + paid == pytest.approx(1e12, abs=_cost(joint, 16))
        assert joint.train_images < alone.train_images
    study = _study('flops = [1e10, 1e12], count = "both"')
    study.runs()
    assert any("its tokenizer alone costs" in note for note in study.notes)


def test_tokenizers_of_points_that_do_not_fit_are_not_trained() -> None:
    text = BASE.format(isoflop="flops = [1e11], max_images = 40_000", generator="").replace(
        '["XS", "S", "M"]', '["XS"]'
    )
    runs = parse_study(text, "test").runs()
    assert [run.label for run in runs] == ["K1024-T16-s0", "K1024-T16-XS-s0.0"]


@pytest.mark.parametrize(
    ("isoflop", "message"),
    [
        ("", "[[grid]] block 1.isoflop flops"),
        ("flops = []", "flops = []"),
        ("flops = 1e12", "flops = 1000000000000.0"),
        ("flops = [-1]", "flops.0 = -1"),
        ("flops = [inf]", "flops.0 = inf"),
        ("flops = [1e12], min_image = 5", "did you mean 'min_images'?"),
        ("flops = [1e12], max_images = 5, min_images = 9", "max_images = 5 is below min_images = 9"),
        ("flops = [1e12], tolerance = 2", "tolerance = 2"),
        ('flops = [1e12], count = "all"', "count = 'all'"),
        ("flops = [10.0]", "none of its 6 points fits"),
        ("flops = [1e12], max_images = 64", "none of its 6 points fits; isoflop: 1e+12 FLOPs left out for"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(isoflop: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        _study(isoflop).runs()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_axis_of_budgets_beside_isoflop_is_refused() -> None:
    text = BASE.format(isoflop="flops = [1e12]", generator="") + 'zip = { "generator.train_images" = [[4096]] }\n'
    with pytest.raises(SpecError, match=r"sets generator.train_images beside isoflop"):
        parse_study(text, "test")
    with pytest.raises(SpecError, match=r"isoflop = 3 is not allowed; allowed: a table"):
        parse_study('[study]\nname = "t"\n[[grid]]\nisoflop = 3\n', "test")
    with pytest.raises(SpecError, match=r"there is no \[generator\]"):
        parse_study('[study]\nname = "t"\n[[grid]]\nisoflop = { flops = [1e12] }\n', "test")


def test_many_budgets_are_counted_before_they_are_expanded() -> None:
    with pytest.raises(SpecError, match="combinations; allowed"):
        _study(f"flops = {[float(k) for k in range(1, 50_000)]}")
