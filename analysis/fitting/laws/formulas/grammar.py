"""The grammar of formulas: numbers, names, + - * / ^, parentheses and a few functions, as a tree with places."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from results.errors import UsageError

FUNCTIONS: dict[str, int | None] = {
    "exp": 1, "log": 1, "log2": 1, "log10": 1, "sqrt": 1, "tanh": 1, "abs": 1, "min": None, "max": None,
}  # fmt: skip
"""The functions of a formula and how many arguments each takes; None: two or more."""
MOST_CHARACTERS = 4000
DEEPEST = 60

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|`(?P<quoted>[^`]+)`"
    r"|(?P<sign>\*\*|[-+*/^(),=]))"
)


@dataclass(frozen=True)
class Source:
    """The text of a formula, and what it is called in messages, such as "law"."""

    text: str
    called: str = "law"

    def fail(self, place: tuple[int, int], reason: str) -> NoReturn:
        """Raise UsageError in one line, with the place between brackets: `E + [foo](N)`."""
        begin, end = place
        marked = f"{self.text[:begin]}[{self.text[begin:end]}]{self.text[end:]}".replace("\n", " ")
        if len(marked) > 160:
            left, right = max(0, begin - 60), end + 62
            marked = ("..." if left else "") + marked[left:right] + ("..." if right < len(marked) else "")
        raise UsageError(f"{self.called}: {reason}, at character {begin + 1}: {marked}")


@dataclass(frozen=True)
class Tree:
    """A part of a formula. `kind`: number, name, or the operation on `parts` (+ - * / ^ neg, or a function's name).

    `value` is the number's value or the name; `place` the characters from and up to which it was written.
    """

    kind: str
    place: tuple[int, int]
    parts: tuple[Tree, ...] = ()
    value: float | str = 0.0

    def names(self) -> dict[str, tuple[int, int]]:
        """Every name in it with the place where it stands first, in the order of writing."""
        if self.kind == "name":
            return {str(self.value): self.place}
        names: dict[str, tuple[int, int]] = {}
        for part in self.parts:
            for name, place in part.names().items():
                names.setdefault(name, place)
        return names


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: tuple[int, int]


def parse(source: Source) -> tuple[Tree | None, Tree]:
    """The two sides of a formula: of `left = right`, or None and the formula where there is no equals sign.

    Raises UsageError, with the place, for what is not a formula.
    """
    reader = _Reader(source)
    first = reader.sum()
    if not reader.at("="):
        reader.end()
        return None, first
    reader.take()
    second = reader.sum()
    reader.end()
    return first, second


def parse_expression(source: Source) -> Tree:
    """A formula without an equals sign. Raises UsageError as `parse`."""
    left, right = parse(source)
    if left is not None:
        equals = source.text.index("=", left.place[1])
        source.fail((equals, equals + 1), "an equals sign has no meaning here")
    return right


def is_formula(text: str) -> bool:
    """Whether a law is typed as a formula; a name has no operators, and FILE.py:CLASS is no formula."""
    return any(sign in text for sign in "+*/^=(") and not re.search(r"\.py:[^/]*$", text)


def names_of(text: str) -> dict[str, tuple[int, int]]:
    """The names in a formula, each with its first place. Raises UsageError as `parse`."""
    left, right = parse(Source(" ".join(text.split())))
    return {**right.names(), **(left.names() if left is not None else {})}


class _Reader:
    """A recursive descent over the tokens; ^ binds tighter than a sign before it and groups to the right."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = _tokens(source)
        self.next = 0
        self.depth = 0

    def at(self, *signs: str) -> bool:
        token = self.tokens[self.next]
        return token.kind == "sign" and token.text in signs

    def take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def fail(self, reason: str) -> NoReturn:
        self.source.fail(self.tokens[self.next].place, reason)

    def end(self) -> None:
        token = self.tokens[self.next]
        if token.kind == "end":
            return
        if token.kind in ("number", "name") or token.text == "(":
            self.fail("an operator is missing (write * to multiply)")
        self.fail("an opening parenthesis is missing" if token.text == ")" else f"{token.text!r} has no meaning here")

    def sum(self) -> Tree:
        tree = self.product()
        while self.at("+", "-"):
            kind = self.take().text
            right = self.product()
            tree = Tree(kind, (tree.place[0], right.place[1]), (tree, right))
        return tree

    def product(self) -> Tree:
        tree = self.signed()
        while self.at("*", "/"):
            kind = self.take().text
            right = self.signed()
            tree = Tree(kind, (tree.place[0], right.place[1]), (tree, right))
        return tree

    def signed(self) -> Tree:
        if not self.at("-", "+"):
            return self.power()
        sign = self.take()
        self.deeper(sign)
        tree = self.signed()
        self.depth -= 1
        return tree if sign.text == "+" else Tree("neg", (sign.place[0], tree.place[1]), (tree,))

    def power(self) -> Tree:
        base = self.atom()
        if not self.at("^", "**"):
            return base
        self.deeper(self.take())
        exponent = self.signed()
        self.depth -= 1
        return Tree("^", (base.place[0], exponent.place[1]), (base, exponent))

    def atom(self) -> Tree:
        token = self.tokens[self.next]
        if token.kind == "number":
            self.take()
            return Tree("number", token.place, value=float(token.text))
        if token.kind == "name":
            self.take()
            if not (self.at("(") and self.source.text[token.place[0]] != "`"):
                return Tree("name", token.place, value=token.text)
            return self.call(token)
        if token.text == "(":
            self.deeper(self.take())
            tree = self.sum()
            self.depth -= 1
            if not self.at(")"):
                self.source.fail(token.place, "this parenthesis is not closed")
            self.take()
            return tree
        self.fail("a number or a name is missing" if token.kind == "end" else "a number or a name is expected")

    def call(self, token: _Token) -> Tree:
        if token.text not in FUNCTIONS:
            self.source.fail(token.place, f"unknown function {token.text!r}; allowed: {', '.join(FUNCTIONS)}")
        opening = self.take()
        self.deeper(opening)
        arguments = [self.sum()]
        while self.at(","):
            self.take()
            arguments.append(self.sum())
        self.depth -= 1
        if not self.at(")"):
            self.source.fail(opening.place, "this parenthesis is not closed")
        place = (token.place[0], self.take().place[1])
        wanted = FUNCTIONS[token.text]
        if len(arguments) != wanted and not (wanted is None and len(arguments) > 1):
            takes = "two arguments or more" if wanted is None else "one argument"
            self.source.fail(place, f"{token.text} takes {takes}, not {len(arguments)}")
        if wanted == 1:
            return Tree(token.text, place, (arguments[0],))
        tree = arguments[0]
        for argument in arguments[1:]:
            tree = Tree(token.text, place, (tree, argument))
        return tree

    def deeper(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            self.source.fail(token.place, f"nested deeper than {DEEPEST}")


def _tokens(source: Source) -> list[_Token]:
    text = source.text
    if not text.strip():
        raise UsageError(f"{source.called}: the formula is empty")
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"{source.called}: the formula has {len(text)} characters; at most {MOST_CHARACTERS}")
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            begin = len(text) - len(text[at:].lstrip())
            source.fail((begin, begin + 1), f"{text[begin]!r} is not part of a formula")
        kind = match.lastgroup or ""
        begin, at = match.start(kind), match.end()
        if kind == "quoted":
            kind, begin = "name", begin - 1
        tokens.append(_Token(kind, match.group(match.lastgroup or ""), (begin, at)))
    # a name that begins within a number is a number written otherwise (3B, 1e9x)
    for number, name in pairwise(tokens):
        if number.kind == "number" and name.kind == "name" and number.place[1] == name.place[0]:
            source.fail((number.place[0], name.place[1]), f"{number.text + name.text!r} is neither a number nor a name")
    return [*tokens, _Token("end", "", (len(text), len(text)))]
