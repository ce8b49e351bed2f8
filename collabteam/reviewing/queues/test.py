"""The queue of the frozen test set."""

from __future__ import annotations

import numpy as np

from collabteam.catalog import Catalog, LabelEvent
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.reviewing.next_step import next_training
from collabteam.reviewing.queue_order import group_by_class
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState
from collabteam.rounds.initial import initial_rows
from collabteam.rounds.selection import draw
from collabteam.settings import UNKNOWN, ReviewConfig


class FrozenTestSet(ReviewQueue):
    """The crops of the frozen test set, on which no team may ever train."""

    title = "the frozen test set"
    purpose = "test"
    position = 1

    def prepare(self, catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
        """Add crops until there are ``test_per_class`` objects of each proposed class."""
        with catalog.workspace.transaction("review"):
            _draw(catalog, config, listener)

    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return all crops of the test set."""
        catalog, index = state.catalog, state.index
        seed = [state.config.seed, *b"test"]
        rows = group_by_class(np.flatnonzero(index.test), index.proposed, catalog.classes, seed)
        return QueuedCrops(rows, list(map(str, index.proposed[rows])), next_training(catalog))

    def why_empty(self, camera: str) -> str:
        """Say that no test set was drawn."""
        return (
            "no test set is drawn yet: "
            f"'python -m collabteam.review camera={camera} queue=test' draws one"
        )


def _draw(catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
    """Add one crop of each chosen track to the test set.

    Tracks are left out if they train, have trained, or may train because a person verified one of
    their crops.
    """
    index = catalog.index()
    trains = (index.increment_round >= 0) | index.verified()
    if catalog.workspace.round(0).sample.exists():
        trains[initial_rows(catalog.workspace, index)] = True
    free = ~index.held_out & ~np.isin(index.track_code, index.track_code[trains])
    events: list[LabelEvent] = []
    present = [*catalog.classes, UNKNOWN, ""]
    if not (index.proposed == "").all():
        present.remove("")  # crops without a proposal are used only if there are no others
    for number, name in enumerate(present):
        of_class = index.proposed == name
        there = len(np.unique(index.track_code[of_class & index.test]))
        rng = np.random.default_rng([config.seed, *b"test", number])
        wanted = config.test_per_class * (len(catalog.classes) if name == "" else 1)
        # Permanent: these crops can never train, which matters for a small camera.
        most = len(np.unique(index.track_code[of_class])) // 2
        if name in catalog.classes and there < wanted and wanted > most:
            raise UserError(
                f"test_per_class={config.test_per_class} would take more than half of the "
                f"{name} objects of camera {catalog.name} out of training permanently: "
                f"ingest more crops, or set test_per_class={max(1, most // 2)}"
            )
        wanted = min(wanted, max(there, most))
        taken = draw(np.flatnonzero(free & of_class), index.track_code, max(0, wanted - there), rng)
        if name in catalog.classes and there + len(taken) < wanted:
            listener.warn(
                f"class {name}: {there + len(taken)} objects in the test set instead of "
                f"test_per_class={wanted}; the camera has no more that did not train"
            )
        free &= ~np.isin(index.track_code, index.track_code[taken])
        events += map(LabelEvent.test_mark, index.crop_id[taken].tolist())
    catalog.append_labels(events)
