"""The listener for experiment tracking: curves while folds train, and finished rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from collabteam.catalog import Catalog, CropIndex
from collabteam.environment import isolated
from collabteam.errors import UserError
from collabteam.events import Fit, Listener
from collabteam.features.images import letterbox
from collabteam.learners.teams import learner_of, voting_files
from collabteam.reporting.wandb_runs import (
    RoundRun,
    Sample,
    finish,
    fold_logger,
    log_metrics,
    log_rounds,
)
from collabteam.rounds.predictions import read_fold
from collabteam.rounds.records import RoundRecord, read_rounds
from collabteam.settings import UNKNOWN, LoggerConfig
from collabteam.storage.workspace import Workspace
from collabteam.team.voting import ABSTAIN

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

SAMPLES = 8
"""Crops of each kind that a round shows: surest, unsure, wrong."""
UNSURE = "I don't know"


class Tracking(Listener):
    """Sends the curves of every fold, and finished rounds, to W&B or to CSV files.

    Finished rounds are logged from the disk. So a round is logged after ``round.json`` exists, by
    the command that finished it or by the next one.

    Args:
        config: The logger's settings.
    """

    def __init__(self, config: LoggerConfig) -> None:
        self._config = config
        self._logger: Logger | None = None

    @contextmanager
    def fit(self, fit: Fit) -> Iterator[Logger | None]:
        """Follow the training of one fold.

        Raises:
            UserError: W&B is online, and there is no account or no connection.
        """
        with isolated():
            self._logger = fold_logger(self._config, fit)
            try:
                yield self._logger
            finally:
                finish(self._logger)
                self._logger = None

    def metrics(self, round_: int, values: Mapping[str, float]) -> None:
        """Log figures beside the curves of the fold."""
        log_metrics(self._logger, round_, values)

    def rounds_finished(self, folder: Path) -> None:
        """Log the finished rounds of a camera that are not logged yet.

        Raises:
            UserError: W&B is online and refuses; a later command logs the rounds.
        """
        if self._config.kind == "wandb":
            workspace = Workspace(folder)
            rounds = read_rounds(workspace)
            log_rounds(self._config, workspace, rounds, partial(_made, workspace, rounds))


def _made(workspace: Workspace, rounds: list[RoundRecord], record: RoundRecord) -> RoundRun:
    number, catalog = record.round, Catalog(workspace)
    index = catalog.index()
    return RoundRun(
        team=_voters(workspace, record),
        team_before=_voters(workspace, rounds[number - 1]) if number else [],
        increment=_increment(catalog, index, number) if number else [],
        samples=_samples(catalog, index, record),
    )


def _voters(workspace: Workspace, record: RoundRecord) -> list[Path]:
    """Existing files of the voting networks."""
    files, learner = workspace.round(record.round), learner_of(record.settings)
    voters = voting_files(learner, files, record.classes, record.voting)
    return [file for file in voters if file.exists()]


def _increment(catalog: Catalog, index: CropIndex, number: int) -> list[tuple[str, str, float]]:
    """Crop id, label and confidence of the crops that joined in a round."""
    rows = np.flatnonzero(index.increment_round == number)
    confidence = catalog.annotations().team("increment").confidence[rows].tolist()
    ids, labels = index.crop_id[rows].tolist(), index.increment_label[rows].tolist()
    return list(zip(ids, labels, confidence, strict=True))


def _samples(catalog: Catalog, index: CropIndex, record: RoundRecord) -> list[Sample]:
    """The most confident right verdicts, the closest calls and the most confident wrong verdicts.

    All are crops that a person judged; the networks of the fold that did not train on a crop vote
    on it.
    """
    files, classes = catalog.workspace.round(record.round), record.classes
    names, probs = [], []
    for file in files.all_fold_predictions().values():
        with suppress(UserError):  # a logger shows what there is; 'label' names the damage
            kept = read_fold(file, len(classes))
            if kept.crop_id is not None:
                names.append(kept.crop_id)
                probs.append(kept.prob_VB)
    if not names:
        return []
    rows = index.crop_id.find(np.concatenate(names).tolist())
    judged = (rows >= 0) & index.judged()[rows]
    rows = rows[judged]
    verdicts = record.policy.vote(np.concatenate(probs)[judged])
    said = np.array([*classes, UNSURE], dtype=object)[verdicts.branch]
    person = np.where(np.isin(index.human[rows].astype(str), classes), index.human[rows], UNKNOWN)
    decided, right = verdicts.branch != ABSTAIN, said == person
    found = []
    for kind, chosen, order in (
        ("surest", decided & right, -verdicts.confidence),
        ("unsure", ~decided, verdicts.confidence),
        ("wrong", decided & ~right, -verdicts.confidence),
    ):
        ranked = np.argsort(order, kind="stable")
        for at in ranked[chosen[ranked]][:SAMPLES]:
            found.append((kind, at))
    pictures = catalog.images([rows[at] for _, at in found])
    side = record.image_size
    return [
        Sample(
            kind, str(index.crop_id[rows[at]]), str(person[at]), str(said[at]),
            float(verdicts.confidence[at]), letterbox(picture, side),
        )
        for (kind, at), picture in zip(found, pictures, strict=True)
    ]  # fmt: skip
