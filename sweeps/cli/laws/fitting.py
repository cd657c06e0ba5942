"""What the fitting commands share: the options of a request, numbers as options give them and as tables show them."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from results.errors import UsageError

from ..options import ExtractorOption, GuidanceOption

if TYPE_CHECKING:
    from analysis.fitting.request import FitRequest
    from analysis.tokenizers.frames import StudyFrames

DATA_HELP = "A table: CSV, TSV, JSON, Parquet, compressed or not; or a study, or a folder with the three tables."
DATA = Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)]
WRITES = ("as_json", "out", "figure", "report")  # what one fit fills
LAW_HELP = (
    "power, shifted-power, signed-power, product, logistic, chinchilla, kaplan, farseer, data-constrained, vocabulary, "
    "routed, multi-power, m1-m4, bnsl-1..3, FILE.py:CLASS, or a formula such as 'E + A/N^alpha', with --column N=COL. "
    "Of a study: the name of one of its [[fit]] blocks, or all of them by default."
)
OwnLawOption = Annotated[
    str | None, typer.Option("--law", metavar="FILE.py:CLASS", help="The fit's law, where it is one of your own.")
]
IntervalOption = Annotated[float, typer.Option("--interval", help="Coverage of intervals.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the resampling.")]
BootstrapOption = Annotated[int, typer.Option("--bootstrap", help="Replicates; 0 for none.")]

# fields of FitRequest as options, in the order of --help: type, default, help; the flag is the field's name
REQUEST_OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "law": (str | None, None, LAW_HELP),
    "params": (str | None, None, "Column of parameters N."),
    "tokens": (str | None, None, "Column of training tokens D."),
    "flops": (str | None, None, "Column of training FLOPs C; with --params alone, D = C/(6N)."),
    "x": (str | None, None, "Column of a one-variable law."),
    "metric": (str | None, None, "Column to explain; default: metric or loss."),
    "column": (list[str] | None, None, "A column of a law, as unique_tokens=U, or of a formula, as N=COL; repeatable."),
    "group": (str | None, None, "Column of groups, each fitted on its own."),
    "cluster": (
        str | None,
        None,
        "Column that names whole runs, which are resampled whole; of a study by default its tokenizer seeds, or none.",
    ),
    "weights": (str | None, None, "Column of row weights, 0 or more."),
    "residual": (str, "log", "log or raw."),
    "loss": (str, "huber", "huber, lad, squares or envelope."),
    "delta": (float, 1e-3, "Where the Huber loss turns linear."),
    "floor": (str, "FREE", "FREE, SIGNED (of either sign), a number, or a column (such as rFID)."),
    "drop_worst": (int, 0, "Leave out the K rows with the largest metric."),
    "fix": (list[str] | None, None, "Hold a parameter at a value, as alpha=0.34; repeatable."),
    "tie": (list[str] | None, None, "Let a parameter follow another, as alpha=beta; repeatable."),
    "bound": (list[str] | None, None, "Ends of a formula's parameter, as alpha=0:2 or A=0:; repeatable."),
    "start": (list[str] | None, None, "A value to start one search from, as alpha=0.3; repeatable."),
    "where": (str | None, None, "Keep rows for which this holds, as 'outlier == False' or '`Model Size` > 1e9'."),
    "units": (bool, False, "Read numbers such as 1.3B, 350M, 1,000 and 62 %."),
    "skip_missing": (bool, False, "Leave out rows with an empty value, or 0 such as step 0, and count them."),
}  # fmt: skip

# what a study's metric is, beside the fields of a request
OF_STUDIES: dict[str, Any] = {"guidance": GuidanceOption, "extractor": ExtractorOption}

FORMS = {
    "column": "ROLE=COL",
    "fix": "NAME=VALUE",
    "tie": "NAME=OTHER",
    "bound": "NAME=LOW:HIGH",
    "start": "NAME=VALUE",
}


def takes_request(
    *fields: str, law_flag: str = "--law", fixed: dict[str, Any] | None = None, **helps: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command DATA and the options of a fit in the place of its first parameter, the FitRequest.

    fields: the options it takes, all by default. fixed: fields of the request that are no option of this command.
    helps: words of its own for an option.
    """
    shown = {name: option for name, option in REQUEST_OPTIONS.items() if not fields or name in fields}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def with_options(data: Path, **given: Any) -> None:
            options = {name: given.pop(name) for name in shown}
            judged = {name: given.pop(name) for name in OF_STUDIES}
            own_options = {check: given[check] for check in ("bootstrap", "interval", "seed") if check in given}
            check_resampling(**own_options)
            one_thread()
            from analysis.fitting.laws.formulas.law import bound_of

            named = [item if "=" in item else f"{item}={item}" for item in options.pop("column", None) or []]
            options["columns"] = assignments(named, FORMS["column"])
            for name in ("fix", "start"):
                if name in options:
                    texts = assignments(options[name], FORMS[name], name)
                    options[name] = {key: float(values(f"{name} {key}", text)[0]) for key, text in texts.items()}
            if "tie" in options:
                options["tie"] = assignments(options["tie"], FORMS["tie"], "tie")
            if "bound" in options:
                options["bound"] = dict(map(bound_of, options["bound"] or []))
            requests = _requests(data, {**options, **(fixed or {})}, law_flag, **judged)
            if len(requests) > 1 and (written := [name for name in WRITES if given.get(name)]):
                flag = "--" + written[0].removeprefix("as_")
                raise UsageError(f"{flag} takes one fit; choose by {law_flag}: {', '.join(requests)}")
            for name, request in requests.items():
                if len(requests) > 1:
                    print(f"\n== {name}")
                command(request, **given)

        hints = get_type_hints(command, localns={"FitRequest": object}, include_extras=True)
        parameters = [inspect.Parameter("data", inspect.Parameter.KEYWORD_ONLY, annotation=DATA)]
        for name, (kind, default, words) in shown.items():
            flag = law_flag if name == "law" else "--" + name.replace("_", "-")
            option = typer.Option(flag, metavar=FORMS.get(name), help=helps.get(name, words))
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if default is ... else default,
                    annotation=Annotated[kind, option],
                )
            )
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in OF_STUDIES.items()
        ]
        _, *rest = inspect.signature(command).parameters.values()
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in rest]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _requests(
    data: Path, options: dict[str, Any], law_flag: str, guidance: str | None, extractor: str | None
) -> dict[str, FitRequest]:
    """The fit asked for; of a study without a law, or with the name of one of its [[fit]] blocks, those, by name.

    Options given beside a block take the place of its own. guidance and extractor: of a study's metric.
    """
    from analysis.fitting.request import FitRequest
    from sweeps.study.study import built_in

    if not (data.is_dir() or data.suffix == ".toml" or (str(data) in built_in() and not data.exists())):
        if options["law"] is None:
            raise UsageError(f"{law_flag} is missing: a table needs one; allowed: {LAW_HELP}")
        for option, value in (("--guidance", guidance), ("--extractor", extractor)):
            if value is not None:
                raise UsageError(f"{option} {value} belongs to a study, which {data} is not")
        return {"": FitRequest(data, **options)}
    from analysis.tokenizers.fit_table import NO_CLUSTERS, study_request

    from ..sources import Judged, read_source

    root = Path(os.environ.get("TOKENLAW_ROOT", "runs"))
    blocks = {} if data.is_dir() else _blocks(str(data), root)
    chosen = [options["law"]] if options["law"] in blocks else [] if options["law"] else list(blocks)
    if not chosen and options["law"] is None:
        raise UsageError(f"{law_flag} is missing, and {data} has no [[fit]] blocks; allowed: {LAW_HELP}")

    @cache
    def frames_by(metric: str | None) -> StudyFrames:
        return read_source(str(data), root, None, Judged(metric, guidance, extractor)).frames

    def request(metric: str | None = None, cluster: str | None = None, **fields: Any) -> FitRequest:
        # The metric that ranks is at its guidance, every other one without.
        ranks = metric if (guidance or extractor) and metric is not None and metric.isidentifier() else None
        # A command that resamples nothing has no clusters.
        return study_request(frames_by(ranks), metric, cluster if "cluster" in options else NO_CLUSTERS, **fields)

    if not chosen:
        return {"": request(**options)}
    usual = {name: default for name, (_, default, _) in REQUEST_OPTIONS.items()} | {"columns": {}}
    given = {name: value for name, value in options.items() if value and value != usual.get(name) and name != "law"}
    return {name: request(**{**blocks[name], **given}) for name in chosen}


def _blocks(study: str, root: Path) -> dict[str, dict[str, Any]]:
    """The [[fit]] blocks of a study by name, as fields of a request; a law's file lies beside the study's."""
    from sweeps.study.study import load_study

    loaded = load_study(study, root=root)
    blocks = {fit.name: fit.request for fit in loaded.fits}
    for block in blocks.values():
        path, sign, _ = block["law"].rpartition(":")
        if sign and path.endswith(".py") and loaded.folder is not None:
            block["law"] = str(loaded.folder / block["law"])
    return blocks


def one_thread() -> None:
    """Batches of small matrices gain nothing from a BLAS's threads and lose much where cores are shared."""
    if "numpy" not in sys.modules:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def assignments(items: list[str] | None, form: str, option: str = "column") -> dict[str, str]:
    """Options such as unique_tokens=1e9 by name; raises UsageError, showing the form, for one that is none."""
    texts = {}
    for item in items or []:
        name, sign, text = item.partition("=")
        if not sign or not name or not text:
            raise UsageError(f"--{option} {item!r} is not {form}")
        texts[name] = text
    return texts


def values(role: str, text: str) -> Any:
    """The finite numbers of an option, separated by commas, as an array; raises UsageError for any other."""
    import numpy as np

    from analysis.fitting.reading.quantities import quantity

    numbers = []
    for item in text.split(","):
        try:
            number = float(item)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            meant = quantity(item)
            raise UsageError(f"--{role} {item!r} is not a number" + ("" if meant is None else f"; write {meant:g}"))
        numbers.append(number)
    return np.array(numbers)


def check_resampling(bootstrap: int = 0, interval: float = 0.95, seed: int = 0) -> None:
    """Raise UsageError for a number of replicates, a coverage or a seed that makes no sense."""
    if bootstrap and bootstrap < 20:
        raise UsageError(f"--bootstrap {bootstrap} is neither 0 nor at least 20")
    if not 0 < interval < 1:
        raise UsageError(f"--interval {interval} is not between 0 and 1")
    if seed < 0:
        raise UsageError(f"--seed {seed} is negative")


def cell(value: Any) -> str:
    """A cell: six significant digits, - for nothing."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.6g}"


def level(interval: float | None) -> str:
    """The coverage of an interval as a word for a table's header: 95%, 97.5%; empty where there is none."""
    return f"{100 * interval:.6g}%" if interval else ""


def ends(interval: float | None) -> list[str]:
    """The two ends of an interval for a table's header: 95% low, 95% high; low, high where there is none."""
    return [f"{level(interval)} {end}".strip() for end in ("low", "high")]


def print_json(document: Any) -> None:
    """The machine form of an answer."""
    print(json.dumps(document, indent=1))


def note(notes: Iterable[str]) -> None:
    """A line for each note, once, above an answer for people."""
    for words in dict.fromkeys(notes):
        print(f"note: {words}")


def warn(warnings: Iterable[str]) -> None:
    """A line for each warning, below an answer for people."""
    for warning in warnings:
        print(f"warning: {warning}")
