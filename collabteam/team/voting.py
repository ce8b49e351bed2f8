"""Voting of a team: pure functions on numpy arrays.

Shapes: N crops, B branches (one per class, in the order of the camera's classes). Each branch gives
the probability ``prob_NB`` that a crop shows its class. A :class:`VotePolicy` makes verdicts of
them; every part of the program that votes uses the policy of the team's record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from collabteam.settings import TeamConfig
from collabteam.settings.checks import build, resolve_group
from collabteam.settings.records import result_settings
from collabteam.settings.seams import VOTES

ABSTAIN = -1
"""Verdict of a team that abstains."""

JOINTS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "product": lambda confidence_NB: confidence_NB.prod(axis=1),
    "min": lambda confidence_NB: confidence_NB.min(axis=1),
    "mean": lambda confidence_NB: confidence_NB.mean(axis=1),
}
"""Joint confidence (N,) from the branches' confidences (N, B)."""


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of a team on N crops.

    Attributes:
        branch: (N,) int: index of the class, or ``ABSTAIN``.
        confidence: (N,) float, 0 to 1: the joint confidence of all votes, also where the team
            abstains.
    """

    branch: NDArray[np.int64]
    confidence: NDArray[np.float64]


class VotePolicy(ABC):
    """Turns a team's probabilities into verdicts: decision, joint confidence and threshold in one.

    A subclass says which class the team decides for (:meth:`decide`) and which classes the votes
    claim (:meth:`claims`). Its settings are a dataclass ``Settings`` inside the class, declared
    with :func:`collabteam.settings.fields.setting`.
    :func:`collabteam.testing.vote_policies.check_vote_policy` checks a subclass.

    Args:
        settings: An instance of the class's own ``Settings``; None for the defaults.
        joint: How the branches' confidences are combined: ``product``, ``min`` or ``mean``.
            The paper sorts by a joint confidence without defining it; the product is the
            probability that every branch is right if their errors are independent.
        thresholds: Lowest joint confidence of a verdict per class, 0 to 1 or inf; below it the team
            abstains. None: every decision is a verdict.

    Raises:
        ValueError: ``joint`` is unknown.
    """

    @dataclass
    class Settings:
        """A policy's own settings: none."""

    def __init__(
        self,
        settings: Any = None,
        joint: str = "product",
        thresholds: Sequence[float] | None = None,
    ) -> None:
        if joint not in JOINTS:
            raise ValueError(f"joint={joint!r}: expected one of {', '.join(JOINTS)}")
        self.settings: Any = self.Settings() if settings is None else settings
        self.joint = joint
        self.thresholds = None if thresholds is None else tuple(map(float, thresholds))

    @abstractmethod
    def decide(self, prob_NB: NDArray[np.float64]) -> NDArray[np.int64]:
        """Decide each crop by itself; the order of crops and classes must not matter.

        Args:
            prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1; B is 2 or more.

        Returns:
            (N,) index of a class, or ``ABSTAIN``.
        """

    @abstractmethod
    def claims(self, prob_NB: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which votes count as *true* in the joint confidence.

        A branch's confidence is ``p`` if its vote counts as *true* and ``1 - p`` if it counts as
        *false*.

        Args:
            prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1.

        Returns:
            (N, B) whether the vote counts as a *true*.
        """

    def vote(self, prob_NB: NDArray[np.floating]) -> Verdicts:
        """Let the branches vote.

        Args:
            prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1.

        Returns:
            The verdicts on the N crops.

        Raises:
            ValueError: The array is not two-dimensional with at least two branches, holds
                a value outside 0 to 1, or the numbers of thresholds and branches differ.
        """
        prob = np.asarray(prob_NB, dtype=np.float64)
        if prob.ndim != 2 or prob.shape[1] < 2:
            raise ValueError(
                f"expected probabilities of shape (crops, 2 or more), got {prob.shape}"
            )
        if not ((prob >= 0) & (prob <= 1)).all():
            raise ValueError("expected probabilities from 0 to 1, got some outside (or NaN)")
        branch = self.decide(prob)
        confidence = JOINTS[self.joint](np.where(self.claims(prob), prob, 1 - prob))
        if self.thresholds is not None:
            if len(self.thresholds) != prob.shape[1]:
                raise ValueError(f"expected {prob.shape[1]} thresholds, got {len(self.thresholds)}")
            least = np.array([*self.thresholds, np.inf])  # ABSTAIN reads the last one
            branch = np.where(confidence >= least[branch], branch, ABSTAIN)
        return Verdicts(branch, confidence)

    def with_thresholds(self, thresholds: Sequence[float]) -> Self:
        """Return the same policy with other thresholds.

        Args:
            thresholds: Per class, 0 to 1 or inf.
        """
        return type(self)(self.settings, self.joint, thresholds)

    def to_record(self) -> dict[str, Any]:
        """Return the policy as plain data for JSON, from which :func:`from_record` makes it."""
        thresholds = self.thresholds and [
            value if np.isfinite(value) else None for value in self.thresholds
        ]
        return {
            "name": VOTES.name_of(type(self)),
            "settings": result_settings(self.settings),
            "joint": self.joint,
            "thresholds": thresholds,
        }


def policy_from_record(record: Mapping[str, Any]) -> VotePolicy:
    """Rebuild a policy from :meth:`VotePolicy.to_record`.

    Raises:
        UserError: The package that holds the policy is not installed.
    """
    policy: type[VotePolicy] = VOTES.load(record["name"])
    thresholds = record["thresholds"] and [
        np.inf if value is None else value for value in record["thresholds"]
    ]
    return policy(build(policy.Settings, record["settings"]), record["joint"], thresholds)


def team_policy(team: TeamConfig) -> VotePolicy:
    """Make the policy that settings name.

    Args:
        team: ``vote`` and ``joint`` count.

    Raises:
        UserError: There is no such policy, or it has no such setting.
    """
    policy: type[VotePolicy] = VOTES.load(team.vote["name"])
    return policy(resolve_group(VOTES, team.vote, "team.vote"), team.joint)


def combine_tracks(
    prob_NB: NDArray[np.floating],
    tracks_N: NDArray[np.int64],
    correlation: float,
    policy: VotePolicy,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Combine the votes on the crops of one track, which show one object.

    Their evidence, as log-odds, is added per branch, and divided by ``1 + (n - 1) correlation`` for
    n crops: neighbouring pictures of one object are alike, so n of them carry as much evidence as
    ``n / (1 + (n - 1) correlation)`` independent ones (the design effect of cluster sampling, Kish
    1965). Agreement raises the confidence; a crop on which the team abstains counts as much as any
    other. Two crops with different classes are a conflict.

    Args:
        prob_NB: (N, B) probability of *true* per crop and branch, 0 to 1.
        tracks_N: (N,) the crops' tracks as numbers from 0.
        correlation: 0 (every crop is independent evidence) to 1 (the mean log-odds count).
        policy: Decides on single crops, to find conflicts.

    Returns:
        (N, B) the track's probabilities, the same for all its crops, and unchanged for a single
        crop; (N,) whether the track's crops are in conflict.

    Raises:
        ValueError: As :meth:`VotePolicy.vote`, or the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> from collabteam.team.votes.consensus import Consensus
        >>> prob = np.array([[0.8, 0.1], [0.8, 0.1], [0.9, 0.2], [0.2, 0.9]])
        >>> together, conflict = combine_tracks(prob, np.array([0, 0, 1, 1]), 0.5, Consensus())
        >>> together.round(2).tolist(), conflict.tolist()
        ([[0.86, 0.05], [0.86, 0.05], [0.63, 0.63], [0.63, 0.63]], [False, False, True, True])
    """
    prob = np.asarray(prob_NB, dtype=np.float64)
    own = policy.vote(prob).branch if len(prob) else np.zeros(0, dtype=np.int64)
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
    # The only crop of a track keeps its votes to the last digit.
    alone_N = count[tracks_N] == 1
    together_NB = np.where(alone_N[:, None], prob, together_TB[tracks_N])
    lowest = np.full(len(count), prob.shape[1])
    highest = np.full(len(count), ABSTAIN)
    decided = own != ABSTAIN
    np.minimum.at(lowest, tracks_N[decided], own[decided])
    np.maximum.at(highest, tracks_N[decided], own[decided])
    return together_NB, (lowest < highest)[tracks_N]
