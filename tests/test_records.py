"""Records: what is written is what the schemas promise, and older records stay readable."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from collabteam.errors import UserError
from collabteam.learners.teams import learner_of
from collabteam.rounds.records import RoundRecord, read_rounds
from collabteam.rounds.state import check_settings
from collabteam.settings import (
    CameraConfig,
    DataConfig,
    FeaturesConfig,
    TeamConfig,
    TrainConfig,
    changed_settings,
    result_settings,
)
from collabteam.storage.records import Count, Part, Record
from collabteam.storage.workspace import Workspace

DOCS = Path(__file__).parents[1] / "docs"
RECALL = {"car": {"true": 0.9, "false": 1.0}, "bus": {"true": 0.7, "false": None}}
ROUND: dict[str, Any] = {
    "schema": 1,
    "camera": "cam",
    "round": 1,
    "fingerprint": "00112233aabbccdd",
    "classes": ["car", "bus"],
    "train_size": 10,
    "train_counts": {"car": 4, "bus": 5, "unknown": 1},
    "train_unsure": 2,
    "training_digest": "0123456789abcdef",
    "reviewer": {"kind": "person", "error_rate": 0.0, "answers": 9},
    "expected_precision": {
        "car": {"share": 0.5, "crops": 4},
        "bus": {"share": None, "crops": 0},
    },
    "increment": {
        name: {
            "candidates": 3,
            "taken": 2,
            "shortfall": 1,
            "expected_precision": 0.5,
            "precision": None,
        }
        for name in ("car", "bus")
    },
    "voting": {"car": [0], "bus": [1, 2]},
    "files": {"folds.json": "00112233"},
    "settings": {"team": {"joint": "product"}, "data": {"image_size": 24}},
    "versions": {"python": "3.11.7"},
    "pool_size": 100,
    "coverage": 0.75,
    "abstain_rate": 0.25,
    "test_size": 0,
    "coverage_test": None,
    "consensus_accuracy_test": None,
    "recall": {
        "validation": RECALL,
        "human": RECALL,
        "folds": [{"fold": 0, **RECALL}],
        "test": None,
    },
    "label_noise": None,
    "unknown": None,
    "strangers": None,
    "seconds": {"train": 1.5},
    "peak_memory_mb": 300.0,
    "finished": "2026-11-22T13:40:00Z",
}


def stored(folder: Path, changes: dict[str, Any], leave_out: str = "") -> Path:
    file = folder / "round-1" / "round.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in (ROUND | changes).items() if key != leave_out}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_the_schemas_in_docs_are_those_of_the_models(tmp_path: Path) -> None:
    script = tmp_path / "schemas.py"
    script.write_text((DOCS / "schemas.py").read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, str(script)], cwd=DOCS.parent, check=True)
    written = sorted(tmp_path.glob("*.schema.json"))
    assert [file.name for file in written] == sorted(f.name for f in DOCS.glob("*.schema.json"))
    for file in written:
        assert file.read_text() == (DOCS / file.name).read_text(), (
            f"{file.name} differs: python docs/schemas.py, and see storage/records.py on versions"
        )


def test_every_key_of_the_schemas_is_described() -> None:
    bare = set()
    for file in DOCS.glob("*.schema.json"):
        schema = json.loads(file.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        for name, part in [("", schema), *schema["$defs"].items()]:
            bare |= {
                f"{file.name} {name}.{key}"
                for key, row in part.get("properties", {}).items()
                if "description" not in row and "$ref" not in row
            }
    allowed = {"crop_id", "label", "before", "after"}
    assert {name for name in bare if name.rsplit(".", 1)[1] not in allowed} == set()


def test_a_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    record = RoundRecord.read(stored(tmp_path, {}), "")
    record.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == json.dumps(ROUND, indent=1) + "\n"
    assert list(record.recall.folds[0].recalls) == ["car", "bus"]
    jsonschema.validate(record.to_json(), json.loads((DOCS / "round.schema.json").read_text()))


def test_what_an_early_record_lacks_gets_its_meaning(tmp_path: Path) -> None:
    assert RoundRecord.read(stored(tmp_path, {}, leave_out="train_unsure"), "").train_unsure == 0
    assert RoundRecord.read(stored(tmp_path, {}, leave_out="files"), "").files == {}


def test_the_network_of_an_early_probe_moves_to_its_own_settings(tmp_path: Path) -> None:
    team = TeamConfig("tf_efficientnet_lite1", "none", pretrained=True, vote_with="mean")
    data = DataConfig(image_size=64, folds=3)
    early = result_settings(TrainConfig(learner={"name": "probe"}, team=team, data=data))
    record = RoundRecord.read(stored(tmp_path, {"settings": early}), "")
    assert record.image_size == 64
    learner = learner_of(early)  # with which label scores
    assert learner.shared.features == FeaturesConfig(["tf_efficientnet_lite1"], [], 64)
    now = TrainConfig(
        learner={"name": "probe"},
        team=TeamConfig(vote_with="mean"),
        data=DataConfig(folds=3),
        features=FeaturesConfig(["tf_efficientnet_lite1"], [], 64),
    )
    assert changed_settings(record.settings, now) == []
    assert changed_settings(record.settings, replace(now, features=FeaturesConfig())) == [
        "features.backbone ['tf_efficientnet_lite1'] -> ['tf_efficientnet_lite0']",
        "features.image_size 64 -> 96",
    ]
    paper = result_settings(TrainConfig(team=team, data=data))
    assert RoundRecord.read(stored(tmp_path, {"settings": paper}), "").settings == paper


def test_a_camera_of_the_former_quick_recipe_is_told_its_new_name(tmp_path: Path) -> None:
    data = DataConfig(image_size=64)
    for unknown, told in ((250, True), (0, False)):
        made = TrainConfig(camera=CameraConfig("cam", ["car", "bus"]), data=data)
        settings = result_settings(replace(made, seed_unknown=unknown))
        record = RoundRecord.read(stored(tmp_path, {"settings": settings}), "")
        with pytest.raises(UserError, match=r"data\.image_size 64 -> 128") as refused:
            check_settings(record, replace(made, seed_unknown=unknown, data=DataConfig()))
        assert ("experiment=scratch" in str(refused.value)) == told


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 2}, "made by a newer version of collabteam (schema 2, expected up to 1)"),
        ({"mood": "good"}, "made by a newer version of collabteam (expected no key mood)"),
        (
            {"reviewer": ROUND["reviewer"] | {"age": 3}},
            "made by a newer version of collabteam (expected no key reviewer.age)",
        ),
        ({"schema": "1"}, "damaged (schema '1', expected a number up to 1): try"),
        ({"train_size": "10"}, "damaged (train_size: expected a valid integer, got '10'): try"),
        ({"coverage": 1.5}, "coverage: expected less than or equal to 1, got 1.5"),
        ({"classes": ["car", "van"]}, "expected the classes car, van, got car, bus"),
        ({"round": 0}, "expected no increment in round 0"),
        ({"recall": {}}, "damaged (no recall.validation, recall.human, recall.folds"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    file = stored(tmp_path, changes)
    with pytest.raises(UserError) as error:
        RoundRecord.read(file, "try")
    assert str(error.value).startswith(f"{file} ")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"x"'])
def test_what_is_no_record_says_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "round.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"round\.json is damaged \(.*\): restore it$"):
        RoundRecord.read(file, "restore it")


class _Old(Part):
    size: Count


class _Example(Record):
    SCHEMA: ClassVar[int] = 3
    old: _Old
    wide: Count = 7

    @classmethod
    def migrate(cls, content: dict[str, Any], version: int) -> dict[str, Any]:
        if version < 2:
            content = {**content, "old": {"size": content["size"]}}
            del content["size"]
        if version < 3:
            content = {**content, "wide": content.get("wide", 0) * 2}
        return content


@pytest.mark.parametrize(
    ("content", "wide"),
    [
        ({"schema": 1, "size": 4}, 0),
        ({"schema": 2, "old": {"size": 4}, "wide": 5}, 10),
        ({"schema": 3, "old": {"size": 4}}, 7),
    ],
)
def test_records_of_older_schemas_are_migrated(
    tmp_path: Path, content: dict[str, Any], wide: int
) -> None:
    file = tmp_path / "example.json"
    file.write_text(json.dumps(content))
    record = _Example.read(file, "")
    assert record.to_json() == {"schema": 3, "old": {"size": 4}, "wide": wide}
    record.write(file)
    assert _Example.read(file, "") == record


def test_rounds_end_at_the_first_gap(tmp_path: Path) -> None:
    stored(tmp_path, {})
    assert read_rounds(Workspace(tmp_path)) == []
    (tmp_path / "round-0").mkdir()
    (tmp_path / "round-0" / "round.json").write_text(
        json.dumps(ROUND | {"round": 0, "increment": {}})
    )
    assert [record.round for record in read_rounds(Workspace(tmp_path))] == [0, 1]
