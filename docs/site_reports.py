"""A hook of mkdocs: the site has the report of every committed study, drawn as the site is built, at reports/STUDY/.

A page links to it by `<!-- site: [words](reports/STUDY/index.html) -->`: a clone has no such file, so there the line is
a comment.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STUDIES = HERE / "studies"
_OF_SITE = re.compile(r"<!-- site: (.+?) -->", re.DOTALL)


def reports(folder: Path) -> dict[str, Path]:
    """The report of each committed study, written into `folder`: its page by the place that it has in the site."""
    sys.path.insert(0, str(HERE.parent))
    try:
        from analysis.reporting.report import write_report
        from analysis.tokenizers.frames import load
    finally:
        sys.path.pop(0)
    pages = {}
    for study in sorted(path.parent for path in STUDIES.glob("*/runs.parquet")):
        report = write_report(load(study), folder / study.name, title=f"Study {study.name}")
        pages[f"reports/{study.name}/index.html"] = report.index
    return pages


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """The files of the site with the reports among them."""
    from mkdocs.structure.files import File

    with tempfile.TemporaryDirectory() as folder:
        for place, page in reports(Path(folder)).items():
            files.append(File.generated(config, place, content=page.read_text()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page with the links that only the site has."""
    return _OF_SITE.sub(r"\1", markdown)
