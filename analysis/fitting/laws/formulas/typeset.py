"""A formula as mathematics for figures and papers: the subset of LaTeX that matplotlib's mathtext draws, too."""

from __future__ import annotations

import re

from results.errors import UsageError

from .grammar import Source, Tree, parse

GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "rho",
    "sigma", "tau", "phi", "chi", "psi", "omega",
)  # fmt: skip
_STRENGTH = {"=": 0, "+": 1, "-": 1, "neg": 2, "*": 2, "/": 3, "^": 4}


def typeset(text: str) -> str | None:
    """The formula between dollars, None where it is none that the grammar reads (words, primes)."""
    try:
        left, right = parse(Source(text))
    except UsageError:
        return None
    sides = [_math(side) for side in (left, right) if side is not None]
    return f"${' = '.join(sides)}$"


def _math(tree: Tree) -> str:
    kind, parts = tree.kind, tree.parts
    if kind == "number":
        return _number(float(tree.value))
    if kind == "name":
        return _name(str(tree.value))
    if kind in ("+", "-"):
        return f"{_math(parts[0])} {kind} {_after(parts[1], 2 if kind == '-' else 1)}"
    if kind == "neg":
        return f"-{_after(parts[0], 2)}"
    if kind == "*":
        return rf"{_within(parts[0], 2)}\,{_after(parts[1], 2)}"
    if kind == "/":
        return rf"\frac{{{_math(parts[0])}}}{{{_math(parts[1])}}}"
    if kind == "^":
        return f"{_within(parts[0], 5)}^{{{_flat(parts[1])}}}"
    if kind == "sqrt":
        return rf"\sqrt{{{_math(parts[0])}}}"
    if kind == "exp":
        return f"e^{{{_flat(parts[0])}}}"
    if kind == "abs":
        return rf"\left|{_math(parts[0])}\right|"
    name = rf"\{kind}" if kind in ("log", "min", "max", "tanh") else rf"\log_{{{kind[3:]}}}"
    return rf"{name}\left({', '.join(map(_math, parts))}\right)"


def _flat(tree: Tree) -> str:
    """In an exponent a fraction lies on its side."""
    if tree.kind == "/":
        return f"{_within(tree.parts[0], 3)}/{_within(tree.parts[1], 3)}"
    if tree.kind == "neg":
        return f"-{_flat(tree.parts[0])}"
    if tree.kind in ("+", "-"):
        return f"{_flat(tree.parts[0])}{tree.kind}{_flat(tree.parts[1])}"
    return _math(tree)


def _after(tree: Tree, least: int) -> str:
    """As `_within`, after another sign: there a sign stands in parentheses."""
    return _within(tree, 3 if tree.kind == "neg" else least)


def _within(tree: Tree, least: int) -> str:
    """In parentheses where it binds less tightly than what stands around it."""
    text = _math(tree)
    return rf"\left({text}\right)" if _STRENGTH.get(tree.kind, 9) < least else text


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, power = f"{value:.6e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        return rf"10^{{{int(power)}}}" if digits == "1" else rf"{digits}\cdot 10^{{{int(power)}}}"
    return f"{value:.10g}"


def _name(name: str) -> str:
    """A Greek letter, a letter with its index, or a word in upright letters."""
    head, _, index = name.partition("_")
    if not index and (numbered := re.fullmatch(r"([A-Za-z]+?)(\d+)", name)):
        head, index = numbered.groups()
    elif not index and len(name) == 2 and name.isalpha() and name not in GREEK:
        head, index = name[0], name[1]
    letter = rf"\{head}" if head in GREEK else head if len(head) == 1 else rf"\mathrm{{{head}}}"
    if not index:
        return letter
    below = rf"\{index}" if index in GREEK else index if len(index) == 1 or index.isdigit() else rf"\mathrm{{{index}}}"
    return f"{letter}_{{{below.replace('_', ' ')}}}"
