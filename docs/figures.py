"""Writes figures.md, the gallery of every figure, and its pictures: `python docs/figures.py`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = HERE / "pictures" / "figures"
STUDY = HERE / "studies" / "fashion"
DPI, SHADES = 100, 160
"""Small pictures: all together stay below 400 kB."""

HEAD = """# Figures

```sh
tokenlaw figures docs/studies/fashion --out figures --style neurips --format pdf,png
```

draws every figure that a study supports and names, with the reason, each one that it does not. Beside each figure lie
`NAME.csv` (every number that is drawn), `NAME.json` (what was fitted, and what the figure warns of), `NAME.txt` (its
caption) and `NAME.tex` (a figure environment with the caption, for `\\input`).

- `--style neurips|cvpr|icml` is for papers: the template's width, letters of the form of Times, no title, at least 7
  points at print size (exponents and indices excepted), PDF with embedded fonts and no Type 3. `talk` and `report`
  have titles.
- `--columns 1` is as wide as a column (NeurIPS: half the text), 2 as the text.
- `--figure NAME`, repeatable, draws these only. `--metric`, `--guidance`, `--total` and `--serve` mean what they mean
  for `report`.
- What is missing or extrapolated is said below the panels. Names stand beside their curves where they cover nothing,
  else in the legend; texts that still overlap (in a figure of your own) are named on the error stream.
- Tokenizers differ in colour and dash, generator sizes in shade and marker: a print in grey says as much. A front keeps
  the lowest value reached up to each compute, so it never rises; it is thin where no dearer run is better.

Pictures of the runs (`samples`, `reconstructions`) come from `artifacts/RUN/preview.png` of a data root. `joint-law`
fits the joint law without each tokenizer in turn, then without the largest budgets; a table `tables/joint-law.csv` of a
source (family, size, path_flops, gfid, predicted, low, high) takes the place of these. The loss by position is recorded
of every generator (terms `nats_at_0`, `nats_at_1`, ... of `curves`); of your own trainer it may be metrics
`own_nats_at_0`, ...; the size of the training set is a setting named `unique_images`.

## A figure of your own

Any function that gets rows and a page, and returns the axes it drew on: `--figure FILE.py:FUNCTION`.

```python
from analysis.reporting.figures.registry import figure

@figure("ranked", needs=("gfid", "parameters_other"))
def quality_by_size(rows, page):
    \"\"\"gFID against parameters outside the vocabulary.\"\"\"
    axis = page.axes()
    for family in page.palette.present(rows):
        own, colour = rows[rows["family"] == family], page.palette.colours[family]
        axis.loglog(own["parameters_other"], own["gfid"], "o", color=colour)
        page.label(axis, family, own["parameters_other"], own["gfid"], colour)
    page.note("Every budget of each run.")
    return axis
```

`figure` names the table of [StudyFrames](../analysis/tokenizers/frames.py) (`ranked`, `points`, `tokenizers`, `runs`,
`curves`, `evaluations`, `guided`, `own`) and the columns without which the figure is not drawn; without it, `ranked`.
The first paragraph of the docstring is the caption. `page`
([page.py](../analysis/reporting/figures/drawing/page.py)) has `axes`, `panels`,
`stacked`, `title`, `label`, `legend`, `note`, the palette and the sizes of text.

## Gallery

Of the committed study, in the style `neurips`.
"""


def gallery() -> str:
    """The page: every figure with its line, and its picture where the study supports it."""
    from analysis.reporting.figures.gallery import GALLERY

    parts = [HEAD]
    for name, plot in GALLERY.items():
        paper = f" ({plot.paper} of the paper)" if plot.paper else ""
        parts.append(f"\n### `{name}`\n\n{plot.summary[0].upper()}{plot.summary[1:]}{paper}.\n")
        if (PICTURES / f"{name}.png").exists():
            parts.append(f"\n![{plot.summary}](pictures/figures/{name}.png)\n")
        else:
            needs = f", with {', '.join(f'`{column}`' for column in plot.needs)}" if plot.needs else ""
            parts.append(f"\nNot supported by this study; stands on the table `{plot.of}`{needs}.\n")
    return "".join(parts)


def write_pictures() -> None:
    """Draw every figure of the study, small and in few colours."""
    from PIL import Image

    from analysis.reporting.figures.drawing.style import applied
    from analysis.reporting.figures.gallery import GALLERY, draw
    from analysis.reporting.figures.registry import Evidence, NotDrawn
    from analysis.tokenizers.frames import load

    evidence = Evidence.of(load(STUDY))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, plot in GALLERY.items():
        try:
            figure = draw(plot, evidence, "neurips").figure
        except NotDrawn:
            continue
        buffer = io.BytesIO()
        with applied("neurips"):
            figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        picture = Image.open(buffer).convert("RGB").quantize(SHADES, dither=Image.Dither.NONE)
        picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    write_pictures()
    (HERE / "figures.md").write_text(gallery())
