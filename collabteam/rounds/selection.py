"""Which crops join the training set: pure functions on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.settings import UNKNOWN
from collabteam.team.voting import Verdicts

Tracks = Sequence[str] | NDArray[np.str_] | NDArray[np.object_] | NDArray[np.int64]
"""Track of every crop: names or numbers."""


@dataclass(frozen=True)
class Increment:
    """What a round adds for one class.

    Attributes:
        taken: Positions of the drawn crops, ascending.
        candidates: Number of crops that could have been drawn.
        shortfall: How many crops fewer than asked for were drawn.
        threshold: The lowest joint confidence that made a candidate; NaN without candidates.
    """

    taken: NDArray[np.int64]
    candidates: int
    shortfall: int
    threshold: float


def candidates(
    verdicts: Verdicts, branch: int, quantile: float = 0.75
) -> tuple[NDArray[np.int64], float]:
    """Positions of the crops that the team is surest show one class.

    The paper sorts the consensus by confidence and keeps the top 25%; here per class, so that an
    easy class does not crowd out a hard one. Ties at the quantile are all kept.

    Args:
        verdicts: The team's verdicts.
        branch: Index of the class.
        quantile: Of the class's consensus confidences, 0 to 1.

    Returns:
        Positions, ascending, and the confidence at the quantile (NaN without consensus).
    """
    consensus = np.flatnonzero(verdicts.branch == branch)
    if not consensus.size:
        return consensus, float("nan")
    confidence = verdicts.confidence[consensus]
    # 'higher' is a confidence that occurs, so ties stay together and there is always a candidate.
    threshold = float(np.quantile(confidence, quantile, method="higher"))
    return consensus[confidence >= threshold], threshold


def draw(
    positions: NDArray[np.int64],
    tracks: Tracks,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw at random, at most one crop of a track: more of them would be near copies.

    Args:
        positions: Positions to draw from.
        tracks: Track of every crop of the pool (indexed by position).
        count: How many to draw.
        rng: Source of randomness; the same state gives the same draw.

    Returns:
        At most ``count`` positions, ascending.
    """
    shuffled = rng.permutation(np.sort(positions))
    if not shuffled.size:
        return shuffled
    _, first = np.unique(np.asarray(tracks)[shuffled], return_index=True)
    return np.sort(shuffled[np.sort(first)[:count]])


def select(
    verdicts: Verdicts,
    tracks: Tracks,
    classes: int,
    count: int,
    quantile: float = 0.75,
    seed: int | Sequence[int] = 0,
) -> list[Increment]:
    """Draw the increment of a round: per class, at random among the candidates.

    A track with candidates of two classes belongs to neither: one object has one class.

    Args:
        verdicts: The team's verdicts on the pool.
        tracks: Track of every crop of the pool, at most one crop of each is drawn.
        classes: Number of classes.
        count: Crops to add per class; a class with fewer candidates gives all it has.
        quantile: See :func:`candidates`.
        seed: Of the draw; each class has a stream of its own.

    Returns:
        One increment per class.
    """
    tracks = np.asarray(tracks)
    chosen = [candidates(verdicts, branch, quantile) for branch in range(classes)]
    claims = [np.unique(tracks[positions]) for positions, _ in chosen]
    names, claimants = np.unique(np.concatenate(claims), return_counts=True)
    disputed = names[claimants > 1]
    increments = []
    for branch, (positions, threshold) in enumerate(chosen):
        clear = positions[~np.isin(tracks[positions], disputed)]
        rng = np.random.default_rng([*np.atleast_1d(seed), branch])
        taken = draw(clear, tracks, count, rng)
        increments.append(Increment(taken, len(clear), count - len(taken), threshold))
    return increments


def sample_initial(
    strata: NDArray[np.object_],
    verified: NDArray[np.bool_],
    tracks: Tracks,
    classes: Sequence[str],
    count: int,
    seed: int | Sequence[int] = 0,
    unknown: int = 0,
) -> NDArray[np.int64]:
    """Sample i0 at random, ``count`` crops per class.

    Crops that a person has verified already come first, so that no click is asked for twice; then
    one crop of each track, then further ones of the same tracks where there are too few. Where
    nothing is proposed at all, the sample is drawn from all crops regardless of class.

    Objects of no class, which teach every branch to say *false*: those that were verified as
    ``unknown`` come along, at most as many as of a class, and of those that are only proposed as
    ``unknown`` so many that there are ``unknown`` in all.

    Args:
        strata: (N,) class of each crop as far as known before review: the verified label, else
            the proposed one, else ``''``.
        verified: (N,) whether a person has verified the crop.
        tracks: (N,) track of each crop.
        classes: Names of the classes.
        count: Crops per class.
        seed: Of the draw; each class has a stream of its own.
        unknown: Crops proposed as ``unknown``, those verified as such included.

    Returns:
        Positions, ascending; fewer than asked for where a class has fewer crops.
    """
    chosen = []
    for number, name in enumerate(classes):
        rng = np.random.default_rng([*np.atleast_1d(seed), number])
        of_class = np.flatnonzero(strata == name)
        chosen.append(_sample_one(of_class, verified, tracks, count, rng))
    if not any(part.size for part in chosen):
        rng = np.random.default_rng([*np.atleast_1d(seed), len(classes)])
        unnamed = np.flatnonzero(strata == "")
        chosen = [_sample_one(unnamed, verified, tracks, count * len(classes), rng)]
    strangers = np.flatnonzero(strata == UNKNOWN)
    wanted = max(unknown, min(count, int(verified[strangers].sum())))
    rng = np.random.default_rng([*np.atleast_1d(seed), len(classes) + 1])
    chosen.append(_sample_one(strangers, verified, tracks, wanted, rng))
    return np.sort(np.concatenate(chosen))


def _sample_one(
    positions: NDArray[np.int64],
    verified: NDArray[np.bool_],
    tracks: Tracks,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    shuffled = rng.permutation(positions)
    # Sorts are stable throughout: within a rank the random order stays. Verified crops stand for
    # their tracks, so an unverified one of the same track counts as a further one.
    shuffled = shuffled[np.argsort(~verified[shuffled], kind="stable")]
    _, first = np.unique(np.asarray(tracks)[shuffled], return_index=True)
    repeated = np.ones(len(shuffled), dtype=bool)
    repeated[first] = False
    order = np.lexsort((repeated, ~verified[shuffled]))
    return shuffled[order][:count]
