"""A learner: the paper's team, trained on crops that a person verified and on no other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from collabteam.learners.base import FitEnvironment, FoldTask
from collabteam.learners.methods.paper import PaperLearner
from collabteam.settings.fields import setting
from collabteam.team.team import Voter


class VerifiedOnly(PaperLearner):
    """Gives the team's own labels less weight, or none."""

    @dataclass(frozen=True)
    class Settings(PaperLearner.Settings):
        """Settings of the learner."""

        trust: float = setting(0.0, ge=0, le=1, help="weight of a label that a team gave")

    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:
        """Fit with other weights; everything else is the paper's."""
        own = np.where(task.human, 1.0, self.settings.trust).astype(np.float32)
        return super().fit(replace(task, weights=task.weights * own), env)
