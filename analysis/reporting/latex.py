"""Plain text as LaTeX, in tables and captions alike: what is special escaped, amounts such as 6.1e12 as mathematics."""

from __future__ import annotations

import re

_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "×": r"$\times$", "–": "--", "<": "$<$",
    ">": "$>$", "λ": r"$\lambda$", "α": r"$\alpha$", "→": r"$\to$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$",
})  # fmt: skip
_AMOUNT = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e(-?\d+)(?![\w.]*\w)")
_DIGITS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def escaped(text: str) -> str:
    """Text for LaTeX."""
    return text.translate(_SPECIAL)


def with_amounts(text: str) -> str:
    """Text for LaTeX in which 6.1e12 reads as a product with a power of ten."""
    pieces, end = [], 0
    for match in _AMOUNT.finditer(text):
        pieces += [escaped(text[end : match.start()]), rf"${match[1]}\times10^{{{match[2]}}}$"]
        end = match.end()
    return "".join([*pieces, escaped(text[end:])])


def caption_text(text: str) -> str:
    """Plain text in which 6.1e12 reads as 6.1 × 10¹²."""
    return _AMOUNT.sub(lambda m: f"{m[1]} × 10{m[2].translate(_DIGITS)}", text)


def figure_environment(name: str, caption: str, *, spread: bool = False) -> str:
    """A figure of the file NAME with its caption, over both columns of a page where `spread`."""
    environment = "figure*" if spread else "figure"
    return (
        f"\\begin{{{environment}}}\n\\centering\n\\includegraphics{{{name}}}\n"
        f"\\caption{{{with_amounts(caption)}}}\n\\label{{fig:{name}}}\n\\end{{{environment}}}\n"
    )
