"""The queue of crops on which the last team abstained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.reviewing.next_step import next_training
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState
from collabteam.rounds.records import read_rounds
from collabteam.team.predictions import PredictionStore
from collabteam.team.voting import ABSTAIN


class Unsure(ReviewQueue):
    """Crops on which the last team abstained, one of each track, the most informative first.

    A crop is the more informative, the larger the sum of the entropies of its branches'
    probabilities (uncertainty sampling; Settles, Active Learning Literature Survey, 2009,
    section 3.1).
    """

    title = "what the team does not know"
    purpose = "unsure"
    # What the team leans to is wrong for about half of these crops.
    preselects = False
    position = 3

    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return the crops, with the class of the team's highest probability as the suggestion."""
        then = next_training(state.catalog)
        records = read_rounds(state.catalog.workspace)
        nothing = np.zeros(0, dtype=np.int64)
        if not records:
            return QueuedCrops(nothing, [], then)
        last = records[-1]
        folder = state.catalog.workspace.round(last.round).scores()
        if not folder.exists():
            return QueuedCrops(nothing, [], then, last.round)
        index = state.index
        predictions = PredictionStore(folder, last.fingerprint, last.classes, index)
        rows = np.flatnonzero(index.trainable())
        prob_NB = predictions.of(rows)
        scored = ~np.isnan(prob_NB).any(axis=1)
        rows, prob_NB = rows[scored], prob_NB[scored].astype(np.float64)
        abstains = last.policy.vote(prob_NB).branch == ABSTAIN
        rows, prob_NB = rows[abstains], prob_NB[abstains]
        suggested = np.full(len(index), "", dtype=object)
        suggested[rows] = np.array(last.classes, dtype=object)[prob_NB.argmax(axis=1)]
        rows = rows[np.lexsort((index.crop_id[rows].astype(str), -_entropy(prob_NB)))]
        # Crops verified in this queue stay, as done. Other tracks that a person verified, or that
        # train, are left out.
        settled = (index.verified() & (index.unsure_round < 0)) | (index.increment_round >= 0)
        rows = rows[~np.isin(index.track_code[rows], index.track_code[settled])]
        done = index.verified()[rows]
        rows = np.concatenate([rows[done], rows[~done]])
        _, first = np.unique(index.track_code[rows], return_index=True)
        rows = rows[np.sort(first)]
        return QueuedCrops(rows, list(map(str, suggested[rows])), then, last.round)

    def why_empty(self, camera: str) -> str:
        """Say that no team has voted."""
        return (
            f"no team has voted yet: 'python -m collabteam.train camera={camera} round=0' makes one"
        )


def _entropy(prob_NB: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape ``(N,)``: the sum of the entropies of N times B probabilities, in nats."""
    clipped = prob_NB.clip(1e-7, 1 - 1e-7)
    entropy = clipped * np.log(clipped) + (1 - clipped) * np.log(1 - clipped)
    total: NDArray[np.float64] = -entropy.sum(axis=1)
    return total
