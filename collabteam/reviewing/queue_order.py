"""Order the crops of a queue, and draw random shares of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog.records import seeded_hash
from collabteam.catalog.texts import TextColumn
from collabteam.settings import UNKNOWN


def group_by_class(
    rows: NDArray[np.int64],
    suggested: TextColumn | NDArray[np.object_],
    classes: list[str],
    seed: list[int],
) -> NDArray[np.int64]:
    """Order crops by class, because a page asks about one class.

    Within a class they are shuffled, so that the crops of a track are far apart.

    Args:
        rows: Shape ``(Q,)``: row numbers.
        suggested: Shape ``(N,)``: the suggested label of each of the camera's crops.
        classes: The camera's classes in order; ``unknown`` and all other labels follow.
        seed: Seed of the shuffle.

    Returns:
        Shape ``(Q,)``: the same row numbers.
    """
    rank = {name: number for number, name in enumerate([*classes, UNKNOWN])}
    ranks = np.array([rank.get(str(name), len(rank)) for name in suggested[rows]], dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    return rows[np.lexsort((shuffled, ranks))]


def is_in_share(crop_id: str, share: float, seed: int) -> bool:
    """Return whether a crop belongs to a random share of all crops, the same at every call.

    Args:
        crop_id: The crop.
        share: 0 to 1.
        seed: Seed of the draw.
    """
    return seeded_hash(crop_id, seed) < share * 2.0**64
