"""Labelling the pool: what is said of every crop, whatever is killed; and on to the export."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, SMALL, Call, command, environment, one_line, read_json, run, start
from drawn import Colours, film, rider, walker
from logs import truth_of

from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.truth import append_truth
from collabteam.features.devices import has_bf16
from collabteam.labelling.calibration import apply_temperatures
from collabteam.settings import CameraConfig, CutConfig, IngestConfig
from collabteam.team.predictions import PredictionStore
from collabteam.team.votes.consensus import Consensus
from collabteam.team.voting import combine_tracks
from collabteam.video.pipeline import ingest_footage

LABEL = ("camera=sim", "trainer.threads=1", "precision=fp32")


def label(call: Call, root: Path, *settings: str) -> dict:  # type: ignore[type-arg]
    said = call("label", f"root={root}", *LABEL, *settings)
    assert said.code == 0, said.err
    return read_json(root / "sim" / "label.json")


def verdicts(root: Path) -> dict[str, tuple[str, float, str]]:
    index = Catalog(root / "sim").index()
    judged = index.verdict_round >= 0
    columns = (index.verdict, index.verdict_confidence, index.verdict_run)
    return {
        str(i): (str(v), round(float(c), 9), str(r))
        for i, v, c, r in zip(index.crop_id[judged], *(col[judged] for col in columns), strict=True)
    }


def own_probabilities(folder: Path, index: CropIndex, record: dict) -> dict[int, np.ndarray]:  # type: ignore[type-arg]
    parts = folder / "round-2" / "scores-torch-fp32"
    rows = np.arange(len(index))
    prob = PredictionStore(parts, record["team"], CLASSES, index).of(rows)
    kept = ~np.isnan(prob).any(axis=1)
    heat = np.array([record["temperatures"][name] for name in CLASSES])
    calibrated = apply_temperatures(prob[kept], heat)
    return dict(zip(rows[kept].tolist(), calibrated, strict=True))


@pytest.mark.parametrize("tracks", ["combine", "average"])
def test_every_crop_that_no_person_judged_gets_a_verdict(
    finished: Path, call: Call, tracks: str
) -> None:
    """Against the rule, spelled out track by track."""
    averaged = tracks == "average"
    record = label(call, finished, f"tracks={tracks}")
    folder = finished / "sim"
    index = Catalog(folder).index()
    pool = (index.human == "") & ~index.test
    assert (index.verdict_round[pool] == 2).all()
    assert (index.verdict_round[~pool] == -1).all()
    assert set(index.verdict_by[pool]) == {
        read_json(folder / "round-2" / "round.json")["fingerprint"]
    }
    prob = own_probabilities(folder, index, record)
    members = defaultdict(list)
    for row in prob:
        members[index.track_code[row]].append(row)
    persons = defaultdict(set)
    for row in np.flatnonzero((index.human != "") & ~index.test):
        persons[index.track_code[row]].add(index.human[row])
    labelled = conflicts = 0
    for track, rows in members.items():
        block = np.stack([prob[row] for row in rows])
        together, disputed = combine_tracks(
            block, np.zeros(len(rows), dtype=np.int64), 1.0 if averaged else 0.5, Consensus()
        )
        disputed &= not averaged
        voted = Consensus().vote(together)
        name = CLASSES[voted.branch[0]] if voted.branch[0] >= 0 else ""
        contradicted = bool(name and persons[track] - {name})
        if disputed[0] or contradicted:
            name = ""
        for row in rows:
            if pool[row]:
                assert index.verdict[row] == name
                assert index.verdict_confidence[row] == pytest.approx(voted.confidence[0])
                labelled += name != ""
                conflicts += bool(disputed[0] or contradicted)
    assert sum(record["labelled"].values()) == labelled > 0
    assert record["conflicts"] == conflicts
    assert record["abstained"] == pool.sum() - labelled
    assert record["coverage"] == pytest.approx(labelled / pool.sum())
    assert record["new"] == pool.sum()
    # What it is worth where truth is known.
    truth = truth_of(Catalog(folder))
    for name in CLASSES:
        mine = [str(i) for i in index.crop_id[pool & (index.verdict == name)]]
        right = np.mean([truth[i] == name for i in mine]) if mine else None
        assert record["measured"]["classes"][name]["precision"] == (
            None if right is None else pytest.approx(right)
        )
    assert (folder / "label-quality.png").stat().st_size > 10_000


def test_apart_is_the_papers_rule(finished: Path, call: Call) -> None:
    record = label(call, finished, "tracks=apart", "calibrate=false")
    index = Catalog(finished / "sim").index()
    prob = own_probabilities(finished / "sim", index, record)
    assert set(record["temperatures"].values()) == {1.0}
    for row in np.flatnonzero(index.verdict_round >= 0):
        voted = Consensus().vote(prob[row][None])
        assert index.verdict[row] == (CLASSES[voted.branch[0]] if voted.branch[0] >= 0 else "")
        assert index.verdict_confidence[row] == pytest.approx(voted.confidence[0])


def test_another_engine_is_compared_first_and_says_the_same(finished: Path, call: Call) -> None:
    label(call, finished)
    before = verdicts(finished)
    precision = "bf16" if has_bf16(torch.device("cpu")) else "fp32"
    other = ("engine=openvino", f"precision={precision}")
    record = label(call, finished, *other, "check=200")
    check = record["check"]
    assert (check["kind"], check["precision"], check["crops"]) == ("openvino", precision, 200)
    assert check["disagreement"] <= 0.005
    # What was compared once is not compared again, and its verdicts are the same ones.
    again = label(call, finished, *other, "check=50")
    assert (again["check"], again["new"]) == (check, 0)
    after = verdicts(finished)
    same = np.mean([after[crop][0] == said[0] for crop, said in before.items()])
    assert same >= 0.98
    one_line(call("label", f"root={finished}", "camera=sim", "precision=int8"), "engine=openvino")


def test_bf16_that_differs_too_much_gives_way_to_fp32_unless_it_was_asked_for(
    finished: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collabteam.team.engines.MOST_DISAGREEMENT", -1.0)
    base = (f"root={finished}", "camera=sim", "trainer.threads=1", "check=50")
    one_line(call("label", *base, "precision=bf16"), "expected at most")
    said = call("label", *base)
    assert said.code == 0, said.err
    assert read_json(finished / "sim" / "label.json")["settings"]["precision"] == "fp32"


def test_again_says_nothing_new(finished: Path, call: Call) -> None:
    label(call, finished)
    before, version = verdicts(finished), Catalog(finished / "sim").log_version()
    assert label(call, finished)["new"] == 0
    assert Catalog(finished / "sim").log_version() == version
    assert verdicts(finished) == before
    # Other settings say something else, and the old ones again say it back.
    assert label(call, finished, "tracks=apart")["new"] > 0
    label(call, finished)
    assert verdicts(finished) == before


def test_crops_that_come_later_are_all_that_is_labelled(
    finished: Path, call: Call, tmp_path: Path
) -> None:
    label(call, finished)
    before = verdicts(finished)
    parts = len(list((finished / "sim" / "round-2" / "scores-torch-fp32").glob("part-*.parquet")))
    call("simulate", f"root={finished}", "camera=sim", "crops=40", "seed=9", "test_share=0")
    record = label(call, finished)
    after = verdicts(finished)
    assert len(after) - len(before) == 40
    assert record["new"] == 40
    assert {crop: after[crop] for crop in before} == before
    folder = finished / "sim" / "round-2" / "scores-torch-fp32"
    assert len(list(folder.glob("part-*.parquet"))) == parts + 1
    index = Catalog(finished / "sim").index()
    scores = PredictionStore(folder, record["team"], CLASSES, index)
    assert not scores.missing(index.crop_id.find(list(after))).any()


def test_a_persons_word_makes_its_track_silent_where_it_differs(finished: Path, call: Call) -> None:
    label(call, finished)
    catalog = Catalog(finished / "sim")
    index = catalog.index()
    counts = Counter(index.track_code[index.verdict != ""].tolist())
    track = next(code for code, count in counts.items() if count > 1)
    first, *others = np.flatnonzero((index.track_code == track) & (index.verdict != ""))
    called = str(index.verdict[first])
    other = next(name for name in CLASSES if name != called)
    catalog.append_labels([LabelEvent(str(index.crop_id[first]), other, "person")])
    label(call, finished)
    index = Catalog(finished / "sim").index()
    assert set(index.verdict[others]) == {""}
    assert index.human[first] == other


def test_a_risk_releases_only_what_is_sure_enough(finished: Path, call: Call) -> None:
    everything = label(call, finished, "tracks=apart")
    record = label(call, finished, "threshold=risk:0.6", "confidence=0.6", "tracks=apart")
    index = Catalog(finished / "sim").index()
    prob = own_probabilities(finished / "sim", index, record)
    for row in np.flatnonzero(index.verdict_round >= 0):
        voted = Consensus().vote(prob[row][None])
        name = CLASSES[voted.branch[0]] if voted.branch[0] >= 0 else ""
        least = record["thresholds"][name]["threshold"] if name else None
        released = least is not None and voted.confidence[0] >= least
        assert index.verdict[row] == (name if released else "")
    assert record["coverage"] <= everything["coverage"]
    assert any(row["threshold"] is not None for row in record["thresholds"].values())


def test_a_rollback_takes_the_verdicts_of_its_rounds_back(finished: Path, call: Call) -> None:
    label(call, finished)
    said = call("train", f"root={finished}", "camera=sim", "round=1", "rollback=1", *SMALL)
    assert said.code == 0, said.err
    assert verdicts(finished) == {}
    assert label(call, finished)["round"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_says_the_same_in_the_end(
    trained, tmp_path: Path, seed: int
) -> None:  # type: ignore[no-untyped-def]
    undisturbed, root = tmp_path / "a" / "outputs", tmp_path / "b" / "outputs"
    for copy in (undisturbed, root):
        shutil.copytree(trained.root, copy)
    began = time.monotonic()
    done = run("label", undisturbed, *LABEL)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    chance = random.Random(seed)
    words, nowhere = (f"root={root}", *LABEL), subprocess.DEVNULL
    # The first is fresh, and dies while it imports; the others have that behind them.
    begin: list[Callable[[], Any]] = [
        lambda: subprocess.Popen(
            command("label", *words), cwd=root.parent, env=environment(), stdout=nowhere,
            stderr=nowhere,
        ),
        *3 * [lambda: start("label", root.parent, *words, stdout=nowhere, stderr=nowhere)],
    ]  # fmt: skip
    for kill in range(4):
        process = begin[kill]()
        time.sleep(chance.uniform(0.5, 1) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("label", root, *LABEL).returncode == 0
    assert verdicts(root) == verdicts(undisturbed)
    log = Catalog(root / "sim").log().to_pylist()
    said = Counter((e["crop_id"], e["commit"]) for e in log if e["purpose"] == "verdict")
    assert set(said.values()) == {1}


def test_bad_input_is_one_line(finished: Path, simulated: Path, tmp_path: Path, call: Call) -> None:
    base = (f"root={finished}", *LABEL)
    one_line(call("label", *base, "round=7"), "no finished round 7")
    one_line(call("label", *base, "threshold=risk"), "risk:0.05")
    one_line(call("label", *base, "threshold=risk:2"), "between 0 and 1")
    one_line(call("label", *base, "tracks=joined"), "tracks=joined")
    with Catalog(finished / "sim").workspace.transaction("train"):
        one_line(call("label", *base), "in use by process")
    fresh = Path(shutil.copytree(simulated, tmp_path / "fresh"))
    one_line(call("label", f"root={fresh}", *LABEL), "no finished round", "collabteam.train")
    branch = next((finished / "sim" / "round-2" / "branches").glob("*.safetensors"))
    content = branch.read_bytes()
    branch.write_bytes(content[: len(content) // 2])
    one_line(call("label", *base), branch.name)
    one_line(call("label", f"root={finished}", "camera=sim"), branch.name)
    branch.unlink()
    one_line(call("label", *base), branch.name)
    assert verdicts(finished) == {}
    branch.write_bytes(content)
    label(call, finished)


@pytest.mark.slow
def test_the_whole_line_from_crops_to_a_dataset(finished: Path, call: Call, tmp_path: Path) -> None:
    """Crops, oracle, rounds 0 to 2 (the fixture), label, audit, export, loaded by a peer."""
    from torchvision.datasets import ImageFolder

    label(call, finished)
    base = (f"root={finished}", "camera=sim")
    audited = call("audit", *base, "reviewer=oracle", "precision=0.6", "expected_error=0.2")
    assert audited.code in (0, 1), audited.err
    assert "simulated reviewer" in audited.out
    certificate = read_json(finished / "sim" / "audits" / "1" / "certificate.json")
    truth, index = truth_of(Catalog(finished / "sim")), Catalog(finished / "sim").index()
    for name, row in certificate["classes"].items():
        if row["sample"]:
            assert row["errors"] <= row["sample"]
            assert row["passed"] == (row["errors"] <= row["allowed"]), name
    to = tmp_path / "dataset"
    said = call("export", *base, f"to={to}")
    assert said.code == 0, said.err
    loaded = ImageFolder(str(to / "train"), allow_empty=True)
    assert set(loaded.classes) == set(CLASSES)
    expected = {
        str(i): human or verdict
        for i, human, verdict, test in zip(
            index.crop_id, index.human, index.verdict, index.test, strict=True
        )
        if not test and (human or verdict) in CLASSES
    }
    found = {Path(file).stem: loaded.classes[number] for file, number in loaded.samples}
    assert found == expected
    # The truth of what the oracle looked at is what is exported.
    assert all(truth[i] == n for i, n in found.items() if index.human[index.crop_id == i][0])


@pytest.mark.slow
def test_the_whole_line_from_footage_to_a_dataset(tmp_path: Path, call: Call) -> None:
    """Videos, crops, oracle, rounds 0 to 2, label, audit, export, loaded by a peer library."""
    pytest.importorskip("trackers", reason="needs the extra 'footage'")
    from pycocotools.coco import COCO

    root = tmp_path / "outputs"
    for number in range(14):
        left, high = 5 + 3 * number, number % 5
        street = (
            *rider("bicycle", left, 3.0, 10 + high),
            *rider("motorcycle", 200 - left, -2.0, 125 + high),
            walker(270 - 2 * number, 40 + 8 * high, -2.0),
        )
        film(tmp_path / "footage" / f"clip{number}.mp4", street, frames=30, fps=10)
    config = IngestConfig(
        camera=CameraConfig("gate", CLASSES), root=str(root), source="video",
        path=str(tmp_path / "footage"), tracker="sort", cut=CutConfig(min_frames=5, min_size=20),
    )  # fmt: skip
    ingest_footage(config, detector=Colours())
    catalog = Catalog.open(root, "gate")
    index = catalog.index()
    tracks = {name: len(set(index.track[index.proposed == name])) for name in CLASSES}
    assert min(tracks.values()) >= 14
    # The drawn detector makes no mistakes, so what it proposes is the truth.
    append_truth(catalog, zip(index.crop_id.tolist(), index.proposed.tolist(), strict=True))
    base = (f"root={root}", "camera=gate")
    drawn = call("review", *base, "queue=test", "test_per_class=3", f"export={tmp_path / 't.csv'}",
                 "format=csv")  # fmt: skip
    assert drawn.code == 0, drawn.err
    sizes = ("seed_per_class=8", "increment_per_class=1")
    said = call("train", *base, "round=2", *(s for s in SMALL if not s.startswith(
        ("seed_per_class", "increment_per_class"))), *sizes)  # fmt: skip
    assert said.code == 0, said.err
    labelled = call("label", *base, "trainer.threads=1", "precision=fp32")
    assert labelled.code == 0, labelled.err
    assert sum(read_json(root / "gate" / "label.json")["labelled"].values()) > 0
    audited = call("audit", *base, "reviewer=oracle", "precision=0.6", "expected_error=0.05")
    assert audited.code in (0, 1), audited.err
    assert (root / "gate" / "audits" / "1" / "certificate.json").exists()
    to = tmp_path / "dataset"
    said = call("export", *base, "format=coco", f"to={to}")
    assert said.code == 0, said.err
    coco = COCO(str(to / "annotations.json"))
    assert {kind["name"] for kind in coco.loadCats(coco.getCatIds())} == set(CLASSES)
    index = Catalog.open(root, "gate").index()
    called = {
        str(i): str(human or verdict)
        for i, human, verdict in zip(index.crop_id, index.human, index.verdict, strict=True)
        if (human or verdict) in CLASSES
    }
    assert len(coco.getImgIds()) == len(called)
    boxes = 0
    for annotation in coco.loadAnns(coco.getAnnIds()):
        said_of = annotation["attributes"]
        kind = coco.loadCats(annotation["category_id"])[0]["name"]
        assert called[said_of["crop_id"]] == kind
        assert said_of["video"].startswith("clip")
        boxes += said_of["frame_box"] is not None
    assert boxes == len(called)  # where each was in its video
