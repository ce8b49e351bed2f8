"""Stages that calibrate confidences and choose thresholds, on out-of-fold predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.labelling import messages
from collabteam.labelling.calibration import (
    RiskThreshold,
    apply_temperatures,
    fit_temperatures,
    risk_thresholds,
)
from collabteam.labelling.plan import LabellingPlan
from collabteam.rounds.predictions import read_fold
from collabteam.stages import Stage


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions on crops that a person labelled and that the networks did not train on.

    Attributes:
        prob_NB: (N, B) probability of *true*, uncalibrated.
        labels_N: (N,) class, -1 for none of the classes.
        tracks_N: (N,) track.
    """

    prob_NB: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    tracks_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReadOutOfFold(Stage[dict[int, OutOfFold]]):
    """Read the out-of-fold predictions of the team's round.

    Attributes:
        plan: The labelling.
    """

    plan: LabellingPlan
    name = "calibrate"

    def compute(self, listener: Listener) -> dict[int, OutOfFold]:
        """Return them by fold; none where an earlier version did not save the crops' names.

        Raises:
            UserError: A file is damaged.
        """
        plan, index, found = self.plan, self.plan.index, {}
        for fold in (one.fold for one in plan.team.recall.folds):
            file = plan.files.fold_predictions(fold)
            if not file.exists():  # those that the record has a hash of are there
                continue
            kept = read_fold(file, len(plan.classes))
            if kept.crop_id is None:
                continue
            prob = kept.prob_VB.astype(np.float64)
            rows = index.crop_id.find(kept.crop_id.tolist())
            judged = (rows >= 0) & index.judged()[rows]
            found[fold] = OutOfFold(
                prob[judged],
                index.targets(rows[judged], plan.classes),
                index.track_code[rows[judged]],
            )
        return found


@dataclass(frozen=True, eq=False)
class Calibrate(Stage[NDArray[np.float64]]):
    """Fit a temperature for each branch.

    Attributes:
        plan: The labelling.
        out_of_fold: By fold.
    """

    plan: LabellingPlan
    out_of_fold: dict[int, OutOfFold]
    name = "calibrate"

    def compute(self, listener: Listener) -> NDArray[np.float64]:
        """Return (B,) temperatures, each from crops that the voting networks did not train on."""
        plan = self.plan
        temperatures = np.ones(len(plan.classes))
        if not plan.config.calibrate:
            return temperatures
        for branch, name in enumerate(plan.classes):
            voting = [fold for fold in plan.team.voting[name] if fold in self.out_of_fold]
            if voting:
                folds = [self.out_of_fold[fold] for fold in voting]
                prob = np.concatenate([one.prob_NB for one in folds])
                labels = np.concatenate([one.labels_N for one in folds])
                temperatures[branch] = fit_temperatures(prob, labels)[branch]
        return temperatures

    def tell(self, output: NDArray[np.float64], listener: Listener) -> None:
        """Warn if there was nothing to calibrate on."""
        if self.plan.config.calibrate and not self.out_of_fold:
            listener.warn(messages.nothing_to_calibrate_on(self.plan.team.round))


@dataclass(frozen=True, eq=False)
class ChooseThresholds(Stage[list[RiskThreshold]]):
    """Choose the confidence of each class from which labels stay within a risk.

    Attributes:
        plan: The labelling.
        out_of_fold: The predictions, by fold.
        temperatures: (B,) temperatures of the branches.
        risk: Tolerable share of wrong labels.
    """

    plan: LabellingPlan
    out_of_fold: dict[int, OutOfFold]
    temperatures: NDArray[np.float64]
    risk: float
    name = "calibrate"

    def compute(self, listener: Listener) -> list[RiskThreshold]:
        """Return one threshold per class.

        Raises:
            UserError: There are no out-of-fold predictions.
        """
        plan, config = self.plan, self.plan.config
        folds = list(self.out_of_fold.values())
        if not folds:
            raise UserError(messages.nothing_to_choose_on(config.threshold, plan.team.round))
        prob = np.concatenate([one.prob_NB for one in folds])
        return risk_thresholds(
            plan.policy.vote(apply_temperatures(prob, self.temperatures)),
            np.concatenate([one.labels_N for one in folds]),
            np.concatenate([one.tracks_N for one in folds]),
            len(plan.classes), self.risk, config.confidence, config.seed,
        )  # fmt: skip

    def tell(self, output: list[RiskThreshold], listener: Listener) -> None:
        """Warn about classes in which no crop can be labelled."""
        for name, found in zip(self.plan.classes, output, strict=True):
            if not np.isfinite(found.threshold):
                listener.warn(messages.nothing_released(name, self.risk, found))
