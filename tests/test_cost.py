"""A first round from scratch says how long it will take, and what the small recipe takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.features.devices import Device
from collabteam.learners.methods.finetune import FinetuneLearner
from collabteam.learners.supervised import SupervisedLearner
from collabteam.learners.teams import open_learner
from collabteam.rounds.cost import tell_cost
from collabteam.rounds.plan import RoundPlan
from collabteam.settings import CameraConfig, DataConfig, TrainConfig
from collabteam.testing.learners import small_settings

CPU = Device(torch.device("cpu"), bf16=False)


class Hears(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def said(tmp_path: Path, crops: int, number: int = 0, **settings: object) -> list[str]:
    config = TrainConfig(camera=CameraConfig("cam", ["car", "bus"]), **settings)  # type: ignore[arg-type]
    catalog = Catalog.register(tmp_path, "cam")
    heard = Hears()
    tell_cost(RoundPlan(config, catalog, number, None, CPU), crops, heard)
    return heard.said


def test_hours_are_told_before_they_are_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(
        self: SupervisedLearner, classes: Sequence[str], crops: int, device: Device
    ) -> float:
        return 330.0 if isinstance(self, FinetuneLearner) else crops / 1.0

    monkeypatch.setattr(SupervisedLearner, "estimate", estimate)
    (line,) = said(tmp_path, 3000)
    assert "about 3 h 20 min on this machine (5 folds)" in line
    assert "experiment=quick takes about 6 min" in line
    assert "(1 fold)" in said(tmp_path, 3000, data=DataConfig(train_folds=[0]))[0]
    for fold in (0, 1, 2):
        file = Catalog.open(tmp_path, "cam").workspace.round(0).fold_predictions(fold)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert "about 1 h 20 min on this machine (2 folds)" in said(tmp_path, 3000)[0]
    assert not said(tmp_path, 3000, number=1)
    assert not said(tmp_path, 3000, learner={"name": "finetune"})
    assert not said(tmp_path, 100)  # a few minutes at most


def test_the_estimate_grows_with_crops_and_branches() -> None:
    learner = open_learner({"name": "paper"}, small_settings())
    assert isinstance(learner, SupervisedLearner)
    small, large = (learner.estimate(["a", "b"], crops, CPU) for crops in (80, 80_000))
    assert large > 20 * small > 0
