"""The joint law: slopes, recovery of known exponents, what it refuses to tell, predictions of hidden tokenizers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.laws.law import Columns, Law
from analysis.fitting.problem import parameters_of
from analysis.tokenizers.compute import Compute
from analysis.tokenizers.joint.allocation import Prices, Tokenizer, candidates, joint_optimum
from analysis.tokenizers.joint.answer import JointAnswer
from analysis.tokenizers.joint.comparison import LAW_FLOOR, LONGEST, OWN_FLOOR, PROCESS, compare_joint
from analysis.tokenizers.joint.fitting import fit_joint
from analysis.tokenizers.joint.floors import FloorLaw
from analysis.tokenizers.joint.gaussian_process import GaussianProcess
from analysis.tokenizers.joint.law import FORMS, JointLaw
from analysis.tokenizers.joint.table import Centre, joint_table
from analysis.tokenizers.measure import Measure
from analysis.tokenizers.next_runs import next_runs
from analysis.tokenizers.pair_laws import pair_curves
from analysis.tokenizers.standing import Standing
from results.errors import FitError, UsageError
from tests.benchmarks.synthetic_studies import SIZES, SyntheticStudy, Truth, draw_study, per_image


@pytest.fixture(scope="module")
def study() -> SyntheticStudy:
    kinds = ((16, 16, 0.0), (1024, 16, 0.0), (64, 64, 0.0), (1024, 64, 0.0), (1024, 16, 0.25))
    return draw_study(4, kinds=kinds, sizes=("XS", "S", "M"), seeds=2, budgets=(13, 15), truth=Truth())


@pytest.fixture(scope="module")
def table(study: SyntheticStudy) -> pd.DataFrame:
    return joint_table(study.frames)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied", [False, True])
def test_slopes_are_those_of_the_prediction(form: str, tied: bool) -> None:
    law = JointLaw(form, tokenizers=2, open_floors=1, tied=tied)  # type: ignore[arg-type]
    random = np.random.default_rng(1)
    names = ("log_n", "log_d", "k", "t", "u", "tokens")
    columns = {name: random.uniform(0.1, 1.0, 8) for name in names}
    columns |= {"floor": np.array([2.0, 0, 2, 0, 2, 0, 2, 0]), "open_floor": np.array([-1.0, 0] * 4)}
    columns |= {"tokenizer": np.array([0.0, 1] * 4), "of_loss": np.array([0.0] * 4 + [1.0] * 4)}
    x = Columns(columns)
    p = {q.name: np.full((1, 1), random.uniform(0.3, 1.2)) for q in law.parameters}
    value, slopes = law.evaluate(p, x)
    assert np.allclose(value, law.predict(p, x), rtol=1e-13)
    step = 1e-6
    for parameter, slope in zip(law.parameters, slopes, strict=True):
        ends = [law.predict({**p, parameter.name: p[parameter.name] + s}, x) for s in (step, -step)]
        assert np.allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8), parameter.name
    assert isinstance(law, Law) and len(parameters_of(law, np.zeros((1, len(law.parameters))))) == len(law.names)


def test_known_exponents_are_recovered(study: SyntheticStudy, table: pd.DataFrame) -> None:
    fitted = fit_joint(table, replicates=100)
    truth = study.truth
    for name, e in fitted.estimates().items():
        if name in ("alpha", "beta", "p", "q", "s", "gamma"):
            assert e.value is not None and e.se is not None
            assert abs(e.value - getattr(truth, name)) < 4 * e.se + 0.01, name
    difference, p_value = fitted.rate_alone() or pytest.fail("p and q are told here")
    assert difference.low < truth.p - truth.q < difference.high
    assert p_value < 0.05
    alone = fit_joint(table, tied=True)
    assert alone.law.tied and alone.result.objective > fitted.result.objective


def test_a_law_in_which_rate_alone_matters_is_not_refuted() -> None:
    truth = Truth(p=0.5, q=0.5)
    drawn = draw_study(5, sizes=("XS", "S"), budgets=(13, 15), truth=truth)
    test = fit_joint(joint_table(drawn.frames), replicates=60).rate_alone()
    assert test is not None and test[1] > 0.05


def test_hidden_tokenizers_are_predicted_better_than_without_a_form(table: pd.DataFrame) -> None:
    comparison = compare_joint(table)
    for case in (OWN_FLOOR, LAW_FLOOR, LONGEST):
        joint, process = comparison.error("joint", case), comparison.error(PROCESS, case)
        assert joint is not None and process is not None
        assert joint.rmse < process.rmse
    assert comparison.error("joint", OWN_FLOOR).rmse < 0.06  # type: ignore[union-attr]
    assert [text.split(":")[0] for text in comparison.untested] == ["K1024-T16-crt0.25"]
    assert comparison.best in (*FORMS, PROCESS)


@pytest.mark.parametrize(
    ("kinds", "words", "told"),
    [
        (((16, 16, 0.0), (1024, 16, 0.0)), "what tokens do (q) is not known", {"p"}),
        (((64, 16, 0.0), (64, 64, 0.0)), "what codes do (p) is not known", {"q"}),
        (((16, 16, 0.0), (256, 64, 0.0)), "only the rate can be known", {"p", "q"}),
        (((16, 16, 0.0), (1024, 16, 0.25)), "cannot be told apart", {"p"}),
    ],
)
def test_what_few_tokenizers_cannot_tell_is_said(
    kinds: tuple[tuple[float, float, float], ...], words: str, told: set[str]
) -> None:
    drawn = draw_study(1, kinds=kinds, sizes=("XS", "S"), budgets=(13, 15))
    fitted = fit_joint(joint_table(drawn.frames), "direct", replicates=40)
    assert any(words in note for note in fitted.identified.notes)
    assert fitted.identified.names == told
    for name, estimate in fitted.estimates().items():
        lost = {*fitted.identified.held, *fitted.result.not_identified}
        assert (estimate.value is None) == (name in lost), name
        assert estimate.value is None or np.isfinite(estimate.value)


def test_one_tokenizer_one_size_and_few_points_end_in_a_sentence() -> None:
    alone = draw_study(1, kinds=((16, 16, 0.0),), sizes=("XS", "S"))
    with pytest.raises(FitError, match="one tokenizer alone"):
        JointAnswer.of(alone.frames)
    few = SimpleNamespace(ranked=alone.points.head(5), floor_is_comparable=True, compute=Compute())
    with pytest.raises(FitError, match="needs 8 points"):
        JointAnswer.of(few)  # type: ignore[arg-type]
    one_size = draw_study(1, kinds=((16, 16, 0.0), (1024, 16, 0.0)), sizes=("S",))
    answer = JointAnswer.of(one_size.frames, replicates=40)
    assert any("one generator size alone" in note for note in answer.notes)
    assert answer.fitted.estimates()["alpha"].value is None


def test_without_floors_or_losses_the_direct_law_is_fitted_and_floors_with_it() -> None:
    drawn = draw_study(2, kinds=((16, 16, 0.0), (1024, 16, 0.0)), sizes=("XS", "S"))
    frames = SimpleNamespace(
        ranked=drawn.points.drop(columns="nats_per_image"), floor_is_comparable=False, compute=Compute(),
        measure=Measure(guidance="best"),
    )  # fmt: skip
    table = joint_table(frames)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="nats per image of every tokenizer"):
        fit_joint(table)
    answer = JointAnswer.of(frames, replicates=40)  # type: ignore[arg-type]
    assert answer.fitted.form in ("direct", "root")
    floors = [answer.fitted.result.parameters[name].value for name in ("F0", "F1")]
    lowest = drawn.points.groupby("family")["gfid"].min()
    assert all(f is None or 0 <= f < low for f, low in zip(floors, lowest, strict=True))
    predicted = fit_joint(table, "direct").result.predict(answer.fitted.columns(table.assign(floor=0.0)))
    assert np.isfinite(predicted).all()
    prediction = answer.at(1e12, None)
    assert prediction.optimum is None
    assert prediction.notes == ("rfid_floor is no floor of gFID at best guidance: guidance can undercut it",)


@pytest.mark.parametrize(
    ("changes", "comparable", "measure", "reason"),
    [
        ({"rfid_floor": np.nan}, False, Measure(), "tokenizers not trained have no floor: no rfid_floor was measured"),
        ({}, False, Measure("kid"), "rfid_floor is no floor of KID: it is one of gFID"),
        ({}, False, Measure(), "rfid_floor is no floor of this gFID: they were measured under different protocols"),
        (
            {"width": np.nan},
            True,
            Measure(),
            "what other tokenizers would cost is not known: no width or FLOPs of S, XS",
        ),
        ({"one": True}, True, Measure(), "the law of the floor needs two tokenizers with a measured rfid_floor, not 1"),
    ],
)
def test_why_tokenizers_not_trained_are_not_predicted_is_said(
    changes: dict[str, float], comparable: bool, measure: Measure, reason: str
) -> None:
    points = draw_study(2, kinds=((16, 16, 0.0), (1024, 16, 0.0)), sizes=("XS", "S"), seeds=1).points
    if changes.pop("one", None):
        changes = {"rfid_floor": points["rfid_floor"].where(points["family"] == "K16-T16")}  # type: ignore[dict-item]
    frames = SimpleNamespace(
        ranked=points.assign(**changes), floor_is_comparable=comparable, compute=Compute(), measure=measure
    )
    answer = JointAnswer.of(frames, replicates=40)  # type: ignore[arg-type]
    assert answer.at(1e12, None).notes == (reason,)
    chosen = next_runs(frames.ranked, pair_curves(frames.ranked), 1e12, 1e13, joint=answer)
    assert any(reason in note for note in chosen.notes)


def test_law_of_the_floor() -> None:
    rows = pd.DataFrame({"codes": [16, 256, 1024, 16, 1024], "tokens": [16.0, 16, 16, 64, 64], "weight": 0.0})
    rows["rate"] = rows["tokens"] * np.log2(rows["codes"])
    rows["floor"] = 50 * rows["rate"] ** -0.6
    rows = rows.assign(tokenizer=list("abcde"), params=1e4, images=1e4)
    centre = Centre.of(rows)
    floors = FloorLaw.of(rows, centre)
    assert floors.to_dict()["phi"] == pytest.approx(0.6) and floors.to_dict()["psi"] is None
    new = pd.DataFrame({"codes": [64.0], "tokens": [16.0], "weight": [0.0], "params": 1e4, "images": 1e4})
    new["rate"] = 96.0
    assert floors.predict(new, centre)[0] == pytest.approx(50 * 96**-0.6)
    with pytest.raises(FitError, match="two tokenizers with a measured rfid_floor, not 1"):
        FloorLaw.of(rows.head(1), centre)


def test_gaussian_process_follows_a_smooth_surface_and_opens_outside_it() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (60, 2))
    surface = np.sin(x[:, 0]) + 0.3 * x[:, 1]
    process = GaussianProcess.of(x, surface + random.normal(0, 0.01, 60))
    at = random.uniform(-1.5, 1.5, (40, 2))
    mean, sd = process.predict(at)
    assert np.abs(mean - np.sin(at[:, 0]) - 0.3 * at[:, 1]).max() < 0.05
    assert process.predict(np.array([[30.0, 0.0]]))[1][0] > 3 * sd.max()


def test_costs_are_those_of_the_study(table: pd.DataFrame) -> None:
    prices = Prices.of(table, Compute())
    for size, (params, _) in SIZES.items():
        for codes, tokens in ((16, 16), (512, 64)):
            each = prices.per_image(np.array([params]), np.array([codes]), np.array([tokens]))
            assert each[0] == pytest.approx(per_image(codes, tokens, size), rel=1e-9)
    total = Prices.of(table, Compute(total=True, generators=2))
    columns = (np.array([1e5]), np.array([64.0]), np.array([16.0]), np.array([0.0]))
    alone, shared = (p.images(1e13, *columns)[0] for p in (prices, total))
    assert (alone - shared) * per_image(64, 16, "S") == pytest.approx(1.25e12, rel=0.1)


def test_stage_1_costs_by_rate_and_by_whether_the_regulariser_is_there(table: pd.DataFrame) -> None:
    """With it 1.2 times, at the one rate at which both were trained; the median over both would be 1.1 times."""
    plain = 2e12 + 1e9 * table["rate"]
    priced = table.assign(tokenizer_flops=plain * np.where(table["weight"] > 0, 1.2, 1.0))
    rate, weight = np.array([64.0, 160, 640, 160, 640]), np.array([0.0, 0, 0, 0.25, 0.5])
    prices = Prices.of(priced, Compute())
    assert prices.tokenizer(rate, weight) == pytest.approx((2e12 + 1e9 * rate) * np.where(weight > 0, 1.2, 1.0))
    assert prices.assumed([Tokenizer(64, 16, 0.25), Tokenizer(64, 16)], table) is None
    # A ratio where no rate has both: against the price of the others between their rates.
    apart = Prices.of(priced[(priced["weight"] > 0) | (priced["rate"] != 160)], Compute())
    assert apart.regularised == pytest.approx(1.2, rel=0.05)
    for kept, lacks in ((priced["weight"] == 0, "with"), (priced["weight"] > 0, "without")):
        alike = Prices.of(priced[kept], Compute())
        assert len(set(alike.tokenizer(np.full(2, 160.0), np.array([0.0, 0.25])))) == 1
        words = alike.assumed([Tokenizer(64, 16, 0.25), Tokenizer(64, 16)], priced[kept])
        assert words is not None and words.startswith(f"no tokenizer {lacks} the causal regulariser was trained")
    nothing = Prices.of(table.assign(tokenizer_flops=np.nan), Compute())
    assert np.isnan(nothing.tokenizer(rate, weight)).all()


def test_optimum_and_tokenizers_not_trained(study: SyntheticStudy, table: pd.DataFrame) -> None:
    answer = JointAnswer.of(study.frames, replicates=80)
    flops = 1e12
    best = joint_optimum(answer.fitted, answer.prices, flops)  # type: ignore[arg-type]
    grid = [
        (t * b, study.truth.gfid(2.0**b, t, 0.0, n, flops / (6 * t * (n + 32 * (n / 13_792) ** 0.337 * 2**b))))
        for t in (16, 64)
        for b in np.arange(4, 10.1, 0.25)
        for n in np.geomspace(13_792, 420_000, 20)
    ]
    rate = min(grid, key=lambda item: item[1])[0]
    assert best.rate.low is not None and best.rate.low * 0.85 <= rate <= best.rate.high * 1.15  # type: ignore[operator]
    standing = Standing.at(pair_curves(study.points), flops, 4000, 0)
    prediction = answer.at(flops, standing)
    assert prediction.untrained and 0 <= (prediction.any_untrained or 0) <= 1
    # One pool: its shares make 1, and a pair not worse than the measured ones leaves those with a regret.
    pool = [*prediction.measured, *prediction.untrained]
    assert sum(p.probability for p in pool) == pytest.approx(1)
    assert sum(p.probability for p in prediction.untrained) == pytest.approx(prediction.any_untrained)
    assert {p.name for p in prediction.measured} == {pair.name for pair in standing.judged}
    alone = float(np.expm1(standing.drawn - standing.drawn.min(axis=1, keepdims=True)).mean(axis=0).min())  # type: ignore
    assert prediction.measured[0].regret == min(p.regret for p in prediction.measured) > alone
    assert prediction.to_dict()["measured"][0]["regret"] == prediction.measured[0].regret
    first = prediction.untrained[0]
    assert first.low < first.gfid < first.high and first.family not in set(table["family"])
    assert {t.name for t in candidates(table)}.isdisjoint(set(table["family"]))
    named = answer.at(flops, standing, [Tokenizer(128, 16)])
    assert {p.family for p in named.untrained} == {"K128-T16"}
    truth = study.truth.gfid(128, 16, 0.0, SIZES["S"][0], flops / per_image(128, 16, "S"))
    of_small = next(p for p in named.untrained if p.size == "S")
    assert of_small.low < truth < of_small.high
    tiny = answer.at(1e8, None, [Tokenizer(128, 16)])
    assert not tiny.untrained and any("buy less than" in note for note in tiny.notes)


@pytest.mark.parametrize("text", ["", "codes=16", "codes=1,tokens=16", "codes=16,tokens=x", "codes=16,tokens=16,k=1"])
def test_candidates_as_typed(text: str) -> None:
    assert Tokenizer.read("codes=256,tokens=16,weight=0.25").name == "K256-T16-crt0.25"
    with pytest.raises(UsageError, match=r"candidate = .* is not allowed; allowed: codes=256,tokens=16"):
        Tokenizer.read(text)
