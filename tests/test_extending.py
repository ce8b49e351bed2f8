"""The examples of ``docs/extending.md``, from a package outside ours, through the command line."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import REPOSITORY, SMALL, Call, environment

from collabteam.catalog import Catalog
from collabteam.learners.base import FoldTask, SharedSettings
from collabteam.learners.methods.paper import PaperLearner
from collabteam.testing.export_formats import ReadCrop, check_export_format
from collabteam.testing.learners import check_learner
from collabteam.testing.selection_rules import check_selection_rule
from collabteam.testing.vote_policies import check_vote_policy

EXAMPLES = REPOSITORY / "docs" / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def read_json_lines(folder: Path) -> dict[str, ReadCrop]:
    rows = map(json.loads, (folder / "crops.jsonl").read_text(encoding="utf-8").splitlines())
    return {
        row["crop_id"]: ReadCrop(row["label"], row["split"], (folder / row["file"]).read_bytes())
        for row in rows
    }


def test_every_example_is_on_the_page_and_tested() -> None:
    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert f"examples/{file.name}" in page
        assert f'"{file.stem}' in tests


def test_the_examples_keep_the_promises_of_their_seams() -> None:
    check_vote_policy(importlib.import_module("highest").Highest)
    check_selection_rule(importlib.import_module("most_confident").MostConfident)
    check_export_format(importlib.import_module("json_lines").JsonLines, read_json_lines)


def test_the_learner_gives_the_teams_labels_less_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    learner_class = importlib.import_module("verified_only").VerifiedOnly
    given: list[FoldTask] = []
    monkeypatch.setattr(PaperLearner, "fit", lambda self, task, env: given.append(task) or [])
    crops = np.arange(4)
    human = np.array([True, False, True, False])
    task = FoldTask(
        ("a", "b"), crops, crops % 2, np.array([1, 1, 3, 2], np.float32), human, crops % 2, 0,
        Mock(), Mock(),
    )  # fmt: skip
    learner = learner_class(learner_class.Settings(trust=0.5), SharedSettings())
    learner.fit(task, Mock())
    assert given[0].weights.tolist() == [1, 0.5, 3, 1]


@pytest.mark.slow
def test_the_learner_keeps_the_promises_of_learners() -> None:
    check_learner(importlib.import_module("verified_only").VerifiedOnly)


def test_the_examples_train_label_and_export(root: Path, tmp_path: Path, call: Call) -> None:
    ours = (
        "learner=verified_only:VerifiedOnly", "learner.trust=0.2", "team.vote=highest:Highest",
        "team.vote.floor=0.6", "selection=most_confident:MostConfident",
    )  # fmt: skip
    where = (f"root={root}", "camera=sim")
    trained = call("train", *where, "round=1", *SMALL, *ours)
    assert trained.code == 0, trained.err
    settings = json.loads((root / "sim" / "round-1" / "round.json").read_text())["settings"]
    assert settings["learner"] == {"name": "verified_only:VerifiedOnly", "trust": 0.2}
    assert settings["team"]["vote"] == {"name": "highest:Highest", "floor": 0.6}
    assert settings["selection"] == {"name": "most_confident:MostConfident"}

    labelled = call("label", *where, "trainer.precision=fp32", "trainer.threads=1")
    assert labelled.code == 0, labelled.err
    to = tmp_path / "dataset"
    exported = call("export", *where, "format=json_lines:JsonLines", f"to={to}")
    assert exported.code == 0, exported.err
    verdicts = json.loads((root / "sim" / "label.json").read_text())["labelled"]
    by_team = [
        crop
        for crop in map(json.loads, (to / "crops.jsonl").read_text().splitlines())
        if crop["source"] == "team"
    ]
    assert len(by_team) == sum(verdicts.values()) > 0


def test_the_command_is_found_by_its_entry_point(root: Path, tmp_path: Path) -> None:
    package = tmp_path / "site"
    (package / "count-1.0.dist-info").mkdir(parents=True)
    shutil.copy(EXAMPLES / "count.py", package)
    (package / "count-1.0.dist-info" / "METADATA").write_text("Name: count\nVersion: 1.0\n")
    points = "[collabteam.command]\ncount = count:main\n"
    (package / "count-1.0.dist-info" / "entry_points.txt").write_text(points)
    path = os.pathsep.join([str(package), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", "collabteam", "count", f"root={root}", "camera=sim", "at_least=2"],
        capture_output=True, text=True, check=False, env=environment() | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = {name: int(count) for count, name in map(str.split, done.stdout.splitlines())}
    proposed = list(Catalog.open(root, "sim").index().proposed)
    assert printed == {name: proposed.count(name) for name in set(proposed)}
