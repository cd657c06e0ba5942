"""A hook of mkdocs: links of a page to the code beside docs/, which the site does not have, become the code's path.

The path shows where the pointer rests. A link to code that is not there stays: `mkdocs build --strict` names it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]\[]+)\]\(\.\./([^)\s#]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page, its links to code replaced."""
    return _LINK.sub(_place, markdown)


def _place(link: re.Match[str]) -> str:
    text, path = link.groups()
    return f'<span title="{path}">{text}</span>' if (HOME / path).exists() else link[0]
