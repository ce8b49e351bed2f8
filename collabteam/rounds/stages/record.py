"""Stage that finishes a round: ``round.json``, written last, marks the round as complete."""

from __future__ import annotations

import platform
import resource
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from collabteam.catalog import CropIndex
from collabteam.events import Listener
from collabteam.learners.teams import voting_files
from collabteam.machine import utc_stamp
from collabteam.rounds import evaluation
from collabteam.rounds.initial import initial_rows
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import (
    BranchRecall,
    ClassIncrement,
    ExpectedPrecision,
    FoldRecall,
    Reviewer,
    RoundRecalls,
    RoundRecord,
    hashed_files,
)
from collabteam.rounds.stages.evaluate import FoldFigures, TestFigures, TruthFigures
from collabteam.rounds.stages.select import RoundIncrement
from collabteam.rounds.stages.training_set import TrainingSet
from collabteam.settings import UNKNOWN, result_settings
from collabteam.stages import Stage
from collabteam.team.voting import Verdicts

TIMED = ("sample", "select", "read", "train", "score", "evaluate")
"""Stages whose time is recorded."""


@dataclass(frozen=True, eq=False)
class FinishRound(Stage[RoundRecord]):
    """Delete networks that are no longer needed and write the record.

    Attributes:
        plan: The round.
        index: The catalog's crops, with this round's increment.
        training: The training set.
        increment: The round's increment.
        voting: Per class the folds whose networks vote.
        folds: Figures of the out-of-fold predictions.
        verdicts: The team's verdicts on the pool.
        test: Figures on the frozen test set.
        truth: Figures against hidden truth.
        seconds: Time by stage.
    """

    plan: RoundPlan
    index: CropIndex
    training: TrainingSet
    increment: RoundIncrement
    voting: dict[str, list[int]]
    folds: FoldFigures
    verdicts: Verdicts
    test: TestFigures
    truth: TruthFigures
    seconds: dict[str, float]
    name = "record"

    def compute(self, listener: Listener) -> RoundRecord:
        """Return the record."""
        plan, config, classes = self.plan, self.plan.config, self.plan.classes
        index, training = self.index, self.training
        sample = initial_rows(plan.catalog.workspace, index)
        # Taken from the labels themselves: a person may continue where the oracle answered before.
        is_simulated = (index.human_source[training.rows] == "oracle").any()
        coverage = evaluation.coverage(self.verdicts)
        return RoundRecord(
            camera=config.camera.name,
            round=plan.number,
            fingerprint=training.fingerprint,
            classes=classes,
            train_size=len(training.rows),
            train_counts={
                **{name: int((training.labels == b).sum()) for b, name in enumerate(classes)},
                UNKNOWN: int((training.labels == -1).sum()),
            },
            train_unsure=int((index.unsure_round[training.rows] >= 0).sum()),
            training_digest=training.digest,
            reviewer=Reviewer(
                kind="oracle" if is_simulated else "person",
                error_rate=config.oracle_error if is_simulated else 0.0,
                answers=int(index.verified()[sample].sum()),
            ),
            expected_precision={
                name: ExpectedPrecision(share=share, crops=count)
                for name, (share, count) in zip(classes, self.folds.expected_precision, strict=True)
            },
            increment={
                name: ClassIncrement(**row.model_dump(), precision=self.truth.precision[name])
                for name, row in self.increment.report.items()
            },
            voting=self.voting,
            files=hashed_files(plan.files, _kept(plan, self.voting), config.data.train_folds),
            settings=result_settings(config),
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("collabteam", "torch", "lightning", "timm")},
            },
            pool_size=len(self.verdicts.branch),
            coverage=coverage,
            abstain_rate=None if coverage is None else 1 - coverage,
            test_size=self.test.size,
            coverage_test=self.test.coverage,
            consensus_accuracy_test=self.test.accuracy,
            recall=RoundRecalls(
                validation=_recalls(self.folds.validation),
                human=_recalls(self.folds.human),
                folds=[
                    FoldRecall(fold=fold, recalls=_recalls(recall))
                    for fold, recall in self.folds.folds.items()
                ],
                test=None if self.test.recall is None else _recalls(self.test.recall),
            ),
            label_noise=self.truth.label_noise,
            unknown=self.truth.unknown,
            strangers=self.folds.strangers,
            seconds={name: round(self.seconds.get(name, 0.0), 2) for name in TIMED},
            peak_memory_mb=_peak_memory_mb(),
            finished=utc_stamp(),
        )

    def save(self, output: RoundRecord) -> None:
        """Remove networks that neither vote nor start the next round, then write the record.

        What is left of folds that an earlier command trained and this one does not goes, too.
        """
        files, kept = self.plan.files, _kept(self.plan, self.voting)
        for file in files.all_branches():
            if file not in kept:
                file.unlink()
        for fold, file in files.all_fold_predictions().items():
            if fold not in self.plan.config.data.train_folds:
                file.unlink()
        files.remove_unfinished_fits()
        output.write(files.record)


def _recalls(found: evaluation.Recall) -> dict[str, BranchRecall]:
    return {name: BranchRecall(**sides) for name, sides in found.items()}


def _kept(plan: RoundPlan, voting: dict[str, list[int]]) -> list[Path]:
    """The networks that vote or start the next round."""
    if plan.config.team.init != "scratch":
        return plan.files.all_branches()
    return voting_files(plan.learner, plan.files, plan.classes, voting)


def _peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
