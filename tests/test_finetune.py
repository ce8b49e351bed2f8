"""Learners that train a pretrained network on: their start, and what they take from the pool."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Call, one_line, read_json
from torch import Tensor, nn

from collabteam.catalog import UNLABELLED
from collabteam.catalog.records import NONE
from collabteam.errors import UserError
from collabteam.learners.base import FitEnvironment, FoldTask, Learner
from collabteam.learners.methods.consistency import ConsistencyLearner, ConsistencyModule
from collabteam.learners.methods.finetune import FinetuneLearner, freeze
from collabteam.learners.methods.probe import ProbeLearner
from collabteam.learners.teams import learner_of
from collabteam.settings import FeaturesConfig, TrainConfig, result_settings
from collabteam.settings.records import changed_settings
from collabteam.team.team import MultiLabel, Team, Voter
from collabteam.testing.learners import DEVICE, draw_task, small_settings

SMALL = small_settings("features")


def task_for(learner: Learner) -> FoldTask:
    return draw_task(learner, crops=96, pool=60)


@pytest.mark.parametrize("strangers", ["off", "none"])
def test_finetuning_starts_from_the_heads_of_the_probe(strangers: str, tmp_path: Path) -> None:
    """Before the first step the network says what linear heads on its frozen features say."""
    shared = replace(SMALL, features=FeaturesConfig(image_size=24))
    learner = FinetuneLearner(FinetuneLearner.Settings(strangers=strangers), shared)
    probe = ProbeLearner(ProbeLearner.Settings(penalty=0.01, strangers=strangers), shared)
    task = task_for(learner)
    features = task.features
    heads = probe.fit(task, FitEnvironment(DEVICE, tmp_path))
    rows = task.rows[:20]
    expected = Team(task.classes, heads, learner.transform, DEVICE).score_features(features[rows])
    started = learner.start(task)
    found = Team(task.classes, started, learner.transform, DEVICE).score(task.pixels[rows])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("stays", [True, False])
def test_first_stages_and_statistics_stay_as_they_are(stays: bool, tmp_path: Path) -> None:
    more: dict[str, Any] = {} if stays else {"frozen": 0.0, "statistics": "batch"}
    learner = FinetuneLearner(FinetuneLearner.Settings(steps=4, **more), SMALL)
    task = task_for(learner)
    before = {n: t.clone() for n, t in learner.start(task)[0].network.state_dict().items()}
    after = learner.fit(task, FitEnvironment(DEVICE, tmp_path))[0].network.state_dict()
    same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    statistics = {name for name in after if name.endswith(("running_mean", "running_var"))}
    stages = learner.backbone.network(3).group_matcher(coarse=True)  # type: ignore[operator]
    first = {name for name in after if re.match(stages["stem"], name)} & set(trained(learner))
    assert first
    assert statistics
    if stays:
        assert first | statistics <= same
    else:
        assert not (first | statistics) & same
    assert not {name for name in same if name.startswith("fc.")}


def trained(learner: FinetuneLearner) -> list[str]:
    """Names of the parameters of a network."""
    return [name for name, _ in learner.backbone.network(3).named_parameters()]


def test_a_model_that_tells_no_stages_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"learner\.frozen=0\.5: none does not tell its stages"):
        freeze(nn.Linear(2, 2), 0.5, "none")


def test_rounds_of_a_version_without_these_settings_trained_everything() -> None:
    config = TrainConfig(learner={"name": "finetune", "frozen": 0.0, "statistics": "batch"})
    recorded = result_settings(config)
    for name in ("frozen", "statistics", "strangers"):
        recorded["learner"].pop(name, None)
    assert changed_settings(recorded, config) == []
    now = TrainConfig(learner={"name": "finetune"})
    assert changed_settings(recorded, now) == [
        "learner.frozen 0.0 -> 0.5", "learner.statistics batch -> pretrained",
    ]  # fmt: skip
    settings: Any = learner_of(recorded).settings
    assert (settings.frozen, settings.statistics, settings.strangers) == (0.0, "batch", "off")


@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_objects_of_no_class_teach_an_output_of_their_own(trunk: str, tmp_path: Path) -> None:
    settings = FinetuneLearner.Settings(trunk=trunk, steps=4, strangers="none")
    learner = FinetuneLearner(settings, SMALL)
    task = task_for(learner)
    strangers = task.rows[task.labels == NONE]
    kept = task.rows[task.labels == 0]

    def lowered(voters: list[Voter]) -> tuple[float, float]:
        """How far the output lowers the probabilities of strangers and of a class."""
        factors = []
        for rows in (strangers, kept):
            images = learner.transform.normalize(task.pixels[rows])
            with torch.inference_mode():
                outputs = [voter.eval().network(images) for voter in voters]
            assert [out.shape[1] for out in outputs] == [len(one.columns) + 1 for one in voters]
            factors.append(float(torch.cat([(-out[:, -1]).sigmoid() for out in outputs]).mean()))
        return factors[0], factors[1]

    env = FitEnvironment(DEVICE, tmp_path)
    of_strangers, of_class = lowered(learner.fit(task, env))
    assert of_strangers < of_class - 0.1
    # A few verified crops of no class are no evidence of what such objects look like.
    few = task.labels.copy()
    few[np.flatnonzero(few == NONE)[5:]] = 0
    voters: Any = learner.fit(replace(task, labels=few), env)
    assert lowered(voters) == (1.0, 1.0)
    assert not any(voter.network.get_classifier().weight[-1].any() for voter in voters)


@pytest.mark.parametrize(
    ("trunk", "groups"), [("shared", [(0, 1, 2)]), ("separate", [(0,), (1,), (2,)])]
)
def test_branches_share_the_trunk_or_not(
    trunk: str, groups: list[tuple[int, ...]], tmp_path: Path
) -> None:
    learner = FinetuneLearner(FinetuneLearner.Settings(trunk=trunk, steps=4), SMALL)
    task = task_for(learner)
    assert learner.groups(task.classes) == groups
    voters = learner.fit(task, FitEnvironment(DEVICE, tmp_path))
    assert [voter.columns for voter in voters] == groups
    pointers = {one.data_ptr() for voter in voters for one in voter.parameters()}
    assert len(pointers) == sum(len(list(voter.parameters())) for voter in voters)


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        ("team.backbone=resnet34", "features.backbone=resnet34"),
        ("data.image_size=64", "features.image_size=64"),
        ("team.pretrained=true", "leave it out"),
        ("team.stem=small", "leave it out"),
        ("features.backbone=[tf_efficientnet_lite0,resnet18]", "name one model"),
    ],
)
def test_settings_of_another_network_are_refused(
    setting: str, instead: str, root: Path, call: Call
) -> None:
    said = call(
        *(f"train root={root} camera=sim reviewer=oracle learner=finetune".split()), setting
    )
    one_line(said, instead)
    assert not (root / "sim" / "round-0").exists()


# -- the pool --------------------------------------------------------------------------------------


class Says(nn.Module):
    """A network that says what the test wants, whatever it sees."""

    def __init__(self, prob: list[list[float]]) -> None:
        super().__init__()
        self.odds = nn.Parameter(torch.tensor(prob).logit())

    def forward(self, images: Tensor) -> Tensor:
        return self.odds[: len(images)]


def module_that_says(prob: list[list[float]], settings: dict[str, Any]) -> ConsistencyModule:
    learner = ConsistencyLearner(ConsistencyLearner.Settings(**settings), SMALL)
    columns = tuple(range(len(prob[0])))
    task = draw_task(learner, classes=len(columns), pool=60)
    return ConsistencyModule(task, [MultiLabel(Says(prob), columns)], learner)


def test_a_pool_crop_teaches_where_one_class_alone_is_claimed_surely() -> None:
    prob = [
        [0.99, 0.02, 0.01],  # sure
        [0.99, 0.98, 0.01],  # two claim it
        [0.10, 0.20, 0.05],  # nobody does
        [0.60, 0.30, 0.30],  # one does, and is not sure
        [0.01, 0.98, 0.02],  # sure
    ]
    module = module_that_says(prob, {"threshold": 0.85})
    labels, taken = module._verdicts(torch.zeros(5, 3, 24, 24))
    assert taken.tolist() == [True, False, False, False, True]
    assert labels[taken].tolist() == [0, 1]
    # Two claims are no consensus, however low the threshold is.
    low = module_that_says([[0.6, 0.55], [0.6, 0.3]], {"threshold": 0.1})
    assert low._verdicts(torch.zeros(2, 3, 24, 24))[1].tolist() == [False, True]


class Reads(nn.Module):
    """A network whose log odds are the mean of each colour, times 100."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(100.0))
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return self.factor * images.mean(dim=(2, 3))


def test_the_loss_on_the_pool_is_that_of_the_crops_that_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each accepted crop learns its own verdict; others count as 0, and few of them are passed."""
    views = {"affine": 1.0, "strong": 0.001}  # a strong view is nearly grey here
    monkeypatch.setattr(
        "collabteam.learners.methods.consistency.augment",
        lambda images, strength, generator: images * views[strength],
    )
    learner = ConsistencyLearner(ConsistencyLearner.Settings(threshold=0.5), SMALL)
    task = task_for(learner)
    module = ConsistencyModule(task, [MultiLabel(Reads(), (0, 1, 2))], learner)
    images = task.pixels.transform.normalize(task.pixels[module.pool])
    odds = 100 * images.mean(dim=(2, 3))
    passes = (odds > 0).sum(dim=1) == 1
    assert 2 <= int(passes.sum()) < len(passes)
    assert len({int(one) for one in odds[passes].argmax(1)}) > 1
    targets = nn.functional.one_hot(odds.argmax(1), 3).float()
    each = nn.functional.binary_cross_entropy_with_logits(odds / 1000, targets, reduction="none")
    module.batch_size = len(module.pool)  # all of the pool in one step
    found = module._on_pool()
    torch.testing.assert_close(found, (each.mean(1) * passes).mean(), rtol=1e-4, atol=1e-6)
    network: Any = module.voters[0].network
    assert network.asked == [-(-int(passes.sum()) // 8) * 8]
    assert network.asked[0] < len(passes)


def test_the_threshold_is_lower_for_a_class_that_is_learned_later() -> None:
    prob = [[0.99, 0.01], [0.98, 0.01], [0.20, 0.80], [0.15, 0.80]]
    module = module_that_says(prob, {"threshold": 0.85})
    images = torch.zeros(4, 3, 24, 24)
    labels, taken = module._verdicts(images)
    # 0.8 * 0.8 = 0.64 and 0.68 stay below 0.85, but not below 0.85 of what the class has reached.
    assert labels.tolist() == [0, 0, 1, 1]
    assert taken.tolist() == [True, True, True, True]
    strict = module_that_says(prob, {"threshold": 1.0})
    assert strict._verdicts(images)[1].tolist() == [False, False, False, True]


def test_the_average_follows_the_networks() -> None:
    module = module_that_says([[0.5, 0.5]], {"average": 0.9})
    voter: Any = module.voters[0].network
    average: Any = module.averages[0]
    with torch.no_grad():
        voter.odds.fill_(1.0)
    module.step.fill_(10_000)
    module.follow()
    torch.testing.assert_close(average.network.odds.detach(), torch.full((1, 2), 0.1))
    assert not average.network.odds.requires_grad


@pytest.mark.parametrize("learner", [FinetuneLearner, ConsistencyLearner])
def test_only_consistency_looks_at_the_pool(learner: type[Learner], tmp_path: Path) -> None:
    settings: Any = learner.Settings
    made: Any = learner(settings(steps=4), SMALL)
    task = task_for(made)
    pixels: Any = task.pixels
    made.fit(task, FitEnvironment(DEVICE, tmp_path))
    pool = set(task.rows[task.labels == UNLABELLED].tolist())
    assert bool(pool & set(pixels.asked)) == made.uses_pool


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune", "consistency"])
def test_they_go_through_the_commands(name: str, root: Path, call: Call) -> None:
    train = (
        "train", f"root={root}", "camera=sim", "reviewer=oracle", f"learner={name}",
        "learner.steps=8", "team.init=previous", "features.image_size=32", "data.folds=2",
        "data.train_folds=[0]", "data.batch_size=16", "seed_per_class=30", "quantile=0.5",
        "increment_per_class=4", "trainer.threads=1", "trainer.precision=fp32", "logger=none",
    )  # fmt: skip
    views = ("team.views=zoom",) if name == "consistency" else ()
    # After eight steps hardly a verdict reaches the threshold that 600 steps are made for.
    early = ("learner.threshold=0.8",) if name == "consistency" else ()
    done = call(*train, *views, *early, "round=1")
    assert done.code == 0, done.err
    records = [read_json(root / "sim" / f"round-{k}" / "round.json") for k in (0, 1)]
    assert all(record["settings"]["learner"]["steps"] == 8 for record in records)
    assert all(record["coverage"] > 0 for record in records)
    assert records[0]["settings"]["team"].get("views", "") == "".join(views).partition("=")[2]
    labelled = call("label", f"root={root}", "camera=sim", "trainer.threads=1")
    assert labelled.code == 0, labelled.err
