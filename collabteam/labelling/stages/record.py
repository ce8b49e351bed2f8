"""Stage that finishes a labelling: ``label.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.events import Listener
from collabteam.labelling.calibration import RiskThreshold
from collabteam.labelling.plan import LabellingPlan
from collabteam.labelling.records import EngineCheck, LabelRecord, Samples, Threshold
from collabteam.labelling.stages.decide import Decision
from collabteam.labelling.stages.measure import LabelQuality, TruthOfLabels
from collabteam.machine import utc_stamp
from collabteam.stages import Stage
from collabteam.team.voting import VotePolicy

TIMED = ("score", "write")
"""Stages whose time is saved."""


@dataclass(frozen=True, eq=False)
class FinishLabelling(Stage[LabelRecord]):
    """Write the record.

    Attributes:
        plan: The labelling.
        run: Name of the team with these settings.
        settings: The settings that count for the results.
        policy: The policy with which the team voted on single crops, with the thresholds.
        check: Comparison of the engine with the reference.
        temperatures: (B,) temperatures of the branches.
        thresholds: Thresholds per class; None for the paper's rule.
        decision: The verdicts on N crops.
        in_pool: (N,) whether a crop is in the pool.
        quality: Quality on the frozen test set.
        truth: Comparison with hidden truth.
        samples: Crops to check.
        new: Number of verdicts that the log did not have.
        seconds: Duration of each stage, in seconds.
    """

    plan: LabellingPlan
    run: str
    settings: dict[str, Any]
    policy: VotePolicy
    check: EngineCheck
    temperatures: NDArray[np.float64]
    thresholds: list[RiskThreshold] | None
    decision: Decision
    in_pool: NDArray[np.bool_]
    quality: LabelQuality | None
    truth: TruthOfLabels
    samples: Samples
    new: int
    seconds: dict[str, float]
    name = "record"

    def compute(self, listener: Listener) -> LabelRecord:
        """Return the record."""
        plan, classes, pool = self.plan, self.plan.classes, int(self.in_pool.sum())
        branch = self.decision.verdicts.branch[self.in_pool]
        counts = np.bincount(branch + 1, minlength=len(classes) + 1).tolist()
        return LabelRecord(
            camera=plan.catalog.name,
            round=plan.team.round,
            team=plan.team.fingerprint,
            run=self.run,
            settings=self.settings,
            vote=self.policy.to_record(),
            check=self.check,
            pool=pool,
            labelled=dict(zip(classes, counts[1:], strict=True)),
            abstained=counts[0],
            conflicts=int(self.decision.is_conflict[self.in_pool].sum()),
            coverage=1 - counts[0] / pool if pool else None,
            temperatures=dict(zip(classes, self.temperatures.tolist(), strict=True)),
            thresholds=self._thresholds(),
            test=self.quality.record if self.quality else None,
            samples=self.samples,
            measured=self.truth.measured,
            new=self.new,
            seconds={name: round(self.seconds.get(name, 0.0), 2) for name in TIMED},
            finished=utc_stamp(),
        )

    def save(self, output: LabelRecord) -> None:
        """Write ``label.json``."""
        output.write(self.plan.catalog.workspace.label_record)

    def _thresholds(self) -> dict[str, Threshold] | None:
        if self.thresholds is None:
            return None
        return {
            name: Threshold(
                threshold=found.threshold if np.isfinite(found.threshold) else None,
                crops=found.crops,
                errors=found.errors,
                bound=found.bound,
            )
            for name, found in zip(self.plan.classes, self.thresholds, strict=True)
        }
