"""One run of a plan: its specification, what it needs first, and what it costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from results.settings import flat, parts, told_apart
from scaling.specification.costs.generator_counts import plan_columns, token_flops
from scaling.specification.spec import GeneratorRun, TransformerSpec
from sweeps.study.external_run import AnyRun, ExternalRun, facts_of, seconds_of
from sweeps.study.resources import DEFAULT, Resources


@dataclass(frozen=True)
class PlannedRun:
    """One run: its specification, what it needs first, and what it costs.

    `facts` are the columns of `runs` that follow from the specification; `seconds` is the estimated time of training
    and evaluation on one thread of a laptop.
    """

    spec: AnyRun
    facts: Mapping[str, Any]
    seconds: float
    resources: Resources = DEFAULT
    """What a job of it asks of a cluster; no part of its identity."""

    @property
    def run_id(self) -> str:
        """Identity of the specification."""
        return self.spec.run_id

    @property
    def label(self) -> str:
        """Label for people."""
        return self.spec.label

    @property
    def stage(self) -> str:
        """tokenizer, generator, or run for a run of no stage."""
        return self.spec.stage

    @property
    def parent(self) -> str | None:
        """Id of the tokenizer run that a generator needs; None for tokenizers."""
        return self.spec.tokenizer.run_id if isinstance(self.spec, GeneratorRun) else None

    @property
    def size(self) -> str:
        """What the run is a size of: the generator's ladder name, the tokenizer's configuration, or the value `size` of
        a run of no stage."""
        if isinstance(self.spec, ExternalRun):
            return str(self.spec.values.get("size", "-"))
        return str(self.facts["generator"] or self.facts["tokenizer"])

    @property
    def flops(self) -> float:
        """Training FLOPs that the run executes; 0 for a run of no stage, of which nothing is known."""
        return float(self.facts["executed_flops"] or 0)

    @property
    def head_share(self) -> float | None:
        """Share of the training FLOPs that a generator's output head takes; None for other runs, and for a trainer of
        one's own."""
        spec = self.spec
        return token_flops(spec).head_share if isinstance(spec, GeneratorRun) and spec.trainer is None else None

    @property
    def parameters(self) -> int | None:
        """Parameters that are trained; None if unknown."""
        embedding, other = self.facts["parameters_embedding"], self.facts["parameters_other"]
        return None if embedding is None or other is None else embedding + other

    @property
    def train_images(self) -> list[int] | None:
        """Training images of each budget; None for a run of no stage."""
        if isinstance(self.spec, ExternalRun):
            return None
        images = self.spec.train_images
        return [images] if isinstance(images, int) else list(images)

    def as_json(self) -> dict[str, Any]:
        """The machine form, without status."""
        facts = self.facts
        return {
            "id": self.run_id,
            "label": self.label,
            "stage": self.stage,
            "parents": [self.parent] if self.parent else [],
            "size": self.size,
            "params_total": self.parameters,
            "params_non_embedding": facts["parameters_other"],
            **(plan_columns(self.spec) if isinstance(self.spec, GeneratorRun) and self.spec.trainer is None else {}),
            "train_images": self.train_images,
            "flops": self.flops,
            "path_flops": facts["path_flops"],
            "threads": self.spec.threads,
            "estimated_seconds": self.seconds,
            "resources": self.resources.model_dump(mode="json") | {"options": dict(self.resources.options)},
        }


def planned(run: AnyRun, resources: Resources = DEFAULT) -> PlannedRun:
    """A run with what follows from its specification: columns and estimated time."""
    return PlannedRun(run, facts_of(run), seconds_of(run), resources)


def group_names(runs: Iterable[PlannedRun]) -> dict[str, str]:
    """By what each run is grouped beside its stage, by id: its size; where tokenizers of one label differ in another
    field, or generators of one size in an option of the transformer, also in what, such as `K64-T16-perceptual0` and
    `S head.factorised`."""
    names, families = {}, defaultdict[str, defaultdict[str, list[PlannedRun]]](lambda: defaultdict(list))
    shapes = defaultdict[str, defaultdict[TransformerSpec, list[PlannedRun]]](lambda: defaultdict(list))
    for run in runs:
        names[run.run_id] = run.size
        if run.stage == "tokenizer":
            families[run.size][run.facts["tokenizer_family"]].append(run)
        elif isinstance(run.spec, GeneratorRun):
            shapes[run.size][run.spec.transformer].append(run)
    for size, alike in families.items():
        fields = [parts(members[0].facts["spec"])["tokenizer"] | {"seed": 0} for members in alike.values()]
        for members, words in zip(alike.values(), told_apart(fields), strict=True):
            names |= dict.fromkeys((run.run_id for run in members), "-".join([size, *words]))
    for size, shaped in shapes.items():
        options = [flat(shape.model_dump(mode="json")) for shape in shaped]
        for members, words in zip(shaped.values(), told_apart(options), strict=True):
            names |= dict.fromkeys((run.run_id for run in members), " ".join([size, *words]))
    return names
