"""The audit command: from frozen labels to a certificate, whatever happens in between."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Call, Said, environment, fingerprints, one_line, read_json
from logs import truth_of
from scipy.stats import binom

from collabteam.audits import begin, certificate
from collabteam.audits import judge as judging
from collabteam.audits.answers import answers
from collabteam.audits.audit import certify
from collabteam.audits.begin import BeginAudit, plan_classes
from collabteam.audits.judge import judge_classes
from collabteam.audits.records import (
    AuditRecord,
    AuditSettings,
    PlannedClass,
    last_audit,
    read_audit,
    read_certificate,
)
from collabteam.audits.release import read_release
from collabteam.audits.statement import statement
from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog.records import labels_hash
from collabteam.catalog.truth import append_truth
from collabteam.events import Listener
from collabteam.reviewing.review_queue import REVIEW_QUEUES
from collabteam.reviewing.session import ReviewSession
from collabteam.settings import AuditConfig, CameraConfig, ReviewConfig
from collabteam.storage.records import Record

CLASSES = ["car", "ship"]
SCHEMA = read_json(Path(__file__).parents[1] / "docs" / "certificate.schema.json")
ORACLE = "reviewer=oracle"


def verdicts(crops: Iterable[str], label: str, by: str = "fp", run: str = "label-x") -> list[Any]:
    return [LabelEvent(crop, label, "team", "verdict", 1, 0.9, by=by, commit=run) for crop in crops]


def make(
    root: Path, sizes: dict[str, int], wrong: dict[str, int] | None = None, per_track: int = 5
) -> Catalog:
    """A camera whose team released so many labels of each class, so many of them wrong.

    The wrong ones hang together: whole tracks of them.
    """
    catalog = Catalog.register(root, "S1", CLASSES)
    add(catalog, sizes, wrong or {}, "first", per_track)
    return catalog


def add(
    catalog: Catalog, sizes: dict[str, int], wrong: dict[str, int], video: str, per_track: int = 5
) -> list[str]:
    every: list[str] = []
    for name, size in sizes.items():
        made = [
            Crop(f"\xff{video}{name}{n}".encode(), video, f"{name}-{n // per_track}", n)
            for n in range(size)
        ]
        ids = [crop.crop_id for crop in made]
        catalog.add_crops(made)
        catalog.append_labels(verdicts(ids, name))
        truth = ["unknown" if n < wrong.get(name, 0) else name for n in range(size)]
        append_truth(catalog, zip(ids, truth, strict=True))
        every += ids
    return every


def audit(call: Call, catalog: Catalog, *settings: str) -> Said:
    return call("audit", f"root={catalog.folder.parent}", "camera=S1", *settings)


def record_of(catalog: Catalog, number: int = 1) -> dict[str, Any]:
    return read_audit(catalog.workspace, number).to_json()


def begun(planned: dict[str, PlannedClass], precision: float, confidence: float) -> AuditRecord:
    """The first audit of a release."""
    settings = AuditConfig(precision=precision, confidence=confidence)
    return AuditRecord.model_validate(
        {
            "camera": "S1",
            "audit": 1,
            "begun": "2026-11-22T13:40:00Z",
            "log_events": 0,
            "settings": {name: getattr(settings, name) for name in AuditSettings.model_fields},
            "release": {
                "file": "audits/1/release.parquet",
                "hash": "0" * 64,
                "crops": 1,
                "by_class": {},
            },
            "teams": [{"fingerprint": "fp", "round": 1, "run": "label-x", "crops": 1}],
            "classes": planned,
        }
    )


def certificate_of(catalog: Catalog, number: int = 1) -> dict[str, Any]:
    """It follows the schema, and agrees with itself."""
    found = read_json(catalog.folder / "audits" / str(number) / "certificate.json")
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert isinstance(found, dict)
    assert found["release"]["crops"] == sum(found["release"]["by_class"].values())
    written = read_certificate(catalog.workspace, number)
    assert written is not None
    begun_with = read_audit(catalog.workspace, number)
    assert written.statement == statement(begun_with, written.classes, written.reviewers)
    answered = sum(row["answered"] for row in found["classes"].values())
    assert answered == sum(row["answers"] for row in found["reviewers"])
    return found


def answer(
    catalog: Catalog, crops: Iterable[str], label: str, by: str = "ana", commit: str = ""
) -> None:
    catalog.append_labels(
        [LabelEvent(crop, label, "person", "audit", by=by, commit=commit) for crop in crops]
    )


def answer_truly(catalog: Catalog, number: int = 1) -> None:
    truth, record = truth_of(catalog), record_of(catalog, number)
    for row in record["classes"].values():
        for crop in row["sample"]:
            answer(catalog, [crop], truth[crop])


def desk(catalog: Catalog) -> ReviewSession:
    config = ReviewConfig(camera=CameraConfig("S1", CLASSES), queue="audit")
    REVIEW_QUEUES.load(config.queue)().prepare(catalog, config, Listener())
    return ReviewSession(catalog, config)


def ids(page: dict[str, Any]) -> list[str]:
    return [crop["id"] for crop in page["crops"]]


# --- the whole way --------------------------------------------------------------------------------


def test_a_simulated_reviewer_goes_the_whole_way(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 400, "ship": 300}, {"car": 2})
    said = audit(call, catalog, ORACLE)
    assert said.code == 0, said.err
    found = certificate_of(catalog)
    assert found["passed"]
    assert found["simulated"]
    assert found["reviewers"][0]["name"] == "oracle"
    assert "simulated reviewer" in found["statement"]
    assert found["statement"].startswith(
        "At least 95% of the 400 labels called car and of the 300 called ship are right, with 95% "
        "confidence for all of them together (audit 1: "
    )
    assert said.out.count("simulated reviewer") == 2  # the table and the sentence
    assert found["statement"] in said.out
    assert "next: python -m collabteam.export camera=S1 certified=true" in said.out
    for name, row in found["classes"].items():
        own = certificate.share_out(0.95, 2, 1)
        assert row["confidence"] == own
        planned = certificate.plan(row["released"], 0.95, own, 0.01, 0.8)
        assert planned is not None
        assert (row["sample"], row["allowed"]) == (planned.size, planned.allowed)
        bound = certificate.lower_precision(row["sample"], row["errors"], row["released"], own)
        assert row["bound"] == bound >= 0.95, name
    # The frozen release is what it is said to be.
    table = pq.read_table(catalog.folder / found["release"]["file"])
    assert table.column_names == ["crop_id", "label", "confidence"]
    rows = table.to_pylist()
    assert [row["crop_id"] for row in rows] == sorted(row["crop_id"] for row in rows)
    assert len(rows) == 700
    assert {row["confidence"] for row in rows} == {0.9}
    assert found["release"]["hash"] == labels_hash(
        [row["crop_id"] for row in rows], [row["label"] for row in rows]
    )
    assert found["teams"] == [{"fingerprint": "fp", "round": 1, "run": "label-x", "crops": 700}]


def test_a_person_answers_through_the_desk(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 400, "ship": 300})
    office = desk(catalog)  # open before the audit begins
    assert office.total("audit") == 0
    begun = audit(call, catalog, "seed=3", "precision=0.9")
    assert begun.code == 0, begun.err
    assert "audit 1 of S1 begins" in begun.err
    assert "is open, 0 of" in begun.out
    assert "next: python -m collabteam.review camera=S1 queue=audit" in begun.out
    again = "python -m collabteam.audit camera=S1 precision=0.9 seed=3"
    assert again in begun.out
    record = record_of(catalog)
    sample = {crop for row in record["classes"].values() for crop in row["sample"]}
    frozen = read_release(catalog.workspace, read_audit(catalog.workspace, 1)).to_pylist()
    label = {row["crop_id"]: row["label"] for row in frozen}

    shown: list[str] = []
    for reviewer in itertools.cycle(["ana", "ben"]):
        page = office.page(reviewer, reviewer, "audit", 25)
        if not page["crops"]:
            break
        assert set(page["crops"][0]) == {"id", "mates"}  # no confidence, no label of the team
        assert {label[crop] for crop in ids(page)} == {page["suggested"]}
        shown += ids(page)
        office.commit(
            reviewer, f"page-{len(shown):04}", "audit", page["page"],
            dict.fromkeys(ids(page), page["suggested"]),
        )  # fmt: skip
    assert sorted(shown) == sorted(sample)
    assert office.state("ana", "t", "audit")["next"] == again

    done = audit(call, catalog, "seed=3", "precision=0.9")
    assert done.code == 0, done.err
    found = certificate_of(catalog)
    assert found["passed"]
    assert not found["simulated"]
    assert {row["name"] for row in found["reviewers"]} == {"ana", "ben"}
    assert "looked at by 2 persons, 0 wrong" in found["statement"]
    assert "simulated" not in done.out
    # With the certificate the sample is no queue any more.
    assert office.state("ana", "t", "audit")["queues"][2]["total"] == 0


def test_a_queue_goes_through_another_tool(tmp_path: Path, call: Call) -> None:
    """What a reviewer said elsewhere of the same crops before does not stand for the audit."""
    catalog = make(tmp_path, {"car": 200})
    assert audit(call, catalog).code == 0
    office = desk(catalog)
    tasks = office.open_tasks("audit")
    assert {task.suggested for task in tasks} == {"car"}
    crops = [task.crop_id for task in tasks]
    catalog.append_labels([LabelEvent(i, "car", "person", "seed", by="ana") for i in crops])
    assert office.left("audit") == len(crops)
    assert office.take_in("audit", [(i, "car", "ana") for i in crops]) == (len(crops), [])
    assert office.take_in("audit", [(i, "car", "ana") for i in crops]) == (0, [])
    assert office.left("audit") == 0
    assert audit(call, catalog).code == 0
    found = certificate_of(catalog)
    assert found["reviewers"] == [{"name": "ana", "source": "import", "answers": len(crops)}]
    assert found["classes"]["ship"]["left_out"] == "no crops"
    assert found["passed"]
    claim = "At least 95% of the 200 labels called car are right, with 95% confidence (audit 1: "
    assert found["statement"].startswith(claim)
    assert "ship" not in found["statement"]


def test_unanswered_is_no_error_and_nothing_is_written(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 200, "ship": 200})
    assert audit(call, catalog).code == 0
    answer(catalog, record_of(catalog)["classes"]["car"]["sample"], "car")
    before = fingerprints(catalog.folder)
    said = audit(call, catalog)
    assert said.code == 0
    assert "nothing is certified yet" in said.out
    assert fingerprints(catalog.folder) == before


# --- failing --------------------------------------------------------------------------------------


def test_a_plain_fail_says_what_may_be_claimed_and_what_would_do(
    tmp_path: Path, call: Call
) -> None:
    catalog = make(tmp_path, {"car": 400, "ship": 300}, {"ship": 60})
    said = audit(call, catalog, ORACLE)
    assert said.code == 1, said.err
    found = certificate_of(catalog)
    car, ship = found["classes"]["car"], found["classes"]["ship"]
    assert (found["passed"], car["passed"], ship["passed"]) == (False, True, False)
    assert 0.6 < ship["bound"] < 0.8
    assert not ship["stopped"]
    rest = ship["released"] - ship["sample"]
    following = certificate.share_out(0.95, 2, 2)
    assert ship["further"] == certificate.smallest_sample(rest, 0.95, following, 0)
    for text in (
        "At least 95% of the 400 labels called car are right",
        "Not certified at 95% with 95% confidence: the 300 labels called ship",
        f"{ship['errors']} of {ship['sample']} looked at were wrong",
        f"{ship['further']} further ones",
    ):
        assert text in found["statement"]
    assert "new=true" in said.out


def test_a_class_that_has_failed_needs_no_further_answers(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 400, "ship": 300})
    audit(call, catalog)
    classes = record_of(catalog)["classes"]
    allowed = classes["ship"]["allowed"]
    wrong = classes["ship"]["sample"][: allowed + 1]
    answer(catalog, wrong[:-1], "unknown")
    assert "has failed" not in audit(call, catalog).out
    answer(catalog, wrong[-1:], "unusable")  # counts as wrong, too
    said = audit(call, catalog)
    assert said.code == 0
    assert f"ship has failed: {allowed + 1} were wrong and {allowed} allowed" in said.out
    # The other class is open, so the audit is.
    answer(catalog, classes["car"]["sample"], "car")
    said = audit(call, catalog)
    assert said.code == 1
    ship = certificate_of(catalog)["classes"]["ship"]
    assert (ship["passed"], ship["stopped"], ship["bound"]) == (False, True, None)
    assert ship["answered"] == allowed + 1
    assert "which ended it before all" in said.out


def test_who_answers_all_gets_a_bound_although_it_failed(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 400}, {"car": 100})
    audit(call, catalog)
    answer_truly(catalog)
    assert audit(call, catalog).code == 1
    car = certificate_of(catalog)["classes"]["car"]
    assert not car["stopped"]
    assert 0.5 < car["bound"] < 0.75


def test_a_hopeless_audit_is_refused_and_counts_for_nothing(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 100})
    before = fingerprints(catalog.folder)
    one_line(audit(call, catalog, "expected_error=0.05"), "expected_error=0.05", "precision=0.05")
    one_line(audit(call, catalog, "precision=0.99"), "expected_error=0.01")
    assert fingerprints(catalog.folder) == before
    audit(call, catalog, ORACLE)
    assert certificate_of(catalog)["audit"] == 1


def test_a_class_without_a_plan_is_left_out_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As things are a plan is hopeless for all classes or for none; should that change: ..."""
    plan = begin.plan
    monkeypatch.setattr(begin, "plan", lambda n, *rest: None if n == 50 else plan(n, *rest))
    batches = {"car": np.arange(50).astype(str), "ship": np.arange(50, 400).astype(str)}
    planned = plan_classes(batches, AuditConfig(), 1)
    assert planned["car"].left_out == "hopeless with expected_error=0.01"
    assert planned["car"].sample == []
    record = begun(planned, 0.95, 0.95)
    found = judge_classes(record, dict.fromkeys(planned["ship"].sample, "ship"))
    assert found["car"].passed is None
    assert found["ship"].passed


def test_small_batches_are_looked_at_in_full(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 12, "ship": 20}, {"ship": 2})
    assert audit(call, catalog, ORACLE).code == 1
    found = certificate_of(catalog)["classes"]
    assert (found["car"]["sample"], found["car"]["bound"], found["car"]["passed"]) == (
        12,
        1.0,
        True,
    )
    assert (found["ship"]["sample"], found["ship"]["bound"]) == (20, 0.9)


# --- bad input ------------------------------------------------------------------------------------


def test_bad_input(tmp_path: Path, call: Call) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    one_line(audit(call, catalog), "no released labels", "collabteam.label camera=S1")
    one_line(audit(call, catalog, "precision=1.2"), "precision=1.2")
    one_line(audit(call, catalog, "reviewer=ana"), "reviewer=ana", "person, oracle")
    one_line(call("audit", f"root={tmp_path}", "camera=S2"), "S2")
    assert not (catalog.folder / "audits").exists()
    made = [Crop(f"c{n}".encode()) for n in range(80)]
    catalog.add_crops(made)
    catalog.append_labels(verdicts([crop.crop_id for crop in made], "car"))
    one_line(audit(call, catalog, ORACLE), "needs the hidden truth")
    assert last_audit(catalog.workspace) == 0


def test_other_settings_are_refused_with_both_ways_on(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 200})
    audit(call, catalog, "power=0.9")
    before = fingerprints(catalog.folder)
    for settings in ([], ["power=0.9", ORACLE], ["power=0.9", "seed=1"]):
        one_line(audit(call, catalog, *settings), "keep those", "camera=S1 power=0.9'", "new=true")
    assert fingerprints(catalog.folder) == before
    one_line(audit(call, catalog, "power=0.9", "confidence=0.9"), "confidence 0.95 -> 0.9")


def test_damage_is_told_and_nothing_is_certified(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 200, "ship": 100})
    audit(call, catalog)
    answer_truly(catalog)
    folder = catalog.folder / "audits" / "1"
    frozen = pq.read_table(folder / "release.parquet")
    pq.write_table(frozen.slice(1), folder / "release.parquet")
    one_line(audit(call, catalog), "release.parquet", "not the release frozen")
    (folder / "release.parquet").write_bytes(b"PAR1")
    one_line(audit(call, catalog), "release.parquet", "restore it")
    for text in ("{", "[]"):
        (folder / "audit.json").write_text(text)
        one_line(audit(call, catalog), "audit.json", "restore it")
    assert not (folder / "certificate.json").exists()


# --- which crops and which answers count ----------------------------------------------------------


def test_only_what_no_person_judged_is_released(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 100, "ship": 100})
    index = catalog.index()
    cars = index.crop_id[index.verdict == "car"].tolist()
    catalog.append_labels(
        [
            LabelEvent(cars[0], "car", "person", "seed", by="ana"),
            LabelEvent(cars[1], "ship", "import", by="ben"),
            LabelEvent(cars[2], "unusable", "oracle"),
            LabelEvent(cars[3], "", "ingest", "test"),
            *verdicts(cars[4:6], ""),  # "I don't know" now
            *verdicts(cars[6:9], "ship", "fp2", "label-y"),
        ]
    )
    audit(call, catalog)
    record = record_of(catalog)
    assert record["release"]["by_class"] == {"car": 91, "ship": 103}
    table = read_release(catalog.workspace, read_audit(catalog.workspace, 1)).to_pylist()
    assert not {row["crop_id"] for row in table} & set(cars[:6])
    assert {row["crop_id"]: row["label"] for row in table}[cars[6]] == "ship"
    assert record["teams"] == [
        {"fingerprint": "fp", "round": 1, "run": "label-x", "crops": 191},
        {"fingerprint": "fp2", "round": 1, "run": "label-y", "crops": 3},
    ]


def test_words_from_before_the_audit_do_not_count(tmp_path: Path, call: Call) -> None:
    """Neither where they are withdrawn, nor when an undo says them again."""
    catalog = make(tmp_path, {"car": 60})
    cars = catalog.index().crop_id.tolist()
    answer(catalog, cars, "ship", by="ana", commit="earlier-1")
    # Somebody else withdrew it: the crops are nobody's, though Ana's page stands.
    catalog.append_labels([LabelEvent(i, "", "person", "audit", by="ben") for i in cars])
    assert audit(call, catalog).code == 0
    record, office = record_of(catalog), desk(catalog)
    sample = record["classes"]["car"]["sample"]
    assert answers(catalog, read_audit(catalog.workspace, 1)) == {}
    assert office.left("audit") == len(sample)
    page = office.page("ana", "t", "audit", 500)
    office.commit("ana", "page-0012", "audit", page["page"], dict.fromkeys(ids(page), "car"))
    assert office.left("audit") == 0
    assert len(answers(catalog, read_audit(catalog.workspace, 1))) == len(sample)
    office.undo("ana", "t", "audit", "page-0012")  # this says "ship" again, of 'earlier-1'
    for opened in (office, desk(catalog)):
        assert opened.left("audit") == len(sample)
    assert answers(catalog, read_audit(catalog.workspace, 1)) == {}
    assert "0 of" in audit(call, catalog).out


def test_the_last_word_given_for_the_audit_counts(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 60})
    audit(call, catalog)
    record = record_of(catalog)
    first, second, third, fourth, *_ = record["classes"]["car"]["sample"]

    def heard(crop: str) -> str:
        found = answers(catalog, read_audit(catalog.workspace, 1)).get(crop)
        return found.label if found else ""

    answer(catalog, [first], "ship", "ana")
    answer(catalog, [first], "car", "ben")
    assert heard(first) == "car"
    answer(catalog, [first], "ship", "ana")
    assert heard(first) == "ship"
    catalog.append_labels([LabelEvent(first, "", "person", by="ana")])
    assert heard(first) == "car"
    for source, purpose in (("person", "seed"), ("person", "conflict"), ("import", "")):
        catalog.append_labels([LabelEvent(second, "car", source, purpose, by="ana")])
    catalog.append_labels([LabelEvent(third, "car", "oracle", "audit", by="oracle")])
    assert heard(second) == heard(third) == ""
    answer(catalog, [fourth], "car", "ana", "page-1")
    catalog.append_labels([LabelEvent(fourth, "car", "person", "seed", by="ana", commit="page-2")])
    assert heard(fourth) == "car"
    left = desk(catalog).open_tasks("audit")
    assert {second, third} <= {task.crop_id for task in left}
    assert not {first, fourth} & {task.crop_id for task in left}


def test_the_desk_and_the_audit_hear_the_same(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 30, "ship": 30})
    audit(call, catalog)
    record, office = record_of(catalog), desk(catalog)
    every = catalog.index().crop_id.tolist()
    drawn = [crop for row in record["classes"].values() for crop in row["sample"]]
    rng = np.random.default_rng(0)
    stands: list[tuple[str, str, str]] = []
    for number in range(60):
        who = str(rng.choice(["ana", "ben"]))
        mine = [page for page in stands if page[1] == who]
        if mine and rng.random() < 0.3:
            name, _, queue = mine[int(rng.integers(len(mine)))]
            office.undo(who, "t", queue, name)
            stands.remove((name, who, queue))
        else:
            is_audit = rng.random() < 2 / 3
            crops = rng.choice(drawn if is_audit else every, 5, replace=False)
            said = {str(crop): str(rng.choice(CLASSES)) for crop in crops}
            if is_audit:
                office.commit(who, f"page-{number:04}", "audit", "", said)
                stands.append((f"page-{number:04}", who, "audit"))
            else:  # another program's answers for i0
                catalog.append_labels(
                    [
                        LabelEvent(crop, word, "person", "seed", by=who)
                        for crop, word in said.items()
                    ]
                )
        left = {task.crop_id for task in office.open_tasks("audit")}
        assert {*drawn} - left == answers(catalog, read_audit(catalog.workspace, 1)).keys()
        assert {task.crop_id for task in desk(catalog).open_tasks("audit")} == left


def test_the_label_that_was_frozen_is_what_is_judged(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 100})
    audit(call, catalog)
    sample = record_of(catalog)["classes"]["car"]["sample"]
    catalog.append_labels(verdicts(sample, "ship"))
    assert {task.suggested for task in desk(catalog).open_tasks("audit")} == {"car"}
    answer(catalog, sample, "car")
    assert audit(call, catalog).code == 0


# --- again ----------------------------------------------------------------------------------------


def test_the_same_command_prints_the_certificate_again(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 200, "ship": 150})
    first = audit(call, catalog, ORACLE)
    before = fingerprints(catalog.folder)
    again = audit(call, catalog, ORACLE)
    assert (again.code, again.out) == (first.code, first.out)
    assert "begins" in first.err
    assert "begins" not in again.err
    assert fingerprints(catalog.folder) == before


def test_what_changed_since_is_said(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 200, "ship": 150})
    audit(call, catalog)
    answer_truly(catalog)
    audit(call, catalog)
    asked = sum(len(row["sample"]) for row in record_of(catalog)["classes"].values())
    assert "covers" not in audit(call, catalog).out  # the audited ones left, no more
    add(catalog, {"car": 40}, {}, "second")
    left = 350 - asked
    covers = f"the certificate covers {left} of {left + 40} labels released now"
    assert covers in audit(call, catalog).out
    index = catalog.index()
    rows = np.flatnonzero((index.human == "") & (index.verdict == "ship"))[:7]
    catalog.append_labels(verdicts(index.crop_id[rows[:4]], "car"))
    catalog.append_labels(verdicts(index.crop_id[rows[4:]], ""))
    out = audit(call, catalog).out
    assert f"covers {left - 7} of {left + 40 - 3} labels released now" in out
    assert "7 of the 350 labels that it covers are no longer released" in out
    answer(catalog, record_of(catalog)["classes"]["car"]["sample"][:1], "ship", "ben")
    assert "answers were changed" in audit(call, catalog).out
    assert certificate_of(catalog)["passed"]


def test_a_new_audit_after_a_fail_is_of_the_rest_and_has_to_be_surer(
    tmp_path: Path, call: Call
) -> None:
    catalog = make(tmp_path, {"car": 900}, {"car": 55})
    assert audit(call, catalog).code == 0
    answer_truly(catalog)
    assert audit(call, catalog).code == 1
    first = certificate_of(catalog)["classes"]["car"]
    again = audit(call, catalog, "new=true")
    assert again.code == 0
    record = record_of(catalog, 2)
    rest = read_release(catalog.workspace, read_audit(catalog.workspace, 2))["crop_id"].to_pylist()
    audited = record_of(catalog)["classes"]["car"]["sample"]
    assert len(rest) == 900 - first["sample"]
    assert not set(rest) & set(audited)
    assert record["classes"]["car"]["confidence"] == certificate.share_out(0.95, 2, 2)
    # Asked twice before the first answer, it is still the second audit.
    assert audit(call, catalog, "new=true").code == 0
    assert record_of(catalog, 2) == record
    assert last_audit(catalog.workspace) == 2
    # With answers, or if more is released, it is given up and counts.
    add(catalog, {"car": 10}, {}, "second")
    audit(call, catalog, "new=true")
    assert last_audit(catalog.workspace) == 3
    answer(catalog, record_of(catalog, 3)["classes"]["car"]["sample"][:1], "car")
    audit(call, catalog, "new=true")
    assert record_of(catalog, 4)["classes"]["car"]["confidence"] == certificate.share_out(
        0.95, 2, 4
    )
    # What was said for an earlier one does not count for a later one.
    assert answers(catalog, read_audit(catalog.workspace, 4)) == {}
    answer_truly(catalog, 4)
    audit(call, catalog)
    assert certificate_of(catalog, 4)["audit"] == 4


def test_other_settings_count_on(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 300, "ship": 300})
    audit(call, catalog, ORACLE)
    said = audit(call, catalog, ORACLE, "new=true", "precision=0.9", "confidence=0.99")
    assert said.code == 0, said.err
    found = certificate_of(catalog, 2)
    assert found["classes"]["car"]["confidence"] == certificate.share_out(0.99, 2, 2)
    assert "At least 90% of the" in found["statement"]
    one_line(audit(call, catalog, ORACLE), "precision 0.9 -> 0.95", "confidence 0.99 -> 0.95")


def test_a_lost_folder_does_not_bring_an_attempt_back(tmp_path: Path, call: Call) -> None:
    catalog = make(tmp_path, {"car": 300})
    for _ in range(3):
        audit(call, catalog, ORACLE, "new=true")
    (catalog.folder / "audits" / "2" / "audit.json").unlink()
    audit(call, catalog, ORACLE, "new=true")
    assert certificate_of(catalog, 4)["classes"]["car"]["confidence"] == certificate.share_out(
        0.95, 2, 4
    )


# --- killed, and two at once ----------------------------------------------------------------------


class Killed(BaseException):
    """What no code catches."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, moment: int, after: bool) -> None:
    """Let the process end at its n-th write, before it or right after."""
    writes = itertools.count()

    def deadly(write: Callable[..., Any]) -> Callable[..., Any]:
        def writes_or_dies(*arguments: Any) -> Any:
            dies = next(writes) == moment
            if dies and not after:
                raise Killed
            result = write(*arguments)
            if dies:
                raise Killed
            return result

        return writes_or_dies

    for owner, name in ((begin, "write_parquet"), (Record, "write")):
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))
    monkeypatch.setattr(Catalog, "append_labels", deadly(Catalog.append_labels))


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_killed_between_any_two_writes(
    tmp_path: Path, moment: int, after: bool, new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(root: Path, new: bool = new) -> AuditConfig:
        return AuditConfig(CameraConfig("S1"), str(root), reviewer="oracle", new=new)

    def strip(found: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name not in ("begun", "created")}

    roots = [tmp_path / "killed", tmp_path / "whole"]
    killed, whole = (make(root, {"car": 90, "ship": 80}, {"ship": 8}) for root in roots)
    certify(settings(roots[1]))
    with monkeypatch.context() as patched:
        _kill_at(patched, moment, after)
        with pytest.raises(Killed):
            certify(settings(roots[0]))
    was_done = moment == 3 and after
    # Asked again with new=true what is finished is finished, and another one is meant.
    certify(settings(roots[0], new and not was_done))
    assert last_audit(killed.workspace) == 1
    assert strip(record_of(killed)) == strip(record_of(whole))
    assert strip(certificate_of(killed)) == strip(certificate_of(whole))
    assert sorted(path.name for path in (killed.folder / "audits" / "1").iterdir()) == [
        "audit.json", "certificate.json", "release.parquet"
    ]  # fmt: skip
    said = [e for e in killed.log().to_pylist() if e["source"] == "oracle"]
    assert len(said) == sum(len(r["sample"]) for r in record_of(killed)["classes"].values())


KILL = """
import os, signal, sys
from collabteam.storage.records import Record
write, moment = Record.write, int(sys.argv.pop(1))
def write_or_die(*arguments):
    global moment
    moment -= 1
    if moment < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
Record.write = write_or_die
from collabteam.audit import main
main()
"""


@pytest.mark.parametrize("moment", [0, 1])
def test_killed_by_the_system(tmp_path: Path, call: Call, moment: int) -> None:
    catalog = make(tmp_path / "o", {"car": 90, "ship": 80})
    arguments = [str(moment), f"root={tmp_path / 'o'}", "camera=S1", ORACLE]
    done = subprocess.run(
        [sys.executable, "-c", KILL, *arguments], cwd=tmp_path, env=environment(), timeout=120,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    drawn = catalog.folder / "audits" / "1" / "audit.json"
    assert drawn.exists() == (moment == 1)
    before = drawn.read_bytes() if moment else b""
    assert audit(call, catalog, ORACLE).code == 0
    assert not moment or drawn.read_bytes() == before
    assert certificate_of(catalog)["audit"] == last_audit(catalog.workspace) == 1


def test_two_at_once(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = make(tmp_path, {"car": 90, "ship": 80})
    with catalog.workspace.transaction("label"):
        one_line(audit(call, catalog), "in use", "'label'")
        assert not (catalog.folder / "audits").exists()
    # One that waited outside while another began goes on with that one.
    saved, found = BeginAudit.saved, []

    def look(self: BeginAudit, listener: Listener) -> Any:
        begun = saved(self, listener)
        found.append(begun)
        if len(found) == 1:
            certify(AuditConfig(CameraConfig("S1"), str(tmp_path)))
        return begun

    monkeypatch.setattr(BeginAudit, "saved", look)
    assert audit(call, catalog).code == 0
    assert [begun is None for begun in found] == [True, True, True, False]
    assert last_audit(catalog.workspace) == 1
    # To look on takes no lock.
    with catalog.workspace.transaction("train"):
        assert audit(call, catalog).code == 0


# --- the promise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [0.95, 0.8])
def test_bad_releases_are_certified_no_more_often_than_allowed(
    precision: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three classes of whole wrong tracks, just under the target, audited up to four times each.

    A release counts once, if any class is certified in any audit. Each class and each audit must
    stay within its own share as well, which a confidence that is not shared out would break.
    """
    for module, name in ((begin, "plan"), (judging, "judge"), (judging, "smallest_sample")):
        monkeypatch.setattr(module, name, functools.cache(getattr(certificate, name)))
    sizes = {"car": 120, "ship": 250, "plane": 61}
    truth: dict[str, str] = {}
    batches = {}
    for name, size in sizes.items():
        batch = np.array([f"{name}{n:04}" for n in range(size)])
        batches[name] = batch
        wrong = int(size * (1 - precision) + 1e-9) + 1
        truth |= {str(i): "unknown" if n < wrong else name for n, i in enumerate(batch)}
    releases, confidence, attempts = 2000, 0.9, 4
    passed = np.zeros((releases, attempts, len(sizes)), dtype=bool)
    first = begun({}, precision, confidence)
    for number in range(releases):
        config = AuditConfig(
            seed=number, precision=precision, confidence=confidence, expected_error=0.02, power=0.3
        )
        for attempt in range(1, attempts + 1):
            planned = plan_classes(batches, config, attempt)
            found = judge_classes(
                first.model_copy(update={"audit": attempt, "classes": planned}), truth
            )
            passed[number, attempt - 1] = [row.passed for row in found.values()]

    def limit(alpha: float) -> float:
        return float(binom.ppf(1 - 1e-4, releases, alpha))

    assert 0 < passed.any(axis=(1, 2)).sum() <= limit(1 - confidence)
    for attempt in range(1, attempts + 1):
        own = (1 - confidence) / (attempt * (attempt + 1))
        assert passed[:, attempt - 1].any(axis=1).sum() <= limit(own)
        for number in range(len(sizes)):
            assert passed[:, attempt - 1, number].sum() <= limit(own / len(sizes))
    # The draws of classes and audits have nothing to do with each other.
    alike = dict.fromkeys("abc", batches["ship"])
    samples = [
        tuple(row.sample[:9])
        for attempt in (1, 2)
        for row in plan_classes(alike, AuditConfig(), attempt).values()
    ]
    assert len(set(samples)) == 6


def test_good_releases_pass_as_often_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((begin, "plan"), (judging, "judge"), (judging, "smallest_sample")):
        monkeypatch.setattr(module, name, functools.cache(getattr(certificate, name)))
    batches = {name: np.array([f"{name}{n:03}" for n in range(500)]) for name in CLASSES}
    truth = {
        str(i): "unknown" if n < 5 else name
        for name, batch in batches.items()
        for n, i in enumerate(batch)
    }
    passed, first = 0, begun({}, 0.95, 0.95)
    for seed in range(600):
        config = AuditConfig(seed=seed)
        record = first.model_copy(update={"classes": plan_classes(batches, config, 1)})
        passed += sum(bool(row.passed) for row in judge_classes(record, truth).values())
    assert passed >= binom.ppf(1e-4, 1200, 0.8)


# --- the schema -----------------------------------------------------------------------------------


@pytest.fixture
def issued(tmp_path: Path) -> dict[str, Any]:
    catalog = make(tmp_path, {"car": 200})
    certify(AuditConfig(CameraConfig("S1"), str(tmp_path), reviewer="oracle"))
    return certificate_of(catalog)


def test_schema_describes_every_field(issued: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert issued.keys() == SCHEMA["properties"].keys() == set(SCHEMA["required"])
    for name, field in SCHEMA["properties"].items():
        assert field.get("description"), name
    for name in issued:
        part = copy.deepcopy(issued)
        del part[name]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(part, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("audit", 0),
        ("created", "yesterday"),
        ("passed", None),
        ("release/hash", "abc"),
        ("release/file", "/etc/passwd"),
        ("settings/precision", 95),
        ("settings/reviewer", "nobody"),
        ("classes/car/bound", None),
        ("classes/car/passed", None),
        ("classes/car/stopped", True),
        ("classes/ship/passed", True),
        ("classes/car/surprise", 1),
        ("reviewers", []),
        ("surprise", 1),
    ],
)
def test_schema_refuses(issued: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    inner = issued
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(issued, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_what_is_written_is_json_that_others_read(issued: dict[str, Any]) -> None:
    assert json.loads(json.dumps(issued, allow_nan=False)) == issued
