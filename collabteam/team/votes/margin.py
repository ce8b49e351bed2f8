"""A policy that also decides between two *true* votes, if one branch is clearly ahead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.settings.fields import setting
from collabteam.team.voting import ABSTAIN, VotePolicy


class Margin(VotePolicy):
    """Decide for the class with the highest probability, if it is far enough ahead.

    The leading branch has to vote *true*, and its probability has to exceed that of the runner-up
    by more than the margin. Compared with the consensus, this labels crops that a second branch
    claims with little confidence (0.98 and 0.55), and abstains on close calls (0.52 and 0.48). The
    rule is margin sampling turned round (Scheffer, Decomain and Wrobel 2001, "Active hidden Markov
    models for information extraction"): a small margin marks the crops to ask a person about.

    The joint confidence is that of *true* for the leading class and *false* for all others.

    Example:
        >>> import numpy as np
        >>> policy = Margin()
        >>> policy.settings.margin
        0.2
        >>> policy.vote(np.array([[0.98, 0.55], [0.52, 0.48], [0.3, 0.1]])).branch.tolist()
        [0, -1, -1]
    """

    @dataclass
    class Settings:
        """Settings of the policy."""

        margin: float = setting(
            0.2, ge=0, lt=1, help="least lead of the highest probability over the next"
        )

    def decide(self, prob_NB: NDArray[np.float64]) -> NDArray[np.int64]:  # noqa: D102
        ordered = np.sort(prob_NB, axis=1)
        first, second = ordered[:, -1], ordered[:, -2]
        is_ahead = (first > 0.5) & (first - second > float(self.settings.margin))
        return np.where(is_ahead, prob_NB.argmax(axis=1), ABSTAIN)

    def claims(self, prob_NB: NDArray[np.float64]) -> NDArray[np.bool_]:  # noqa: D102
        # All equal leaders count, so that the order of the classes does not matter.
        is_first: NDArray[np.bool_] = prob_NB == prob_NB.max(axis=1, keepdims=True)
        return is_first
