"""Every registered vote policy, and policies that break a promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from collabteam.settings.fields import setting
from collabteam.settings.seams import VOTES
from collabteam.team.votes.consensus import Consensus
from collabteam.team.votes.margin import Margin
from collabteam.team.voting import ABSTAIN, VotePolicy
from collabteam.testing.vote_policies import check_vote_policy

Probabilities = NDArray[np.float64]


@pytest.mark.parametrize("name", VOTES.names())
def test_every_registered_policy_keeps_its_promises(name: str) -> None:
    check_vote_policy(VOTES.load(name))


@pytest.mark.parametrize("margin", [0.0, 0.5, 0.99])
def test_a_policy_keeps_them_with_other_settings(margin: float) -> None:
    check_vote_policy(Margin, Margin.Settings(margin))


class Surest(VotePolicy):
    """A policy of another package: the class with the highest probability, above a floor."""

    @dataclass
    class Settings:
        floor: float = setting(0.4, ge=0, le=1, help="lowest probability")

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        top = prob_NB.max(axis=1)
        clear = ((prob_NB == top[:, None]).sum(axis=1) == 1) & (top > self.settings.floor)
        return np.where(clear, prob_NB.argmax(axis=1), ABSTAIN)

    def claims(self, prob_NB: Probabilities) -> NDArray[np.bool_]:
        claimed: NDArray[np.bool_] = prob_NB == prob_NB.max(axis=1, keepdims=True)
        return claimed


def test_a_policy_of_another_package_is_found_and_checked() -> None:
    name = f"{__name__}:Surest"
    found = VOTES.load(name)
    assert VOTES.name_of(found) == name
    check_vote_policy(found)


class FirstOfEqual(VotePolicy):
    """Prefers the class that is listed first."""

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        return np.where((prob_NB > 0.5).any(axis=1), prob_NB.argmax(axis=1), ABSTAIN)

    def claims(self, prob_NB: Probabilities) -> NDArray[np.bool_]:
        return np.arange(prob_NB.shape[1]) == prob_NB.argmax(axis=1)[:, None]


class Relative(Consensus):
    """Compares a crop with the others."""

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        branch = super().decide(prob_NB)
        if len(prob_NB):
            branch = np.where(prob_NB.max(axis=1) >= np.median(prob_NB), branch, ABSTAIN)
        return branch


class Modest(Consensus):
    """Loses a class as its branch becomes surer."""

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        branch = super().decide(prob_NB)
        return np.where(prob_NB.max(axis=1) > 0.9999, ABSTAIN, branch)


class Undecided(Consensus):
    """Writes into its input."""

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        branch = super().decide(prob_NB)
        prob_NB[:, 0] = 0
        return branch


class Gambler(Consensus):
    """Draws without a seed."""

    def decide(self, prob_NB: Probabilities) -> NDArray[np.int64]:
        branch = super().decide(prob_NB)
        return np.where(np.random.default_rng().random(len(branch)) < 0.5, branch, ABSTAIN)


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (FirstOfEqual, "order of the classes"),
        (Relative, "depends on other crops"),
        (Modest, "lost its verdict|one branch at 1"),
        (Undecided, "changed its input"),
        (Gambler, "equal input"),
    ],
)
def test_a_broken_promise_is_found(policy: type[VotePolicy], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_vote_policy(policy)
