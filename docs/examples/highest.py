"""A vote policy: the branch with the highest probability decides, above a floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.settings.fields import setting
from collabteam.team.voting import ABSTAIN, VotePolicy


class Highest(VotePolicy):
    """Decide for the highest probability, whatever the other branches say."""

    @dataclass
    class Settings:
        """Settings of the policy."""

        floor: float = setting(0.5, ge=0.5, lt=1, help="lowest probability of a decision")

    def decide(self, prob_NB: NDArray[np.float64]) -> NDArray[np.int64]:
        """Decide crop by crop; equal leaders make no decision."""
        highest = prob_NB.max(axis=1, keepdims=True)
        is_clear = ((prob_NB == highest).sum(axis=1) == 1) & (highest[:, 0] > self.settings.floor)
        return np.where(is_clear, prob_NB.argmax(axis=1), ABSTAIN)

    def claims(self, prob_NB: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The joint confidence is that of *true* for the leader and *false* for the others."""
        leads: NDArray[np.bool_] = prob_NB == prob_NB.max(axis=1, keepdims=True)
        return leads
