"""Makes learners from settings, and loads the voting team from a round's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError
from collabteam.features.devices import Device
from collabteam.features.extractor import FeatureExtractor, camera_extractor
from collabteam.features.images import Transform
from collabteam.features.weights import installed
from collabteam.learners.base import FitEnvironment, FoldTask, Learner, SharedSettings
from collabteam.settings import AUTO, LEARNERS, TrainConfig, TrainerConfig, from_record
from collabteam.settings.checks import resolve_group
from collabteam.settings.records import implementation_from_record
from collabteam.storage.files import damaged, read_json
from collabteam.storage.layout import CameraFiles, RoundFiles
from collabteam.team.team import Team, check_backbone, check_voter, load_transform, voter_file

_AGAIN = "train that round again ('train ... rollback=K' with K the round before it)"
_CHUNK = 256
"""Crops per step when the validation fold is scored."""


def open_learner(values: Mapping[str, Any], shared: SharedSettings) -> Learner:
    """Make the learner that the settings name.

    Args:
        values: ``name`` of the learner, and its own settings; those that are absent take their
            default.
        shared: Settings that concern more than one learner.

    Raises:
        UserError: There is no such learner, or it has no such setting.
    """
    settings = resolve_group(LEARNERS, values, "learner")
    kind: type[Learner] = LEARNERS.load(values["name"])
    return kind(settings, shared)


@dataclass(frozen=True)
class FoldOutcome:
    """Results of a fit.

    Attributes:
        prob: (V, B) out-of-fold probability of *true*, 0 to 1, of the crops of the validation
            fold, in their order.
        seconds: Time of the fit.
    """

    prob: NDArray[np.float32]
    seconds: float


def fit_fold(
    learner: Learner, task: FoldTask, env: FitEnvironment, files: RoundFiles
) -> FoldOutcome:
    """Fit a fold, save its voters, and score the crops of its validation fold.

    Args:
        learner: The learner.
        task: The crops.
        env: Device, folder and listener of the fit.
        files: The round's files; the voters are written there, each atomically.

    Returns:
        The out-of-fold probabilities.

    Raises:
        UserError: Training diverged; no file is written then.
    """
    began = time.perf_counter()
    voters = learner.fit(task, env)
    if not all(one.isfinite().all() for voter in voters for one in voter.parameters()):
        raise UserError(
            f"{env.title}: training diverged, the weights are no numbers any more: lower the "
            "learning rate (optim.lr)"
        )
    transform = task.pixels.transform
    learner.save(voters, files, task.classes, task.fold, transform)
    # The code that scores the pool scores these crops, too, so that the numbers are comparable.
    views = learner.shared.team.views
    team = Team(task.classes, voters, transform, env.device, views=views)
    rows = task.rows[task.validates]
    prob = [np.zeros((0, len(task.classes)), np.float32)]
    for start in range(0, len(rows), _CHUNK):
        here = rows[start : start + _CHUNK]
        prob.append(
            team.score_features(task.features[here])
            if learner.on_features
            else team.score(task.pixels[here])
        )
    return FoldOutcome(np.concatenate(prob), time.perf_counter() - began)


def voting_team(
    learner: Learner,
    files: RoundFiles,
    classes: Sequence[str],
    voting: Mapping[str, Sequence[int]],
    device: Device,
    extractor: FeatureExtractor | None = None,
) -> Team:
    """Build the team of the elected voters.

    Args:
        learner: The learner that made them.
        files: The round's files.
        classes: Names of the classes.
        voting: By class, the folds whose voters are elected; the same for classes that share one.
        device: Where to compute.
        extractor: The frozen backbones of the learner's settings, if they are at hand.

    Raises:
        UserError: A file is missing or damaged, or belongs to another network.
    """
    voters = [
        learner.load(files, classes, columns, fold)
        for columns in learner.groups(classes)
        for fold in voting[classes[columns[0]]]
    ]
    first, *_ = voting_files(learner, files, classes, voting)
    transform = load_transform(first, learner.shared.data.image_size)
    if not learner.on_features:
        return Team(classes, voters, transform, device, views=learner.shared.team.views)
    if extractor is None:
        # The projections lie beside the rounds.
        camera = CameraFiles(files.folder.parent)
        extractor = camera_extractor(learner.shared.features, device, camera)
    check_backbone(first, extractor.digest)
    return Team(classes, voters, transform, device, extractor)


def voting_files(
    learner: Learner, files: RoundFiles, classes: Sequence[str], voting: Mapping[str, Sequence[int]]
) -> list[Path]:
    """Name the files of the elected voters; the arguments are those of :func:`voting_team`."""
    return [
        voter_file(files, classes, columns, fold)
        for columns in learner.groups(classes)
        for fold in voting[classes[columns[0]]]
    ]


def load_team(
    files: RoundFiles, trainer: TrainerConfig | None = None, weights: Sequence[str] = ()
) -> Team:
    """Load the voting team of a finished round.

    Args:
        files: The round, such as ``catalog.workspace.round(2)``.
        trainer: Device and arithmetic; the defaults if None.
        weights: Files with the weights of the frozen backbones; those of packages or of timm's hub
            if empty.

    Raises:
        UserError: The round is not finished, or a file is missing or damaged.
    """
    try:
        record = read_json(files.record)
    except UserError as error:
        raise UserError(f"{files.folder}: expected a finished round, got {error}") from error
    try:
        classes, voting = list(record["classes"]), dict(record["voting"])
        learner = learner_of(record["settings"], weights)
        voters = voting_files(learner, files, classes, voting)
        recorded = dict(record.get("files", {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(files.record, "the record of a round", error, _AGAIN) from error
    for file in voters:
        digest = recorded.get(file.relative_to(files.folder).as_posix())
        if digest is not None:
            check_voter(file, digest)
    device = Device.of(trainer or TrainerConfig())
    return voting_team(learner, files, classes, voting, device)


def start_transform(
    learner: Learner, files: RoundFiles, classes: Sequence[str], fold: int
) -> Transform:
    """Read the transform of the voters that a fit starts from.

    Args:
        learner: The learner.
        files: The round's files.
        classes: Names of the classes.
        fold: A fold that was trained.

    Returns:
        That transform with the picture size of the settings.
    """
    size = learner.transform.size
    file = voter_file(files, classes, learner.groups(classes)[0], fold)
    return replace(load_transform(file, size), size=size)


def learner_for(config: TrainConfig) -> Learner:
    """Make the learner that settings name."""
    shared = SharedSettings(config.team, config.data, config.optim, config.features)
    return open_learner(config.learner, shared)


def check_learner(config: TrainConfig) -> None:
    """Raise if the learner's settings do not fit together; called before anything is drawn.

    Raises:
        UserError: Names the setting and what to do.
    """
    if config.features.backbone == [AUTO]:
        if learner_for(config).network != "features":
            raise UserError(
                "features.backbone=auto has no effect with this learner, which takes its network "
                "from team.backbone: leave it out"
            )
        if not (names := installed()):
            raise UserError(
                "features.backbone=auto chooses among installed packages, and there is none: "
                "pip install 'collabteam[backbones]', or name a model"
            )
        config = replace(config, features=replace(config.features, backbone=names[:1]))
    learner_for(config).check(config.camera.classes)


def learner_of(settings: Mapping[str, Any], weights: Sequence[str] = ()) -> Learner:
    """Make the learner of a finished round.

    Args:
        settings: ``settings`` of the round's record.
        weights: Files with the weights of the frozen backbones; those of packages or of timm's hub
            if empty.
    """
    config = from_record(TrainConfig, settings)
    return learner_for(
        replace(
            config,
            learner=implementation_from_record(LEARNERS, config.learner, "learner"),
            features=replace(config.features, weights=list(weights)),
        )
    )
