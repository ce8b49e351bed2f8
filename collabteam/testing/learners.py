"""Conformance of learners.

Use it like scikit-learn's ``check_estimator``::

    from collabteam.testing.learners import check_learner
    check_learner(MyLearner)

The checks fit tiny cameras drawn in code; together they take less than a minute.
"""

from __future__ import annotations

import atexit
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from collabteam.catalog.records import NONE, UNLABELLED
from collabteam.events import Advance, Listener
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor, Features
from collabteam.features.images import Pixels, Transform
from collabteam.features.weights import IN_FOLDER
from collabteam.learners.base import FitEnvironment, FoldTask, Learner, SharedSettings
from collabteam.learners.teams import fit_fold, voting_team
from collabteam.settings import DataConfig, FeaturesConfig, OptimConfig, TeamConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import Team, Voter

DEVICE = Device(torch.device("cpu"), bf16=False)
SIDE = 24
_FOLDS, _FOLD = 3, 1
_POOL = 600
_MOST_HELD = 256


@cache
def small_settings(network: str = "team") -> SharedSettings:
    """Settings with which a fit takes about a second: a tiny network, small pictures.

    Args:
        network: The learner's ``network``. A backbone of ``features`` has seeded random weights,
            in a file that is removed at exit.
    """
    optim = OptimConfig(lr=0.05, epochs=3)
    if network == "team":
        data = DataConfig(image_size=SIDE, batch_size=8, augment="affine")
        return SharedSettings(TeamConfig(backbone="test_resnet", attention="none"), data, optim)
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    file = Path(folder.name) / IN_FOLDER[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(Backbone("test_resnet", SIDE).network(0).state_dict(), file)
    data = DataConfig(batch_size=8, augment="affine")
    features = FeaturesConfig(["test_resnet"], [str(file)], SIDE)
    return SharedSettings(TeamConfig(), data, optim, features)


@dataclass(frozen=True)
class Case:
    """A learner under test.

    Attributes:
        learner: The class.
        settings: An instance of its ``Settings``.
        shared: Settings that concern more than one learner.
    """

    learner: type[Learner]
    settings: Any
    shared: SharedSettings

    def make(self) -> Learner:
        """Make the learner."""
        return self.learner(self.settings, self.shared)


def check_learner(
    learner: type[Learner], settings: Any = None, shared: SharedSettings | None = None
) -> None:
    """Run every check on a learner.

    Args:
        learner: The class.
        settings: An instance of its ``Settings``; the defaults if None.
        shared: Settings that concern more than one learner; :func:`small_settings` if None.

    Raises:
        AssertionError: The learner fails a check; the message says which.
    """
    shared = shared or small_settings(learner.network)
    case = Case(learner, learner.Settings() if settings is None else settings, shared)
    for check in CHECKS:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{learner.__name__}: {check.__name__}: {error}") from error


# -- a camera --------------------------------------------------------------------------------------

COLOURS = torch.tensor(
    [[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200], [120, 120, 120]]
)
"""Colours by class; the last one is for objects of no class."""


class DrawnPixels:
    """Draws pictures from their row's number and shade, and counts requested and held pictures.

    Attributes:
        asked: Requested rows, in order.
        most_held: The largest number of pictures of ``watched`` rows that were alive at once.
    """

    def __init__(
        self, shade: dict[int, int], transform: Transform, watched: NDArray[np.int64]
    ) -> None:
        self.shade, self.transform = shade, transform
        self.asked: list[int] = []
        self.most_held = 0
        self._held, self._watched = 0, {int(row) for row in watched}

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Return pictures (n, 3, S, S) uint8: a colour with noise."""
        side = self.transform.size
        out = torch.empty((len(rows), 3, side, side), dtype=torch.uint8)
        for position, row in enumerate(rows.tolist()):
            generator = torch.Generator().manual_seed(row)
            noise = torch.randint(-40, 40, (3, side, side), generator=generator)
            out[position] = (COLOURS[self.shade[row]].view(3, 1, 1) + noise).clamp(0, 255)
        self.asked += rows.tolist()
        count = sum(row in self._watched for row in rows.tolist())
        self._held += count
        self.most_held = max(self.most_held, self._held)
        weakref.finalize(out.untyped_storage(), self._let_go, count)
        return out

    def _let_go(self, count: int) -> None:
        self._held -= count


def draw_task(
    learner: Learner, classes: int = 3, crops: int = 96, pool: int = 0, seed: int = 0
) -> FoldTask:
    """Draw a fold's task: objects of each class and of none, told apart by their colours.

    Args:
        learner: Its transform is used.
        classes: Number of classes, 2 to 5.
        crops: Number of labelled crops.
        pool: Number of unlabelled crops; they are left out for a learner that does not use them.
        seed: Seed of the fit.
    """
    rng = np.random.default_rng(7)
    pool = pool if learner.uses_pool else 0
    shown = np.arange(crops + pool) % (classes + 1)
    labels = np.where(shown == classes, NONE, shown)
    labels[crops:] = UNLABELLED
    folds = np.arange(crops + pool) // (classes + 1) % _FOLDS
    folds[crops:] = np.where(folds[crops:] == _FOLD, (_FOLD + 1) % _FOLDS, folds[crops:])
    rows = np.sort(rng.choice(10 * (crops + pool), crops + pool, replace=False))
    shades = np.where(shown == classes, len(COLOURS) - 1, shown)
    shade = dict(zip(rows.tolist(), shades.tolist(), strict=True))
    pixels = DrawnPixels(shade, learner.transform, rows[labels == UNLABELLED])
    return FoldTask(
        classes=tuple(f"class-{number}" for number in range(classes)),
        rows=rows,
        labels=labels,
        weights=np.ones(len(rows), np.float32),
        human=np.ones(len(rows), bool),
        folds=folds,
        fold=_FOLD,
        pixels=pixels,
        features=features_of(learner, pixels),
        seed=seed,
    )


def features_of(learner: Learner, pixels: Pixels) -> Features:
    """Features of drawn pictures."""
    return ComputedFeatures(pixels, FeatureExtractor(learner.shared.features, DEVICE))


def _only(task: FoldTask, keep: NDArray[np.bool_]) -> FoldTask:
    return replace(
        task,
        rows=task.rows[keep],
        labels=task.labels[keep],
        weights=task.weights[keep],
        human=task.human[keep],
        folds=task.folds[keep],
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _fit(learner: Learner, task: FoldTask) -> list[Voter]:
    with _folder() as folder:
        return learner.fit(task, FitEnvironment(DEVICE, folder))


def _score(learner: Learner, task: FoldTask, voters: list[Voter]) -> NDArray[np.float32]:
    pictures = task.pixels[task.rows[task.labels != UNLABELLED]]
    features = learner.shared.features
    extractor = FeatureExtractor(features, DEVICE) if learner.on_features else None
    return Team(task.classes, voters, learner.transform, DEVICE, extractor).score(pictures)


def _same(one: list[Voter], other: list[Voter]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        torch.equal(weights, b.state_dict()[name])
        for a, b in pairs
        for name, weights in a.state_dict().items()
    )


# -- checks ----------------------------------------------------------------------------------------


def check_groups_cover_the_classes(case: Case) -> None:
    """Check that each class is in one group, and that voters come in the order of the groups."""
    learner = case.make()
    for count in (2, 3, 5):
        names = [f"class-{number}" for number in range(count)]
        groups = learner.groups(names)
        columns = sorted(column for group in groups for column in group)
        assert columns == list(range(count)), f"groups of {count} classes: {groups}"
        built = [learner.build(names, group, fetch=False).columns for group in groups]
        assert built == groups, f"voters vote on {built}, expected {groups}"


def check_probabilities(case: Case) -> None:
    """Check that probabilities are finite and 0 to 1, with 2 to 5 classes, one without crops."""
    learner = case.make()
    for count in (2, 3, 5):
        task = draw_task(learner, classes=count, pool=40)
        if count == 5:
            task = _only(task, task.labels != 2)
        voters = _fit(learner, task)
        prob = _score(learner, task, voters)
        assert prob.shape == (int((task.labels != UNLABELLED).sum()), count), prob.shape
        assert np.isfinite(prob).all(), "a probability is not finite"
        assert prob.min() >= 0, f"a probability of {prob.min()}"
        assert prob.max() <= 1, f"a probability of {prob.max()}"


def check_learns(case: Case) -> None:
    """Check that the voters tell colours apart on crops that did not train."""
    learner = case.make()
    task = draw_task(learner, crops=192, pool=60)
    prob = _score(learner, task, _fit(learner, task))
    labels, held_out = (values[task.labels != UNLABELLED] for values in (task.labels, task.folds))
    judged = (labels >= 0) & (held_out == _FOLD)
    right = (prob[judged].argmax(axis=1) == labels[judged]).mean()
    assert right > 0.6, f"right on {right:.0%} of the held-out crops, expected over 60%"


def check_validation_fold_is_not_learned(case: Case) -> None:
    """Check that pictures, labels and weights of the validation fold do not affect the voters."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    assert isinstance(task.pixels, DrawnPixels)
    before = _fit(learner, task)
    aside = task.validates
    labels = np.where(aside, (task.labels + 1) % len(task.classes), task.labels)
    weights = np.where(aside, 3, task.weights).astype(np.float32)
    other = {int(row): (task.pixels.shade[int(row)] + 1) % 3 for row in task.rows[aside]}
    poisoned = DrawnPixels(task.pixels.shade | other, learner.transform, task.rows[:0])
    features = features_of(learner, poisoned)
    task = replace(task, labels=labels, weights=weights, pixels=poisoned, features=features)
    assert _same(before, _fit(learner, task)), "the validation fold changed the voters"


def check_three_kinds_of_labels(case: Case) -> None:
    """Check that *none of these* trains the voters, and is neither a class nor unlabelled."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    fitted = _fit(learner, task)
    none = task.labels == NONE
    called = replace(task, labels=np.where(none, 0, task.labels))
    assert not _same(fitted, _fit(learner, called)), "none of these is treated as a class"
    unlabelled = replace(task, labels=np.where(none & ~task.validates, UNLABELLED, task.labels))
    without = _fit(learner, unlabelled)
    assert not _same(fitted, without), "none of these is treated as unlabelled"
    if not learner.uses_pool:
        absent = _only(unlabelled, unlabelled.labels != UNLABELLED)
        assert _same(without, _fit(learner, absent)), "unlabelled crops change the voters"


def check_weights(case: Case) -> None:
    """Check that a weight of 0 removes a crop, and that other weights have an effect."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    out = (np.arange(len(task.rows)) % 5 == 2) & (task.labels != UNLABELLED)
    zero = replace(task, weights=np.where(out, 0, task.weights).astype(np.float32))
    absent = _only(task, ~out | task.validates)
    assert _same(_fit(learner, zero), _fit(learner, absent)), "a crop of weight 0 has an effect"
    heavy = replace(task, weights=np.where(out, 4, task.weights).astype(np.float32))
    assert not _same(_fit(learner, task), _fit(learner, heavy)), "weights change nothing"


def check_follows_the_seed(case: Case) -> None:
    """Check that a fit depends only on the task, not on earlier fits or the rows' numbers."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    assert isinstance(task.pixels, DrawnPixels)
    torch.manual_seed(1)
    first = _fit(learner, task)
    torch.manual_seed(2)
    np.random.seed(3)
    second = _fit(case.make(), draw_task(learner, pool=40))
    assert _same(first, second), "two fits of one task differ"


def check_survives_the_disk(case: Case) -> None:
    """Check that saved and loaded voters give the same scores."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    with _folder() as folder:
        env = FitEnvironment(DEVICE, folder / "unfinished")
        outcome = fit_fold(learner, task, env, RoundFiles(folder))
        voting = {name: [_FOLD] for name in task.classes}
        team = voting_team(case.make(), RoundFiles(folder), task.classes, voting, DEVICE)
        loaded = team.score(task.pixels[task.rows[task.validates]])
    assert np.array_equal(outcome.prob, loaded), "scores differ after loading"


class _Killed(Exception):
    pass


@dataclass
class _Killer(Listener):
    """Ends the fit after a number of crops."""

    after: float = float("inf")
    crops: int = field(default=0, init=False)
    total: int = field(default=0, init=False)

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        self.total = total or 0
        yield self._advance

    def _advance(self, count: int, note: str = "") -> None:
        self.crops += count
        if self.crops >= self.after:
            raise _Killed


def check_resumes(case: Case) -> None:
    """Check that a fit killed twice and resumed ends like an uninterrupted one."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    whole = _Killer()
    with _folder() as folder:
        undisturbed = learner.fit(task, FitEnvironment(DEVICE, folder, listener=whole))
    with _folder() as folder:
        for share in (0.4, 0.75):
            killer = _Killer(share * whole.crops or float("inf"))
            try:
                env = FitEnvironment(DEVICE, folder, listener=killer, checkpoint_seconds=0)
                learner.fit(task, env)
            except _Killed:
                continue
        env = FitEnvironment(DEVICE, folder, checkpoint_seconds=0)
        resumed = case.make().fit(task, env)
    assert _same(undisturbed, resumed), "a resumed fit ends with other voters"


def check_starts_from_the_round_before(case: Case) -> None:
    """Check that ``start_from`` is reproducible, and has an effect unless the learner says not."""
    learner = case.make()
    task = draw_task(learner, pool=40)
    with _folder() as folder:
        files = RoundFiles(folder)
        fit_fold(learner, task, FitEnvironment(DEVICE, folder / "unfinished"), files)
        later = replace(task, start_from=files, later=True, seed=5)
        first, second = _fit(learner, later), _fit(learner, later)
    assert _same(first, second), "two fits from the same start differ"
    fresh = _fit(learner, replace(task, later=True, seed=5))
    assert _same(first, fresh) != learner.continues, "the start changes nothing, or should not"


def check_pool_is_not_held(case: Case) -> None:
    """Check that pictures of the pool are read when needed, a few at a time."""
    learner = case.make()
    task = draw_task(learner, pool=_POOL)
    assert isinstance(task.pixels, DrawnPixels)
    _fit(learner, task)
    assert task.pixels.most_held <= _MOST_HELD, (
        f"{task.pixels.most_held} of {_POOL} pictures of the pool were held at once, expected at "
        f"most {_MOST_HELD}"
    )


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_groups_cover_the_classes,
    check_probabilities,
    check_learns,
    check_validation_fold_is_not_learned,
    check_three_kinds_of_labels,
    check_weights,
    check_follows_the_seed,
    check_survives_the_disk,
    check_resumes,
    check_starts_from_the_round_before,
    check_pool_is_not_held,
)
"""Every check; each takes a :class:`Case` and raises an ``AssertionError``."""
