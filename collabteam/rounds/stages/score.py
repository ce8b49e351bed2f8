"""Stage that lets a team vote on the pool; saved part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex
from collabteam.events import Listener
from collabteam.stages import Stage
from collabteam.storage.layout import RoundFiles
from collabteam.team.predictions import PredictionStore
from collabteam.team.team import Team


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
        catalog: Where the pictures are.
        index: The catalog's crops.
        pool: (N,) which of them to score.
        number: Round of the team.
        files: The team's round.
        fingerprint: Of the team; scores of another one are thrown away.
        classes: Names of the classes.
        team: Loads the team; called if there is anything to score.
        batch_size: Crops per step.
    """

    catalog: Catalog
    index: CropIndex
    pool: NDArray[np.bool_]
    number: int
    files: RoundFiles
    fingerprint: str
    classes: list[str]
    team: Callable[[], Team]
    batch_size: int
    name = "score"

    def compute(self, listener: Listener) -> Predictions:
        """Score what is missing and read all of it."""
        store = PredictionStore(self.files.scores(), self.fingerprint, self.classes, self.index)
        rows = np.flatnonzero(self.pool)
        if store.missing(rows).any():
            store.fill(
                self.catalog, rows, self.team(), self.batch_size, listener,
                f"round {self.number}, the team votes on {{}} crops",
            )  # fmt: skip
        return Predictions(rows, store.of(rows))
