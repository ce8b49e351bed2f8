"""The queue of crops on which reviewers disagree."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from collabteam.reviewing.next_step import next_training
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState


class Conflict(ReviewQueue):
    """Every crop that two reviewers labelled differently, including resolved conflicts."""

    title = "where reviewers disagree"
    purpose = "conflict"
    position = 4

    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return the crops, without suggestions."""
        shared = [row for row in state.answers.shared() if row < len(state.index)]
        disputed = [row for row in shared if state.answers.is_disputed(row)]
        rows = np.array(disputed, dtype=np.int64)
        return QueuedCrops(rows, [""] * len(rows), next_training(state.catalog))

    def membership_changed(
        self, state: ReviewState, queued: Container[int], rows: list[int]
    ) -> bool:
        """Return whether one of the crops joined or left the conflicts."""
        return any(state.answers.is_disputed(row) != (row in queued) for row in rows)

    def why_empty(self, camera: str) -> str:
        """Reviewers agree."""
        return "no two reviewers differ; double=0.1 lets a second one verify a tenth again"
