"""How images are sampled as part of a specification: older runs keep their ids, words stand for scales, bad values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from results.protocol import Protocol
from scaling.evaluation.measuring.measurements import sampling_fields
from scaling.specification.evaluation import EvaluationSpec
from scaling.specification.ladder import transformer
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, parse_run


def run(**changes: object) -> GeneratorRun:
    fields = {
        "tokenizer": TokenizerRun(), "transformer": transformer("S"), "train_images": (640,), "schedule": "cosine",
        "optimiser": OptimiserSpec(learning_rate=1e-3, warmup_images=0),
    }  # fmt: skip
    return GeneratorRun(**(fields | changes))


def test_without_the_later_fields_ids_are_what_they_were() -> None:
    assert TokenizerRun().run_id == "1b09dacaf90c"
    assert set(EvaluationSpec().model_dump()) == {"samples", "guidance", "fid_network", "seed"}


def test_tuned_stands_for_the_papers_scales_and_brings_draws_by_number() -> None:
    spec = EvaluationSpec(guidance="tuned")
    assert spec.tuned_guidance == (1.5, 1.75, 2.0, 2.25) and spec.guidance == (1.0,)
    assert spec.sampling == SamplingSpec()
    assert EvaluationSpec(guidance=["tuned", 3.0]).guidance == (1.0, 3.0)
    generator = run(evaluation=EvaluationSpec(guidance="tuned", tuned_guidance=(1.25, 4.0)))
    again = parse_run(generator.canonical)
    assert again == generator and again.evaluation.tuned_guidance == (1.25, 4.0)
    assert generator.run_id != run().run_id


def test_the_protocol_holds_what_is_not_the_default() -> None:
    assert sampling_fields(SamplingSpec()) == {"microbatch": 50}
    spec = SamplingSpec(temperature=0.9, top_k=100, top_p=0.95, guidance_schedule="linear", classes="proportional")
    assert sampling_fields(spec) == {
        "microbatch": 50, "temperature": 0.9, "top_k": 100, "top_p": 0.95, "guidance_schedule": "linear",
        "settings": "classes=proportional",
    }  # fmt: skip
    assert sampling_fields(SamplingSpec(guided="states")) == {"microbatch": 50, "settings": "guided=states"}
    tuned = sampling_fields(spec, tuned=True)
    assert tuned["guidance_schedule"] == "best" and tuned["settings"] == "classes=proportional over-tokens=linear"
    ids = {Protocol("gfid", 100, guidance=2.0, **sampling_fields(each, tuned)).id for each in (spec, SamplingSpec())
           for tuned in (False, True)}  # fmt: skip
    assert len(ids | {Protocol("gfid", 100, guidance=2.0).id}) == 5


def test_guided_states_are_a_field_of_their_own_and_need_a_linear_head() -> None:
    assert "guided" not in SamplingSpec().model_dump()
    states = EvaluationSpec(sampling=SamplingSpec(guided="states"))
    assert run(evaluation=states).run_id != run(evaluation=EvaluationSpec(sampling=SamplingSpec())).run_id
    assert parse_run(run(evaluation=states).canonical).evaluation == states
    factorised = transformer("S").model_copy(update={"head": "factorised"})
    with pytest.raises(ValidationError, match=r"guided = 'states' needs a head of one matrix; transformer.head = 'fac"):
        run(evaluation=states, transformer=factorised)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance": ["best"]}, "evaluation.guidance = 'best' is not allowed; allowed: numbers from 1, 'tuned'"),
        ({"tuned_guidance": [2.0]}, r"evaluation.tuned_guidance = \[2.0\] leaves nothing to choose"),
        ({"tuned_guidance": [2.0, 2.0]}, "two or more different scales"),
        ({"sampling": {"top_p": 0.0}}, "greater than 0"),
        ({"sampling": {"temperature": 0.0}}, "greater than 0"),
        ({"sampling": {"microbatch": 0}}, "greater than 0"),
        ({"sampling": {"guidance_schedule": "square"}}, "constant"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationSpec(**fields)


def test_guidance_needs_a_null_class() -> None:
    shape = transformer("S").model_copy(update={"class_dropout": 0.0})
    with pytest.raises(ValidationError, match=r"guidance = \[2.0\] needs a null class.*class_dropout = 0.0"):
        run(transformer=shape, evaluation=EvaluationSpec(guidance=(2.0,)))
    assert run(transformer=shape).evaluation.guidance == (1.0,)
