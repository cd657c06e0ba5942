"""Formulas are read as written, or refused in one line that marks the place; nothing of them is run as code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fitting.laws.formulas.grammar import Source, Tree, parse, parse_expression
from analysis.fitting.laws.formulas.law import FormulaLaw
from analysis.fitting.laws.formulas.tape import Tape
from analysis.fitting.laws.law import Columns
from results.errors import UsageError


def value(text: str, **names: float) -> float:
    """The value of a formula whose names are columns, and one parameter `zero` that is 0."""
    source = Source(f"({text}) + zero")
    tape = Tape(source, parse_expression(source), list(names), [])
    columns = Columns({name: np.array([number]) for name, number in names.items()})
    return float(np.ravel(tape.values({"zero": np.zeros((1, 1))}, columns)[tape.root])[0])


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2 + 3*4", 14.0),
        ("-2^2", -4.0),
        ("2^-1", 0.5),
        ("2^3^2", 512.0),
        ("2**3", 8.0),
        ("6/2/3", 1.0),
        ("6 - 2 - 3", 1.0),
        ("1e3*.5", 500.0),
        ("log2(8) + log10(1000)", 6.0),
        ("min(3, 2, 1)*max(1, 2)", 2.0),
        ("sqrt(16) + abs(-2) + tanh(0)", 6.0),
        ("+-+3", -3.0),
        ("(1 + x)*2", 7.0),
        ("`x`^2", 6.25),
        ("exp(log(x))", 2.5),
    ],
)
def test_meaning(text: str, right: float) -> None:
    assert value(text, x=2.5) == pytest.approx(right, rel=1e-14)


@st.composite
def trees(draw: st.DrawFn, depth: int = 4) -> tuple[str, float]:
    """A formula as text, and its value by plain arithmetic."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(1, 9))
        return str(number), float(number)
    left, a = draw(trees(depth - 1))
    right, b = draw(trees(depth - 1))
    sign = draw(st.sampled_from("+-*/"))
    if sign == "/" and b == 0:
        sign = "+"
    number = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0.0}[sign]
    space = draw(st.sampled_from(["", " "]))
    return f"({left}){space}{sign}{space}({right})", number


@given(trees())
def test_arithmetic(pair: tuple[str, float]) -> None:
    text, number = pair
    assert value(text + " + 0*x", x=1.0) == pytest.approx(number, rel=1e-12, abs=1e-12)


@given(st.text(alphabet="ENx0129.+-*/^(),=` \teE_log", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        left, right = parse(Source(text))
    except UsageError as problem:
        assert "\n" not in str(problem)
        return
    assert isinstance(right, Tree)
    assert left is None or isinstance(left, Tree)


WRONG = {
    "": "empty",
    "   ": "empty",
    "E +": "missing",
    "E + A/N^": "missing",
    "E + * N": "expected",
    "E + A//N": "expected",
    "(E + A/N": "not closed",
    "E + A/N)": "opening parenthesis is missing",
    "E + A N": "operator is missing",
    "2E + N": "neither a number nor a name",
    "3B*N": "neither a number nor a name",
    "1.2.3*N*A": "operator is missing",
    "E + foo(N)": "unknown function 'foo'",
    "E + sin(N)": "unknown function 'sin'",
    "E + ln(N)": "unknown function 'ln'",
    "__import__('os')*N": "not part of a formula",
    "E.real + N": "not part of a formula",
    "E[0]*N": "not part of a formula",
    "lambda: N": "not part of a formula",
    "E + 'x'*N": "not part of a formula",
    "E; N": "not part of a formula",
    "E + A%N": "not part of a formula",
    "E + A&N": "not part of a formula",
    "E + exp()": "expected",
    "E + exp(N, E)": "exp takes one argument",
    "E + min(N)": "min takes two arguments or more",
    "E + log(N": "not closed",
    "E = A = N": "no meaning here",
    "= N": "expected",
    "E + N, A": "no meaning here",
    "E + 1/0*N": "division by zero",
    "E*N + log(-1)": "not a real number",
    "E*N + log(0)": "infinite",
    "E*N + (-8)^(1/3)": "not a real number",
    "E*N + sqrt(-2)": "not a real number",
    "E*N + 10^400": "too large",
    "E*N + exp(1000)": "too large",
    "E*N + 1e999": "too large",
    "E*N + A - A": "'A' cancels",
    "E*N + A/A": "'A' cancels",
    "E*N + 0*A": "'A' cancels",
    "E*N + A^0": "'A' cancels",
    "E*N + log(exp(A)) - A": "'A' cancels",
    "E*N*A/A": "'A' cancels",
    "N": "no parameter to fit",
    "E + A": "does not occur",
    "N = E + A/N": "needs the metric",
    "L = E + A*L/N": "cannot explain itself",
    "A*N = E": "needs the metric",
    "(" * 80 + "N" + ")" * 80: "nested deeper",
    "+".join(["E"] * 3000): "characters",
}


@pytest.mark.parametrize(("text", "reason"), WRONG.items())
def test_wrong_formulas(text: str, reason: str) -> None:
    from analysis.fitting.laws.formulas.equation import formula_law

    with pytest.raises(UsageError, match=reason.replace("(", r"\(")) as caught:
        formula_law(text, ["N"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_place_is_marked() -> None:
    with pytest.raises(UsageError, match=r"at character 5: E \+ \[foo\]\(N\)"):
        FormulaLaw("E + foo(N)", ["N"])


@given(st.floats(0.1, 3), st.floats(0.1, 3), st.floats(0.2, 2))
def test_slopes_are_those_of_finite_differences(a: float, b: float, n: float) -> None:
    text = "a*exp(-b*log(N)^2) + sqrt(a*N) + tanh(b*N)/(1 + N^b) + max(a, b)*2^a + log10(b)*abs(a - 5) + min(N^a, 9)"
    source = Source(text)
    tape = Tape(source, parse_expression(source), ["N"], ["N"])
    x = Columns({"N": np.array([n])})

    def at(**moved: float) -> float:
        p = {name: np.array([[number]]) for name, number in ({"a": a, "b": b} | moved).items()}
        return float(np.ravel(tape.values(p, x)[tape.root])[0])

    if abs(a - b) < 1e-3 or abs(n**a - 9) < 1e-2:
        return  # a corner
    slopes = tape.slopes(tape.values({"a": np.array([[a]]), "b": np.array([[b]])}, x))
    step = 1e-6
    for name, number in (("a", a), ("b", b)):
        difference = (at(**{name: number + step}) - at(**{name: number - step})) / (2 * step)
        assert float(np.ravel(slopes[name])[0]) == pytest.approx(difference, rel=1e-5, abs=1e-6)
        assert math.isfinite(difference)
