"""Laws of the user's own: they work with little, name their floor, and end in one line where they are wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.fit import fit
from analysis.fitting.laws.law import LOSS, Columns, Law, Parameter, SeparableLaw, Term, Values, usual_values
from analysis.fitting.request import FitRequest
from analysis.fitting.result import Status
from results.errors import UsageError

E = Parameter("E", linear=True, unit={LOSS: 1})
A = Parameter("A", 1e-9, 1e9, log=True, linear=True, unit={LOSS: 1, "params": lambda p: p["alpha"]})
ALPHA = Parameter("alpha", 0, 10)
N = np.exp(np.random.default_rng(0).uniform(15, 20, 40))
POINTS = {"params": N, "metric": 1.5 + 300 / N**0.35}


class Sum(SeparableLaw):
    """L = E + A/N^alpha as a sum of terms, without a grid."""

    name = "sum-law"
    formula = "L = E + A/N^alpha"
    source = "this test"
    columns = ("params",)
    parameters = (E, A, ALPHA)
    floor_parameter = "E"

    def terms(self, p: Values, x: Columns) -> list[Term]:
        log = x.log("params")
        power = np.exp(-p["alpha"] * log)
        return [Term("E", 1.0), Term("A", power, {"alpha": -power * log})]


class Plain(Law):
    """The same, by `predict` alone."""

    name = "plain-law"
    formula = "L = E + A/N^alpha"
    source = "this test"
    columns = ("params",)
    parameters = (E, A, ALPHA)
    floor_parameter = "E"

    def predict(self, p: Values, x: Columns) -> np.ndarray:
        return p["E"] + p["A"] * x.value("params") ** -p["alpha"]


def unmarked(q: Parameter) -> Parameter:
    return Parameter(q.name, q.lower, q.upper, q.log, unit=q.unit)


@pytest.mark.parametrize("law", [Sum, Plain])
@pytest.mark.parametrize("marked", [(), ("E",), ("A",), ("E", "A")])
def test_neither_grid_nor_linear_is_needed(law: type[Law], marked: tuple[str, ...]) -> None:
    user_law = law()
    user_law.parameters = tuple(q if q.name in marked else unmarked(q) for q in law.parameters)
    result = fit(user_law, POINTS)
    assert result.status is Status.CONVERGED and not result.warnings
    assert [result.values[name] for name in ("E", "A", "alpha")] == pytest.approx([1.5, 300, 0.35])


@pytest.mark.parametrize("law", [Sum, Plain])
def test_its_floor_is_held_and_signed(law: type[Law]) -> None:
    table = pd.DataFrame({"params": N, "loss": POINTS["metric"]})
    assert FitRequest(table, law(), floor=1.2).fit().values["E"] == pytest.approx(1.2)
    table["loss"] -= 4
    signed = FitRequest(table, law(), floor="SIGNED", residual="raw", loss="squares").fit()
    assert signed.values["E"] == pytest.approx(-2.5)


def wrong(what: str) -> Law:
    """A law with one mistake."""
    base: type[Law] = Plain if what in ("parameter", "shape") else Sum

    class Wrong(base):  # type: ignore[valid-type, misc]
        def predict(self, p: Values, x: Columns) -> np.ndarray:
            if what == "parameter":
                return p["E"] + p["beta"]
            return np.ones(3) if what == "shape" else super().predict(p, x)

        def terms(self, p: Values, x: Columns) -> list[Term]:
            terms = super().terms(p, x)
            if what == "column":
                return [*terms, Term("E", x.value("tokens"))]
            return [Term("E", 1.0), Term("A", terms[1].value)] if what == "slope" else terms

    law = Wrong()
    if what == "unit":
        law.parameters = (Parameter("E", linear=True), A, ALPHA)
    if what == "linear":
        law.parameters = (E, A, Parameter("alpha", 0, 10, linear=True))
    return law


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("parameter", r"law plain-law \(test_own_law.py, line \d+\): KeyError: 'beta'"),
        ("column", r"law sum-law \(test_own_law.py, line \d+\): KeyError: 'tokens'"),
        ("shape", "law plain-law: ValueError: operands could not be broadcast"),
        ("slope", "law sum-law: no term has 'alpha' as its coefficient, and none has a slope in 'alpha'"),
        ("linear", "law sum-law: 'alpha' is marked linear, but is no term's coefficient"),
        ("unit", "units do not fit its formula"),
    ],
)
def test_a_mistake_is_one_line(what: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        fit(wrong(what), POINTS)
    assert "\n" not in str(caught.value)


def test_usual_values_lie_inside_the_bounds() -> None:
    for q in (ALPHA, E, A, Parameter("q", -3, -2), Parameter("q", 5, 6), Parameter("q", 2e3, 3e3, log=True)):
        values = usual_values(q)
        assert values and all(q.lower <= value <= q.upper for value in values)
