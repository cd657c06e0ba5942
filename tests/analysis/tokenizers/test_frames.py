"""Frames: winners only, one protocol a metric, flagged rows set aside with their reason, names that are unique."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.tokenizers.frames import from_tables, load
from results.errors import DataError


def _small(make_study, known, **options):
    options = {"sizes": ("S",), "seeds": (0, 1), "budgets": (16_000, 64_000)} | options
    return make_study((known["compressed"], known["plain"]), **options)


def test_points_hold_one_row_a_run_and_budget_with_facts_and_metrics(make_study, known):
    frames = _small(make_study, known).frames()
    points = frames.points
    assert len(points) == 2 * 2 * 2
    assert not points.duplicated(["run_id", "branch"]).any()
    row = points[(points["family"] == "K4096-T16") & (points["tokenizer_seed"] == 1)].iloc[0]
    tokenizer = frames.tokenizers.set_index("run_id").loc[row["parent"]]
    assert row["rfid"] == tokenizer["rfid"]
    assert row["images"] == 16_000
    assert row["path_flops"] == row["flops_per_image"] * 16_000
    assert row["nats_per_image"] == pytest.approx(16 * row["nats_per_token"])


def test_guided_gfid_is_kept_apart(make_study, known):
    frames = _small(make_study, known).frames()
    guided = frames.guided
    assert set(guided["guidance"]) == {1.0, 1.5}
    one = guided[guided["guidance"] == 1.0].set_index(["run_id", "branch"])["gfid"]
    point = frames.points.set_index(["run_id", "branch"])["gfid"]
    pd.testing.assert_series_equal(one.sort_index(), point.sort_index(), check_names=False)


def test_two_protocols_of_one_metric_are_refused_and_can_be_chosen(make_study, known):
    study = _small(make_study, known)
    other = json.dumps({"metric": "gfid", "n": 2000, "reference_hash": "zz", "guidance": 1.0}, sort_keys=True)
    changed = 0
    for row in study.evaluations:
        if row["metric"] == "gfid" and row["guidance"] == 1.0 and row["images"] == 16_000:
            row |= {"protocol": "0badcafe", "protocol_json": other, "n": 2000}
            changed += 1
    with pytest.raises(DataError, match=r"gfid at guidance 1.*2 protocols.*0badcafe.*n = 2000.*choose one"):
        study.frames()
    frames = study.frames(protocols=["0badcafe"])
    assert set(frames.points.loc[frames.points["gfid"].notna(), "images"]) == {16_000}
    assert len(frames.points) == 8, "points stay: their other metrics are comparable"
    dropped = frames.exclusions[frames.exclusions["reason"].str.startswith("protocol not chosen")]
    assert dropped["rows"].sum() == changed
    with pytest.raises(DataError, match="choose one"):
        study.frames(protocols=["unknown1"])


def test_flagged_diverged_and_unusable_rows_are_kept_but_not_used(make_study, known):
    study = _small(make_study, known)
    gfid = [r for r in study.evaluations if r["metric"] == "gfid" and r["guidance"] == 1.0]
    gfid[0]["flag"] = "reference statistics of another size"
    gfid[1]["value"] = -0.001
    victim = next(r for r in study.runs if r["stage"] == "generator" and r["run_id"] != gfid[0]["run_id"])
    victim |= {"status": "diverged", "cause": "diverged", "message": "loss is nan"}
    frames = study.frames()
    reasons = set(frames.exclusions["reason"])
    assert reasons == {"reference statistics of another size", "not a positive finite number", "the run diverged"}
    assert len(frames.evaluations) == len(study.evaluations), "nothing is dropped"
    assert victim["run_id"] not in set(frames.points["run_id"])
    assert frames.points["gfid"].min() > 0


def test_failed_attempts_and_later_finishers_do_not_count_twice(make_study, known):
    study = _small(make_study, known)
    first = study.runs[0]
    study.runs.append(first | {"attempt": 2, "status": "failed", "cause": "out_of_memory"})
    later = {"attempt": 3, "finished_at": "2027-06-01T00:00:00Z"}
    study.runs.append(first | later)
    study.evaluations += [
        r | {"attempt": 3, "value": 99.0} for r in study.evaluations if r["run_id"] == first["run_id"]
    ]
    frames = study.frames()
    assert frames.runs["run_id"].is_unique
    assert not (frames.evaluations["value"] == 99.0).any()
    assert frames.failed["cause"].tolist() == ["out_of_memory"]


def test_a_run_without_decays_is_represented_by_the_end_of_its_trunk(make_study, known):
    study = _small(make_study, known, seeds=(0,), budgets=(32_000,))
    for row in study.evaluations:
        row["branch"] = "trunk"
    study.evaluations += [
        r | {"step": 1, "images": 128, "value": 50.0} for r in study.evaluations if r["metric"] == "gfid"
    ]
    points = study.frames().points
    assert points["images"].tolist() == [32_000, 32_000]
    assert points["gfid"].max() < 50


def test_one_label_for_two_configurations_gets_told_apart(make_study, known):
    study = _small(make_study, known, seeds=(0,))
    for row in study.runs:
        if row["tokenizer"] == "K256-T16":
            row["tokenizer"] = "K4096-T16"
        if row["generator"] == "S" and row["codebook_size"] == 256:
            row["learning_rate"] = 0.002
    frames = study.frames()
    assert frames.points["family"].nunique() == 2
    assert set(frames.points["family"]) == {"K4096-T16-codebook256", "K4096-T16-codebook4096"}
    assert set(frames.points["size"]) == {"S lr0.002", "S lr0.004"}


def _losses(study, **fields):
    """The tokenizers of K256-T16 get other losses than those of K4096-T16, and the same label."""
    for row in study.runs:
        spec = json.loads(row["spec"]) | {"losses": {"squared_error_weight": 1.0, "perceptual_weight": 1.0}}
        if row["codebook_size"] == 256:
            spec["losses"] |= fields
        spec["quantizer"]["codebook_size"] = 256
        row |= {"tokenizer": "K256-T16", "spec": json.dumps(spec)}
    return study


def test_families_of_one_label_say_in_which_fields_they_differ(make_study, known):
    study = _losses(_small(make_study, known), perceptual_weight=0.0)
    frames = study.frames()
    assert set(frames.points["family"]) == {"K256-T16-perceptual0", "K256-T16-perceptual1"}
    assert list(frames.settings.columns) == ["tokenizer.losses.perceptual_weight"]
    assert frames.settings["tokenizer.losses.perceptual_weight"].value_counts().to_dict() == {0.0: 4, 1.0: 4}
    study = _losses(_small(make_study, known), network="vgg", perceptual_weight=0.5, normalised=True)
    names = set(study.frames().points["family"])
    assert names == {"K256-T16-network.vgg-normalised-perceptual0.5", "K256-T16-perceptual1"}
    study = _losses(_small(make_study, known))
    names = study.frames().points["family"].unique()
    assert len(names) == 2 and all(name.startswith("K256-T16-") and "#" not in name for name in names)


def test_generators_of_one_label_say_in_which_fields_they_differ(make_study, known):
    study = _small(make_study, known)
    for row in study.runs:
        if row["stage"] == "generator":
            first = row["codebook_size"] == 256
            spec = {"stage": "generator", "seed": row["seed"], "train_images": [1 + row["seed"]]}
            spec |= {"schedule": "cosine" if first else "wsd", "optimiser": {"weight_decay": 0.05 if first else 0.1}}
            spec |= {"tokenizer": json.loads(row["spec"])}
            row |= {"spec": json.dumps(spec), "generator_family": f"{first}{row['seed']}"}
    assert set(study.frames().points["size"]) == {
        "S weightdecay0.05 schedule.cosine", "S weightdecay0.1 schedule.wsd",
    }  # fmt: skip


def test_noise_comes_from_repeated_generator_seeds(make_study, known):
    assert _small(make_study, known).frames().noise is None
    repeated = _small(make_study, known, repeats=6, noise=0.08, seeds=(0, 10), seed=5).frames().noise
    assert repeated is not None
    assert repeated.df == 2 * 2 * 2 * 5
    assert repeated.sd == pytest.approx(0.08, rel=0.35)


def test_floor_is_comparable_only_under_one_reference(make_study, known):
    study = _small(make_study, known)
    assert study.frames().floor_is_comparable
    for row in study.evaluations:
        if row["metric"] == "rfid_floor":
            row["protocol_json"] = json.dumps(json.loads(row["protocol_json"]) | {"n": 5000})
    assert not study.frames().floor_is_comparable


def test_unusable_studies_end_in_one_typed_line(make_study, known):
    study = _small(make_study, known)
    tables = study.tables()
    runs = tables["runs"]
    with pytest.raises(DataError, match="no finished run"):
        from_tables(tables | {"runs": runs.iloc[:0]})
    with pytest.raises(DataError, match="among the 1 runs asked for"):
        from_tables(tables, ["nothere"])
    with pytest.raises(DataError, match="table runs has no column tokenizer_family"):
        from_tables(tables | {"runs": runs.drop(columns="tokenizer_family")})
    with pytest.raises(DataError, match=r"all \d+ attempts .* failed .*out_of_memory"):
        from_tables(tables | {"runs": runs.assign(status="failed", cause="out_of_memory")})
    mixed = runs.assign(data_fingerprint=np.where(runs["codebook_size"] == 256, "a" * 64, "b" * 64))
    with pytest.raises(DataError, match="mixes data sets"):
        from_tables(tables | {"runs": mixed})


def test_load_reads_an_exported_folder_and_selects_runs(make_study, known, tmp_path):
    import pyarrow.parquet as pq

    study = _small(make_study, known)
    for name, table in study.arrow().items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    frames = load(tmp_path)
    pd.testing.assert_frame_equal(frames.points, study.frames().points)
    tokenizers = frames.runs.loc[frames.runs["stage"] == "tokenizer", "run_id"]
    assert len(load(tmp_path, set(tokenizers)).runs) == len(tokenizers)
    with pytest.raises(DataError, match="no finished run"):
        load(tmp_path / "empty")


def test_of_several_feature_spaces_the_first_that_runs_name_answers_and_another_can_be_chosen(make_study, known):
    study = _small(make_study, known)
    plain = study.frames().points["gfid"]
    for row in study.runs:
        spec = json.loads(row["spec"])
        row["spec"] = json.dumps(spec | {"evaluation": {"extractors": [{"name": "a", "sha256": "abc"}, {"name": "b"}]}})
    judged = ("gfid", "rfid", "rfid_floor", "real_fid")
    for row in [row for row in study.evaluations if row["metric"] in judged]:
        protocol = json.loads(row["protocol_json"]) | {"extractor_hash": "other", "extractor": "b"}
        study.evaluations.append(
            row | {"value": 2 * row["value"], "protocol": f"b-{row['protocol']}", "protocol_json": json.dumps(protocol)}
        )
    frames = study.frames()
    pd.testing.assert_series_equal(frames.points["gfid"], plain)
    assert frames.floor_is_comparable
    second = sorted({row["protocol"] for row in study.evaluations if row["protocol"].startswith("b-")})
    pd.testing.assert_series_equal(study.frames(protocols=second).points["gfid"], 2 * plain)
