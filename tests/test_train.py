"""A camera from its first crop to its report, by the commands themselves."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import (
    CLASSES,
    CROPS,
    REPOSITORY,
    SMALL,
    Call,
    Trained,
    fingerprints,
    one_line,
    probabilities,
    read_json,
    records,
    run,
    run_fresh,
    said_of_crops,
)
from logs import truth_of
from wandb_files import read_run

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.events import Listener
from collabteam.features.devices import Device
from collabteam.reviewing.review_queue import REVIEW_QUEUES, ReviewState
from collabteam.rounds.messages import warnings_of_increment
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import DrawnClass, Strangers, read_rounds
from collabteam.rounds.stages.training_set import GatherPool, GatherTrainingSet
from collabteam.settings import ReviewConfig, TrainConfig, from_record
from collabteam.team.votes.consensus import Consensus
from collabteam.team.votes.margin import Margin
from collabteam.team.voting import ABSTAIN

SCHEMA = read_json(REPOSITORY / "docs" / "round.schema.json")


def rounds(folder: Path) -> list[dict[str, Any]]:
    count = len(list(folder.glob("round-*/round.json")))
    return [read_json(folder / f"round-{k}" / "round.json") for k in range(count)]


def training_crops(folder: Path, number: int) -> set[str]:
    """Crops that train in a round, by the log and the draw of i0."""
    index = Catalog(folder).index()
    joined = (index.increment_round >= 1) & (index.increment_round <= number)
    i0 = read_json(folder / "round-0" / "sample.json")["crops"]
    return set(i0) | set(index.crop_id[joined].tolist())


# --- simulate, train, report -------------------------------------------------------------------


def test_every_round_leaves_a_record_that_follows_the_schema(trained: Trained) -> None:
    found = rounds(trained.folder)
    assert [record["round"] for record in found] == [0, 1, 2]
    for record in found:
        jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
        assert record["classes"] == CLASSES
        assert record["peak_memory_mb"] > 50
        assert sum(record["seconds"].values()) > 0
        assert record["settings"]["seed_per_class"] == 40
    assert len({record["fingerprint"] for record in found}) == 3


def test_the_training_set_grows_by_what_the_increments_took(trained: Trained) -> None:
    found = rounds(trained.folder)
    assert found[0]["train_size"] == 40 * len(CLASSES)
    assert found[0]["increment"] == {}
    for before, record in pairwise(found):
        taken = {name: row["taken"] for name, row in record["increment"].items()}
        assert sum(taken.values()) > 0
        assert record["train_size"] == before["train_size"] + sum(taken.values())
        for name, count in taken.items():
            assert record["train_counts"][name] == before["train_counts"][name] + count
            row = record["increment"][name]
            assert row["shortfall"] == 4 - count
            assert row["candidates"] >= count
            # Several candidates may be of one object, of which one is drawn.
            assert row["shortfall"] == 0 or count <= row["candidates"]
        assert record["pool_size"] == before["pool_size"] - sum(taken.values())
        assert record["coverage"] + record["abstain_rate"] == pytest.approx(1)
    for record in found:
        assert sum(record["train_counts"].values()) == record["train_size"]
        assert record["reviewer"] == {"kind": "oracle", "error_rate": 0.0, "answers": 120}


def test_increments_are_in_the_log_as_the_team_of_the_round_before(trained: Trained) -> None:
    found = rounds(trained.folder)
    log = Catalog(trained.folder).log().to_pylist()
    for number in (1, 2):
        joined = [said for said in log if said["round"] == number]
        assert {said["source"] for said in joined} == {"team"}
        assert {said["purpose"] for said in joined} == {"increment"}
        assert {said["by"] for said in joined} == {found[number - 1]["fingerprint"]}
        assert all(0 < said["confidence"] <= 1 for said in joined)
        taken = {name: row["taken"] for name, row in found[number]["increment"].items()}
        assert Counter(said["label"] for said in joined) == Counter(taken)
    team = [said["crop_id"] for said in log if said["source"] == "team"]
    assert len(team) == len(set(team))


def test_an_increment_is_what_the_votes_of_the_round_before_say(trained: Trained) -> None:
    """Each drawn crop has one claimant, and is in the upper half of its class's consensus."""
    found, votes = rounds(trained.folder), probabilities(trained.folder)
    log = Catalog(trained.folder).log().to_pylist()
    index = Catalog(trained.folder).index()
    track = dict(zip(index.crop_id.tolist(), index.track.tolist(), strict=True))
    for number in (1, 2):
        used = {track[crop_id] for crop_id in training_crops(trained.folder, number - 1)}
        sure: dict[str, dict[str, float]] = {name: {} for name in CLASSES}
        for crop_id, prob in votes[f"round-{number - 1}"].items():
            claims = [name for name, p in zip(CLASSES, prob, strict=True) if p > 0.5]
            if len(claims) == 1 and track[crop_id] not in used:
                p = np.array(prob, dtype=np.float64)
                sure[claims[0]][crop_id] = float(np.where(p > 0.5, p, 1 - p).prod())
        for name, row in found[number]["increment"].items():
            drawn = [s for s in log if s["round"] == number and s["label"] == name]
            least = np.quantile(list(sure[name].values()), 0.5) if sure[name] else 0
            assert row["candidates"] <= len(sure[name])
            for said in drawn:
                assert said["confidence"] == pytest.approx(sure[name][said["crop_id"]])
                assert said["confidence"] >= least - 1e-12


def test_no_object_is_drawn_twice_and_none_is_tested_on(trained: Trained) -> None:
    index = Catalog(trained.folder).index()
    row = {crop_id: n for n, crop_id in enumerate(index.crop_id.tolist())}
    assert index.test.sum() > 20
    before = {index.track[row[crop_id]] for crop_id in training_crops(trained.folder, 0)}
    for number in (1, 2):
        drawn = np.flatnonzero(index.increment_round == number)
        tracks = index.track[drawn].tolist()
        assert len(set(tracks)) == len(tracks)
        assert not before & set(tracks)
        before |= set(tracks)
    trains = np.array([row[crop_id] for crop_id in training_crops(trained.folder, 2)])
    assert not index.held_out[trains].any()
    assert not set(index.track[trains]) & set(index.track[index.test])
    for number, record in enumerate(rounds(trained.folder)):
        scored = set(probabilities(trained.folder)[f"round-{number}"])
        assert not scored & set(index.crop_id[index.held_out].tolist())
        assert not scored & training_crops(trained.folder, number)
        assert record["pool_size"] == len(scored)
        assert record["test_size"] == index.test.sum()


def test_a_track_keeps_its_fold(trained: Trained) -> None:
    index = Catalog(trained.folder).index()
    track = dict(zip(index.crop_id.tolist(), index.track.tolist(), strict=True))
    known: dict[str, int] = {}
    for number in range(3):
        folds = read_json(trained.folder / f"round-{number}" / "folds.json")
        assert set(folds) == {track[c] for c in training_crops(trained.folder, number)}
        assert known.items() <= folds.items()
        assert set(folds.values()) == set(range(5))
        known = folds


def test_quality_is_measured_against_the_truth(trained: Trained) -> None:
    folder = trained.folder
    truth, index = truth_of(Catalog(folder)), Catalog(folder).index()
    wrong = 0
    for number, record in enumerate(rounds(folder)):
        for name, row in record["increment"].items():
            drawn = (index.increment_round == number) & (index.increment_label == name)
            right = [truth[crop_id] == name for crop_id in index.crop_id[drawn]]
            wrong += len(right) - sum(right)
            assert row["precision"] == (pytest.approx(np.mean(right)) if right else None)
        # The oracle made no mistake, so all that is wrong came with increments.
        assert record["label_noise"] == pytest.approx(wrong / record["train_size"])
        scored = probabilities(folder)[f"round-{number}"]
        strangers = {c: p for c, p in scored.items() if truth[c] == "unknown"}
        taken = sum(
            truth[crop_id] == "unknown"
            for crop_id in index.crop_id[index.increment_round == number]
        )
        silent = [sum(p > 0.5 for p in prob) != 1 for prob in strangers.values()]
        assert record["unknown"] == {
            "pool": len(strangers),
            "abstain_rate": pytest.approx(np.mean(silent)),
            "increment": taken,
        }


def test_strangers_train_as_nobodys(trained: Trained) -> None:
    """What the reviewer calls 'unknown' is in i0, and negative for every branch."""
    folder = trained.folder
    index = Catalog(folder).index()
    i0 = set(read_json(folder / "round-0" / "sample.json")["crops"])
    verified = Counter(
        label for crop_id, label in zip(index.crop_id, index.human, strict=True) if crop_id in i0
    )
    first = rounds(folder)[0]
    assert verified["unknown"] > 0
    assert first["train_counts"] == {name: verified[name] for name in [*CLASSES, "unknown"]}
    assert first["train_size"] == sum(verified.values())


def test_an_estimate_that_counts_no_strangers_says_so(trained: Trained) -> None:
    record = read_rounds(Catalog(trained.folder).workspace)[0]
    row = DrawnClass(candidates=9, taken=9, shortfall=0, expected_precision=1.0)
    report = dict.fromkeys(CLASSES, row)
    blind = record.model_copy(update={"strangers": None})
    (text,) = warnings_of_increment(1, report, blind, 9)
    assert "does not count objects of no class" in text
    few: dict[str, float | None] = dict.fromkeys(CLASSES, 0.5)
    counted = Strangers(verified=4, share=0.3, unseen=0.25, expected_precision=few)
    *told, last = warnings_of_increment(
        1, report, record.model_copy(update={"strangers": counted}), 9
    )
    assert len(told) == len(CLASSES)
    assert all("only 50% of such a draw" in text and "strangers counted" in text for text in told)
    assert "leaves out 25.0% of the pool" in last


def test_what_the_detector_proposed_as_unknown_is_verified_where_asked_for(
    finished: Path, call: Call
) -> None:
    settings = ("rollback=-1", "round=0", "optim.epochs=1", "seed_unknown=7")
    said = call("train", f"root={finished}", "camera=sim", *SMALL, *settings)
    assert said.code == 0, said.err
    index = Catalog.open(finished, "sim").index()
    i0 = set(read_json(finished / "sim" / "round-0" / "sample.json")["crops"])
    proposed = Counter(
        label for crop_id, label in zip(index.crop_id, index.proposed, strict=True) if crop_id in i0
    )
    assert proposed == {"unknown": 7} | dict.fromkeys(CLASSES, 40)

    # The estimate of an increment counts them: each fold crop stands for those with its proposal.
    folder = finished / "sim"
    fold_of = read_json(folder / "round-0" / "folds.json")
    rows = [
        row for row, crop_id in enumerate(index.crop_id)
        if crop_id in i0 and index.human[row] != "unusable" and fold_of[index.track[row]] == 0
    ]  # fmt: skip
    pool = np.isin(np.array(index.crop_id), list(probabilities(folder)["round-0"]))
    there, drawn = Counter(index.proposed[pool]), Counter(index.proposed[rows])
    weights = np.array([there[name] / drawn[name] for name in index.proposed[rows]])
    strangers = index.human[rows] == "unknown"
    said = rounds(folder)[0]["strangers"]
    assert said["verified"] == strangers.sum() > 0
    assert said["share"] == pytest.approx(weights[strangers].sum() / weights.sum())
    seen = sum(there[name] for name in drawn)
    assert said["unseen"] == pytest.approx(1 - seen / sum(there.values()))


def test_the_command_says_what_it_made_and_what_comes_next(trained: Trained) -> None:
    assert "sim is at round 2" in trained.err
    assert f"{trained.root}/sim/round-2/round.json" in trained.err
    assert "next: python -m collabteam.report camera=sim, or train with round=3" in trained.err
    assert "a simulated reviewer" in trained.err
    assert "3 epochs" not in trained.err
    assert "round 0, fold 0: 120 crops, 8 epochs" in trained.err
    assert "2 epochs" in trained.err
    for noise in ("lightning", "warn(", "wandb", "GPU available"):
        assert noise not in trained.out + trained.err
    assert trained.out == ""


def test_nothing_is_left_outside_the_cameras_folder(trained: Trained) -> None:
    assert [path.name for path in trained.root.parent.iterdir()] == ["outputs"]
    assert [path.name for path in trained.root.iterdir()] == ["sim"]
    assert {path.name for path in trained.folder.iterdir()} == {
        *("camera.yaml", "contact-sheet.png", "crops.lance", "labels.lance", "truth.lance"),
        *("labels.lock", "lock", "round-0", "round-1", "round-2"),
    }
    assert not list(trained.folder.rglob("*.part*"))


def test_the_same_command_again_does_nothing(finished: Path) -> None:
    before = fingerprints(finished)
    again = run("train", finished, "camera=sim", "round=2", *SMALL)
    assert again.returncode == 0
    assert "sim is at round 2" in again.stderr
    assert fingerprints(finished) == before


def test_a_lower_target_is_met_already(finished: Path, call: Call) -> None:
    before = fingerprints(finished)
    said = call("train", f"root={finished}", "camera=sim", "round=0", *SMALL)
    assert said.code == 0
    assert "round 1" not in said.err.split("Table 1")[0]
    assert fingerprints(finished) == before


def test_the_report(finished: Path) -> None:
    done = run("report", finished, "camera=sim")
    assert (done.returncode, done.stderr) == (0, "")
    assert "i0+...+i2" in done.stdout
    assert "simulated reviewer" in " ".join(done.stdout.lower().split())
    assert f"wrote table1.csv, table1.json and table1.png in {finished}/sim" in done.stdout
    assert "next: python -m collabteam.train camera=sim round=3" in done.stdout
    with (finished / "sim" / "table1.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    table = read_json(finished / "sim" / "table1.json")
    assert [row["row"] for row in table["table1"]] == ["i0 (human)", "i0+i1", "i0+...+i2"]
    assert (finished / "sim" / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_as_json_is_json_and_writes_nothing(finished: Path) -> None:
    before = fingerprints(finished)
    done = run("report", finished, "camera=sim", "format=json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert data["rounds"] == rounds(finished / "sim")
    assert fingerprints(finished) == before


# --- loggers -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_offline_leaves_one_finished_run_a_fold_and_stage(root: Path) -> None:
    small = [setting for setting in SMALL if setting != "logger=none"]
    folds = ("data.train_folds=[0,3]", "optim.epochs=2")
    done = run("train", root, "camera=sim", "round=1", *small, *folds)
    assert done.returncode == 0, done.stderr
    for number in (0, 1):
        folder = root / "sim" / f"round-{number}"
        runs = [read_run(path) for path in folder.glob("wandb/offline-run-*/run-*.wandb")]
        stages = ["evaluate", *(["select"] if number else []), "train", "train"]
        assert sorted(run.stage for run in runs) == stages
        assert all(run.finished for run in runs)
    assert "wandb:" not in done.stdout + done.stderr
    assert [path.name for path in root.parent.iterdir()] == ["outputs"]


def test_csv_leaves_one_curve_a_round_and_fold(root: Path, call: Call) -> None:
    small = [setting for setting in SMALL if setting != "logger=none"]
    said = call("train", f"root={root}", "camera=sim", "round=1", *small, "logger=csv")
    assert said.code == 0, said.err
    for number in (0, 1):
        (file,) = (root / "sim" / f"round-{number}").rglob("metrics.csv")
        with file.open(newline="") as stream:
            (last,) = [row for row in csv.DictReader(stream) if row["round"]]
        assert float(last["round"]) == number
        assert 0 <= float(last["recall/cyclist/true"]) <= 1
        assert ("increment/cyclist/taken" in last) == bool(number)


# --- the same again, and otherwise -------------------------------------------------------------


def test_the_same_seed_gives_the_same_team(
    trained: Trained, root: Path, tmp_path: Path, call: Call
) -> None:
    said = call("train", f"root={root}", "camera=sim", "round=2", *SMALL)
    assert said.code == 0, said.err
    assert records(root / "sim") == records(trained.folder)
    assert said_of_crops(root / "sim") == said_of_crops(trained.folder)
    assert probabilities(root / "sim") == probabilities(trained.folder)


def test_another_seed_gives_another_i0(trained: Trained, root: Path, call: Call) -> None:
    said = call("train", f"root={root}", "camera=sim", *SMALL, "seed=1", "optim.epochs=1")
    assert said.code == 0, said.err
    i0, other = (
        set(read_json(folder / "round-0" / "sample.json")["crops"])
        for folder in (trained.folder, root / "sim")
    )
    assert len(i0) == len(other) == 120
    assert len(i0 & other) < 80


# --- people ------------------------------------------------------------------------------------


def person(*settings: str) -> list[str]:
    """The small settings, with a person as the reviewer."""
    return [setting for setting in SMALL if setting != "reviewer=oracle"] + list(settings)


def test_a_person_verifies_i0(root: Path, tmp_path: Path, call: Call) -> None:
    """From the line that asks for labels, through a file of labels, to the trained round."""
    folder = root / "sim"
    asked = call("train", f"root={root}", "camera=sim", *person())
    line = one_line(asked, "120 of the 120 crops of i0 are not verified yet", "labels=person")
    assert str(folder / "round-0" / "sample.json") in line
    assert "40 cyclist" in line
    ids = read_json(folder / "round-0" / "sample.json")["crops"]
    truth = truth_of(Catalog(folder))

    half = pa.table({"crop_id": ids[:50], "label": [truth[crop_id] for crop_id in ids[:50]]})
    pq.write_table(half, tmp_path / "half.parquet")
    labels = ("labels=person", f"path={tmp_path / 'half.parquet'}")
    said = call("ingest", f"root={root}", "camera=sim", *labels)
    assert said.code == 0, said.err
    assert "0 new crops, 50 known before" in said.out
    assert "next: python -m collabteam.train camera=sim round=0" in said.out
    asked = call("train", f"root={root}", "camera=sim", *person())
    one_line(asked, "70 of the 120 crops of i0 are not verified yet")
    assert read_json(folder / "round-0" / "sample.json")["crops"] == ids

    whole = pa.table({"crop_id": ids, "label": [truth[crop_id] for crop_id in ids]})
    pq.write_table(whole, tmp_path / "whole.parquet")
    labels = ("labels=person", f"path={tmp_path / 'whole.parquet'}")
    assert call("ingest", f"root={root}", "camera=sim", *labels).code == 0
    assert len(Catalog(folder).index()) == CROPS
    said = call("train", f"root={root}", "camera=sim", *person("optim.epochs=1"))
    assert said.code == 0, said.err
    assert "crops of the frozen test set are not verified and left out" in said.err
    (record,) = rounds(folder)
    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert record["reviewer"]["kind"] == "person"
    assert record["train_size"] == 120
    assert (record["test_size"], record["recall"]["test"]) == (0, None)


def test_the_record_counts_a_persons_answers(root: Path, call: Call) -> None:
    catalog = Catalog.open(root, "sim")
    one_line(call("train", f"root={root}", "camera=sim", *person()))
    ids = read_json(root / "sim" / "round-0" / "sample.json")["crops"]
    truth = truth_of(catalog)
    catalog.append_labels([LabelEvent(c, truth[c], "person") for c in ids])
    said = call("train", f"root={root}", "camera=sim", *person("optim.epochs=1"))
    assert said.code == 0, said.err
    assert rounds(root / "sim")[0]["reviewer"]["answers"] == 120


def test_labels_of_crops_by_name(root: Path, tmp_path: Path, call: Call) -> None:
    """What does not belong to any crop is put aside and named; nothing is added."""
    ids = Catalog.open(root, "sim").index().crop_id.tolist()
    table = pa.table(
        {
            "crop_id": [ids[3], "no such crop", None, ids[5], ids[3]],
            "label": ["cyclist", "cyclist", "cyclist", "unusable", "pedestrian"],
            "video": ["other"] * 5,
        }
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    settings = (f"root={root}", "camera=sim", f"path={tmp_path / 'labels.parquet'}")
    said = call("ingest", *settings, "labels=person")
    assert said.code == 0, said.err
    assert "0 new crops, 2 known before, 1 twice in the source" in said.out
    assert "no crop 'no such crop' in the catalog" in said.out
    assert "row 2" in said.out
    index = Catalog.open(root, "sim").index()
    assert index.human[[3, 5]].tolist() == ["cyclist", "unusable"]
    assert (index.human != "").sum() == 2
    assert len(index) == CROPS


def test_a_persons_word_stands_above_the_teams(finished: Path, call: Call) -> None:
    """A draw that a person corrects trains under the person's name in the next round."""
    catalog = Catalog.open(finished, "sim")
    index, before = catalog.index(), rounds(finished / "sim")[-1]
    drawn = np.flatnonzero(index.increment_round == 2)
    stays, leaves = drawn[0], drawn[1]
    old = str(index.increment_label[stays])
    new = next(name for name in CLASSES if name != old)
    catalog.append_labels(
        [
            LabelEvent(str(index.crop_id[stays]), new, "person"),
            LabelEvent(str(index.crop_id[leaves]), "unusable", "person"),
        ]
    )
    said = call("train", f"root={finished}", "camera=sim", "round=3", *SMALL)
    assert said.code == 0, said.err
    record = rounds(finished / "sim")[3]
    expected = Counter(before["train_counts"])
    expected.update({name: row["taken"] for name, row in record["increment"].items()})
    expected.subtract([old, str(index.increment_label[leaves])])
    expected.update([new])
    assert record["train_counts"] == dict(expected)
    # What is finished stays as it was.
    assert rounds(finished / "sim")[2] == before


def test_an_erring_oracle_is_on_record(root: Path, call: Call) -> None:
    said = call("train", f"root={root}", "camera=sim", *SMALL, "oracle_error=0.2", "optim.epochs=1")
    assert said.code == 0, said.err
    (record,) = rounds(root / "sim")
    assert record["reviewer"]["error_rate"] == 0.2
    assert 0.08 < record["label_noise"] < 0.35
    assert "20.0% errors" in said.err


def test_a_verified_crop_stands_for_its_track_where_asked_for(root: Path, call: Call) -> None:
    whole = ("data.whole_tracks=true", "optim.epochs=1", "optim.epochs_later=1", "round=1")
    said = call("train", f"root={root}", "camera=sim", *SMALL, *whole)
    assert said.code == 0, said.err
    catalog = Catalog.open(root, "sim")
    index, folder = catalog.index(), root / "sim"
    record, later = rounds(folder)
    verified = np.flatnonzero(index.judged() & ~index.held_out)
    said_of: dict[int, set[str]] = {}
    for row in verified:
        said_of.setdefault(index.track_code[row], set()).add(index.human[row])
    clear = [code for code, names in said_of.items() if len(names) == 1]
    mates = np.isin(index.track_code, clear) & ~index.verified() & ~index.held_out
    assert mates.sum() > 10
    assert record["train_size"] == len(verified) + mates.sum()
    # In the later round they train again, and their tracks are drawn from no more.
    drawn = index.increment_round == 1
    assert later["train_size"] == record["train_size"] + drawn.sum()
    assert not np.isin(index.track_code[drawn], list(said_of)).any()

    # They count as one with their track, and are no crops that figures are measured on.
    config = from_record(TrainConfig, record["settings"])
    plan = RoundPlan(config, catalog, 0, None, Device(torch.device("cpu"), bf16=False))
    training = GatherTrainingSet(plan, catalog.index()).compute(Listener())
    rows = training.rows[~training.is_human]
    assert set(rows[index.increment_round[rows] < 0]) == set(np.flatnonzero(mates))
    assert not np.isin(index.track_code[training.rows], index.track_code[index.test]).any()
    codes = index.track_code[training.rows]
    np.testing.assert_allclose(np.bincount(codes, training.weights)[np.unique(codes)], 1, rtol=1e-6)
    labels = dict(zip(codes.tolist(), training.labels.tolist(), strict=True))
    for code in clear:
        (name,) = said_of[code]
        assert labels[code] == (CLASSES.index(name) if name in CLASSES else -1)
    # A learner that uses the pool gets no crop twice.
    of_pool = replace(plan, config=replace(config, learner={"name": "consistency"}))
    folds = np.zeros(len(training.rows), np.int64)
    pool = GatherPool(of_pool, index, training, folds).compute(Listener())
    assert len(pool.rows)
    assert not np.isin(pool.rows, training.rows).any()


# --- the pool ----------------------------------------------------------------------------------


def test_a_pool_that_is_too_small_gives_all_it_has(root: Path, call: Call) -> None:
    wanted = ("increment_per_class=5000", "quantile=0", "round=1", "optim.epochs_later=1")
    said = call("train", f"root={root}", "camera=sim", *SMALL, *wanted)
    assert said.code == 0, said.err
    record = rounds(root / "sim")[1]
    for name, row in record["increment"].items():
        assert row["shortfall"] == 5000 - row["taken"]
        assert f"class {name}: {row['taken']} of 5000 crops" in said.err


def test_i0_may_take_the_whole_pool(root: Path, call: Call) -> None:
    settings = ("seed_per_class=1000", "optim.epochs=1", "optim.epochs_later=1", "round=1")
    said = call("train", f"root={root}", "camera=sim", *SMALL, *settings)
    assert said.code == 0, said.err
    assert "instead of seed_per_class=1000" in said.err
    for record in rounds(root / "sim"):
        jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert call("report", f"root={root}", "camera=sim").code == 0


def test_crops_that_came_since_are_voted_on(finished: Path, tmp_path: Path, call: Call) -> None:
    more = ("camera=sim", "crops=60", "seed=5", f"root={finished}")
    assert call("simulate", *more).code == 0
    before = rounds(finished / "sim")[2]
    new = Catalog.open(finished, "sim").index()
    came = set(new.crop_id[CROPS:][~new.held_out[CROPS:]].tolist())
    said = call("train", f"root={finished}", "camera=sim", "round=3", *SMALL)
    assert said.code == 0, said.err
    assert came <= set(probabilities(finished / "sim")["round-2"])
    assert rounds(finished / "sim")[2] == before
    record = rounds(finished / "sim")[3]
    taken = sum(row["taken"] for row in record["increment"].values())
    assert record["pool_size"] == before["pool_size"] + len(came) - taken


def test_from_scratch_keeps_only_networks_that_vote(root: Path, call: Call) -> None:
    settings = ("team.init=scratch", "data.train_folds=[0,1]", "round=1", "optim.epochs=1")
    said = call("train", f"root={root}", "camera=sim", *SMALL, *settings)
    assert said.code == 0, said.err
    for number, record in enumerate(rounds(root / "sim")):
        kept = {path.name for path in (root / "sim" / f"round-{number}" / "branches").iterdir()}
        assert kept == {
            f"{name}.fold-{fold}.safetensors"
            for name, folds in record["voting"].items()
            for fold in folds
        }
        assert [fold["fold"] for fold in record["recall"]["folds"]] == [0, 1]


def test_the_mean_of_the_folds_may_vote(root: Path, call: Call) -> None:
    settings = ("team.vote_with=mean", "data.train_folds=[1,4]", "round=1", "optim.epochs=1")
    said = call("train", f"root={root}", "camera=sim", *SMALL, *settings)
    assert said.code == 0, said.err
    for record in rounds(root / "sim"):
        assert record["voting"] == {name: [1, 4] for name in CLASSES}


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scoring_takes_no_more_memory_for_more_crops(simulated: Path, tmp_path: Path) -> None:
    """Held at once, 5,000 crops more would take 96 MB as bytes."""
    index = Catalog.open(simulated, "sim").index()
    rows = np.flatnonzero(~index.held_out)[:300]
    images = Catalog.open(simulated, "sim").images(rows)
    peaks = {}
    for count in (1000, 6000):
        root = tmp_path / str(count) / "outputs"
        catalog = Catalog.register(root, "sim", CLASSES)
        crops = [Crop(images[n % 300], video=str(n // 300), frame=n) for n in range(count)]
        catalog.add_crops(crops)
        # Each class is verified for as many crops as i0 asks for.
        first = [crop.crop_id for crop in crops[:90]]
        catalog.append_labels(
            [LabelEvent(c, CLASSES[n % 3], "person") for n, c in enumerate(first)]
        )
        catalog.append_labels(
            [LabelEvent(c.crop_id, "unknown", "detector", "proposal") for c in crops[90:]]
        )
        settings = (
            *("seed_per_class=30", "data.image_size=80", "optim.epochs=1"),
            "trainer.score_batch_size=32",
        )
        done = run_fresh("train", root, "camera=sim", *person(), *settings)
        assert done.returncode == 0, done.stderr
        (record,) = rounds(root / "sim")
        assert record["pool_size"] == count - 90
        peaks[count] = record["peak_memory_mb"]
        shutil.rmtree(root)
    assert peaks[6000] - peaks[1000] < 60, peaks


def test_answers_of_the_oracle_never_pass_for_a_persons(finished: Path, call: Call) -> None:
    said = call("train", f"root={finished}", "camera=sim", "rollback=-1", *person())
    assert said.code == 2
    assert "120 of the 120 crops of i0 are not verified yet" in said.err
    index = Catalog.open(finished, "sim").index()
    assert not (index.human_source == "oracle").any()
    assert index.test.any(), "who is in the frozen test set stays so"


# --- vote policies and selection rules ----------------------------------------------------------


def test_a_vote_policy_is_used_everywhere_and_on_record(root: Path, call: Call) -> None:
    vote = ("team.vote=margin", "team.vote.margin=0.3", "team.joint=min")
    said = call("train", f"root={root}", "camera=sim", "round=1", *SMALL, *vote)
    assert said.code == 0, said.err
    catalog = Catalog(root / "sim")
    index, record = catalog.index(), rounds(root / "sim")[1]
    assert record["settings"]["team"]["vote"] == {"name": "margin", "margin": 0.3}
    policy = Margin(Margin.Settings(0.3), "min")
    assert read_rounds(catalog.workspace)[1].policy.to_record() == policy.to_record()

    names = list(probabilities(root / "sim")["round-1"])
    prob = np.array([probabilities(root / "sim")["round-1"][name] for name in names])
    verdicts = policy.vote(prob)
    decided = verdicts.branch != ABSTAIN
    assert record["coverage"] == pytest.approx(decided.mean())
    consensus = Consensus(joint="min").vote(prob)
    assert (consensus.branch != verdicts.branch).any()  # or this would prove nothing

    state = ReviewState(catalog, index, catalog.annotations().answers(), ReviewConfig())
    unsure = REVIEW_QUEUES.load("unsure")().crops(state).rows
    assert len(unsure)
    assert set(index.crop_id[unsure].tolist()) <= {
        name for name, is_decided in zip(names, decided, strict=True) if not is_decided
    }

    said = call("label", f"root={root}", "camera=sim", "tracks=apart", "calibrate=false")
    assert said.code == 0, said.err
    found = dict(zip(index.crop_id.tolist(), Catalog(root / "sim").index().verdict, strict=True))
    for name, branch in zip(names, verdicts.branch, strict=True):
        assert found[name] == (record["classes"][branch] if branch != ABSTAIN else "")

    refused = call("train", f"root={root}", "camera=sim", "round=2", *SMALL, *vote[:1], vote[2])
    one_line(refused, "team.vote.margin 0.3 -> 0.2")


def test_a_policy_that_is_not_there_is_answered_with_the_nearest(root: Path, call: Call) -> None:
    base = (f"root={root}", "camera=sim", *SMALL)
    one_line(call("train", *base, "team.vote=magrin"), "team.vote=magrin", "margin")
    one_line(call("train", *base, "team.vote=margin", "team.vote.margni=1"), "team.vote.margin")
    one_line(call("train", *base, "team.vote=margin", "team.vote.margin=2"), "less than 1")
    assert not (root / "sim" / "round-0").exists()


RULE = """
import numpy as np
from dataclasses import dataclass

from collabteam.rounds.selection import SelectionRule
from collabteam.settings.fields import setting


class Least(SelectionRule):
    @dataclass
    class Settings:
        most: float = setting(0.9, ge=0, le=1, help="highest joint confidence")

    def candidates(self, verdicts, branch):
        decided = np.flatnonzero(verdicts.branch == branch)
        return decided[verdicts.confidence[decided] <= self.settings.most]
"""


def test_a_selection_rule_of_another_package_draws_the_increment(
    root: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "least.py").write_text(RULE)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    chosen = ("selection=least:Least", "selection.most=0.8")
    said = call("train", f"root={root}", "camera=sim", "round=1", *SMALL, *chosen)
    assert said.code == 0, said.err
    record = rounds(root / "sim")[1]
    assert record["settings"]["selection"] == {"name": "least:Least", "most": 0.8}
    drawn = [e for e in Catalog(root / "sim").log().to_pylist() if e["purpose"] == "increment"]
    assert drawn
    assert all(event["confidence"] <= 0.8 for event in drawn)
    # The same rule gives the estimate for the next draw.
    assert sum(row["crops"] for row in record["expected_precision"].values()) > 0


def test_the_settings_of_the_paper_are_not_on_record(trained: Trained) -> None:
    """So cameras of earlier versions, whose records lack them, go on."""
    record = read_rounds(Catalog(trained.folder).workspace)[0]
    settings = record.settings
    assert "vote" not in settings["team"]
    assert "selection" not in settings
    assert record.policy.to_record()["name"] == "consensus"
