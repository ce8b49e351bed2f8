"""A selection rule: the most confident labels of each class, instead of a random draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.rounds.selection import SelectionRule, Tracks
from collabteam.team.voting import Verdicts


class MostConfident(SelectionRule):
    """Every label is a candidate; the most confident ones are taken, one of a track."""

    def candidates(self, verdicts: Verdicts, branch: int) -> NDArray[np.int64]:
        """All crops that the team decided for this class."""
        return np.flatnonzero(verdicts.branch == branch)

    def draw(
        self,
        positions: NDArray[np.int64],
        verdicts: Verdicts,
        tracks: Tracks,
        count: int,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Take the most confident crop of each track, then the most confident tracks."""
        # Equal confidences stay in the order of the pool.
        positions = np.sort(positions)
        by_confidence = positions[np.argsort(-verdicts.confidence[positions], kind="stable")]
        _, first = np.unique(np.asarray(tracks)[by_confidence], return_index=True)
        return np.sort(by_confidence[np.sort(first)][:count])
