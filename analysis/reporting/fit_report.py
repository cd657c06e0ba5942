"""What a paper has to say of a fit, filled in as far as the fit knows it: the checklist of arXiv 2502.18969."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from analysis.fitting.result import STATUS_WORDS, FitResult
from results.provenance import provenance

from . import wording

OPEN = "_(to be told by the authors)_"

SETUP = (
    ("How many models were trained, at which sizes, on how much data each?", "sizes"),
    ("On which data, and is any of it repeated within a training?", None),
    ("Which architecture, and how does its shape change with size?", None),
    ("Are hyperparameters (learning rate, schedule, batch size) tuned for each size, scaled by a rule or kept?", None),
    ("How are model size (embedding and output head in or out), data and compute counted?", "counts"),
    ("Are code, checkpoints and losses published?", None),
)
COLLECTION = (
    "Are the points ends of trainings or checkpoints in between? With which schedule?",
    "On which data is the metric measured, and how many seeds has a configuration?",
    "Was anything smoothed, interpolated or left out before the table was made?",
)


class Answer(NamedTuple):
    """A question of the checklist and what is known."""

    question: str
    text: str


def fit_report(results: Mapping[str, FitResult], request: Mapping[str, str]) -> str:
    """The checklist as Markdown, for one fit ("" as its name) or those of several groups.

    request: what was asked for, in words (data, where, options). Questions that no table can answer are left open and
    marked, so that they are seen.
    """
    parts = ["# How this scaling law was fitted", ""]
    parts += ["Questions of the checklist of Li, Kudugunta and Zettlemoyer 2025 (arXiv 2502.18969, appendix).", ""]
    for name, result in results.items():
        if name:
            parts += [f"# Group {name}", ""]
        for title, answers in _sections(result, request).items():
            parts += [f"## {title}", ""]
            parts += [f"- **{question}** {text}" for question, text in answers]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _sections(result: FitResult, request: Mapping[str, str]) -> dict[str, list[Answer]]:
    known = {"sizes": _sizes(result), "counts": _counts(result)}
    return {
        "Hypothesis": _hypothesis(result),
        "Training": [Answer(question, known.get(key or "", OPEN)) for question, key in SETUP],
        "Data": [
            *(Answer(question, OPEN) for question in COLLECTION),
            Answer("Which table, and which of its rows?", _rows(result, request)),
        ],
        "Fitting": _fitting(result),
        "Result": _result(result),
    }


def _hypothesis(result: FitResult) -> list[Answer]:
    columns = ", ".join(f"{role} = `{name}`" for role, name in _names(result).items() if role != "metric")
    return [
        Answer("Which form has the law?", f"`{result.law.formula}` ({result.law.label}; {result.law.source})"),
        Answer("Which variables does it relate?", f"`{_names(result).get('metric', 'metric')}` to {columns}"),
        Answer("Which parameters are fitted?", ", ".join(f"`{name}`" for name in _free(result))),
        Answer(
            "Which are held?", ", ".join(f"`{n}` = {wording.number(v)}" for n, v in _held(result).items()) or "none"
        ),
        Answer("From which principle does the form follow?", OPEN),
    ]


def _sizes(result: FitResult) -> str:
    ranges = [f"{role} {wording.number(low)} to {wording.number(high)}" for role, (low, high) in result.ranges.items()]
    return f"{result.rows} rows; {'; '.join(ranges)}"


def _counts(result: FitResult) -> str:
    if result.cost is None:
        return OPEN
    return f"the table's FLOPs follow {result.cost.describe()}; what is counted: {OPEN}"


def _rows(result: FitResult, request: Mapping[str, str]) -> str:
    told = "; ".join(f"{name}: {text}" for name, text in request.items())
    left_out = [flag for flag in result.flagged if not flag.used]
    excluded = f"{len(left_out)} left out ({left_out[0].reason})" if left_out else "none left out by the fit"
    notes = "".join(f"; {note}" for note in result.notes)
    return f"{told}; {result.rows} rows fitted, {excluded}{notes}"


def _fitting(result: FitResult) -> list[Answer]:
    loss = f"{result.loss.kind} loss" + (f", delta {result.loss.delta:g}" if result.loss.kind == "huber" else "")
    space = "log prediction - log metric" if result.residual == "log" else "prediction - metric"
    bounds = ", ".join(f"`{q.name}` {q.lower:g} to {q.upper:g}" for q in result.law.parameters)
    return [
        Answer("Which objective?", f"the sum over rows of a {loss} of {space}"),
        Answer(
            "Which algorithm?",
            "linear parameters by projection on a grid of the others, then Levenberg-Marquardt with Newton steps, from "
            "exact slopes, in scaled units (columns over their geometric mean, the metric over its median)",
        ),
        Answer(
            "From how many starts, and how many agree?", f"{result.starts}, of which {result.starts_agreeing} agree"
        ),
        Answer("Within which bounds (scaled units)?", bounds),
        Answer("How are intervals made?", _intervals(result)),
    ]


def _intervals(result: FitResult) -> str:
    if not result.interval_method:
        return "there are none"
    return f"{100 * (result.interval or 0.95):.4g} %, {result.interval_method}"


def _result(result: FitResult) -> list[Answer]:
    estimates = []
    for name, estimate in {**result.parameters, **result.derived}.items():
        text = "not identified" if estimate.value is None else wording.number(estimate.value)
        if estimate.low is not None and estimate.high is not None:
            text += f" ({wording.number(estimate.low)} to {wording.number(estimate.high)})"
        estimates.append(f"`{name}` = {text}")
    facts = provenance()
    software = {"tokenlaw": facts["git"] or facts["code"][:12], "python": facts["python"]}
    software |= {name: facts["packages"].get(name) for name in ("numpy", "scipy")}
    return [
        Answer("Did it converge?", f"{result.status.value.replace('_', ' ')}: {STATUS_WORDS[result.status]}"),
        Answer("Values?", "; ".join(estimates)),
        Answer("How good is the fit?", f"objective {result.objective:.10g}, mean {result.objective_mean:.4g} a row"),
        Answer("Which warnings?", "; ".join(result.warnings) or "none"),
        Answer("Was it validated on held-out rows?", f"`tokenlaw validate` tells; {OPEN}"),
        Answer("Which software?", ", ".join(f"{name} {value}" for name, value in software.items() if value)),
    ]


def _names(result: FitResult) -> Mapping[str, str]:
    if result.points is not None and result.points.names:
        return result.points.names
    return {column: column for column in result.law.columns}


def _free(result: FitResult) -> list[str]:
    if result.free is None:
        return list(result.law.names)
    return [name for name, free in zip(result.law.names, result.free, strict=True) if free]


def _held(result: FitResult) -> dict[str, float]:
    return {name: result.values[name] for name in result.law.names if name not in _free(result)}
