"""The paper's rule: the most confident quarter of each class's verdicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.rounds.selection import SelectionRule
from collabteam.team.voting import Verdicts


class Quantile(SelectionRule):
    """Draw at random from the crops at or above a quantile of their class's joint confidences.

    Padilha and Ferreira sort the consensus by confidence and keep the top 25%; here this is done
    per class, so that an easy class does not crowd out a hard one. Ties at the quantile are all
    kept.

    Example:
        >>> import numpy as np
        >>> verdicts = Verdicts(np.array([0, 0, 0, 1, -1]), np.array([0.9, 0.6, 0.9, 0.7, 0.8]))
        >>> Quantile(quantile=0.75).candidates(verdicts, 0).tolist()
        [0, 2]
    """

    def candidates(self, verdicts: Verdicts, branch: int) -> NDArray[np.int64]:  # noqa: D102
        decided = np.flatnonzero(verdicts.branch == branch)
        if not decided.size:
            return decided
        confidence = verdicts.confidence[decided]
        # 'higher' is a confidence that occurs, so ties stay together and there is a candidate.
        least = np.quantile(confidence, self.quantile, method="higher")
        return decided[confidence >= least]
