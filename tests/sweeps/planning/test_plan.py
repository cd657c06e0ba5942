"""Plans: costs, dependencies, limits, priorities, the bound of the makespan; ledger and estimates on top of them."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import StoreError, UsageError
from scaling.specification.run_columns import GENERAL_FEATURES
from sweeps.backends.standing import Clock
from sweeps.backends.status import RunStatus
from sweeps.cli.plan_table import PlanTable
from sweeps.cli.views import print_status
from sweeps.planning.order import makespan, priorities
from sweeps.planning.plan import Plan, make_plan
from sweeps.record.attempts import Heartbeat
from sweeps.record.ledger import load_submission, new_submission, open_submission, submissions
from sweeps.record.process_identity import ProcessId
from sweeps.study.study import load_study, parse_study

if TYPE_CHECKING:
    from tests.sweeps.conftest import Sweep


@pytest.fixture(scope="module")
def smoke() -> Plan:
    return make_plan(load_study("smoke"))


def test_json_has_the_promised_keys(smoke: Plan) -> None:
    keys = {"id", "label", "stage", "parents", "params_total", "params_non_embedding", "flops"}
    for run in smoke.runs:
        found = run.as_json()
        assert keys <= set(found)
        assert found["params_total"] > found["params_non_embedding"] > 0
        assert found["flops"] > 0
        assert (found["stage"] == "generator") == (len(found["parents"]) == 1)
        assert set(found["parents"]) <= set(smoke.by_id)


def test_totals_and_what_is_left(smoke: Plan) -> None:
    totals = smoke.totals()
    assert totals["runs"] == totals["tokenizers"] + totals["generators"] == len(smoke.runs)
    assert totals["flops"] == totals["flops_left"] == pytest.approx(sum(run.flops for run in smoke.runs))
    done = {smoke.runs[0].run_id}
    assert smoke.totals(done)["runs_left"] == len(smoke.runs) - 1
    assert smoke.totals(done)["flops_left"] == pytest.approx(smoke.flops - smoke.runs[0].flops)
    assert smoke.totals(set(smoke.by_id))["estimated_seconds_left"] == 0


def test_features_of_the_training_images_are_counted_once() -> None:
    """A data root computes them once, so a second seed of every tokenizer needs no more of them."""
    studies = [load_study("quantizers-pictures", overrides) for overrides in ((), ("seeds.tokenizer=[0, 1]",))]
    once, twice = ([run.seconds for run in make_plan(study).runs] for study in studies)
    features = once[0] - once[3]
    assert features == pytest.approx(studies[0].runs()[0].data.train_images * GENERAL_FEATURES, rel=0.1)
    assert len(twice) == 2 * len(once) and sum(twice) == pytest.approx(2 * sum(once) - features, rel=0.02)


def test_dependents_are_the_inverse_of_parents(smoke: Plan) -> None:
    for run in smoke.runs:
        assert all(other.parent == run.run_id for other in smoke.dependents[run.run_id])
    assert sum(map(len, smoke.dependents.values())) == sum(run.parent is not None for run in smoke.runs)


def test_flop_cap() -> None:
    text = '[study]\nname = "t"\n[limits]\nflops = {}\n'
    make_plan(parse_study(text.format("1e30"), "t")).check_limits()
    with pytest.raises(UsageError, match=r"allowed by limits.flops: 1e\+03 \(--over-limit"):
        make_plan(parse_study(text.format("1e3"), "t")).check_limits()


@pytest.mark.slow
def test_ten_thousand_runs_are_planned_in_seconds() -> None:
    text = f"""
[study]
name = "large"
[generator]
size = "S"
warmup_images = 1024
[seeds]
tokenizer = {list(range(10))}
[limits]
runs = 20000
[[grid]]
product = {{ "tokenizer.quantizer.codebook_size" = {[2**k for k in range(4, 14)]}, "generator.train_images" = {
        [[4096 * k] for k in range(1, 101)]
    } }}
"""
    begun = time.process_time()
    plan = make_plan(parse_study(text, "large"))
    took = time.process_time() - begun
    assert len(plan.runs) == 10_100
    # CPU time, so that a busy machine does not fail it; about 1.6 s on a quiet core (benchmarks/bench_plan.py).
    assert took < 5


def test_tokenizers_with_most_work_behind_them_come_first(smoke: Plan) -> None:
    order = priorities(smoke.runs, jobs=2)
    for run in smoke.runs:
        behind = [other.seconds for other in smoke.dependents[run.run_id]]
        assert order[run.run_id] == pytest.approx(run.seconds + max(max(behind, default=0), sum(behind) / 2))
        if run.parent:
            assert order[run.parent] > order[run.run_id]


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=12), st.integers(1, 8))
def test_makespan_bounds_greedy_scheduling(seconds: list[float], jobs: int) -> None:
    left = {str(i): s for i, s in enumerate(seconds)}
    workers = [0.0] * jobs
    for each in sorted(seconds, reverse=True):
        workers[workers.index(min(workers))] += each
    bound = makespan(left, {}, jobs)
    assert bound <= max(workers) * (1 + 1e-9)
    assert max(workers) <= 2 * bound * (1 + 1e-9)


def test_makespan_follows_chains() -> None:
    assert makespan({"a": 5.0, "b": 7.0, "c": 1.0}, {"b": "a", "c": "a"}, 8) == 12.0
    assert makespan({"b": 7.0}, {"b": "a"}, 8) == 7.0
    assert makespan({}, {}, 8) == 0.0


def test_clock_learns_from_what_runs_took(smoke: Plan) -> None:
    clock = Clock(smoke.by_id)
    tokenizer = next(run for run in smoke.runs if run.stage == "tokenizer")
    generator = next(run for run in smoke.runs if run.stage == "generator")
    nothing = clock.estimate({}, {}, 1)
    assert nothing.total == pytest.approx(sum(run.seconds for run in smoke.runs))
    assert (nothing.done, nothing.eta) == (0.0, pytest.approx(nothing.total))
    clock.measured(tokenizer.run_id, 3 * tokenizer.seconds, here=True)
    slower = clock.estimate({}, {tokenizer.run_id: "done"}, 1)
    assert slower.total == pytest.approx(3 * nothing.total)
    assert slower.done == pytest.approx(3 * tokenizer.seconds)
    assert slower.left[generator.run_id] == pytest.approx(3 * generator.seconds)
    beat = Heartbeat(done=0.5, elapsed=10.0, elapsed_before=2.0)
    running = clock.estimate({generator.run_id: beat}, {tokenizer.run_id: "done"}, 1)
    assert running.left[generator.run_id] == pytest.approx(12.0)
    everything = clock.estimate({}, dict.fromkeys(smoke.by_id, "done"), 1)
    assert everything.eta == 0 and everything.done == pytest.approx(everything.total)


def test_ledger_round_trip(sweep: Sweep) -> None:
    specs = [run.spec for run in sweep.plan.runs]
    made = new_submission("toy", 3, cluster="slurm", retries=2, worker=("python", "worker.py"))
    entered = open_submission(sweep.root, made, specs, {"arrays/0/array.json": b"{}\n"})
    assert entered == made
    assert (entered.folder(sweep.root) / "arrays" / "0" / "array.json").read_text() == "{}\n"
    assert load_submission(sweep.root, entered.id) == entered
    assert submissions(sweep.root) == [entered]
    assert entered.runs(sweep.root) == specs
    assert entered.process(sweep.root) is None
    entered.adopt(sweep.root)
    assert entered.process(sweep.root) == ProcessId.current()
    path = entered.write_spec(sweep.root, specs[0])
    assert path.name == f"{specs[0].run_id}.json"
    assert entered.write_spec(sweep.root, specs[0]) == path
    (entered.folder(sweep.root) / "runs.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"runs\.jsonl is damaged"):
        entered.runs(sweep.root)


def test_unknown_submission(tmp_path: Path) -> None:
    assert submissions(tmp_path) == []
    with pytest.raises(StoreError, match="missing or damaged"):
        load_submission(tmp_path, "nothing")


def test_families_of_one_label_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    axes = '"tokenizer.losses.perceptual_weight" = [0.0, 1.0], "tokenizer.quantizer.codebook_size" = [64, 256]'
    text = f'[study]\nname = "t"\n[seeds]\ntokenizer = [0, 1]\n[[grid]]\nproduct = {{ {axes} }}\n'
    text += 'exclude = { "tokenizer.quantizer.codebook_size" = 256, "tokenizer.losses.perceptual_weight" = 1.0 }\n'
    plan = make_plan(parse_study(text, "t"))
    statuses = [RunStatus(run, "pending", 0) for run in plan.runs]
    groups = PlanTable([plan], plan, statuses, {}, None).groups
    assert [(group["size"], group["runs"]) for group in groups] == [
        ("K64-T16-perceptual0", 2), ("K256-T16", 2), ("K64-T16-perceptual1", 2),
    ]  # fmt: skip
    print_status(plan, statuses)
    assert capsys.readouterr().out.count("K64-T16-perceptual") == 2


def test_generators_of_one_size_whose_transformers_differ_stand_apart() -> None:
    text = '[study]\nname = "t"\n[generator]\nwarmup_images = 0\ntrain_images = 640\n'
    axes = '"generator.size" = ["XS", "S"], "generator.transformer.head" = ["full", "factorised"]'
    rates = '"generator.learning_rate_multiplier" = [1.0, 2.0]'
    plan = make_plan(parse_study(f"{text}[[grid]]\nproduct = {{ {axes}, {rates} }}\n", "t"))
    table = PlanTable([plan], plan, [RunStatus(run, "pending", 0) for run in plan.runs], {}, None)
    assert [(group["size"], group["runs"]) for group in table.groups[1:]] == [
        ("XS", 2), ("XS head.factorised", 2), ("S", 2), ("S head.factorised", 2),
    ]  # fmt: skip


def test_the_heads_share_is_said_for_people_and_in_csv() -> None:
    text = '[study]\nname = "t"\n[generator]\nwarmup_images = 0\ntrain_images = 640\n'
    axes = '"generator.size" = ["XS", "S"], "tokenizer.quantizer.codebook_size" = [16, 1024]'
    plan = make_plan(parse_study(f"{text}[[grid]]\nproduct = {{ {axes} }}\n", "t"))
    table = PlanTable([plan], plan, [RunStatus(run, "pending", 0) for run in plan.runs], {}, None)
    shares = {run.label: run.head_share for run in plan.runs}
    assert shares["K16-T16-s0"] is None
    spans = {size: [shares[f"K{k}-T16-{size}-s0.0"] for k in (16, 1024)] for size in ("XS", "S")}
    said = ", ".join(f"{size} {100 * low:.3g} to {100 * high:.3g} %" for size, (low, high) in spans.items())
    assert f"\noutput head's share of training FLOPs: {said}\n" in table.in_words()
    assert [group["flops_head_share"] for group in table.groups] == [None, None, *spans.values()]
    for row, run in zip(csv.DictReader(io.StringIO(table.as_csv())), plan.runs, strict=True):
        assert row["flops_head_share"] == ("" if run.head_share is None else str(run.head_share))
        each = run.as_json().get("flops_per_token")
        assert row["flops_per_token"] == ("" if each is None else str(each))
        assert row["flops_per_token_forward"] == ("" if each is None else str(each / 3))
    own = text.replace("[generator]\n", "[generator]\nsize = 'S'\ntrainer = ['train', '{tokenizer}']\n")
    plan = make_plan(parse_study(own, "t"))
    table = PlanTable([plan], plan, [RunStatus(run, "pending", 0) for run in plan.runs], {}, None)
    assert plan.runs[1].head_share is None and "output head" not in table.in_words()
