"""How a team votes: pure functions on numpy arrays.

Shapes: N crops, B branches (one per class, in the order of the camera's classes).
Each branch gives the probability ``prob_NB`` that a crop shows its class and votes *true* above
one half. The team has a *consensus* exactly when one branch votes true and all others vote false;
anything else is "I don't know" (Padilha and Ferreira, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ABSTAIN = -1
"""Verdict of a team that does not know."""

JOINTS = ("product", "min", "mean")


@dataclass(frozen=True)
class Verdicts:
    """What a team says about N crops.

    Attributes:
        branch: (N,) int: index of the one branch that voted true, or ``ABSTAIN``.
        confidence: (N,) float in 0 to 1: the joint confidence of all votes, also where the team
            abstains.
    """

    branch: NDArray[np.int64]
    confidence: NDArray[np.float64]


def vote(prob_NB: NDArray[np.floating], joint: str = "product") -> Verdicts:
    """Let the branches vote.

    A branch's confidence is the probability of what it voted: ``p`` for true, ``1 - p`` for false,
    so never below one half. The paper sorts by a joint confidence without defining it; the product
    is the probability that every branch is right if their errors are independent.

    Args:
        prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1.
        joint: ``product``, ``min`` or ``mean`` of the branches' confidences.

    Returns:
        The verdicts of the N crops.

    Raises:
        ValueError: The array is not two-dimensional with at least two branches, holds something
            outside 0 to 1, or ``joint`` is unknown.

    Example:
        >>> import numpy as np
        >>> verdicts = vote(np.array([[0.9, 0.2], [0.9, 0.8], [0.3, 0.1]]))
        >>> verdicts.branch.tolist()
        [0, -1, -1]
        >>> verdicts.confidence.round(2).tolist()
        [0.72, 0.72, 0.63]
    """
    prob = np.asarray(prob_NB, dtype=np.float64)
    if prob.ndim != 2 or prob.shape[1] < 2:
        raise ValueError(f"expected probabilities of shape (crops, 2 or more), got {prob.shape}")
    if not ((prob >= 0) & (prob <= 1)).all():
        raise ValueError("expected probabilities from 0 to 1, got some outside (or NaN)")
    true_NB = prob > 0.5
    confidence_NB = np.where(true_NB, prob, 1 - prob)
    if joint == "product":
        confidence = confidence_NB.prod(axis=1)
    elif joint == "min":
        confidence = confidence_NB.min(axis=1)
    elif joint == "mean":
        confidence = confidence_NB.mean(axis=1)
    else:
        raise ValueError(f"joint={joint!r}: expected one of {', '.join(JOINTS)}")
    consensus = true_NB.sum(axis=1) == 1
    return Verdicts(np.where(consensus, true_NB.argmax(axis=1), ABSTAIN), confidence)


def combine_tracks(
    prob_NB: NDArray[np.floating], tracks_N: NDArray[np.int64], correlation: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Let the crops of one track, which show one object, speak with one voice.

    Their evidence, as log-odds, is added per branch, and divided by ``1 + (n - 1) correlation`` for
    n crops: neighbouring pictures of one object are alike, so n of them tell as much as
    ``n / (1 + (n - 1) correlation)`` independent ones (the design effect of cluster sampling, Kish
    1965). Agreeing crops make each other surer; one that abstains does not count for less than the
    others. Two crops that each have a consensus, on different classes, are a conflict.

    Args:
        prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1.
        tracks_N: (N,) the crops' tracks as numbers from 0.
        correlation: 0 (every crop tells something new) to 1 (the mean log-odds count).

    Returns:
        (N, B) the track's probabilities, the same for all its crops, and unchanged for a crop that
        is alone; (N,) whether the track is in conflict with itself.

    Raises:
        ValueError: What :func:`vote` raises, or the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> prob = np.array([[0.8, 0.1], [0.8, 0.1], [0.9, 0.2], [0.2, 0.9]])
        >>> together, conflict = combine_tracks(prob, np.array([0, 0, 1, 1]), correlation=0.5)
        >>> together.round(2).tolist(), conflict.tolist()
        ([[0.86, 0.05], [0.86, 0.05], [0.63, 0.63], [0.63, 0.63]], [False, False, True, True])
    """
    prob = np.asarray(prob_NB, dtype=np.float64)
    own = vote(prob).branch if len(prob) else np.zeros(0, dtype=np.int64)
    if np.shape(tracks_N) != (len(prob),):
        raise ValueError(f"expected {len(prob)} tracks, got shape {np.shape(tracks_N)}")
    count = np.bincount(tracks_N)
    clipped = prob.clip(1e-7, 1 - 1e-7)
    odds_NB = np.log(clipped) - np.log1p(-clipped)
    weight = 1 / (1 + (count - 1) * correlation)
    summed_TB = np.stack(
        [np.bincount(tracks_N, odds_NB[:, b], len(count)) for b in range(prob.shape[1])], axis=1
    )
    together_TB = 1 / (1 + np.exp(-summed_TB * weight[:, None]))
    # A crop that is alone keeps its votes to the last digit.
    alone_N = count[tracks_N] == 1
    together_NB = np.where(alone_N[:, None], prob, together_TB[tracks_N])
    lowest = np.full(len(count), prob.shape[1])
    highest = np.full(len(count), ABSTAIN)
    decided = own != ABSTAIN
    np.minimum.at(lowest, tracks_N[decided], own[decided])
    np.maximum.at(highest, tracks_N[decided], own[decided])
    return together_NB, (lowest < highest)[tracks_N]
