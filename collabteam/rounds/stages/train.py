"""Stages that train a round's networks and elect those that vote."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from collabteam.events import Fit, Listener
from collabteam.learners.fit import fit_fold
from collabteam.rounds import evaluation, messages
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.stages.select import RoundIncrement
from collabteam.rounds.stages.training_set import TrainingSet
from collabteam.rounds.state import digest
from collabteam.settings import result_settings
from collabteam.stages import Stage
from collabteam.storage.files import write_npz
from collabteam.storage.layout import RoundFiles


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """Out-of-fold predictions: of the crops that a fold's networks did not train on.

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
        pictures: (N, 3, S, S) uint8.
        folds: (N,) fold in which each crop validates.
        fold: The fold to train.
        start_from: The round whose networks are the start; None to start from scratch.
        increment: For the logger.
    """

    plan: RoundPlan
    training: TrainingSet
    pictures: torch.Tensor
    folds: NDArray[np.int64]
    fold: int
    start_from: RoundFiles | None
    increment: RoundIncrement
    name = "train"

    def saved(self, listener: Listener) -> FoldPredictions | None:
        """Return the predictions of a fold that this very round trained."""
        if not self._file.exists():
            return None
        try:
            with np.load(self._file) as kept:
                if str(kept["fingerprint"]) != self.training.fingerprint:
                    return None
                return self._predictions(kept["prob"], float(kept["seconds"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            listener.warn(messages.broken_fold(self._file, error))
            return None

    def earlier_seconds(self, output: FoldPredictions) -> float:
        """Return the time of the fit."""
        return output.seconds

    def compute(self, listener: Listener) -> FoldPredictions:
        """Train on all other folds and predict this one."""
        plan, config, training = self.plan, self.plan.config, self.training
        is_later = plan.number > 0
        epochs = (config.optim.epochs_later if is_later else 0) or config.optim.epochs
        drawn = {name: row.model_dump() for name, row in self.increment.report.items()}
        fit = Fit(
            config.camera.name, plan.number, self.fold, plan.files.folder,
            {**result_settings(config), "round": plan.number, "fold": self.fold,
             "train_size": len(training.rows), "increment": drawn},
        )  # fmt: skip
        size, batch_size = int((self.folds != self.fold).sum()), config.data.batch_size
        total = max(1, size // batch_size) * min(batch_size, size) * epochs
        title = (
            f"round {plan.number}, fold {self.fold}: {len(training.rows)} crops, {epochs} epochs"
        )
        with listener.fit(fit) as logger:
            with listener.stage(title, total, "crops") as advance:
                outcome = fit_fold(
                    plan.files, plan.classes, self.pictures, training.labels, self.folds,
                    self.fold, team=config.team, data=config.data, optim=config.optim,
                    later=is_later, start_from=self.start_from,
                    seed=int(digest([config.seed, plan.number, self.fold])[:8], 16),
                    device=plan.device, logger=logger, advance=advance,
                )  # fmt: skip
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

    def save(self, output: FoldPredictions) -> None:
        """Write the predictions and the names of their crops."""
        arrays = {
            "prob": output.prob_VB,
            "crop_id": self.training.crop_id[self.folds == self.fold],
            "fingerprint": self.training.fingerprint,
            "seconds": output.seconds,
        }
        write_npz(self._file, arrays)

    def _predictions(self, prob_VB: NDArray[np.float32], seconds: float) -> FoldPredictions:
        here = self.folds == self.fold
        labels, is_human = self.training.labels[here], self.training.is_human[here]
        return FoldPredictions(self.fold, prob_VB, labels, is_human, seconds)

    @property
    def _file(self) -> Path:
        return self.plan.files.fold_predictions(self.fold)


@dataclass(frozen=True, eq=False)
class Elect(Stage[dict[str, list[int]]]):
    """Choose per class the folds whose networks vote.

    Attributes:
        plan: The round.
        predictions: Of all trained folds.
    """

    plan: RoundPlan
    predictions: list[FoldPredictions]
    name = "elect"

    def compute(self, listener: Listener) -> dict[str, list[int]]:
        """Return the folds; the best is judged on human-labelled crops alone."""
        classes = self.plan.classes
        if self.plan.config.team.vote_with == "mean":
            return {name: [one.fold for one in self.predictions] for name in classes}
        recalls = {
            one.fold: evaluation.branch_recall(
                one.prob_VB[one.is_human_V], one.labels_V[one.is_human_V], classes
            )
            for one in self.predictions
        }
        return {
            name: [max(recalls, key=lambda fold: (evaluation.balanced(recalls[fold][name]), -fold))]
            for name in classes
        }
