"""What runs cost: GPU-hours by profile, then by what runs took; limits; disk; tables of one and several studies."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results import SpecError, UsageError
from results.store.run_set import StoredRun
from sweeps.cli.app import app
from sweeps.planning.costs import CHECKPOINTS_KEPT, artifact_bytes, checkpoint_bytes, costs, state_bytes
from sweeps.planning.plan import Plan, make_plan, unite
from sweeps.study.hardware import PROFILES, Hardware, choose
from sweeps.study.study import parse_study

STUDY = """
[study]
name = "{name}"
[generator]
warmup_images = 1024
train_images = [4096]
[seeds]
tokenizer = [0, 1, 2]
[resources.tokenizer]
gpus_per_node = 1
[resources.generator]
gpus_per_node = 2
[hardware]
profile = "a100-80gb"
mfu = 0.4
[[grid]]
product = {{ "generator.size" = {sizes} }}
"""


def _plan(name: str = "one", sizes: str = '["XS", "S"]', more: str = "") -> Plan:
    return make_plan(parse_study(STUDY.format(name=name, sizes=sizes) + more, name))


def _took(plan: Plan, seconds: dict[str, float], status: str = "done") -> dict[str, StoredRun]:
    return {
        run.run_id: StoredRun(run.run_id, 1, status, run.stage, run.label, None, None, seconds[run.label], "")
        for run in plan.runs
        if run.label in seconds
    }


def test_every_profile_says_what_it_rests_on() -> None:
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert 0 < profile.mfu < 0.6
        assert (profile.peak > 1e14) == (profile.device == "gpu")
        assert "data sheet" in profile.source or profile.device == "cpu"
        assert Hardware(profile=name).rate == profile.peak * profile.mfu


def test_profile_turns_flops_into_gpu_hours() -> None:
    plan = _plan()
    for run in plan.runs:
        cost = costs(plan.runs, plan.study.hardware)[run.run_id]
        assert cost.source == "profile"
        assert cost.hours == pytest.approx(run.flops / (3.12e14 * 0.4) / 3600)


def test_what_runs_took_replaces_the_profile_for_their_stage_and_size() -> None:
    plan = _plan()
    took = _took(plan, {"K256-T16-S-s0.0": 360.0, "K256-T16-S-s1.1": 720.0})
    found = costs(plan.runs, plan.study.hardware, took)
    by_label = {run.label: found[run.run_id] for run in plan.runs}
    assert (by_label["K256-T16-S-s0.0"].hours, by_label["K256-T16-S-s0.0"].source) == (pytest.approx(0.2), "done")
    # Two GPUs, 360 and 720 s for runs of equal FLOPs: 0.3 GPU-hours for the third.
    assert (by_label["K256-T16-S-s2.2"].hours, by_label["K256-T16-S-s2.2"].source) == (pytest.approx(0.3), "measured")
    assert by_label["K256-T16-XS-s0.0"].source == by_label["K256-T16-s0"].source == "profile"


def test_runs_that_diverged_or_were_measured_on_cpus_replace_nothing() -> None:
    plan = _plan()
    took = _took(plan, {"K256-T16-S-s0.0": 9.0}, "diverged")
    assert {cost.source for cost in costs(plan.runs, plan.study.hardware, took).values()} == {"profile"}
    cpu = make_plan(parse_study('[study]\nname = "t"\n', "t"))
    took = _took(cpu, {"K256-T16-s0": 3600.0})
    assert [c.source for c in costs(cpu.runs, Hardware(profile="h200"), took).values()] == ["profile"]
    assert [(c.hours, c.source) for c in costs(cpu.runs, None, took).values()] == [(1.0, "done")]


def test_without_a_profile_gpu_hours_are_not_guessed() -> None:
    plan = make_plan(parse_study('[study]\nname = "t"\n[resources.tokenizer]\ngpus_per_node = 1\n', "t"))
    assert [(c.hours, c.source) for c in costs(plan.runs, None).values()] == [(None, "unknown")]


def test_runs_of_no_stage_cost_at_most_their_time_limit() -> None:
    text = (
        '[study]\nname = "t"\n[worker]\ncommand = ["x"]\nstage = "run"\n[resources.run]\ngpus_per_node = 4\nhours = 3\n'
    )
    plan = make_plan(parse_study(text + "[seeds]\nrun = [0, 1]\n", "t"))
    assert {(c.hours, c.source) for c in costs(plan.runs, Hardware(profile="v100")).values()} == {(12.0, "time limit")}
    took = {plan.runs[0].run_id: StoredRun(plan.runs[0].run_id, 1, "done", "run", "", None, None, 900.0, "")}
    found = costs(plan.runs, Hardware(profile="v100"), took)
    assert [(c.hours, c.source) for c in found.values()] == [(1.0, "done"), (1.0, "measured")]


def test_cap_on_gpu_hours() -> None:
    plan = _plan(more="[limits]\ngpu_hours = 1e-3\n")
    plan.check_limits()
    slow = {run.label: 3600.0 for run in plan.runs if run.stage == "tokenizer"}
    with pytest.raises(UsageError, match=r"costs 3 GPU-hours .*allowed by limits.gpu_hours: 0.001 \(--over-limit"):
        plan.check_limits(_took(plan, slow))
    with pytest.raises(UsageError, match="GPU-hours"):
        _plan(more="[limits]\ngpu_hours = 1e-9\n").check_limits()
    with pytest.raises(SpecError, match=r"limits\.gpu_hours cannot be checked without hardware"):
        parse_study('[study]\nname = "t"\n[limits]\ngpu_hours = 1\n', "t")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", "[hardware] profile"),
        ('profile = "a100-80g"', "profile = 'a100-80g' is unknown; did you mean 'a100-80gb'? allowed: cpu-laptop, "),
        ('profile = "v100"\nmfu = 0', "mfu = 0"),
        ('profile = "v100"\nmfu = 1.2', "mfu = 1.2"),
        ('profile = "v100"\nmfi = 0.2', "did you mean 'mfu'?"),
    ],
)
def test_bad_hardware_is_named_in_one_line(section: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_study(f'[study]\nname = "t"\n[hardware]\n{section}\n', "t")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_line_replaces_the_hardware_of_the_study() -> None:
    of_study = Hardware(profile="v100", mfu=0.1)
    assert choose(of_study, None, None) is of_study
    assert choose(of_study, None, 0.2) == Hardware(profile="v100", mfu=0.2)
    assert choose(of_study, "h200", None) == Hardware(profile="h200")
    with pytest.raises(UsageError, match="needs a profile"):
        choose(None, None, 0.2)
    with pytest.raises(UsageError, match="did you mean 'h200'"):
        choose(None, "h20", None)


def test_several_studies_count_shared_runs_once() -> None:
    one, other = _plan(), _plan("other", '["S", "M"]')
    united = unite([one, other])
    ids = [run.run_id for run in united.runs]
    assert len(ids) == len(set(ids)) == 12
    assert set(ids) == set(one.by_id) | set(other.by_id)
    for run in united.runs:
        assert run.parent is None or ids.index(run.parent) < ids.index(run.run_id)
    assert unite([one]) is one


def test_disk_of_checkpoints_is_what_the_training_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from results.recorder import Recorder
    from scaling.data.images import Images
    from scaling.data.tokens import TokenSplit, save_tokens
    from scaling.sealed_tensors import seal
    from scaling.training import checkpoint
    from scaling.training.generator import GeneratorTraining
    from scaling.training.tokenizer import TokenizerTraining

    assert checkpoint.KEPT == CHECKPOINTS_KEPT
    plan = make_plan(parse_study(STUDY.format(name="t", sizes='["XS"]').replace("[0, 1, 2]", "[0]"), "t"))
    tokenizer, generator = plan.runs
    tokens = TokenSplit.of(torch.zeros(4, 16, dtype=torch.int32), torch.zeros(4, dtype=torch.int64))
    images = Images(torch.zeros(4, 1, 32, 32, dtype=torch.uint8), tokens.labels)
    for run, training, forked in (
        (tokenizer, TokenizerTraining(tokenizer.spec, images, lambda *_: None), 1),
        (generator, GeneratorTraining(generator.spec, tokens, lambda *_: None), 2),
    ):
        for parameter in training.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        training.optimiser.step()
        folder = tmp_path / run.stage
        checkpoint.save(folder, checkpoint.Position(0, 64), training.state(), Recorder(run.run_id, 1))
        (written,) = folder.glob("*/state.safetensors")
        assert checkpoint_bytes(run) == pytest.approx(2 * forked * written.stat().st_size, rel=0.1)
    shards = {}
    for split, count in (("train", 60_000), ("validation", 10_000)):
        shards[split] = [tmp_path / f"{split}-000000000-{count:09d}.safetensors"]
        shards[split][0].write_bytes(seal({"tokens": torch.zeros(count, 16, dtype=torch.uint16)}))
    labels = {"train": torch.zeros(60_000), "validation": torch.zeros(10_000)}
    pixels = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    save_tokens(tmp_path / "tokens", tokenizer.spec, shards, labels, "", lambda rows: pixels)
    written = sum(path.stat().st_size for path in (tmp_path / "tokens").iterdir())
    weights = 4 * (tokenizer.parameters or 0)
    assert artifact_bytes(tokenizer) == pytest.approx(written + weights, rel=0.01)


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_table_for_people_for_machines_and_as_csv(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.toml" for name in ("one", "other")]
    for path, sizes in zip(paths, ('["XS", "S"]', '["S", "M"]'), strict=True):
        path.write_text(STUDY.format(name=path.stem, sizes=sizes))
    root = ("--root", tmp_path / "root")
    shown = _run("plan", *paths, *root)
    assert "one (9), other (9): 12 runs, 6 of them shared" in shown
    assert "GPU-hours from a100-80gb at MFU 0.4, training alone (12 runs)" in shown
    assert "GPU-hours from h200 at MFU 0.3, " in _run("plan", paths[0], *root, "--hardware", "h200")
    found = json.loads(_run("plan", *paths, *root, "--json"))
    assert found["studies"] == ["one", "other"]
    assert found["totals"]["runs"] == len(found["runs"]) == 12
    assert found["totals"]["hours"] == pytest.approx(sum(run["hours"] for run in found["runs"]))
    assert found["totals"]["hours"] == pytest.approx(sum(group["hours"] for group in found["groups"]))
    rows = list(csv.DictReader(io.StringIO(_run("plan", *paths, *root, "--csv", "-"))))
    assert [row["id"] for row in rows] == [run["id"] for run in found["runs"]]
    assert {row["gpus"] for row in rows if row["stage"] == "generator"} == {"2"}
    _run("plan", *paths, *root, "--csv", tmp_path / "runs.csv")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 13
    assert not (tmp_path / "root").exists()


def test_over_limit_is_said_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(STUDY.format(name="t", sizes='["XS"]') + "[limits]\ngpu_hours = 1e-9\n")
    assert "over its limit: study t costs" in _run("plan", path, "--root", tmp_path)
    done = CliRunner().invoke(app, ["submit", str(path), "--wait", "--root", str(tmp_path / "root")])
    assert done.exit_code == 2
    assert "--over-limit submits it all the same" in done.stderr
    assert not (tmp_path / "root").exists()


def test_a_size_is_a_group_whatever_its_runs_ask_for() -> None:
    plan = _plan()
    changed = replace(plan.runs[0], resources=plan.runs[0].resources.with_memory(2))
    assert costs([changed], plan.study.hardware) == costs([plan.runs[0]], plan.study.hardware)


def test_state_of_a_device_is_its_part_where_weights_are_cut() -> None:
    """float32 weights, gradients and two moments: 16 bytes a parameter; under fsdp2 over all tasks of all nodes."""
    text = STUDY.format(name="t", sizes='["S"]').replace("gpus_per_node = 2", "gpus_per_node = 2\nnodes = 3")
    whole = {run.stage: run for run in make_plan(parse_study(text, "t")).runs}
    cut = {run.stage: run for run in make_plan(parse_study(text.replace("= 3", '= 3\nstrategy = "fsdp2"'), "t")).runs}
    assert state_bytes(whole["generator"]) == 16 * (whole["generator"].parameters or 0)
    assert state_bytes(cut["generator"]) == -(-state_bytes(whole["generator"]) // 6)
    assert state_bytes(cut["tokenizer"]) == state_bytes(whole["tokenizer"])
