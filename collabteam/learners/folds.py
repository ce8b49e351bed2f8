"""Folds of tracks: stratified for tracks that train, by a hash for all others.

A track keeps its fold permanently, whichever crops join the training set later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError


def assign_folds(
    labels: NDArray[np.int64],
    tracks: Sequence[str] | NDArray[np.str_] | NDArray[np.object_],
    folds: int,
    seed: int,
    known: dict[str, int] | None = None,
) -> NDArray[np.int64]:
    """Give each crop the fold in which it validates.

    All crops of a track share a fold. A track that has a fold keeps it in later rounds, so a
    network that starts from the round before never validates on what it was trained on; this is
    why scikit-learn's ``StratifiedGroupKFold``, which reassigns all groups, does not fit.
    New tracks go, largest first and otherwise at random, to the fold that has the fewest crops of
    their label.

    Args:
        labels: (N,) int class of each crop, -1 for none of them.
        tracks: (N,) track of each crop.
        folds: Number of folds, 2 or more.
        seed: Seed of the order among tracks of one size.
        known: Folds of tracks from earlier rounds.

    Returns:
        (N,) int, 0 to ``folds - 1``.

    Raises:
        UserError: There are more known folds than ``folds``: reassigning their tracks would let
            networks of earlier rounds validate on crops that they were trained on.
    """
    check_folds(known or {}, folds)
    names, first, group = np.unique(np.asarray(tracks), return_index=True, return_inverse=True)
    sizes = np.bincount(group, minlength=len(names))
    kinds = np.unique(labels)
    kind = np.searchsorted(kinds, labels[first])
    fold_of = np.array([(known or {}).get(str(name), -1) for name in names], dtype=np.int64)
    counts = np.zeros((len(kinds), folds), dtype=np.int64)
    settled = fold_of >= 0
    np.add.at(counts, (kind[settled], fold_of[settled]), sizes[settled])
    rng = np.random.default_rng(seed)
    fresh = rng.permutation(np.flatnonzero(~settled))
    for track in fresh[np.argsort(-sizes[fresh], kind="stable")]:
        row = counts[kind[track]]
        # Among equally empty folds, the one with the fewest crops in all keeps the folds even.
        fold = min(range(folds), key=lambda f: (row[f], counts[:, f].sum(), f))
        fold_of[track] = fold
        row[fold] += sizes[track]
    return fold_of[group]


def check_folds(known: Mapping[str, int], folds: int) -> None:
    """Raise if tracks of earlier rounds have folds that there are none of any more.

    Raises:
        UserError: See :func:`assign_folds`.
    """
    least = max(known.values(), default=0) + 1
    if least > folds:
        raise UserError(
            f"data.folds={folds}: the rounds before dealt their tracks into at least {least} "
            "folds; keep those, or start over with rollback=-1"
        )


def pool_folds(
    tracks: Sequence[str], folds: int, seed: int, known: Mapping[str, int]
) -> NDArray[np.int64]:
    """Give each track of the pool a fold, so that learners cannot leak into out-of-fold figures.

    A learner that uses the pool gets none of the tracks of the fold that it validates on. A hash
    decides, so a track has the same fold in each round, whatever else is in the pool.

    Args:
        tracks: (T,) names of tracks.
        folds: Number of folds, 2 or more.
        seed: Seed of the hash.
        known: Folds of tracks that train or trained; they keep those.

    Returns:
        (T,) int, 0 to ``folds - 1``.

    Example:
        >>> pool_folds(["a", "b", "c"], 5, seed=0, known={"b": 3}).tolist()
        [2, 3, 1]
    """
    fold_of = np.empty(len(tracks), np.int64)
    for number, track in enumerate(tracks):
        fold = known.get(track)
        if fold is None:
            hashed = hashlib.blake2b(f"{seed}:{track}".encode(), digest_size=8).digest()
            fold = int.from_bytes(hashed, "big") % folds
        fold_of[number] = fold
    return fold_of
