"""Stages that train a round's networks and elect those that vote."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import UNLABELLED
from collabteam.errors import UserError
from collabteam.events import Fit, Listener
from collabteam.features.extractor import Features
from collabteam.features.images import Pixels
from collabteam.learners.base import FitEnvironment, FoldTask
from collabteam.learners.teams import fit_fold
from collabteam.rounds import evaluation, messages
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.predictions import SavedFold, read_fold, write_fold
from collabteam.rounds.stages.select import RoundIncrement
from collabteam.rounds.stages.training_set import PoolCrops, TrainingSet
from collabteam.rounds.state import digest
from collabteam.settings import result_settings
from collabteam.stages import Stage

CHECKPOINT_SECONDS = 60.0
"""Seconds of work that a kill may lose while a fold trains."""


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """Out-of-fold predictions: those on crops that a fold's networks did not train on.

    Attributes:
        fold: The fold.
        prob_VB: (V, B) probability of *true*, 0 to 1.
        labels_V: (V,) class, -1 for none of the classes.
        is_human_V: (V,) whether a person gave the label.
        seconds: Time of the fit.
    """

    fold: int
    prob_VB: NDArray[np.float32]
    labels_V: NDArray[np.int64]
    is_human_V: NDArray[np.bool_]
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainFold(Stage[FoldPredictions]):
    """Train the networks of one fold; saved after the networks.

    Attributes:
        plan: The round.
        training: The training set.
        pool: Unlabelled crops for the learner.
        pixels: Pictures by row.
        features: Features by row.
        folds: (N,) fold in which each crop validates.
        fold: The fold to train.
        increment: The round's increment, for the logger.
    """

    plan: RoundPlan
    training: TrainingSet
    pool: PoolCrops
    pixels: Pixels
    features: Features
    folds: NDArray[np.int64]
    fold: int
    increment: RoundIncrement
    name = "train"

    def saved(self, listener: Listener) -> FoldPredictions | None:
        """Return the fold's saved predictions if exactly this round made them."""
        if not self._file.exists():
            return None
        try:
            kept = read_fold(self._file, len(self.plan.classes))
        except UserError as error:
            listener.warn(messages.damaged_fold(self._file, error))
            return None
        count = int((self.folds == self.fold).sum())
        if kept.fingerprint != self.training.fingerprint or len(kept.prob_VB) != count:
            return None
        return self._predictions(kept.prob_VB, kept.seconds)

    def earlier_seconds(self, output: FoldPredictions) -> float:
        """Return the time of the fit."""
        return output.seconds

    def compute(self, listener: Listener) -> FoldPredictions:
        """Train on all other folds and predict this one."""
        plan, config, training = self.plan, self.plan.config, self.training
        drawn = {name: row.model_dump() for name, row in self.increment.report.items()}
        fit = Fit(
            config.camera.name, plan.number, self.fold, plan.files.folder,
            {**result_settings(config), "round": plan.number, "fold": self.fold,
             "train_size": len(training.rows), "increment": drawn},
        )  # fmt: skip
        title = f"round {plan.number}, fold {self.fold}"
        with listener.fit(fit) as logger:
            env = FitEnvironment(
                plan.device, self._unfinished, title, listener, logger, CHECKPOINT_SECONDS
            )
            outcome = fit_fold(plan.learner, self._task(), env, plan.files)
            found = self._predictions(outcome.prob, outcome.seconds)
            recall = evaluation.branch_recall(found.prob_VB, found.labels_V, plan.classes)
            figures = {
                f"{kind}/{name}/{key}": float(value)
                for kind, rows in (("recall", recall), ("increment", drawn))
                for name, row in rows.items()
                for key, value in row.items()
                if value is not None
            }
            listener.metrics(plan.number, figures)
        return found

    def _task(self) -> FoldTask:
        """The learner's input."""
        plan, training = self.plan, self.training
        allowed = self.pool.folds != self.fold
        pool = self.pool.rows[allowed]
        return FoldTask(
            classes=tuple(plan.classes),
            rows=np.concatenate([training.rows, pool]),
            labels=np.concatenate([training.labels, np.full(len(pool), UNLABELLED)]),
            weights=np.concatenate([training.weights, np.ones(len(pool), np.float32)]),
            human=np.concatenate([training.is_human, np.zeros(len(pool), bool)]),
            folds=np.concatenate([self.folds, self.pool.folds[allowed]]),
            fold=self.fold,
            pixels=self.pixels,
            features=self.features,
            seed=int(digest([plan.config.seed, plan.number, self.fold])[:8], 16),
            later=plan.number > 0,
            start_from=plan.start_from(),
        )

    def discard(self) -> None:
        """Remove the remains of unfinished fits of other inputs."""
        self.plan.files.remove_unfinished_fits(but=self.training.fingerprint)

    def save(self, output: FoldPredictions) -> None:
        """Write the predictions and the names of their crops, and delete the checkpoints."""
        crop_id = self.training.crop_id[self.folds == self.fold]
        fingerprint, seconds = self.training.fingerprint, output.seconds
        write_fold(self._file, SavedFold(output.prob_VB, crop_id, fingerprint, seconds))
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _predictions(self, prob_VB: NDArray[np.float32], seconds: float) -> FoldPredictions:
        here = self.folds == self.fold
        labels, is_human = self.training.labels[here], self.training.is_human[here]
        return FoldPredictions(self.fold, prob_VB, labels, is_human, seconds)

    @property
    def _unfinished(self) -> Path:
        return self.plan.files.unfinished_fit(self.fold, self.training.fingerprint)

    @property
    def _file(self) -> Path:
        return self.plan.files.fold_predictions(self.fold)


@dataclass(frozen=True, eq=False)
class Elect(Stage[dict[str, list[int]]]):
    """Choose per class the folds whose networks vote.

    Attributes:
        plan: The round.
        predictions: Predictions of all trained folds.
    """

    plan: RoundPlan
    predictions: list[FoldPredictions]
    name = "elect"

    def compute(self, listener: Listener) -> dict[str, list[int]]:
        """Return the folds; the best is judged on human-labelled crops alone.

        Classes that share a network get the same fold: the best in the mean over them.
        """
        classes = self.plan.classes
        if self.plan.config.team.vote_with == "mean":
            return {name: [one.fold for one in self.predictions] for name in classes}
        recalls = {
            one.fold: evaluation.branch_recall(
                one.prob_VB[one.is_human_V], one.labels_V[one.is_human_V], classes
            )
            for one in self.predictions
        }
        voting: dict[str, list[int]] = {}
        for columns in self.plan.learner.groups(classes):
            names = [classes[column] for column in columns]

            def merit(fold: int, names: list[str] = names) -> tuple[float, int]:
                each = [evaluation.balanced(recalls[fold][name]) for name in names]
                return sum(each) / len(each), -fold

            voting |= {name: [max(recalls, key=merit)] for name in names}
        return {name: voting[name] for name in classes}
