"""Laws typed as formulas: what is found from the text, and fits that reach those of the laws that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import fit
from analysis.fitting.laws.formulas.equation import EquationLaw, formula_law
from analysis.fitting.laws.formulas.law import FormulaLaw, bound_of
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import LOSS, Columns
from analysis.fitting.laws.tied import TiedLaw
from analysis.fitting.result import FitResult, Status
from analysis.inference.bootstrap import bootstrap, with_intervals
from results.errors import UsageError

DATA = Path(__file__).parents[4].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

CHINCHILLA = "E + A/N^alpha + B/D^beta"
BEST_N = "min(N, (alpha*A/(beta*B))^(1/alpha)*min(D, U)^(beta/alpha))"
DATA_CONSTRAINED = (
    f"E + A/({BEST_N}*(1 + R_N*(1 - exp(-max(N/{BEST_N} - 1, 0)/R_N))))^alpha"
    " + B/(min(D, U)*(1 + R_D*(1 - exp(-max(D/min(D, U) - 1, 0)/R_D))))^beta"
)


def chinchilla(seed: int = 0, rows: int = 80, noise: float = 0.01) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params, tokens = np.exp(rng.uniform(17, 23, rows)), np.exp(rng.uniform(20, 26, rows))
    loss = 1.7 + 400 / params**0.34 + 1500 / tokens**0.37
    return {"N": params, "D": tokens, "metric": loss * np.exp(noise * rng.normal(size=rows))}


def named(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same points by the column names of the laws that ship."""
    names = {"N": "params", "D": "tokens", "U": "unique_tokens"}
    return {names.get(name, name): column for name, column in data.items()}


def test_what_is_found_in_the_text() -> None:
    law = FormulaLaw(CHINCHILLA, ["N", "D"])
    assert law.names == ("E", "A", "alpha", "B", "beta")
    assert law.structure.linear == ("E", "A", "B")
    assert law.floor_parameter == "E"
    units = {q.name: q.unit for q in law.parameters}
    assert units["E"] == {LOSS: 1.0}
    p = {"alpha": np.array([0.5]), "beta": np.array([0.25])}
    assert set(units["A"]) == {LOSS, "N"}
    assert units["A"]["N"](p) == pytest.approx(0.5)
    assert units["B"]["D"](p) == pytest.approx(0.25)
    assert [(q.lower, q.upper) for q in law.parameters if q.name == "alpha"] == [(0.0, 10.0)]


@pytest.mark.parametrize(
    ("text", "columns", "linear", "unscaled"),
    [
        ("k*N^a*D^b", ("N", "D"), ("k",), set()),
        ("c + d*log(N)", ("N",), ("c", "d"), {"N"}),
        ("a/(1 + b*N)^c", ("N",), ("a",), set()),
        ("a*(1 + c*N^-d)", ("N",), ("a",), set()),
        ("exp(c0 + c1*log(N) + c2*log(D))", ("N", "D"), ("c0", "c1", "c2"), {"N", "D", LOSS}),
        ("E + exp(c0 + c1*log(N))", ("N",), ("c0", "c1"), {"N", LOSS}),
        ("1 + a/N^b", ("N",), ("a",), {LOSS}),
    ],
)
def test_linear_parameters_and_scales(
    text: str, columns: tuple[str, ...], linear: tuple[str, ...], unscaled: set
) -> None:
    law = FormulaLaw(text, columns)
    assert law.structure.linear == linear
    assert law.units.unscaled == unscaled


def test_a_coefficient_that_also_stands_elsewhere_is_solved_for() -> None:
    law = FormulaLaw(DATA_CONSTRAINED, ["N", "D", "U"])
    assert law.structure.linear == ("E", "A", "B")
    assert law.structure.searched == ("alpha", "beta", "R_N", "R_D")
    # exact where the other place is at the value that the start takes, 1
    p = {"b": np.array([[0.5]])}
    x = Columns({"N": np.linspace(1.0, 9.0, 12)})
    repeated = FormulaLaw("E + A/N^b + log(1 + A*N)", ["N"])
    metric = repeated.predict({**p, "E": np.array([[2.0]]), "A": np.array([[1.0]])}, x)[0]
    basis, target, weight = repeated.linear_system(p, x, metric)
    columns = np.stack([np.broadcast_to(column, (1, 12))[0] for column in basis], axis=1)
    root = np.sqrt(weight)
    solved = np.linalg.lstsq(columns * root[:, None], target[0] * root, rcond=None)[0]
    assert solved == pytest.approx([2.0, 1.0], abs=1e-10)


def test_the_ratio_of_two_columns_shares_a_scale() -> None:
    law = FormulaLaw("E + A/D^b*(1 + c*max(D/U - 1, 0)^d)", ["D", "U"])
    assert dict(law.units.together) == {"U": "D"}


def compare(builtin: str, text: str, columns: list[str], data: dict[str, np.ndarray], bounds: str = "") -> FitResult:
    right = fit(builtin, named(data))
    got = fit(formula_law(text, columns, bounds), data)
    assert got.objective <= right.objective * (1 + 1e-8)
    return got


def test_chinchilla_as_a_formula() -> None:
    got = compare("chinchilla", CHINCHILLA, ["N", "D"], chinchilla())
    assert got.status is Status.CONVERGED
    right = fit("chinchilla", named(chinchilla()))
    assert got.objective == pytest.approx(right.objective, rel=1e-9)
    assert got.values == pytest.approx(right.values, rel=1e-6)


def test_kaplan_as_a_formula() -> None:
    got = compare("kaplan", "((Nc/N)^(aN/aD) + Dc/D)^aD", ["N", "D"], chinchilla())
    assert got.status is Status.CONVERGED


@needs_data
@pytest.mark.slow
def test_published_tables_by_formula() -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c = table["Model Size"].to_numpy(float), table["Training FLOP"].to_numpy(float)
    points = {"N": n, "D": c / (6 * n), "metric": table["loss"].to_numpy(float)}
    compare("chinchilla", CHINCHILLA, ["N", "D"], points)
    compare("kaplan", "((Nc/N)^(aN/aD) + Dc/D)^aD", ["N", "D"], points)
    table = pd.read_parquet(DATA / "scalebench" / "data_constrained_train.parquet")
    points = {"N": table.params, "D": table.tokens, "U": table.unique_tokens, "metric": table.loss}
    compare("data-constrained", DATA_CONSTRAINED, ["N", "D", "U"], {k: v.to_numpy(float) for k, v in points.items()})


@needs_data
@pytest.mark.slow
def test_learning_curves_by_formula() -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "alabdulmohsin_benchmark.vision.csv")
    groups = list(table[table.Training == 1].groupby(["Domain", "Task", "Model"]))[:3]
    bounds = "a=0:,c0=-10:10,c1=-10:10,f1=0.01:30"
    for _, rows in groups:
        points = {"x": rows["Seen Examples"].to_numpy(float), "metric": rows.Loss.to_numpy(float)}
        compare("bnsl-1", "a + b*x^-c0*(1 + (x/d1)^(1/f1))^(-c1*f1)", ["x"], points, bounds)
        compare("m4", "(L - e)/(e0 - L)^k = a*x^-c", ["x"], points, "e=0:")


def test_rising_and_signed_quantities() -> None:
    x = np.geomspace(1e4, 1e9, 30)
    rising = fit(FormulaLaw("k*C^a", ["C"]), {"C": x, "metric": 3.0 * x**0.5})
    assert rising.values == pytest.approx({"k": 3.0, "a": 0.5}, rel=1e-6)
    accuracy = fit(FormulaLaw("E - A/x^a", ["x"]), {"x": x, "metric": 0.9 - 3 * x**-0.2})
    assert accuracy.values == pytest.approx({"E": 0.9, "A": 3.0, "a": 0.2}, rel=1e-5)
    signed = fit(FormulaLaw("E + A/x^a", ["x"]), {"x": x, "metric": -2 + 8 * x**-0.2}, residual="raw")
    assert signed.values == pytest.approx({"E": -2.0, "A": 8.0, "a": 0.2}, rel=1e-5)


def test_equation() -> None:
    law = formula_law("(L - e)/(e0 - L)^k = a*x^-c", ["x"])
    assert isinstance(law, EquationLaw)
    assert law.structure.linear == ("k", "a", "c")
    x = Columns({"x": np.geomspace(0.2, 5, 6)})
    p = {name: np.array([[v]]) for name, v in {"e": 0.3, "e0": 1.4, "k": 0.7, "a": 0.8, "c": 0.4}.items()}
    value, slopes = law.evaluate(p, x)
    left = (value - 0.3) / (1.4 - value) ** 0.7
    assert left == pytest.approx(0.8 * x.value("x")[None, :] ** -0.4, rel=1e-12)
    for name, slope in zip(law.names, slopes, strict=True):
        step = {name: p[name] + 1e-6}, {name: p[name] - 1e-6}
        difference = (law.predict({**p, **step[0]}, x) - law.predict({**p, **step[1]}, x)) / 2e-6
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_bounds() -> None:
    assert bound_of("alpha=0:2") == ("alpha", (0.0, 2.0))
    assert bound_of("A=:") == ("A", (-np.inf, np.inf))
    data = chinchilla()
    held = fit(FormulaLaw(CHINCHILLA, ["N", "D"], "alpha=0:0.2,A=1:50"), data)
    assert held.values["alpha"] <= 0.2
    assert 1 <= held.values["A"] <= 50 * (1 + 1e-12)
    assert held.status is Status.BOUNDARY


@pytest.mark.parametrize("text", ["alpha", "alpha=2:1", "alpha=a:b", "alpha=0:1:2"])
def test_wrong_bounds(text: str) -> None:
    with pytest.raises(UsageError, match="bound"):
        bound_of(text)


def test_bound_of_an_unknown_parameter() -> None:
    with pytest.raises(UsageError, match="no parameter 'beta'; it has E, A, alpha"):
        FormulaLaw("E + A/N^alpha", ["N"], "beta=0:1")


def test_stored_and_read_again() -> None:
    data = chinchilla()
    result = fit(FormulaLaw(CHINCHILLA, ["N", "D"], "alpha=0:2"), data)
    again = FitResult.from_json(result.to_json())
    new = {"N": np.array([1e9]), "D": np.array([2e10])}
    assert again.predict(new) == pytest.approx(result.predict(new), rel=1e-15)
    assert again.law.options() == result.law.options()


def test_known_by_name() -> None:
    law = law_named("formula", text="a*x^b", columns="x")
    assert law.columns == ("x",)


@settings(max_examples=15, deadline=None)
@given(st.floats(1.0, 3.0), st.floats(0.15, 0.6), st.floats(0.15, 0.6), st.integers(0, 10**6))
def test_known_truth_is_recovered(floor: float, alpha: float, beta: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(16, 22, 60)), np.exp(rng.uniform(19, 25, 60))
    loss = floor + 1.3 * (n / 1e8) ** -alpha + 0.8 * (d / 1e9) ** -beta
    result = fit(FormulaLaw(CHINCHILLA, ["N", "D"]), {"N": n, "D": d, "metric": loss})
    assert result.values["E"] == pytest.approx(floor, rel=1e-5)
    assert result.values["alpha"] == pytest.approx(alpha, rel=1e-4)
    assert result.values["beta"] == pytest.approx(beta, rel=1e-4)


@pytest.mark.parametrize("law", ["chinchilla", CHINCHILLA])
def test_fixed_parameters(law: str) -> None:
    data = chinchilla(noise=0.0)
    chosen = FormulaLaw(law, ["N", "D"]) if law == CHINCHILLA else law
    points = data if law == CHINCHILLA else named(data)
    held = fit(chosen, points, fixed={"A": 400.0, "alpha": 0.34})
    assert held.values["A"] == pytest.approx(400, rel=1e-12)
    assert held.values == pytest.approx({"E": 1.7, "A": 400, "B": 1500, "alpha": 0.34, "beta": 0.37}, rel=1e-5)
    amplitude = fit(chosen, points, fixed={"A": 500.0})
    assert amplitude.values["A"] == pytest.approx(500, rel=1e-12)
    assert amplitude.values["alpha"] > 0.34
    drawn = with_intervals(amplitude, bootstrap(amplitude, replicates=40))
    assert drawn.parameters["A"].low == pytest.approx(500, rel=1e-9)


@pytest.mark.parametrize("law", ["chinchilla", CHINCHILLA])
def test_tied_parameters(law: str) -> None:
    rng = np.random.default_rng(3)
    n, d = np.exp(rng.uniform(17, 23, 60)), np.exp(rng.uniform(20, 26, 60))
    data = {"N": n, "D": d, "metric": 1.7 + 400 / n**0.3 + 900 / d**0.3}
    inner = FormulaLaw(law, ["N", "D"]) if law == CHINCHILLA else law_named(law)
    points = data if law == CHINCHILLA else named(data)
    result = fit(TiedLaw(inner, {"alpha": "beta"}), points)
    assert result.values == pytest.approx({"E": 1.7, "A": 400, "B": 900, "beta": 0.3}, rel=1e-5)
    again = FitResult.from_json(result.to_json())
    new = {name: points[name][:3] for name in result.law.columns}
    assert again.predict(new) == pytest.approx(data["metric"][:3], rel=1e-6)


def test_coefficients_tied() -> None:
    x = np.geomspace(1, 1e4, 40)
    law = TiedLaw(FormulaLaw("A/x^a + B*x^-0.1", ["x"]), {"B": "A"})
    result = fit(law, {"x": x, "metric": 2 * x**-0.5 + 2 * x**-0.1})
    assert result.values == pytest.approx({"A": 2.0, "a": 0.5}, rel=1e-6)


@pytest.mark.parametrize(
    ("ties", "words"),
    [
        ({"q": "alpha"}, "no parameter 'q'"),
        ({"A": "alpha"}, "exponent or a coefficient"),
        ({"A": "B", "B": "E"}, "follows"),
    ],
)
def test_wrong_ties(ties: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TiedLaw(FormulaLaw(CHINCHILLA, ["N", "D"]), ties)


def test_a_start_of_ones_own() -> None:
    data = chinchilla()
    result = fit(FormulaLaw(CHINCHILLA, ["N", "D"]), data, start={"A": 400.0, "alpha": 0.34}, starts=1)
    assert result.objective == pytest.approx(fit("chinchilla", named(data)).objective, rel=1e-9)
    with pytest.raises(UsageError, match="no parameter 'gamma'"):
        fit("chinchilla", named(data), start={"gamma": 1.0})
