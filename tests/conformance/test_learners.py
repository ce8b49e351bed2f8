"""Every registered learner, and one from a package outside ours, through the conformance suite."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL as SMALL_TRAINING
from conftest import read_json, run
from torch import Tensor

from collabteam.catalog import NONE, UNLABELLED, Catalog
from collabteam.learners.base import FitEnvironment, FoldTask, Learner
from collabteam.learners.supervised import SupervisedLearner
from collabteam.settings import LEARNERS
from collabteam.team.team import OneOfMany, Voter
from collabteam.testing import learners as checks
from collabteam.testing.learners import CHECKS, Case, small_settings


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FEW = {"steps": 48}
"""Settings with which a fit takes about a second, of learners that have them."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LEARNERS.names())
def test_registered_learners_conform(name: str, check: Callable[[Case], None]) -> None:
    learner = LEARNERS.load(name)
    known = {field.name for field in fields(learner.Settings)}
    settings = learner.Settings(**{key: FEW[key] for key in FEW.keys() & known})
    check(Case(learner, settings, small_settings(learner.network)))


# -- the suite finds what is wrong -----------------------------------------------------------------


class Plain(SupervisedLearner):
    """A sound learner outside of ours, which the broken ones below derive from."""

    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(range(len(classes)))]

    def build(self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True) -> Voter:
        return OneOfMany(self.backbone.network(len(columns) + 1, fetch), columns)

    def targets(self, columns: tuple[int, ...], labels: Tensor) -> Tensor:
        return labels.where(labels >= 0, len(columns))


class LearnsTheValidationFold(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        return super().fit(replace(task, fold=-1), env)


class TakesNoneForAClass(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        return super().fit(replace(task, labels=np.where(task.labels == NONE, 0, task.labels)), env)


class TakesNoneForUnlabelled(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        none = (task.labels == NONE) & ~task.validates
        return super().fit(replace(task, labels=np.where(none, UNLABELLED, task.labels)), env)


class IgnoresWeights(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        return super().fit(replace(task, weights=np.ones_like(task.weights)), env)


class IgnoresTheStart(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        return super().fit(replace(task, start_from=None), env)


class IgnoresTheSeed(Plain):
    fits = 0

    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        IgnoresTheSeed.fits += 1
        return super().fit(replace(task, seed=IgnoresTheSeed.fits), env)


class ResumesWithAnotherSeed(Plain):
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        resumes = env.folder.exists() and any(env.folder.iterdir())
        return super().fit(replace(task, seed=9 if resumes else task.seed), replace_folder(env))


def replace_folder(env: FitEnvironment) -> FitEnvironment:
    """The same environment, with a mark of the attempt but no checkpoint to be found."""
    env.folder.mkdir(exist_ok=True)
    number = len(list(env.folder.iterdir()))
    (env.folder / str(number)).mkdir()
    return replace(env, folder=env.folder / str(number))


class HoldsThePool(Plain):
    uses_pool = True

    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        pool = task.pixels[task.rows[task.labels == UNLABELLED]]
        assert len(pool)
        return super().fit(task, env)


class GivesLogits(Plain):
    def build(self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True) -> Voter:
        return Logits(self.backbone.network(len(columns) + 1, fetch), columns)


class Logits(OneOfMany):
    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs[:, : len(self.columns)]


@pytest.mark.parametrize(
    ("learner", "check"),
    [
        (LearnsTheValidationFold, checks.check_validation_fold_is_not_learned),
        (TakesNoneForAClass, checks.check_three_kinds_of_labels),
        (TakesNoneForUnlabelled, checks.check_three_kinds_of_labels),
        (IgnoresWeights, checks.check_weights),
        (IgnoresTheStart, checks.check_starts_from_the_round_before),
        (IgnoresTheSeed, checks.check_follows_the_seed),
        (ResumesWithAnotherSeed, checks.check_resumes),
        (HoldsThePool, checks.check_pool_is_not_held),
        (GivesLogits, checks.check_probabilities),
    ],
)
def test_a_broken_learner_fails_its_check(
    learner: type[Learner], check: Callable[[Case], None]
) -> None:
    with pytest.raises(AssertionError):
        check(Case(learner, learner.Settings(), small_settings()))


# -- from outside, with the pool and with features -------------------------------------------------

OUTSIDE = '''
from pathlib import Path

import numpy as np
import torch
from torch import nn

from collabteam.catalog import UNLABELLED
from collabteam.features.extractor import backbones_of
from collabteam.learners.base import Learner
from collabteam.team.team import OneOfMany


class NearestMean(Learner):
    """Frozen features, and for each class the mean of its features as a linear layer."""

    uses_pool = True
    network = "features"

    def groups(self, classes):
        return [tuple(range(len(classes)))]

    def build(self, classes, columns, fetch=True):
        (backbone,) = backbones_of(self.shared.features)
        head = nn.Linear(backbone.dim, len(columns) + 1)
        return OneOfMany(nn.Sequential(backbone.network(0, fetch), head), columns)

    def fit(self, task, env):
        voter = self.build(task.classes, self.groups(task.classes)[0])
        features = task.features
        means = []
        for label in [*range(len(task.classes)), -1]:
            chosen = task.trains & (task.labels == label)
            found = features[task.rows[chosen]]
            weights = torch.from_numpy(task.weights[chosen])[:, None]
            blank = torch.zeros(features.dim)
            means.append((found * weights).sum(0) / weights.sum() if len(found) else blank)
        head, mean = voter.network[1], torch.stack(means)
        with torch.no_grad():
            head.weight.copy_(mean)
            head.bias.copy_(-(mean**2).sum(1) / 2)
        pool = task.rows[task.labels == UNLABELLED]
        seen = [len(features[pool[at : at + 50]]) for at in range(0, len(pool), 50)]
        assert sum(seen) == len(pool)
        record = Path(__file__).with_name(f"fold-{task.fold}.npz")
        np.savez(record, pool=pool, folds=task.folds, labels=task.labels, rows=task.rows)
        return [voter]
'''


@pytest.mark.slow
def test_a_learner_from_another_package_trains_a_camera_with_the_pool(
    simulated: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    (tmp_path / "outside_learner.py").write_text(OUTSIDE)
    folds, name = "data.train_folds=[0,1,2,3,4]", "learner=outside_learner:NearestMean"
    own = ("team.backbone=resnet18", "data.image_size=128", "features.image_size=32", folds, name)
    done = run("train", root, "camera=sim", "round=1", *SMALL_TRAINING, *own)
    assert done.returncode == 0, done.stderr
    catalog = Catalog.open(root, "sim")
    index = catalog.index()
    folds = read_json(root / "sim" / "round-1" / "folds.json")
    pools = []
    for fold in (0, 1, 2, 3, 4):
        with np.load(tmp_path / f"fold-{fold}.npz") as seen:
            pool, rows = seen["pool"], seen["rows"]
            unlabelled = seen["labels"] == UNLABELLED
            assert not (unlabelled & (seen["folds"] == fold)).any()
        assert not index.held_out[rows].any()  # nothing of the test set
        tracks = index.track[pool]
        assert all(folds.get(str(track)) != fold for track in tracks)
        pools.append(set(map(str, tracks)))
    everything = set().union(*pools)
    assert len(everything) > 100
    # Each track of the pool is kept from the learner of one fold, and of one alone.
    assert all(sum(track in pool for pool in pools) == 4 for track in everything)
    assert not list((root / "sim").rglob("*.ckpt"))
