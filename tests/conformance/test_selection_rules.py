"""Every registered selection rule, and rules that break a promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from collabteam.rounds.selection import SelectionRule, Tracks
from collabteam.rounds.selection_rules.quantile import Quantile
from collabteam.settings.seams import SELECTION_RULES
from collabteam.team.voting import Verdicts
from collabteam.testing.selection_rules import check_selection_rule

Positions = NDArray[np.int64]


@pytest.mark.parametrize("name", SELECTION_RULES.names())
def test_every_registered_rule_keeps_its_promises(name: str) -> None:
    check_selection_rule(SELECTION_RULES.load(name))


class Middle(SelectionRule):
    """A rule of another package: crops that the team is neither sure nor unsure of."""

    def candidates(self, verdicts: Verdicts, branch: int) -> Positions:
        decided = np.flatnonzero(verdicts.branch == branch)
        confidence = verdicts.confidence[decided]
        return decided[(confidence >= 0.4) & (confidence <= 0.9)]


def test_a_rule_of_another_package_is_found_and_checked() -> None:
    check_selection_rule(SELECTION_RULES.load(f"{__name__}:Middle"))


class AnyClass(Quantile):
    """Takes crops that the team gives another class."""

    def candidates(self, verdicts: Verdicts, branch: int) -> Positions:
        return np.flatnonzero(verdicts.branch >= 0)


class NearCopies(Quantile):
    """Takes several crops of a track."""

    def draw(
        self, positions: Positions, verdicts: Verdicts, tracks: Tracks, count: int,
        rng: np.random.Generator,
    ) -> Positions:  # fmt: skip
        return np.sort(rng.permutation(np.sort(positions))[:count])


class Unseeded(Quantile):
    """Draws otherwise each time."""

    def draw(
        self, positions: Positions, verdicts: Verdicts, tracks: Tracks, count: int,
        rng: np.random.Generator,
    ) -> Positions:  # fmt: skip
        return super().draw(positions, verdicts, tracks, count, np.random.default_rng())


class InOrder(Quantile):
    """Takes the candidates as they are offered."""

    def draw(
        self, positions: Positions, verdicts: Verdicts, tracks: Tracks, count: int,
        rng: np.random.Generator,
    ) -> Positions:  # fmt: skip
        _, first = np.unique(np.asarray(tracks)[positions], return_index=True)
        return np.sort(positions[np.sort(first)[:count]])


class Stingy(Quantile):
    """Leaves candidates out."""

    def draw(
        self, positions: Positions, verdicts: Verdicts, tracks: Tracks, count: int,
        rng: np.random.Generator,
    ) -> Positions:  # fmt: skip
        return super().draw(positions, verdicts, tracks, count // 2, rng)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (AnyClass, "class's verdict"),
        (NearCopies, "two crops of one track"),
        (Unseeded, "a different draw|changed the draw"),
        (InOrder, "order of the candidates"),
        (Stingy, "crops of different tracks"),
    ],
)
def test_a_broken_promise_is_found(rule: type[SelectionRule], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_selection_rule(rule)
