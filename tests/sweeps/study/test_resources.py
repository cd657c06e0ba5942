"""Resources of jobs: defaults, rules by what a run is, and one clear message for everything that is wrong."""

from __future__ import annotations

import csv
import io

import pytest

from results import SpecError
from sweeps.backends.status import RunStatus
from sweeps.cli.plan_table import PlanTable
from sweeps.planning.plan import make_plan
from sweeps.study.resources import DEFAULT, Resources
from sweeps.study.study import parse_study

BASE = """
[study]
name = "test"
[generator]
warmup_images = 1024
train_images = [4096]
[[grid]]
product = { "tokenizer.quantizer.codebook_size" = [256, 4096], "generator.size" = ["XS", "S", "M"] }
"""
RULES = """
[resources.tokenizer]
gpus_per_node = 1
hours = 4
[resources.generator]
partition = "gpu"
memory_gb = 64
options = { nice = 100, exclusive = true, mail-type = "FAIL", spread-job = false }
[[resources.generator.rules]]
where = { "generator.size" = ["S", "M"] }
gpus_per_node = 8
hours = 2.5
[[resources.generator.rules]]
where = { "generator.size" = "M", "tokenizer.quantizer.codebook_size" = "> 256" }
nodes = 2
partition = "large"
"""


def _by_label(text: str, *overrides: str) -> dict[str, Resources]:
    return {run.label: run.resources for run in make_plan(parse_study(text, "test", overrides)).runs}


def test_rules_apply_in_order_to_the_runs_that_they_name() -> None:
    found = _by_label(BASE + RULES)
    assert found["K256-T16-s0"] == Resources(gpus_per_node=1, hours=4)
    small = found["K256-T16-XS-s0.0"]
    assert (small.partition, small.gpus, small.hours, small.memory_gb) == ("gpu", 0, 24.0, 64)
    assert small.options == (("exclusive", ""), ("mail-type", "FAIL"), ("nice", "100"))
    for label in ("K256-T16-S-s0.0", "K4096-T16-S-s0.0", "K256-T16-M-s0.0"):
        assert (found[label].partition, found[label].gpus, found[label].hours) == ("gpu", 8, 2.5)
    large = found["K4096-T16-M-s0.0"]
    assert (large.partition, large.nodes, large.tasks_per_node, large.tasks, large.gpus) == ("large", 2, 8, 16, 16)


def test_resources_are_no_part_of_the_identity() -> None:
    plain, rich = (make_plan(parse_study(text, "test")) for text in (BASE, BASE + RULES))
    assert [run.run_id for run in plain.runs] == [run.run_id for run in rich.runs]
    assert {run.resources for run in plain.runs} == {DEFAULT}


def test_runs_of_equal_resources_share_a_shape() -> None:
    found = _by_label(BASE + RULES)
    assert len(set(found.values())) == 4
    assert len({hash(resources) for resources in found.values()}) == 4


def test_conditions_see_defaults_that_no_section_sets() -> None:
    text = (
        BASE
        + '[[resources.generator.rules]]\nwhere = { "tokenizer.batch_size" = 64, "generator.schedule" = "!= cosine", \
"tokenizer.regulariser" = "none", "generator.train_images" = [4096], "data.image_size" = ">= 32" }\nhours = 7\n'
    )
    found = _by_label(text)
    assert {r.hours for label, r in found.items() if "XS" in label} == {7}
    assert found["K256-T16-s0"].hours == DEFAULT.hours


def test_memory_grows_after_a_job_ran_out_of_it() -> None:
    assert Resources(memory_gb=10).with_memory(1.5).memory_gb == 15
    assert Resources().with_memory(1.5) == Resources()


def test_overrides_reach_resources_and_limits() -> None:
    found = _by_label(BASE + RULES, "resources.generator.partition=fast", "resources.tokenizer.hours=1")
    assert found["K256-T16-XS-s0.0"].partition == "fast"
    assert found["K256-T16-s0"].hours == 1
    study = parse_study(BASE, "test", ["limits.retries=0", "limits.out_of_memory_growth=2.0"])
    assert (study.retries, study.limits.out_of_memory_growth) == (0, 2.0)
    assert parse_study(BASE, "test").retries == 2


def test_machine_form_names_the_options() -> None:
    run = make_plan(parse_study(BASE + RULES, "test")).runs[1].as_json()
    assert run["resources"]["options"] == {"exclusive": "", "mail-type": "FAIL", "nice": "100"}
    assert run["resources"]["partition"] == "gpu"


def test_csv_has_what_each_job_asks_for() -> None:
    own = 'account = "lab"\nqos = "long"\nconstraint = "a100|h100"\nmemory_gb = 64\nmicrobatch = 8\n'
    text = BASE + RULES + own  # fields of the last rule
    plan = make_plan(parse_study(text, "test"))
    table = PlanTable([plan], plan, [RunStatus(run, "pending", 0) for run in plan.runs], {}, None)
    rows = list(csv.DictReader(io.StringIO(table.as_csv())))
    for run, row in zip(plan.runs, rows, strict=True):
        asked = run.resources
        assert row["cpus_per_task"] == str(asked.cpus_per_task)
        assert row["hours_limit"] == str(asked.hours)
        for name in ("partition", "account", "qos", "constraint", "memory_gb", "microbatch"):
            value = getattr(asked, name)
            assert row[name] == ("" if value is None else str(value))
    assert {"lab", ""} == {row["account"] for row in rows}
    assert "--exclusive --mail-type=FAIL --nice=100" in {row["options"] for row in rows}


RULE = '[[resources.generator.rules]]\nwhere = { "generator.size" = "S" }\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[resources.sampler]", "'sampler' is not a key of [resources]; allowed: generator, run, tokenizer"),
        ("[resources]\ntokenizer = 3", "resources.tokenizer = 3 is not allowed; allowed: a table"),
        ("[resources.generator]\ngpu_per_node = 1", "did you mean 'gpus_per_node'?"),
        (
            '[resources.tokenizer]\nstrategy = "fsdp2"',
            "[resources.tokenizer] strategy = 'fsdp2' is not allowed, for only generators are cut over processes; "
            "allowed: 'ddp'",
        ),
        (
            "[resources.tokenizer]\n[[resources.tokenizer.rules]]\n"
            'where = { "tokenizer.train_images" = 2048 }\nstrategy = "fsdp2"',
            "[[resources.tokenizer.rules]] 1 strategy = 'fsdp2' is not allowed",
        ),
        (
            '[worker]\nstage = "generator"\ncommand = ["true"]\n[resources.generator]\nrecompute_activations = true',
            "recompute_activations = True is not allowed, for the run's own trainer is not told of it; allowed: "
            "recompute_activations = False",
        ),
        (
            "[tokenizer.adversarial]\nstart_images = 0\nramp_images = 64\n[resources.tokenizer]\nmicrobatch = 16",
            "adversarial.norm = 'batch' looks at a whole batch, but a microbatch of 16 cuts the 64 images of a process "
            "into 4; allowed: no microbatch, or adversarial.norm = 'group' and adaptive = false",
        ),
        ("[resources.generator]\ngpus_per_node = -1", "[resources.generator] gpus_per_node = -1: "),
        ("[resources.generator]\ngpus_per_node = 1.5", "gpus_per_node = 1.5"),
        ("[resources.generator]\nnodes = 0", "nodes = 0"),
        ("[resources.generator]\nhours = 0", "hours = 0"),
        ('[resources.generator]\nhours = "1:00"', "hours = '1:00'"),
        ("[resources.generator]\nmemory_gb = nan", "memory_gb = nan"),
        ('[resources.generator]\npartition = "gpu; rm"', "partition = 'gpu; rm'"),
        ('[resources.generator]\nconstraint = "a\\nb"', "constraint"),
        ('[resources.generator]\noptions = { "--nice" = 1 }', "options.--nice is not an option; allowed: long names"),
        ("[resources.generator]\noptions = { time = 1 }", "options.time is not allowed"),
        ("[resources.generator]\noptions = { array = '1-2' }", "submission sets it itself"),
        ("[resources.generator]\noptions = { nice = [1] }", "options.nice = [1] is not allowed"),
        ('[resources.generator]\noptions = { comment = "a\\nb" }', "a line of text"),
        ("[resources.generator]\nrules = {}", "[[resources.generator.rules]] tables"),
        ("[[resources.generator.rules]]\nhours = 1", "where = None is not allowed; allowed: a table of conditions"),
        (RULE, "sets nothing; allowed: gpus_per_node"),
        (RULE + "our = 3", "did you mean 'hours'?"),
        (RULE + "hours = -3", "[[resources.generator.rules]] 1 hours = -3"),
        ('[[resources.generator.rules]]\nwhere = { "generator.sise" = "S" }\nhours = 1', "did you mean 'size'?"),
        ('[[resources.tokenizer.rules]]\nwhere = { "generator.size" = "S" }\nhours = 1', "'generator' is not a key"),
        ('[[resources.generator.rules]]\nwhere = { "generator.threads" = "> x" }\nhours = 1', "compares with 'x'"),
        ("[resources.generator]\ngpus_per_node = 8\nnodes = 9", "batch_size = 64 cannot be shared by 72 tasks"),
        ("[limits]\nretries = -1", "retries = -1"),
        ("[limits]\nout_of_memory_growth = 0.5", "out_of_memory_growth = 0.5"),
        ("[limits]\ngpu_hour = 1", "did you mean 'gpu_hours'?"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_plan(parse_study(f"{BASE}{text}\n", "test"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
