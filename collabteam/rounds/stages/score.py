"""Stage that lets a team vote on the pool; saved part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex
from collabteam.events import Listener
from collabteam.stages import Stage
from collabteam.team.predictions import PredictionStore, Scorer


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of crops of the catalog.

    Attributes:
        rows: (N,) rows of the index, ascending.
        prob_NB: (N, B) probability of *true*, 0 to 1.
    """

    rows: NDArray[np.int64]
    prob_NB: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScorePool(Stage[Predictions]):
    """Score the crops of a pool that have no score yet.

    Attributes:
        catalog: The catalog with the pictures.
        index: The catalog's crops.
        pool: (N,) whether to score a crop.
        scores: Folder of the team's scores.
        fingerprint: The team's fingerprint; scores of another team are deleted.
        classes: Names of the classes.
        engine: Loads the team; called if there is anything to score.
        batch_size: Crops per step.
        title: Title for progress messages, with ``{}`` for the number of crops.
    """

    catalog: Catalog
    index: CropIndex
    pool: NDArray[np.bool_]
    scores: Path
    fingerprint: str
    classes: list[str]
    engine: Callable[[], Scorer]
    batch_size: int
    title: str
    name = "score"

    def compute(self, listener: Listener) -> Predictions:
        """Score the missing crops and read all scores."""
        store = PredictionStore(self.scores, self.fingerprint, self.classes, self.index)
        rows = np.flatnonzero(self.pool)
        if store.missing(rows).any():
            store.fill(self.catalog, rows, self.engine(), self.batch_size, listener, self.title)
        return Predictions(rows, store.of(rows))
