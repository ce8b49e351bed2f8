"""Stages that gather the training set: crops and labels, pictures, folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import UNLABELLED, CropIndex
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.images import CropPixels, Pixels
from collabteam.learners.folds import assign_folds, pool_folds
from collabteam.rounds import messages
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import read_folds
from collabteam.rounds.state import digest, training_digest
from collabteam.settings import UNKNOWN, result_settings
from collabteam.stages import Stage
from collabteam.storage.files import write_json


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Crops that train, and their labels.

    Attributes:
        rows: (N,) rows of the index.
        crop_id: (N,) names of the crops.
        track: (N,) tracks of the crops.
        labels: (N,) class, -1 for none of the classes.
        is_human: (N,) whether a person gave the label to this crop.
        weights: (N,) float32, how much each crop counts.
        digest: Hash of the crops and their labels.
        fingerprint: Hash of all inputs of the round; a fold that was trained with another
            fingerprint is not used.
    """

    rows: NDArray[np.int64]
    crop_id: NDArray[np.str_]
    track: NDArray[np.object_]
    labels: NDArray[np.int64]
    is_human: NDArray[np.bool_]
    weights: NDArray[np.float32]
    digest: str
    fingerprint: str


@dataclass(frozen=True, eq=False)
class GatherTrainingSet(Stage[TrainingSet]):
    """Gather crops and labels: i0, all increments, and crops that persons verified since.

    Attributes:
        plan: The round.
        index: The catalog's crops, with this round's increment.
    """

    plan: RoundPlan
    index: CropIndex
    name = "read"

    def compute(self, listener: Listener) -> TrainingSet:
        """Gather the rows.

        Raises:
            UserError: A class has fewer tracks than there are folds.
        """
        plan, index = self.plan, self.index
        rows = np.flatnonzero(plan.trains(index) & index.trainable())
        # A crop whose label was withdrawn has none.
        rows = rows[index.targets(rows, plan.classes) != UNLABELLED]
        labels, tracks = index.targets(rows, plan.classes), index.track[rows]
        folds = plan.config.data.folds
        for branch, name in enumerate(plan.classes):
            count = len(np.unique(tracks[labels == branch]))
            if count < folds:
                raise UserError(messages.few_objects(name, count, folds))
        names = index.training_labels(rows)
        if plan.config.data.whole_tracks:
            more, more_labels = _rest_of_tracks(index, rows, labels)
            rows = np.concatenate([rows, more])
            order = np.argsort(rows)
            rows, labels = rows[order], np.concatenate([labels, more_labels])[order]
            names = np.array([*plan.classes, UNKNOWN], dtype=object)[labels]
        own = training_digest(index.crop_id[rows], names)
        before = plan.before.fingerprint if plan.before else ""
        weights = np.ones(len(rows), np.float32)
        if plan.config.data.whole_tracks:
            codes = index.track_code[rows]
            weights /= np.bincount(codes)[codes].astype(np.float32)
        return TrainingSet(
            rows,
            index.crop_id[rows].astype(str),
            index.track[rows],
            labels,
            index.verified()[rows],
            weights,
            own,
            digest([result_settings(plan.config), own, before]),
        )


def _rest_of_tracks(
    index: CropIndex, rows: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the other crops of tracks with a verified crop, and the labels of these.

    A track with two labels gives none: it may show two objects.

    Args:
        index: The catalog's crops.
        rows: (N,) rows that train.
        labels: (N,) their labels.

    Returns:
        (M,) rows, and (M,) labels.
    """
    size = int(index.track_code.max(initial=-1)) + 1
    lowest, highest = np.full(size, np.iinfo(np.int64).max), np.full(size, UNLABELLED)
    np.minimum.at(lowest, index.track_code[rows], labels)
    np.maximum.at(highest, index.track_code[rows], labels)
    known = np.zeros(size, dtype=bool)
    known[index.track_code[rows[index.verified()[rows]]]] = True
    known &= lowest == highest
    wanted = index.trainable() & ~index.verified() & known[index.track_code]
    wanted[rows] = False
    more = np.flatnonzero(wanted)
    return more, highest[index.track_code[more]]


@dataclass(frozen=True, eq=False)
class ReadPictures(Stage[Pixels]):
    """Decode all training crops once; other crops are decoded on request.

    Attributes:
        plan: The round.
        rows: (N,) rows of the crops.
    """

    plan: RoundPlan
    rows: NDArray[np.int64]
    name = "read"

    def compute(self, listener: Listener) -> Pixels:
        """Return the pictures by row.

        Raises:
            UserError: The networks to start from are of another kind.
        """
        pixels = CropPixels(self.plan.catalog, self.plan.transform(), self.rows)
        if not self.plan.learner.on_features:
            pixels[self.rows]  # read them now, so that the time does not count as training
        return pixels


@dataclass(frozen=True, eq=False)
class AssignFolds(Stage[NDArray[np.int64]]):
    """Give each training crop the fold in which it validates; saved by track.

    The file is written each time, because the training set may have changed since a kill.

    Attributes:
        plan: The round.
        training: The training set.
    """

    plan: RoundPlan
    training: TrainingSet
    name = "folds"

    def compute(self, listener: Listener) -> NDArray[np.int64]:
        """Return the folds (N,); tracks keep the folds that they had in the round before."""
        plan = self.plan
        data, seed, tracks = plan.config.data, plan.config.seed, self.training.track
        known = read_folds(plan.files_before.folds) if plan.number else {}
        if plan.number and plan.learner.uses_pool:
            # Tracks had a fold as part of the pool before they joined the training set.
            names = sorted(set(map(str, tracks)))
            dealt = pool_folds(names, data.folds, seed, known)
            known = dict(zip(names, dealt.tolist(), strict=True))
        return assign_folds(self.training.labels, tracks, data.folds, seed, known)

    def save(self, output: NDArray[np.int64]) -> None:
        """Write the fold of each track."""
        fold_of = zip(map(str, self.training.track), output.tolist(), strict=True)
        write_json(self.plan.files.folds, dict(fold_of))


@dataclass(frozen=True, eq=False)
class PoolCrops:
    """Unlabelled crops that a learner may use.

    Attributes:
        rows: (P,) rows of the index.
        folds: (P,) fold of each crop's track; the learner of that fold does not get these crops.
    """

    rows: NDArray[np.int64]
    folds: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GatherPool(Stage[PoolCrops]):
    """Gather the pool with a fold for each track; empty for a learner that does not use it.

    Attributes:
        plan: The round.
        index: The catalog's crops, with this round's increment.
        training: The training set.
        folds: (N,) its folds.
    """

    plan: RoundPlan
    index: CropIndex
    training: TrainingSet
    folds: NDArray[np.int64]
    name = "read"

    def compute(self, listener: Listener) -> PoolCrops:
        """Return the crops, without those of the test set's tracks."""
        plan, index, training = self.plan, self.index, self.training
        if not plan.learner.uses_pool:
            return PoolCrops(np.zeros(0, np.int64), np.zeros(0, np.int64))
        pool = plan.pool(index)
        pool[training.rows] = False
        rows = np.flatnonzero(pool)
        codes, position = np.unique(index.track_code[rows], return_inverse=True)
        names = [str(name) for name in index.track.texts.take(codes).to_pylist()]
        known = dict(zip(map(str, training.track), self.folds.tolist(), strict=True))
        dealt = pool_folds(names, plan.config.data.folds, plan.config.seed, known)
        return PoolCrops(rows, dealt[position])
