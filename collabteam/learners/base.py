"""The seam between the rounds and the learners.

A learner is one class: it builds untrained voters, and fits those of one fold. Saving, loading,
scoring, voting and elections work with voters, not with learners.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog.records import UNLABELLED
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.devices import Device
from collabteam.features.extractor import Features, backbones_of
from collabteam.features.images import Pixels, Transform
from collabteam.settings import (
    DataConfig,
    FeaturesConfig,
    OptimConfig,
    TeamConfig,
    result_settings,
)
from collabteam.settings.checks import shown
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import Voter, load_weights, save_voter, voter_file

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


_OF_TEAM = ("backbone", "attention", "stem", "pretrained", "weights")
"""Settings of ``team`` that name a network."""


@dataclass(frozen=True)
class FoldTask:
    """The input of a learner for one fold; it may use nothing else.

    N crops; their order matters only for reproducibility. They are the labelled crops of all folds
    and, for a learner that uses the pool, the unlabelled crops of tracks that belong to the
    training folds. Crops of the test set's tracks are not among them.

    Labels say three different things: a class, that a crop shows none of the classes (``NONE``, -1:
    it teaches *false*), or nothing yet (``UNLABELLED``, -2). Beware of scikit-learn, where -1 means
    unlabelled.

    Attributes:
        classes: Names of the B classes.
        rows: (N,) int64: row of each crop in the camera.
        labels: (N,) int64: index of the class, ``NONE`` or ``UNLABELLED`` of
            :mod:`collabteam.catalog`.
        weights: (N,) float32, 0 or more: how much a crop counts in the loss, relative to the
            others; 0 excludes it. The learner interprets the weight of an unlabelled crop.
        human: (N,) bool: whether the label comes from a person, not from a team.
        folds: (N,) int64: the fold in which each crop validates.
        fold: The fold to validate on. Its crops must not influence the voters.
        pixels: Pictures by row, decoded on request.
        features: Features by row, of the backbones that the settings name.
        seed: Seed of the initial weights, the order, the augmentation and any other draw.
        later: Whether this is a round k > 0, which may have epochs and augmentation of its own.
        start_from: Files of the round whose voters of the same fold the fit starts from, or None.

    Raises:
        ValueError: Shapes differ, a label or weight is out of range, or the validation fold holds
            an unlabelled crop.
    """

    classes: tuple[str, ...]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    human: NDArray[np.bool_]
    folds: NDArray[np.int64]
    fold: int
    pixels: Pixels
    features: Features
    seed: int = 0
    later: bool = False
    start_from: RoundFiles | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "weights", "human", "folds"):
            if getattr(self, name).shape != self.rows.shape:
                raise ValueError(f"{name} and rows differ in shape")
        if ((self.labels < UNLABELLED) | (self.labels >= len(self.classes))).any():
            raise ValueError(f"labels must be {UNLABELLED} to {len(self.classes) - 1}")
        if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise ValueError("weights must be finite and 0 or more")
        if ((self.labels == UNLABELLED) & self.validates).any():
            raise ValueError("crops of the pool must not come from tracks of the validation fold")

    @property
    def validates(self) -> NDArray[np.bool_]:
        """(N,) whether a crop belongs to the validation fold."""
        found: NDArray[np.bool_] = self.folds == self.fold
        return found

    @property
    def trains(self) -> NDArray[np.bool_]:
        """(N,) whether a crop is labelled, has a weight and belongs to the training folds."""
        labelled: NDArray[np.bool_] = (self.labels != UNLABELLED) & (self.weights > 0)
        return ~self.validates & labelled


@dataclass(frozen=True)
class FitEnvironment:
    """The device, folder and listener of a fit.

    Attributes:
        device: Where to compute.
        folder: Holds the state of an unfinished fit. It belongs to this fit alone, so its files
            come from an earlier attempt at the same task. The caller removes it at the end.
        title: Title of the fit for progress messages.
        listener: Receives progress and warnings.
        logger: Lightning logger for the curves, or None.
        checkpoint_seconds: Most work that a kill may lose, in seconds.
    """

    device: Device
    folder: Path
    title: str = "fit"
    listener: Listener = field(default_factory=Listener)
    logger: Logger | None = None
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class SharedSettings:
    """Settings that concern more than one learner.

    Attributes:
        team: Backbone.
        data: Size of the pictures, batches, augmentation.
        optim: Optimiser.
        features: Pretrained backbones.
    """

    team: TeamConfig = field(default_factory=TeamConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


class Learner(ABC):
    """Fits the voters of a fold.

    Subclasses declare their own settings as a dataclass ``Settings`` inside the class; each field
    needs a default. ``collabteam.testing.learners.check_learner`` checks a subclass.

    Args:
        settings: An instance of the class's own ``Settings``.
        shared: Settings that concern more than one learner.

    Attributes:
        uses_pool: Whether the learner wants unlabelled crops.
        continues: Whether a fit depends on ``start_from``.
        on_features: Whether the voters take features in place of pictures.
        network: The group of settings that names the network: ``features`` for learners that build
            on pretrained backbones.
    """

    uses_pool: ClassVar[bool] = False
    continues: ClassVar[bool] = True
    on_features: ClassVar[bool] = False
    network: ClassVar[Literal["team", "features"]] = "team"

    @dataclass(frozen=True)
    class Settings:
        """A learner's own settings: none."""

    def __init__(self, settings: Any, shared: SharedSettings) -> None:
        self.settings, self.shared = settings, shared

    def check(self, classes: Sequence[str]) -> None:
        """Raise if the settings do not fit together; called before anything is drawn.

        Args:
            classes: Names of the team's classes.

        Raises:
            UserError: Names the setting and what to do.
        """
        if self.network == "features":
            self._check_unused()
        views = self.shared.team.views
        if self.on_features and views != "plain":
            raise UserError(
                f"team.views={views} has no effect with this learner, whose voters take stored "
                "features: leave it out"
            )
        if self.shared.features.projection and not self.on_features:
            raise UserError(
                f"features.projection={self.shared.features.projection} has no effect with this "
                "learner, which does not build on stored features: leave it out, or use "
                "learner=probe"
            )
        self.build(classes, self.groups(classes)[0])

    def _check_unused(self) -> None:
        """Raise on settings that name another network than the one that is used."""
        data, team = self.shared.data, self.shared.team
        for name, value, default in (
            *((f"team.{n}", getattr(team, n), getattr(TeamConfig(), n)) for n in _OF_TEAM),
            ("data.image_size", data.image_size, DataConfig().image_size),
        ):
            if value == default:
                continue
            last = name.partition(".")[2]
            has_twin = last in ("backbone", "weights", "image_size")
            remedy = f"set features.{last}={value} in place of it" if has_twin else "leave it out"
            raise UserError(
                f"{name}={shown(value)} has no effect with this learner, which takes its network, "
                f"always pretrained, from features.*: {remedy}"
            )

    @property
    def transform(self) -> Transform:
        """The transform from crops to pictures; a fit that starts from voters uses theirs."""
        if self.network == "features":
            return backbones_of(self.shared.features)[0].transform
        return Transform(self.shared.data.image_size)

    @abstractmethod
    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:
        """Say which classes share a voter.

        In each group, the voter of one fold is elected, or the voters of all folds vote together.

        Args:
            classes: Names of the team's classes.

        Returns:
            Indices of the classes, each in one group.
        """

    @abstractmethod
    def build(self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True) -> Voter:
        """Build an untrained voter on a group of classes.

        Args:
            classes: Names of the team's classes.
            columns: One of :meth:`groups`.
            fetch: Whether to fetch pretrained weights, if the settings ask for them. False if
                other weights will be loaded.
        """

    @abstractmethod
    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        """Fit one voter for each group of classes.

        The result depends on the task and the settings alone. A fit that takes longer than
        ``env.checkpoint_seconds`` keeps its state in ``env.folder``. A fit that finds such a
        state continues from it, to the same result.

        Args:
            task: The crops.
            env: Device, folder and listener of the fit.

        Returns:
            The voters, in the order of :meth:`groups`.
        """

    def save(
        self,
        voters: Sequence[Voter],
        files: RoundFiles,
        classes: Sequence[str],
        fold: int,
        transform: Transform,
    ) -> None:
        """Write the voters of a fold.

        Args:
            voters: Result of :meth:`fit`.
            files: The round's files.
            classes: Names of the team's classes.
            fold: The fold that they did not train on.
            transform: The transform of the pictures that they were trained on.
        """
        used = result_settings(getattr(self.shared, self.network))
        made_by: dict[str, str] = {self.network: json.dumps(used, sort_keys=True)}
        for voter in voters:
            to = voter_file(files, classes, voter.columns, fold)
            save_voter(voter, to, classes, transform, made_by)

    def load(
        self, files: RoundFiles, classes: Sequence[str], columns: tuple[int, ...], fold: int
    ) -> Voter:
        """Read a voter back.

        Args:
            files: The round's files.
            classes: Names of the team's classes.
            columns: One of :meth:`groups`.
            fold: The fold that it did not train on.

        Raises:
            UserError: The file is missing or damaged, or belongs to another network.
        """
        voter = self.build(classes, columns, fetch=False)
        load_weights(voter.network, voter_file(files, classes, columns, fold))
        return voter
