"""What stands around an answer: the study in one line, where it comes from, and what to know before relying on it."""

from __future__ import annotations

import json

import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from results.settings import flat

from . import wording
from .answer import Answer


def summary(frames: StudyFrames) -> str:
    """Runs, points, FLOPs and hours of a study in one sentence."""
    runs = frames.runs
    kinds = {"tokenizer": "tokenizer", "generator": "generator", "run": "other"}
    counts = [f"{n} {name}" for stage, name in kinds.items() if (n := int((runs["stage"] == stage).sum()))]
    seconds = float(runs["wall_seconds"].sum())
    time = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
    time = time if seconds >= 60 else f"{seconds:.0f} seconds"
    data = ", ".join(sorted(set(runs["data"].dropna())))
    points = f", {len(frames.points)} points" if len(frames.points) else ""
    spent = float(runs["executed_flops"].sum())
    # Of rows measured elsewhere they may be unknown.
    cost = f", {wording.flops(spent)} training FLOPs in all" if spent > 0 else ""
    cost += f", {time} of computing" if seconds > 0 else ""
    return f"{wording.listing(counts)} runs{f' on {data}' if data else ''}{points}{cost}."


def provenance_lines(frames: StudyFrames) -> list[tuple[str, str]]:
    """Facts that all runs share or in which they differ, from their provenance column."""
    collected: dict[str, set[str]] = {}
    for text in frames.runs["provenance"]:
        try:
            record = json.loads(text)
        except ValueError:
            continue
        for key, value in flat(record if isinstance(record, dict) else {}).items():
            if value is not None and value != "":
                collected.setdefault(key.replace("_", " ").replace(".", " "), set()).add(str(value))
    known = frames.runs[frames.runs["data_fingerprint"].notna()]
    sets = sorted(set(zip(known["data"], known["data_fingerprint"], strict=True)))
    lines = [("data", ", ".join(f"{name} {fingerprint[:12]}" for name, fingerprint in sets))]
    for key, values in collected.items():
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        lines.append((key, ", ".join(sorted(values)[:4]) + more))
    started, finished = frames.runs["started_at"].dropna(), frames.runs["finished_at"].max()
    begun = str(started.min()) if len(started) else "unknown"
    return [*lines, ("first run started", begun), ("last run finished", str(finished))]


def caveats(frames: StudyFrames, answer: Answer) -> list[str]:
    """What a reader must know before relying on a number."""
    said = [
        "The statistical unit is the tokenizer seed. Intervals over few seeds are wide, because they have to be: with "
        "three seeds Student's t has two degrees of freedom and a factor of 4.3.",
        "The lowest of several noisy values is too low. Fronts are therefore compared along the points that the other "
        "tokenizer seeds select; with one seed that is impossible, and its front is a little optimistic.",
        f"FLOPs are those {frames.compute.words}; what is not named is not counted, nor is evaluation.",
    ]
    if not len(frames.families):
        said = ["Intervals over few seeds are wide, because they have to be: with three seeds a factor of 4.3."]
    single = frames.families[frames.families["tokenizer_seeds"] == 1]["family"]
    if len(single):
        said.append(f"One seed only, so conditional on that tokenizer: {wording.listing(list(single))}.")
    if not frames.floor_is_comparable and "rfid_floor" in set(frames.used["metric"]):
        said.append("rfid_floor was measured under another protocol than gfid: laws with that floor are left out.")
    noise = frames.tokenizers["real_fid"].dropna() if "real_fid" in frames.tokenizers else pd.Series(dtype=float)
    if len(noise):
        level = wording.number(float(noise.median()))
        said.append(f"Held-out real images score {level} in gFID's own protocol: differences of that order are noise.")
    beyond = [f"{p.name} at {wording.flops(b.flops)}" for b in answer.best_pairs for p in b.pairs if p.extrapolated]
    if beyond:
        said.append(
            "Pairs whose longest run is cheaper than a budget stand there by their law, with its predictive interval: "
            f"{wording.listing(beyond)}."
        )
    judged = frames.protocols.loc[frames.protocols["metric"] == "gfid", "protocol_json"]
    if len(judged) and not any('"extractor":"efficientnet-lite0"' in text for text in judged):
        said.append(
            "The Fréchet distances use a small feature network trained on this data set: comparable within this study "
            "only."
        )
    if not len(judged):
        said.append("No gFID was measured.")
    return said + [note + "." for note in answer.notes]
