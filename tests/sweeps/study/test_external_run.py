"""Trainers of one's own: commands in specifications, runs of no stage, one parser for all kinds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import SpecError
from results.schema import RUNS
from scaling.specification.command_template import fill
from scaling.specification.ladder import SIZES
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, canonical_json, parse_run
from sweeps.backends.status import RunStatus
from sweeps.cli.plan_table import PlanTable
from sweeps.planning.plan import make_plan
from sweeps.study.external_run import ExternalRun, facts_of, parse_any_run
from sweeps.study.study import load_study, parse_study

COMMAND = '[worker]\ncommand = ["python", "train.py", "--spec", "{spec}", "--out", "{out}", "--seed", "{seed}"]\n'
BASE = '[study]\nname = "test"\n' + COMMAND
STAGED = (
    BASE + "[tokenizer]\ntrain_images = 2048\n[generator]\nsize = 'XS'\nwarmup_images = 1024\ntrain_images = [2048]\n"
)
FREE = BASE + "[run]\ndepth = 4\nmixer = { kind = 'conv', width = 64 }\n"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_runs_without_a_command_keep_the_ids_that_they_always_had() -> None:
    run = TokenizerRun()
    assert run.trainer is None
    assert "trainer" not in canonical_json(run)
    # Golden: ids of stores in use. Change them only with the schema version.
    assert run.run_id == "1b09dacaf90c"
    generator = GeneratorRun(
        tokenizer=run,
        transformer=SIZES["S"],
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=1024),
        train_images=(4096,),
    )
    assert generator.run_id == "35ad576399d9"


def test_text_made_of_parts_is_that_of_the_whole() -> None:
    for name in ("smoke", "fashion"):
        for run in load_study(name).runs():
            whole = json.dumps(run.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
            assert canonical_json(run) == whole


def test_copies_forget_what_was_computed_before() -> None:
    run = TokenizerRun(seed=1)
    before = (run.run_id, run.family)
    other = run.model_copy(update={"seed": 2})
    assert other.run_id == TokenizerRun(seed=2).run_id != before[0]
    assert other.family == before[1]


def test_command_is_part_of_the_identity_of_the_stage_that_it_executes() -> None:
    ours = parse_study(STAGED.replace(COMMAND, ""), "t").runs()
    for stage, changed in (("tokenizer", (True, True)), ("generator", (False, True)), ("both", (True, True))):
        value = '["tokenizer", "generator"]' if stage == "both" else f'"{stage}"'
        theirs = parse_study(STAGED, "t", [f"worker.stage={value}"]).runs()
        assert tuple(one.run_id != other.run_id for one, other in zip(ours, theirs, strict=True)) == changed
        for run in theirs:
            assert (run.trainer is not None) == (stage in (run.stage, "both"))
            assert parse_any_run(canonical_json(run)) == run == parse_run(canonical_json(run))


def test_stage_may_name_its_command_itself() -> None:
    text = STAGED.replace(COMMAND, "").replace("[generator]", "[generator]\ntrainer = ['train', '{tokenizer}']")
    tokenizer, generator = parse_study(text, "t").runs()
    assert (tokenizer.trainer, generator.trainer) == (None, ("train", "{tokenizer}"))


def test_runs_of_no_stage() -> None:
    text = FREE + '[seeds]\nrun = [3, 4]\n[[grid]]\nproduct = { "run.depth" = [4, 8], "run.mixer.width" = [64, 128] }\n'
    runs = parse_study(text, "t").runs()
    assert len(runs) == 8 == len({run.run_id for run in runs})
    first = runs[0]
    assert isinstance(first, ExternalRun)
    assert (first.stage, first.seed, first.threads) == ("run", 3, 1)
    assert first.values == {"depth": 4, "mixer": {"kind": "conv", "width": 64}}
    assert first.label == "depth=4,mixer.kind=conv,mixer.width=64,s3"
    assert first.family == runs[1].family != runs[2].family
    assert parse_any_run(canonical_json(first)) == first
    plan = make_plan(parse_study(text, "t"))
    assert (plan.flops, plan.totals()["others"], plan.runs[0].parent) == (0, 8, None)
    assert plan.runs[0].as_json()["params_total"] is None
    json.dumps([run.as_json() for run in plan.runs])
    table = PlanTable([plan], plan, [RunStatus(run, "pending", 0) for run in plan.runs], {}, None)
    # Nothing is known of their FLOPs, so nothing is said of them.
    assert "\n8 runs of no stage: 192 core-hours; left: 8 runs, 192 core-hours\n" in table.in_words()


def test_columns_of_a_run_of_no_stage_are_those_of_the_table() -> None:
    facts = facts_of(ExternalRun(trainer=("train",), values={"size": "S"}))
    named = {column.name for column in RUNS}
    assert set(facts) <= named
    required = {column.name for column in RUNS if column.required is True} & set(facts)
    assert all(facts[name] is not None for name in required), {n for n in required if facts[n] is None}
    assert set(facts) == set(facts_of(TokenizerRun()))


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4), st.integers(0, 2**40))
def test_any_json_has_one_id_and_comes_back(values: dict[str, object], seed: int) -> None:
    run = ExternalRun(trainer=("train", "{spec}"), values=values, seed=seed)
    again = parse_any_run(canonical_json(run))
    assert (again, again.run_id) == (run, run.run_id)
    assert "\n" not in run.label and len(run.label) < 120


def test_no_shell_touches_a_command() -> None:
    command = ("train", "--note={run_id}; rm -rf /", '{"a": {spec}}', "$HOME")
    assert fill(command, {"run_id": "ab", "spec": "/a b/spec.json"}) == [
        "train", "--note=ab; rm -rf /", '{"a": /a b/spec.json}', "$HOME",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGED, "[worker] stage"),
        (STAGED + "[resources.run]\n", "[worker] stage"),
        (STAGED.replace("[worker]", '[worker]\nstage = "painter"'), "stage"),
        (STAGED.replace("[worker]", '[worker]\nstage = ["run", "generator"]'), "mixes runs of no stage with others"),
        (STAGED.replace("[worker]", '[worker]\nstage = "run"'), "[tokenizer] stands beside runs of no stage"),
        (STAGED.replace("[worker]", '[worker]\nstage = "generator"') + "[run]\n", "[run] stands beside worker.stage"),
        (STAGED.replace("[worker]", '[worker]\nstage = "generator"\nthreads = 2'), "allowed: [generator] threads"),
        (FREE.replace("command", "comand"), "did you mean 'command'?"),
        (FREE.replace('"python"', '""'), "names no program"),
        (FREE.replace("{seed}", "{sede}"), "unknown placeholder {sede}; allowed: {spec}, {rows}, {out}"),
        (FREE.replace("{seed}", "{tokenizer}"), "{tokenizer}, but a run of stage run has none"),
        (FREE.replace("train.py", "../train.py"), "a path outside the root of the code"),
        (FREE.replace(COMMAND, ""), "[run] needs a command"),
        (FREE + "rate = nan\n", "run.rate = nan has no stable text"),
        (FREE + "day = 2020-01-01\n", "run.day = datetime.date(2020, 1, 1) is not allowed"),
        (FREE + "[seeds]\ntokenizer = [1]\n", "'tokenizer' is not a key of [seeds]; allowed: run"),
        (FREE + '[[grid]]\nproduct = { "generator.size" = ["S"] }\n', "but the study's runs have no stage"),
        (STAGED.replace(COMMAND, "") + '[[grid]]\nproduct = { "run.depth" = [1] }\n', "runs have a stage"),
        (STAGED.replace("[worker]", '[worker]\nstage = "tokenizer"').replace("8\n[gen", "8\ntrainer = ['x']\n[gen"),
         "has two commands; allowed: one of tokenizer.trainer and [worker]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_study(text, "t").runs()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"stage": "run", "values": {}}', ["trainer", "required"]),
        ('{"stage": "run", "trainer": ["x"], "colour": 1}', ["colour is not a field"]),
        ('{"stage": "painter"}', ["painter"]),
    ],
)
def test_bad_specifications_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_any_run(text)
    assert all(word in str(caught.value) for word in words)


def test_generators_of_a_trainer_keep_their_tokenizer() -> None:
    runs = parse_study(STAGED, "t", ["worker.stage=generator"]).runs()
    assert isinstance(runs[1], GeneratorRun) and runs[1].tokenizer == runs[0]
