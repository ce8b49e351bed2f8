"""The queue of i0, the crops that the first team learns from."""

from __future__ import annotations

import numpy as np

from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.reviewing.next_step import next_training
from collabteam.reviewing.queue_order import group_by_class
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState
from collabteam.rounds.initial import initial_rows, read_draw
from collabteam.rounds.stages.sample import DrawSample
from collabteam.settings import ReviewConfig, TrainConfig
from collabteam.stages import Runner


class Seed(ReviewQueue):
    """The crops drawn for i0, with the detector's proposals."""

    title = "i0: what the team learns from"
    purpose = "seed"
    position = 0

    def prepare(self, catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
        """Draw i0, unless an existing draw has the sizes asked for."""
        if _is_drawn(catalog, config):
            return
        wanted = TrainConfig(
            seed=config.seed,
            seed_per_class=_or(config.seed_per_class, TrainConfig.seed_per_class),
            seed_unknown=_or(config.seed_unknown, TrainConfig.seed_unknown),
        )
        with catalog.workspace.transaction("review"):
            Runner(listener).run(DrawSample(catalog, wanted))

    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return all crops of the draw."""
        catalog, index = state.catalog, state.index
        rows = np.zeros(0, dtype=np.int64)
        if catalog.workspace.round(0).sample.exists():
            rows = initial_rows(catalog.workspace, index)
        seed = [state.config.seed, *b"seed"]
        rows = group_by_class(rows, index.proposed, catalog.classes, seed)
        return QueuedCrops(rows, list(map(str, index.proposed[rows])), next_training(catalog))

    def why_empty(self, camera: str) -> str:
        """Say that i0 was not drawn."""
        return (
            "i0 is not drawn yet, or there are no crops: "
            f"'python -m collabteam.review camera={camera} queue=seed' draws it"
        )


def _is_drawn(catalog: Catalog, config: ReviewConfig) -> bool:
    """Return whether i0 is drawn, for training or with the sizes that the settings ask for."""
    files = catalog.workspace.round(0)
    if not files.sample.exists():
        return False
    if files.record.exists():
        return True
    drawn = read_draw(files.sample)
    asked = {"seed_per_class": config.seed_per_class, "seed_unknown": config.seed_unknown}
    return drawn["reviewer"] == "person" and all(
        value is None or value == drawn[name] for name, value in asked.items()
    )


def _or(asked: int | None, default: int) -> int:
    return default if asked is None else asked
