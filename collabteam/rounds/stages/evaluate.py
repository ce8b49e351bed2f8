"""Stages that measure a team: out of fold, on the frozen test set, and against hidden truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import NONE, Catalog, CropIndex, LabelEvent
from collabteam.catalog.texts import TextColumn
from collabteam.catalog.truth import read_truth
from collabteam.events import Listener
from collabteam.rounds import evaluation, messages
from collabteam.rounds.evaluation import Recall
from collabteam.rounds.oracle import oracle_answers
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import Strangers, UnknownObjects
from collabteam.rounds.stages.train import FoldPredictions
from collabteam.rounds.stages.training_set import TrainingSet
from collabteam.settings import UNKNOWN, TrainConfig
from collabteam.stages import Stage
from collabteam.team.team import Team
from collabteam.team.voting import ABSTAIN, Verdicts


@dataclass(frozen=True, eq=False)
class FoldFigures:
    """Figures of the out-of-fold predictions.

    Attributes:
        validation: Mean recall over the folds.
        human: The same on the crops that a person labelled.
        folds: Recall of each fold.
        expected_precision: Per class, estimated share of right labels in an increment, and the
            number of crops behind the estimate.
        strangers: Objects of no class in the pool; None if nobody verified one.
    """

    validation: Recall
    human: Recall
    folds: dict[int, Recall]
    expected_precision: list[tuple[float | None, int]]
    strangers: Strangers | None


@dataclass(frozen=True, eq=False)
class EvaluateFolds(Stage[FoldFigures]):
    """Measure on the crops that a fold's networks did not train on.

    Attributes:
        plan: The round.
        index: The catalog's crops, with this round's increment.
        rows: (V,) rows of the crops of each fold, in the order of its predictions.
        predictions: Predictions of all trained folds.
    """

    plan: RoundPlan
    index: CropIndex
    rows: dict[int, NDArray[np.int64]]
    predictions: list[FoldPredictions]
    name = "folds"

    def compute(self, listener: Listener) -> FoldFigures:
        """Return the figures."""
        classes = self.plan.classes
        folds, human_folds = {}, []
        human_prob = [one.prob_VB[one.is_human_V] for one in self.predictions]
        human_labels = [one.labels_V[one.is_human_V] for one in self.predictions]
        for one, prob, labels in zip(self.predictions, human_prob, human_labels, strict=True):
            folds[one.fold] = evaluation.branch_recall(one.prob_VB, one.labels_V, classes)
            human_folds.append(evaluation.branch_recall(prob, labels, classes))
        all_prob, all_labels = np.concatenate(human_prob), np.concatenate(human_labels)
        estimates = evaluation.expected_precision(
            all_prob, all_labels, len(classes), self.plan.policy, self.plan.rule
        )
        return FoldFigures(
            evaluation.mean_recall(list(folds.values())),
            evaluation.mean_recall(human_folds),
            folds,
            estimates,
            self._strangers(all_prob, all_labels),
        )

    def _strangers(self, prob: NDArray[np.float32], labels: NDArray[np.int64]) -> Strangers | None:
        """Estimate how many objects of no class there are, and what they do to an increment."""
        verified = int((labels == NONE).sum())
        if not verified:
            return None
        plan, proposals = self.plan, self.index.proposed.codes.astype(np.int64)
        rows = np.concatenate([self.rows[one.fold][one.is_human_V] for one in self.predictions])
        sample, pool = proposals[rows], proposals[plan.pool(self.index)]
        weights = evaluation.pool_weights(sample, pool)
        if not weights.sum():
            return None
        estimates = evaluation.expected_precision(
            prob, labels, len(plan.classes), plan.policy, plan.rule, weights
        )
        return Strangers(
            verified=verified,
            share=float(weights[labels == NONE].sum() / weights.sum()),
            unseen=float((~np.isin(pool, sample)).mean()),
            expected_precision={
                name: share for name, (share, _) in zip(plan.classes, estimates, strict=True)
            },
        )


@dataclass(frozen=True, eq=False)
class VerifyTest(Stage[list[LabelEvent]]):
    """Let a simulated reviewer verify the frozen test set; the answers are saved in the log.

    Attributes:
        catalog: The camera, which the caller has locked.
        config: ``reviewer`` and ``seed`` count.
    """

    catalog: Catalog
    config: TrainConfig
    name = "evaluate"

    def saved(self, listener: Listener) -> list[LabelEvent] | None:
        """Return no answers if none is missing or a person has to give them."""
        index = self.catalog.index()
        count = int((index.test & ~index.verified()).sum())
        if count and self.config.reviewer == "oracle":
            return None
        if count:
            size = int(index.test.sum())
            listener.warn(messages.unverified_test(self.catalog.name, count, size))
        return []

    def compute(self, listener: Listener) -> list[LabelEvent]:
        """Answer without errors, because figures are measured against the test set.

        Raises:
            UserError: A crop has no hidden truth.
        """
        index = self.catalog.index()
        rows = np.flatnonzero(index.test & ~index.verified())
        return oracle_answers(self.catalog, index, rows, 0.0, self.config.seed, "test")

    def save(self, output: list[LabelEvent]) -> None:
        """Append the answers in one commit."""
        self.catalog.append_labels(output)


@dataclass(frozen=True, eq=False)
class TestFigures:
    """Figures on the frozen test set; None if there is nothing to measure.

    Attributes:
        size: Verified crops.
        recall: Recall of every branch.
        coverage: Share of crops with a consensus.
        accuracy: Share of right verdicts among these.
    """

    size: int
    recall: Recall | None
    coverage: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class EvaluateTest(Stage[TestFigures]):
    """Measure on the verified crops of the frozen test set.

    Attributes:
        plan: The round.
        team: Its voting networks.
    """

    plan: RoundPlan
    team: Team
    name = "evaluate"

    def compute(self, listener: Listener) -> TestFigures:
        """Return the figures."""
        plan, config = self.plan, self.plan.config
        index = plan.catalog.index()
        rows = np.flatnonzero(index.test_set())
        if not rows.size:
            return TestFigures(0, None, None, None)
        batches = self.team.score_rows(plan.catalog, rows, config.trainer.score_batch_size)
        prob = np.concatenate(list(batches))
        labels = index.targets(rows, plan.classes)
        verdicts = plan.policy.vote(prob)
        return TestFigures(
            len(rows),
            evaluation.branch_recall(prob, labels, plan.classes),
            evaluation.coverage(verdicts),
            evaluation.consensus_accuracy(verdicts, labels),
        )


@dataclass(frozen=True, eq=False)
class TruthFigures:
    """Label quality against hidden truth; None if the truth is not known.

    Attributes:
        precision: Per class of the increment, share of right labels.
        label_noise: Share of wrong labels in the training set.
        unknown: Crops of none of the classes.
    """

    precision: dict[str, float | None]
    label_noise: float | None
    unknown: UnknownObjects | None


@dataclass(frozen=True, eq=False)
class CompareWithTruth(Stage[TruthFigures]):
    """Compare labels and verdicts with hidden truth; nothing here feeds back into the rounds.

    Attributes:
        plan: The round.
        index: The catalog's crops, with this round's increment.
        training: The training set.
        pool: (P,) rows of the pool.
        verdicts: The team's verdicts on the pool.
    """

    plan: RoundPlan
    index: CropIndex
    training: TrainingSet
    pool: NDArray[np.int64]
    verdicts: Verdicts
    name = "evaluate"

    def compute(self, listener: Listener) -> TruthFigures:
        """Return the figures."""
        index, classes = self.index, self.plan.classes
        known = read_truth(self.plan.catalog, index.crop_id)
        new = index.increment_round == self.plan.number
        precision = {}
        for name in classes:
            judged = new & (index.increment_label == name) & (known != "")
            right = known[judged] == name
            precision[name] = float(right.mean()) if judged.any() else None
        called = np.array([*classes, UNKNOWN], dtype=object)[self.training.labels]
        actual = known[self.training.rows]
        judged = actual != ""
        # A class that this team does not have counts as unknown.
        outside = ~np.isin(actual.astype(str), classes)
        wrong = np.where(outside, called != UNKNOWN, called != actual)[judged]
        return TruthFigures(
            precision,
            float(wrong.mean()) if judged.any() else None,
            self._unknown(known, new),
        )

    def _unknown(self, known: TextColumn, new: NDArray[np.bool_]) -> UnknownObjects | None:
        is_unknown = ~known.is_any(["", *self.plan.classes])
        in_pool, taken = is_unknown[self.pool], new & is_unknown
        if not (in_pool.any() or taken.any()):
            return None
        abstained = self.verdicts.branch[in_pool] == ABSTAIN
        return UnknownObjects(
            pool=int(in_pool.sum()),
            abstain_rate=float(abstained.mean()) if in_pool.any() else None,
            increment=int(taken.sum()),
        )
