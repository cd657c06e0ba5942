"""Text and drawings as parts of a page: powers of ten, names that do not break, SVG with unique ids, JSON."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any


def scientific(text: str) -> str:
    """Escaped HTML in which 6.1e12 reads as 6.1 × 10¹² and names such as K256-T16 do not break; returned as markup."""
    from markupsafe import Markup

    text = re.sub(
        r"(?<![\w.])(\d(?:\.\d+)?)e(-?)(\d+)(?![\w.]*\w)",
        lambda m: f"{m[1]}&nbsp;×&nbsp;10<sup>{'−' if m[2] else ''}{int(m[3])}</sup>",
        escape(text),
    )
    text = re.sub(r"(?<=\d) (?=%|times\b)|(?<=&[lg]t;) (?=\d)", "&nbsp;", text)
    name = r"(?<![\w&#;/.-])((?=[\w.-]*\d)[A-Za-z]\w*(?:-[\w.]*\w)+)"
    return Markup(re.sub(name, r'<span class="name">\1</span>', text))


def inline_svg(text: str, prefix: str, label: str) -> str:
    """An SVG for embedding in a page: unique ids, ink in the page's text colour, size left to the page."""
    from analysis.reporting.figures.drawing.style import INK

    for pattern, unique in (
        (r'\bid="([^"]+)"', rf'id="{prefix}-\1"'),
        (r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)"),
        (r'href="#([^"]+)"', rf'href="#{prefix}-\1"'),
        (r"(?s)<metadata>.*?</metadata>|<!--.*?-->", ""),
    ):
        text = re.sub(pattern, unique, text)
    head = re.match(r'<svg[^>]*?(viewBox="[^"]+")[^>]*>', text)
    assert head is not None
    opening = (
        f'<svg {head[1]} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return opening + text[head.end() :].replace(INK, "currentColor").strip()


def embedded(data: Any) -> str:
    """JSON for a script element: compact, and nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def plain_text(page: str) -> str:
    """What a page says, without its tags, styles and scripts."""
    page = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>|<[^>]+>", " ", page)
    return re.sub(r"\s+", " ", page)
