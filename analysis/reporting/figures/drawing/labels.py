"""Direct labels: each beside its curve, where it covers neither text nor curves; and which texts overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Array = np.ndarray

PLACES = 24
"""Along a curve, at which a label may stand."""
GAPS = (3.0, 7.0, 13.0, 20.0)
"""Points between curve and label, the nearest first."""
STEP = 2.5
"""Pixels between the points by which a drawn curve is known."""
RIM = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)])
"""Points (8, 2) by which the edge of a marker is known, of radius 1."""
SPACING = 0.95
"""Of the lines of a label."""
SLACK = 1.0
"""Pixels by which boxes of text may touch."""


@dataclass(frozen=True)
class Label:
    """A text that belongs to a curve: x and y (k,) in data; `prefer` is the place along it, 0 the first point, 1 the
    last. `handle` stands for it in a legend where no place is free."""

    axis: Axes
    text: str
    x: Array
    y: Array
    colour: Any
    size: float
    prefer: float = 1.0
    handle: Line2D | None = None
    weight: str = "normal"


def place(figure: Figure, labels: Sequence[Label]) -> list[Label]:
    """Draw each label at its best free place; returns those that have none. The figure must be laid out."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    left_over = []
    obstacles: dict[int, Array] = {}
    for label in labels:
        axis = label.axis
        key = id(axis)
        if key not in obstacles:
            obstacles[key] = drawn_points(axis)
        texts = [text.get_window_extent(renderer) for text in axis.texts if text.get_visible() and text.get_text()]
        if (legend := axis.get_legend()) is not None:
            texts.append(legend.get_window_extent(renderer))
        spot = _best_place(label, axis, renderer, obstacles[key], texts)
        if spot is None:
            left_over.append(label)
            continue
        x, y = axis.transAxes.inverted().transform(spot)
        options: Any = {"color": label.colour, "fontsize": label.size, "weight": label.weight, "zorder": 6}
        options["linespacing"] = SPACING
        axis.text(x, y, label.text, transform=axis.transAxes, ha="left", va="bottom", **options)
    return left_over


def _best_place(label: Label, axis: Axes, renderer: Any, points: Array, texts: Sequence[Bbox]) -> Array | None:
    """Lower left corner (2,) in pixels of the place that costs least; None where each covers a text or much of the
    curves."""
    probe = axis.text(0, 0, label.text, fontsize=label.size, weight=label.weight, linespacing=SPACING)
    extent = probe.get_window_extent(renderer)
    probe.remove()
    width, height = extent.width, extent.height
    curve = axis.transData.transform(np.column_stack([label.x, label.y]))
    curve = _dense(curve[np.isfinite(curve).all(axis=1)])
    frame = axis.get_window_extent(renderer)
    curve = curve[(curve[:, 0] >= frame.x0 - 1) & (curve[:, 0] <= frame.x1 + 1)]
    if not len(curve):
        return None
    share = np.linspace(0, 1, min(PLACES, len(curve)))
    anchors = curve[np.round(share * (len(curve) - 1)).astype(int)]
    per_point = renderer.points_to_pixels(1.0)
    corners, costs = [], []
    # Right of, above, below, left of the anchor, and the diagonals.
    for order, gap in enumerate(GAPS):
        g = gap * per_point
        moves = np.array([
            (g, -height / 2), (-width / 2, g), (-width / 2, -height - g), (-width - g, -height / 2),
            (g, g), (g, -height - g), (-width - g, g), (-width - g, -height - g),
        ])  # fmt: skip
        for move in moves:
            corners.append(anchors + move)
            costs.append(2.2 * order + 4.0 * np.abs(share - label.prefer))
    corner, cost = np.concatenate(corners), np.concatenate(costs)
    boxes = np.column_stack([corner, corner + np.array([width, height])])
    outside = (boxes[:, 0] < frame.x0) | (boxes[:, 1] < frame.y0) | (boxes[:, 2] > frame.x1 + 0.5)
    outside |= boxes[:, 3] > frame.y1 + 0.5
    covered = np.zeros(len(boxes), dtype=bool)
    for text in texts:
        covered |= _meet(boxes, text, pad=1.5 * per_point)
    pad = 0.8 * per_point
    inside = (
        (points[None, :, 0] > boxes[:, None, 0] - pad) & (points[None, :, 0] < boxes[:, None, 2] + pad)
        & (points[None, :, 1] > boxes[:, None, 1] - pad) & (points[None, :, 1] < boxes[:, None, 3] + pad)
    ).sum(axis=1)  # fmt: skip
    allowed = ~outside & ~covered & (inside * STEP <= 0.5 * width)
    if not allowed.any():
        return None
    cost = np.where(allowed, cost + 1.5 * inside, np.inf)
    best: Array = corner[int(cost.argmin())]
    return best


def _meet(boxes: Array, other: Bbox, pad: float) -> Array:
    apart = (boxes[:, 0] > other.x1 + pad) | (boxes[:, 2] < other.x0 - pad)
    return ~(apart | (boxes[:, 1] > other.y1 + pad) | (boxes[:, 3] < other.y0 - pad))


def drawn_points(axis: Axes) -> Array:
    """Points (n, 2) in pixels along every curve, at and around every marker, and on the edges of every bar."""
    parts = [np.empty((0, 2))]
    for line in axis.lines:
        xy = line.get_transform().transform(np.column_stack([line.get_xdata(orig=False), line.get_ydata(orig=False)]))
        xy = xy[np.isfinite(xy).all(axis=1)]
        parts.append(xy if line.get_linestyle() in ("None", "", " ") else _dense(xy))
        if line.get_marker() not in ("None", "", " ", None):
            radius = line.get_markersize() / 2 * axis.figure.dpi / 72
            parts.append((xy[:, None, :] + radius * RIM).reshape(-1, 2))
    for collection in axis.collections:
        offsets = np.asarray(collection.get_offsets(), dtype=float)
        if isinstance(collection, PolyCollection):
            # The edges of a band.
            for path in collection.get_paths():
                xy = collection.get_transform().transform(path.vertices)
                parts.append(_dense(xy[np.isfinite(xy).all(axis=1)]))
        elif len(offsets) and collection.get_offset_transform() == axis.transData:
            parts.append(axis.transData.transform(offsets))
    points = np.concatenate(parts)
    frame = axis.get_window_extent()
    keep = (points >= (frame.x0, frame.y0)).all(axis=1) & (points <= (frame.x1, frame.y1)).all(axis=1)
    return points[keep]


def _dense(xy: Array) -> Array:
    """The same broken line (n, 2) with a point every STEP pixels at least."""
    if len(xy) < 2:
        return xy
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    if not 0 < length[-1] < 1e5:
        return xy
    at = np.unique(np.concatenate([np.arange(0, length[-1], STEP), length]))
    return np.column_stack([np.interp(at, length, xy[:, i]) for i in (0, 1)])


def visible_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn: titles, labels, ticks, annotations, legends, notes."""
    texts: list[Text] = list(figure.texts)
    for axis in figure.axes:
        if not axis.get_visible():
            continue
        texts += [axis.title, axis._left_title, axis._right_title, *axis.texts]  # type: ignore[attr-defined]
        if not axis.axison:
            continue
        for ticks in (axis.xaxis, axis.yaxis):
            texts.append(ticks.label)
            low, high = sorted(ticks.get_view_interval())
            for tick in ticks.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    texts += [tick.label1, tick.label2]
        if (legend := axis.get_legend()) is not None:
            texts += [*legend.get_texts(), legend.get_title()]
    for legend in figure.legends:
        texts += [*legend.get_texts(), legend.get_title()]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def overlapping(figure: Figure) -> list[str]:
    """What a reader would stumble over, in words: texts whose boxes overlap, and texts cut off by the figure's edge.

    Must be asked within the style that the figure was drawn in.
    """
    figure.draw_without_rendering()
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in visible_texts(figure)]
    width, height = figure.bbox.size
    troubles = [
        f"{text!r} leaves the figure"
        for text, box in boxes
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK
    ]
    for (a, box), (b, other) in combinations(boxes, 2):
        wide = min(box.x1, other.x1) - max(box.x0, other.x0)
        high = min(box.y1, other.y1) - max(box.y0, other.y0)
        if wide > SLACK and high > SLACK:
            troubles.append(f"{a!r} overlaps {b!r}")
    return troubles
