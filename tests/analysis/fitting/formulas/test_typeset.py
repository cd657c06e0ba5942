"""Formulas as mathematics: what they look like, and that matplotlib draws them."""

from __future__ import annotations

import pytest
from matplotlib.mathtext import MathTextParser

from analysis.fitting.laws.formulas.typeset import typeset
from analysis.fitting.laws.known_laws import LAWS, law_named


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("L = E + A/N^alpha + B/D^beta", r"$L = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}$"),
        ("(Nc/N)^(alpha_N/alpha_D)", r"$\left(\frac{N_{c}}{N}\right)^{\alpha_{N}/\alpha_{D}}$"),
        ("k*N^a*D^-b", r"$k\,N^{a}\,D^{-b}$"),
        ("a - (b - c)*x", r"$a - \left(b - c\right)\,x$"),
        ("exp(-b*x) + 1e9*sqrt(x1) + log2(x)", r"$e^{-b\,x} + 10^{9}\,\sqrt{x_{1}} + \log_{2}\left(x\right)$"),
    ],
)  # fmt: skip
def test_looks(text: str, right: str) -> None:
    assert typeset(text) == right


def test_what_is_no_formula() -> None:
    assert typeset("L = E + A/N'^alpha, X' = ...") is None


@pytest.mark.parametrize("name", sorted(LAWS))
def test_matplotlib_draws_the_laws_that_ship(name: str) -> None:
    text = typeset(law_named(name).formula)
    if text is not None:
        assert MathTextParser("path").parse(text).width > 10
