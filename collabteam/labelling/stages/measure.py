"""Stages that measure labels on the frozen test set and against hidden truth, and pick samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import NONE, class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.events import Listener
from collabteam.labelling import messages, records
from collabteam.labelling.calibration import (
    Reliability,
    RiskCoverage,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from collabteam.labelling.plan import LabellingPlan
from collabteam.labelling.records import (
    Accuracy,
    CalibrationError,
    ClassPrecision,
    Curve,
    LabelledSample,
    MeasuredAccuracy,
    ReliabilityPair,
    Samples,
    TestQuality,
    UnsureSample,
    WrongSample,
)
from collabteam.rounds import evaluation
from collabteam.settings import MOST_SAMPLES
from collabteam.stages import Stage
from collabteam.team.voting import ABSTAIN, Verdicts

_BINS = 10
_CURVE = 101
"""The largest number of points of the saved risk-coverage curve."""


@dataclass(frozen=True, eq=False)
class LabelQuality:
    """The quality of the team's confidence on the frozen test set.

    Attributes:
        before: Reliability of each class before calibration.
        after: Reliability of each class after calibration.
        curve: Risk over coverage of single crops after calibration.
        record: These results, for ``label.json``.
    """

    before: dict[str, Reliability]
    after: dict[str, Reliability]
    curve: RiskCoverage
    record: TestQuality


@dataclass(frozen=True, eq=False)
class MeasureTest(Stage[LabelQuality | None]):
    """Measure calibration, risk over coverage and labels on the frozen test set.

    Attributes:
        plan: The labelling.
        rows: (N,) rows of the crops of the test set.
        raw_NB: (N, B) uncalibrated probability of *true*.
        prob_NB: (N, B) the same, calibrated.
        verdicts: The final verdicts on these crops.
    """

    plan: LabellingPlan
    rows: NDArray[np.int64]
    raw_NB: NDArray[np.float64]
    prob_NB: NDArray[np.float64]
    verdicts: Verdicts
    name = "measure"

    def compute(self, listener: Listener) -> LabelQuality | None:
        """Return the quality; None without a verified test set."""
        if not len(self.rows):
            return None
        classes, raw, calibrated = self.plan.classes, self.raw_NB, self.prob_NB
        labels = self.plan.index.targets(self.rows, classes)
        before, after, errors = {}, {}, {}
        for branch, name in enumerate(classes):
            true = labels == branch
            before[name] = reliability(raw[:, branch], true, _BINS)
            after[name] = reliability(calibrated[:, branch], true, _BINS)
            errors[name] = CalibrationError(
                before=expected_calibration_error(raw[:, branch], true, _BINS),
                after=expected_calibration_error(calibrated[:, branch], true, _BINS),
            )
        alone = self.plan.policy.vote(calibrated)
        curve = risk_coverage(alone, labels)
        record = TestQuality(
            crops=len(labels),
            calibration_error=errors,
            reliability={
                name: ReliabilityPair(before=_bins(before[name]), after=_bins(after[name]))
                for name in classes
            },
            risk_coverage=_thinned(curve),
            risk_coverage_area=curve.area,
            apart=_accuracy(alone, labels, classes),
            as_labelled=_accuracy(self.verdicts, labels, classes),
        )
        return LabelQuality(before, after, curve, record)

    def tell(self, output: LabelQuality | None, listener: Listener) -> None:
        """Warn if there is no verified test set."""
        if output is None:
            listener.warn(messages.no_test_set(self.plan.catalog.name))


@dataclass(frozen=True, eq=False)
class TruthOfLabels:
    """Labels compared with hidden truth.

    Attributes:
        known: (N,) true label of each crop, ``""`` where it is not known.
        measured: Accuracy of the labels of the pool; None if no truth is known.
    """

    known: NDArray[np.object_]
    measured: MeasuredAccuracy | None


@dataclass(frozen=True, eq=False)
class CompareWithTruth(Stage[TruthOfLabels]):
    """Compare the labels with hidden truth; the result never affects the labels.

    Attributes:
        plan: The labelling.
        rows: (N,) rows of the crops.
        branch: (N,) verdicts.
        in_pool: (N,) whether a crop is in the pool.
    """

    plan: LabellingPlan
    rows: NDArray[np.int64]
    branch: NDArray[np.int64]
    in_pool: NDArray[np.bool_]
    name = "measure"

    def compute(self, listener: Listener) -> TruthOfLabels:
        """Return the accuracy."""
        known = read_truth(self.plan.catalog, self.plan.index.crop_id)[self.rows]
        has = self.in_pool & (known != "")
        if not has.any():
            return TruthOfLabels(known, None)
        branch = self.branch[has]
        actual = class_numbers(known[has], self.plan.classes)
        is_stranger = actual == NONE
        accuracy = _accuracy(Verdicts(branch, np.ones(len(branch))), actual, self.plan.classes)
        measured = MeasuredAccuracy(
            coverage=accuracy.coverage,
            accuracy=accuracy.accuracy,
            classes=accuracy.classes,
            strangers=int(is_stranger.sum()),
            strangers_labelled=int((branch[is_stranger] != ABSTAIN).sum()),
        )
        return TruthOfLabels(known, measured)


@dataclass(frozen=True, eq=False)
class PickSamples(Stage[Samples]):
    """Pick crops to check, one per track: the most confident of each class, unsure and wrong ones.

    Crops without a label are drawn at random with a seed. A label is wrong if a person's label of
    the test set or hidden truth contradicts it; the most confident wrong labels come first.

    Attributes:
        plan: The labelling.
        rows: (N,) rows of the crops.
        prob_NB: (N, B) calibrated probability of *true*.
        verdicts: Verdicts on these crops.
        in_pool: (N,) whether a crop is in the pool.
        in_test: (N,) whether a crop is in the verified test set.
        known: (N,) hidden truth, ``""`` where it is not known.
    """

    plan: LabellingPlan
    rows: NDArray[np.int64]
    prob_NB: NDArray[np.float64]
    verdicts: Verdicts
    in_pool: NDArray[np.bool_]
    in_test: NDArray[np.bool_]
    known: NDArray[np.object_]
    name = "measure"

    def compute(self, listener: Listener) -> Samples:
        """Return the samples."""
        plan, rows, branch = self.plan, self.rows, self.verdicts.branch
        index, names = plan.index, np.array([*plan.classes, ""], dtype=object)
        ranked = np.argsort(-self.verdicts.confidence, kind="stable")
        # Take the classes in turn, so that the first few samples show every class.
        dealt = [
            self._one_of_a_track(ranked[self.in_pool[ranked] & (branch[ranked] == number)])
            for number in range(len(plan.classes))
        ]
        sure = [some[k] for k in range(MOST_SAMPLES) for some in dealt if k < len(some)]
        rng = np.random.default_rng([plan.config.seed, *b"samples"])
        unsure = rng.permutation(np.flatnonzero(self.in_pool & (branch == ABSTAIN)))
        actual = self.known.copy()
        actual[self.in_test] = index.human[rows[self.in_test]]
        is_wrong = (branch != ABSTAIN) & (actual != "") & (actual != names[branch])

        def sample(k: int) -> LabelledSample:
            return LabelledSample(
                crop_id=str(index.crop_id[rows[k]]),
                label=str(names[branch[k]]),
                confidence=float(self.verdicts.confidence[k]),
            )

        return Samples(
            sure=[sample(k) for k in sure[:MOST_SAMPLES]],
            unsure=[
                UnsureSample(
                    crop_id=str(index.crop_id[rows[k]]),
                    claimed_by=[str(name) for name in names[:-1][self.prob_NB[k] > 0.5]],
                )
                for k in self._one_of_a_track(unsure)
            ],
            wrong=[
                WrongSample(
                    **sample(k).model_dump(),
                    actual=str(actual[k]),
                    source=str(index.human_source[rows[k]]) if self.in_test[k] else "truth",
                )
                for k in self._one_of_a_track(ranked[is_wrong[ranked]])
            ],
        )

    def _one_of_a_track(self, chosen: Iterable[int]) -> list[int]:
        """Return the first ``MOST_SAMPLES`` crops of different tracks."""
        kept: dict[int, int] = {}
        for k in chosen:
            kept.setdefault(int(self.plan.index.track_code[self.rows[k]]), int(k))
            if len(kept) == MOST_SAMPLES:
                break
        return list(kept.values())


def _accuracy(verdicts: Verdicts, labels: NDArray[np.int64], classes: Sequence[str]) -> Accuracy:
    """Return coverage and share of right labels, overall and per class; None without crops."""
    per_class = {}
    for branch, name in enumerate(classes):
        called = verdicts.branch == branch
        right = float((labels[called] == branch).mean()) if called.any() else None
        per_class[name] = ClassPrecision(labelled=int(called.sum()), precision=right)
    return Accuracy(
        coverage=evaluation.coverage(verdicts),
        accuracy=evaluation.consensus_accuracy(verdicts, labels),
        classes=per_class,
    )


def _bins(found: Reliability) -> records.Reliability:
    """Keep the bins that hold crops."""
    held = found.count > 0
    return records.Reliability(
        confidence=found.confidence[held].tolist(),
        share=found.share[held].tolist(),
        count=found.count[held].tolist(),
    )


def _thinned(curve: RiskCoverage) -> Curve:
    """Thin out the curve to roughly even steps of coverage, including both ends."""
    points = len(curve.coverage)
    at = np.unique(np.linspace(0, points - 1, _CURVE).round().astype(np.int64))[:points]
    return Curve(coverage=curve.coverage[at].tolist(), risk=curve.risk[at].tolist())
