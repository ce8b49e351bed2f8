"""Conformance of selection rules.

A test of your own rule is one line::

    check_selection_rule(MyRule)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.rounds.selection import Increment, SelectionRule
from collabteam.settings.checks import check
from collabteam.settings.fields import rule_of
from collabteam.team.voting import ABSTAIN, Verdicts


@dataclass(frozen=True, eq=False)
class _Pool:
    verdicts: Verdicts
    tracks: NDArray[np.int64]
    excluded: NDArray[np.bool_]
    classes: int


def check_selection_rule(rule_class: type[SelectionRule], settings: Any = None) -> None:
    """Raise unless a selection rule meets its contract.

    The checks: only crops with the class's verdict are drawn, each once, at most one per track, no
    excluded crop and none of a track that two classes claim; the counts and the shortfall are
    right; the seed alone decides the draw; neither the names of the tracks nor the order of the
    candidates matters.

    Args:
        rule_class: The rule.
        settings: An instance of its ``Settings``; None for the defaults.

    Raises:
        AssertionError: A check failed; the message says what was expected and found.
    """
    schema = rule_class.Settings
    assert is_dataclass(schema), "Settings: expected a dataclass"
    for one in fields(schema):
        rule_of(one)
    check(schema())
    for quantile in (0.0, 0.75, 1.0):
        rule = rule_class(settings, quantile)
        for pool in _pools():
            _check_candidates(rule, pool)
            for count in (0, 3, 1000):
                _check_increments(rule, pool, count)
            _check_draws(rule, pool)


def _pools() -> Iterator[_Pool]:
    rng = np.random.default_rng(0)
    for crops, tracks, classes in ((0, 1, 2), (1, 1, 2), (60, 15, 3), (300, 200, 2), (300, 20, 5)):
        branch = rng.integers(ABSTAIN, classes, crops)
        for confidence in (rng.choice([0.5, 0.7, 0.9], crops), rng.random(crops)):
            track = rng.integers(0, tracks, crops)
            excluded = np.isin(track, rng.integers(0, tracks, max(1, tracks // 5)))
            yield _Pool(Verdicts(branch, confidence), track, excluded & (crops > 1), classes)
    # Only clear tracks: each has crops of one class.
    track = np.repeat(np.arange(80), 3)
    yield _Pool(Verdicts(track % 4, rng.random(240)), track, np.zeros(240, dtype=bool), 4)


def _select(rule: SelectionRule, pool: _Pool, count: int, seed: list[int]) -> list[Increment]:
    return rule.select(pool.verdicts, pool.tracks, pool.classes, count, seed, pool.excluded)


def _check_candidates(rule: SelectionRule, pool: _Pool) -> None:
    for branch in range(pool.classes):
        positions = rule.candidates(pool.verdicts, branch)
        assert positions.tolist() == sorted(set(positions.tolist())), (
            "candidates: expected positions in ascending order, each once"
        )
        assert (pool.verdicts.branch[positions] == branch).all(), (
            "candidates: expected crops with the class's verdict"
        )
        again = rule.candidates(pool.verdicts, branch)
        np.testing.assert_array_equal(again, positions, "equal verdicts gave different candidates")


def _check_increments(rule: SelectionRule, pool: _Pool, count: int) -> None:
    branch = np.where(pool.excluded, ABSTAIN, pool.verdicts.branch)
    verdicts = Verdicts(branch, pool.verdicts.confidence)
    offered = [rule.candidates(verdicts, one) for one in range(pool.classes)]
    claims = [set(pool.tracks[positions].tolist()) for positions in offered]
    before = branch.copy(), pool.verdicts.branch.copy()
    increments = _select(rule, pool, count, [7, 1])
    np.testing.assert_array_equal(pool.verdicts.branch, before[1], "select changed its input")
    assert len(increments) == pool.classes, f"expected one increment for each of {pool.classes}"
    taken = np.concatenate([one.taken for one in increments])
    assert len(set(taken.tolist())) == len(taken), "a crop was drawn twice"
    tracks = pool.tracks[taken].tolist()
    assert len(set(tracks)) == len(tracks), "two crops of one track were drawn"
    assert not pool.excluded[taken].any(), "an excluded crop was drawn"
    for one, increment in enumerate(increments):
        others = set().union(*(claims[other] for other in range(pool.classes) if other != one))
        clear = [p for p in offered[one].tolist() if pool.tracks[p] not in others]
        assert set(increment.taken.tolist()) <= set(clear), (
            "a drawn crop is not a candidate, or two classes claim its track"
        )
        assert increment.taken.tolist() == sorted(increment.taken.tolist()), (
            "taken: expected ascending positions"
        )
        assert increment.candidates == len(clear), (
            f"candidates: expected {len(clear)}, got {increment.candidates}"
        )
        wanted = min(count, len({int(pool.tracks[p]) for p in clear}))
        assert len(increment.taken) == wanted, (
            f"expected {wanted} crops of different tracks, got {len(increment.taken)}"
        )
        assert increment.shortfall == count - len(increment.taken), (
            f"shortfall: expected {count - len(increment.taken)}, got {increment.shortfall}"
        )


def _check_draws(rule: SelectionRule, pool: _Pool) -> None:
    def drawn(changed: _Pool, seed: list[int]) -> list[list[int]]:
        return [one.taken.tolist() for one in _select(rule, changed, 5, seed)]

    first = drawn(pool, [3, 1])
    assert drawn(pool, [3, 1]) == first, "the same seed gave a different draw"
    rng = np.random.default_rng(5)
    names = rng.permutation(1000)[pool.tracks] if len(pool.tracks) else pool.tracks
    renamed = _Pool(pool.verdicts, names, pool.excluded, pool.classes)
    assert drawn(renamed, [3, 1]) == first, "the names of the tracks changed the draw"
    for branch in range(pool.classes):
        positions = rule.candidates(pool.verdicts, branch)
        draws = [
            rule.draw(offered, pool.verdicts, pool.tracks, 4, np.random.default_rng(11)).tolist()
            for offered in (positions, rng.permutation(positions), positions[::-1])
        ]
        assert draws[0] == draws[1] == draws[2], "the order of the candidates changed the draw"
