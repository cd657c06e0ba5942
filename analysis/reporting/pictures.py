"""Pictures that runs left, as a page embeds them: reconstructions, samples, nearest neighbours."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import records

from . import wording

NEIGHBOURS = "neighbours"
"""`<run id>/neighbours` shows samples above their nearest training images."""

MAX_PREVIEW_BYTES = 2 * 2**20
"""A preview larger than this is named in the report but not embedded."""


MAX_FURTHER_BYTES = 2**20
"""Pictures of runs that are seen only on request take no more of the page, in base64."""


@dataclass(frozen=True)
class Picture:
    """A PNG in base64 with its caption, the run that left it ("" for none) and where it is shown."""

    caption: str
    content: str
    stage: str
    run_id: str

    @property
    def uri(self) -> str:
        """As the source of an img element."""
        return "data:image/png;base64," + self.content


def shown_pictures(frames: StudyFrames, previews: Mapping[str, Path]) -> tuple[list[Picture], list[str]]:
    """Embedded previews, reconstructions first, one run of each tokenizer and pair; and why others are missing."""
    runs = {row["run_id"]: row for row in records(frames.runs)}
    chosen: dict[tuple[str, str, str, str], tuple[tuple[int, int], str, str, Path, str]] = {}
    for key, path in previews.items():
        run_id, _, what = key.partition("/")
        if run_id in runs:
            row = runs[run_id]
            staged = row["stage"] != "run"
            place = NEIGHBOURS if what == NEIGHBOURS else str(row["stage"]) if staged else "other"
            group = (place, str(row["family"] if staged else row["label"]), str(row["size"]), what)
            rank = (int(row["tokenizer_seed"]) if staged else 0, int(row["seed"]))
            caption = _caption(frames, row) + (f", {what}" if what not in ("", NEIGHBOURS) else "")
        else:
            group, rank, caption = ("other", key, "", ""), (0, 0), key
        if group not in chosen or rank < chosen[group][0]:
            chosen[group] = (rank, caption, group[0], Path(path), run_id if run_id in runs else "")
    stages = ["tokenizer", "generator", NEIGHBOURS, "other"]
    families = {f: i for i, f in enumerate(frames.families["family"])}
    sizes = {size: i for i, size in enumerate(in_order(frames.points))}
    pictures, missing = [], []
    for group in sorted(chosen, key=lambda g: (stages.index(g[0]), families.get(g[1], 0), sizes.get(g[2], 0), g[3])):
        _, caption, stage, path, run_id = chosen[group]
        content, problem = _png(path)
        if content is None:
            missing.append(f"{caption}: {problem}")
            continue
        pictures.append(Picture(caption, content, stage, run_id))
    return pictures, missing


def further_samples(
    previews: Mapping[str, Path], shown: Sequence[Picture], room: int = MAX_FURTHER_BYTES
) -> tuple[dict[str, list[str]], int]:
    """Pictures of the runs that are not among those shown, in base64 by run id, for a reader who asks for that run;
    and how many do not fit."""
    known = {picture.run_id for picture in shown}
    samples: dict[str, list[str]] = {}
    left_out = 0
    for key, path in previews.items():
        run_id, _, what = key.partition("/")
        if run_id in known or what == NEIGHBOURS:
            continue
        content, _problem = _png(path)
        if content is None:
            continue
        room -= len(content)
        if room < 0:
            left_out += 1
            continue
        samples.setdefault(run_id, []).append(content)
    return samples, left_out


def _png(path: Path) -> tuple[str | None, str]:
    """A PNG in base64, or None and why not."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return None, str(error.strerror)
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) > MAX_PREVIEW_BYTES:
        return None, f"no PNG picture below {MAX_PREVIEW_BYTES // 2**20} MiB"
    return base64.b64encode(content).decode(), ""


def _caption(frames: StudyFrames, row: Mapping[str, Any]) -> str:
    if row["stage"] == "run":
        return str(row["label"])
    if row["stage"] == "tokenizer":
        rows = frames.tokenizers[frames.tokenizers["run_id"] == row["run_id"]]
        score = f", rFID {wording.number(float(rows['rfid'].iloc[0]))}" if len(rows) and "rfid" in rows else ""
        return f"{row['family']}, seed {row['seed']}{score}"
    points = frames.points[frames.points["run_id"] == row["run_id"]].sort_values("images")
    score = ""
    if len(points):
        last = points.iloc[-1]
        score = f", {wording.images(last['images'])} images, gFID {wording.number(float(last['gfid']))}"
    return f"{row['family']} + {row['size']}, seed {row['tokenizer_seed']}.{row['seed']}{score}"
