"""Figures: each draws for a full study, none for what a study lacks, the same bytes twice, every style and format."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.image import imread

from analysis.reporting.answer import answer
from analysis.reporting.figures import style
from analysis.reporting.figures.gallery import GALLERY, drawn, write_figures
from results.errors import UsageError


@pytest.fixture(scope="module")
def full(demo_like):
    frames = demo_like.frames()
    return frames, answer(frames)


def _ink(png: bytes, tmp_path) -> np.ndarray:
    """Share of pixels that are not white, by quarter of the picture."""
    path = tmp_path / "picture.png"
    path.write_bytes(png)
    dark = (imread(path)[..., :3] < 0.9).any(axis=2)
    h, w = (n // 2 for n in dark.shape)
    return np.array([q.mean() for q in (dark[:h, :w], dark[:h, w:], dark[h:, :w], dark[h:, w:])])


@pytest.mark.parametrize("name", [name for name in GALLERY if name != "own-metrics"])
def test_every_figure_of_a_full_study_is_drawn_and_holds_ink(full, name, tmp_path):
    figure = GALLERY[name](*full)
    assert figure is not None
    shares = _ink(style.image_bytes(figure, "png"), tmp_path)
    assert (shares > 0.002).all(), f"an empty quarter: {shares}"


def test_own_metrics_are_drawn_by_the_setting_with_the_fewest_values(own_study, tmp_path):
    frames = own_study.frames()
    figures = dict(drawn(frames, answer(frames)))
    assert list(figures) == ["training", "own-metrics"]
    (axis,) = figures["own-metrics"].axes
    assert [text.get_text() for text in figures["own-metrics"].legends[0].get_texts()] == [
        "net.depth = 1",
        "net.depth = 2",
    ]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[400, 800, 1600], [800, 1600, 3200]]
    assert [len(dots.get_offsets()) for dots in axis.collections] == [6, 6]
    assert (_ink(style.image_bytes(figures["training"], "png"), tmp_path)[[0, 2]] > 0.002).all()


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_the_same_study_gives_the_same_bytes(full, form):
    one, two = (style.image_bytes(GALLERY["worse-is-better"](*full), form) for _ in range(2))
    assert one == two


@pytest.mark.slow
def test_text_stays_inside_the_figure(full):
    """Titles, labels and annotations of every figure lie within its bounds, in the two published styles."""
    for look in ("report", "neurips"):
        for name, figure in drawn(*full, style=look):
            with style.applied(look):
                figure.draw_without_rendering()
                renderer = figure.canvas.get_renderer()
            width, height = figure.bbox.size
            texts = [t for axis in figure.axes for t in (axis._left_title, axis.xaxis.label, axis.yaxis.label)]
            texts += [t for axis in figure.axes for t in axis.texts]
            texts += [t for legend in figure.legends for t in legend.get_texts()]
            for text in texts:
                if text.get_text():
                    box = text.get_window_extent(renderer)
                    inside = box.x0 > -2 and box.x1 < width + 2 and box.y0 > -2 and box.y1 < height + 2
                    assert inside, f"{name} in {look}: {text.get_text()!r} leaves the figure"


def test_a_study_without_the_data_has_no_such_figure(make_study, known):
    study = make_study((known["plain"],), sizes=("S",), seeds=(0,))
    study.curves = []
    study.evaluations = [r for r in study.evaluations if r["metric"] in ("gfid", "rfid")]
    frames = study.frames()
    names = [name for name, _ in drawn(frames, answer(frames))]
    assert names == ["gfid-compute", "best-pair"]


def test_write_figures_makes_all_formats_in_the_style_asked_for(full, tmp_path):
    paths = write_figures(full[0], tmp_path / "out", style="neurips", formats=("pdf", "svg"), names=["best-pair"])
    assert [p.name for p in paths] == ["best-pair.pdf", "best-pair.svg"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    width = float(re.search(r'width="([0-9.]+)pt"', paths[1].read_text())[1])
    assert width == pytest.approx(5.5 * 72)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["best-pair.pdf", "best-pair.svg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "nature"}, "style = 'nature' is unknown; allowed: report, neurips"),
        ({"formats": ("gif",)}, "format = 'gif' is unknown; allowed: pdf, png, svg"),
        ({"names": ["nothing"]}, "figure = 'nothing' is unknown; allowed: worse-is-better"),
    ],
)
def test_wrong_options_are_named(full, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        write_figures(full[0], tmp_path, **options)


def test_settings_do_not_leak(full):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    style.svg(GALLERY["best-pair"](*full))
    assert dict(mpl.rcParams) == before
