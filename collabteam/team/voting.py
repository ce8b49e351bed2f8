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
