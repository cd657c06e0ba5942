"""The command joint: one law over a study's tokenizers, beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.text import table

from ..options import ExtractorOption, GuidanceOption, JsonOption, MetricOption, RootOption, SetOption, SourceArgument
from ..sources import Judged, read_source
from .fitting import cell, check_resampling, one_thread, print_json

MEANINGS = {
    "A": "excess of size, at the mean N", "B": "excess of length, at the mean D", "alpha": "exponent of N",
    "beta": "exponent of D (images)", "p": "of log2 K", "q": "of T", "s": "of the causal weight",
    "kappa": "gFID of excess", "gamma": "exponent of gFID over excess",
}  # fmt: skip


def joint(
    source: SourceArgument,
    bootstrap: Annotated[int, typer.Option("--bootstrap", help="Replicates; 0 for none.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of the resampling.")] = 0,
    metric: MetricOption = None,
    guidance: GuidanceOption = None,
    extractor: ExtractorOption = None,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Fit one law over all tokenizers of a study; say how well it and its rivals predict what they have not seen."""
    check_resampling(bootstrap, seed=seed)
    one_thread()
    from analysis.tokenizers.joint.answer import JointAnswer
    from analysis.tokenizers.joint.law import FORMS

    frames = read_source(source, root, sets, Judged(metric, guidance, extractor)).frames
    answer = JointAnswer.of(frames, replicates=bootstrap, seed=seed)
    if as_json:
        print_json({"source": source, "metric": frames.measure.to_dict(), **answer.to_dict()})
        return
    comparison, fitted = answer.comparison, answer.fitted
    cases = list(dict.fromkeys(e.case for e in comparison.errors))
    laws = list(dict.fromkeys(e.law for e in comparison.errors))
    if cases:
        print(f"root mean square error of ln {frames.measure.name} on what was held out")
        rows = []
        for law in laws:
            errors = [comparison.error(law, case) for case in cases]
            rows.append([law, FORMS.get(law, "-"), *("-" if e is None else f"{e.rmse:.3f}" for e in errors)])  # type: ignore[call-overload]
        sizes = [next(e for e in comparison.errors if e.case == case) for case in cases]
        print(table(["law", "formula", *(f"{e.case} ({e.points})" for e in sizes)], rows))
    for words in comparison.untested:
        print(f"not left out: {words}")
    if comparison.best is not None:
        print(f"lowest error over all cases: {comparison.best}")
    print(f"\n{fitted.form}: {FORMS[fitted.form]}, {fitted.result.status}")
    print("X = (A N^-alpha + B D^-beta) exp(p k + q t - s u); k, t, N, D around their means; u = w / (w + w_half)")
    estimates = fitted.estimates()
    print(table(["parameter", "value", "95% low", "95% high", "meaning"], [
        [name, "not told" if e.value is None else cell(e.value), cell(e.low), cell(e.high), MEANINGS[name]]
        for name, e in estimates.items()
    ]))  # fmt: skip
    test = fitted.rate_alone()
    if test is not None:
        difference, p_value = test
        verdict = "rate alone is not refuted" if p_value > 0.05 else "rate alone does not explain it"
        ends = f"({cell(difference.low)} to {cell(difference.high)})"
        print(f"p - q = {cell(difference.value)} {ends}, p value {p_value:.2g}: {verdict}")
    if fitted.floors is not None:
        floors = fitted.floors.to_dict()
        known = [name for name in ("phi", "psi") if floors[name] is not None]
        shown = [f"{name} = {floors[name]:.3g} (standard error {floors[f'{name}_se'] or 0:.2g})" for name in known]
        print(f"log F = f0 - phi log R + psi u: {', '.join(shown) or 'f0 alone'}")
    for words in (*answer.notes, *(fitted.floors.notes if fitted.floors else ())):
        print(f"note: {words}")
