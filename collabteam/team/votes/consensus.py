"""The paper's policy: a verdict needs one branch that says *true* and no other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.team.voting import ABSTAIN, VotePolicy


class Consensus(VotePolicy):
    """Decide for a class if its branch votes *true* and all others vote *false*.

    Padilha and Ferreira, section 3.2. A branch votes *true* above one half. The joint confidence
    covers all votes, also if the team abstains: ``p`` of each *true*, ``1 - p`` of each *false*.

    Example:
        >>> import numpy as np
        >>> verdicts = Consensus().vote(np.array([[0.9, 0.2], [0.9, 0.8], [0.3, 0.1]]))
        >>> verdicts.branch.tolist()
        [0, -1, -1]
        >>> verdicts.confidence.round(2).tolist()
        [0.72, 0.72, 0.63]
    """

    def decide(self, prob_NB: NDArray[np.float64]) -> NDArray[np.int64]:  # noqa: D102
        true_NB = prob_NB > 0.5
        return np.where(true_NB.sum(axis=1) == 1, true_NB.argmax(axis=1), ABSTAIN)

    def claims(self, prob_NB: NDArray[np.float64]) -> NDArray[np.bool_]:  # noqa: D102
        return prob_NB > 0.5
