"""Conformance of vote policies.

A test of your own policy is one line::

    check_vote_policy(MyPolicy)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.settings.checks import check
from collabteam.settings.fields import rule_of
from collabteam.team.voting import (
    ABSTAIN,
    JOINTS,
    VotePolicy,
    combine_tracks,
    policy_from_record,
)

_EDGES = (0.0, np.nextafter(0.5, 0), 0.5, np.nextafter(0.5, 1), 1.0)
"""Probabilities at which a vote may change."""


def check_vote_policy(policy_class: type[VotePolicy], settings: Any = None) -> None:
    """Raise unless a vote policy meets its contract.

    The checks: verdicts have the right shape and range; each crop is judged on its own, whatever
    the order of crops and classes; a team abstains where its branches do not distinguish the
    classes; more evidence for a class never removes its verdict; a threshold only removes verdicts;
    equal input gives equal output; wrong input is refused; the policy can be rebuilt from its
    record.

    Args:
        policy_class: The policy.
        settings: An instance of its ``Settings``; None for the defaults.

    Raises:
        AssertionError: A check failed; the message says what was expected and found.
    """
    _check_settings(policy_class)
    for joint in JOINTS:
        policy = policy_class(settings, joint)
        for prob in _teams():
            _check_shapes(policy, prob)
            _check_order(policy, prob)
            _check_thresholds(policy, prob)
            _check_monotonicity(policy, prob)
            _check_record(policy, prob)
        _check_plain_cases(policy)
        _check_refusals(policy)
        _check_tracks(policy)


def _teams() -> Iterator[NDArray[np.float64]]:
    """Yield probabilities for 2 to 5 branches: at the limits, in between, and for no crops."""
    rng = np.random.default_rng(0)
    for branches in (2, 3, 5):
        yield np.empty((0, branches))
        yield rng.random((200, branches))
        yield rng.choice(_EDGES, (200, branches))
        # Nearly certain teams, as trained ones are.
        yield np.clip(rng.beta(0.3, 0.3, (200, branches)), 0, 1)
    yield np.array(list(product(_EDGES, repeat=3)))


def _check_settings(policy_class: type[VotePolicy]) -> None:
    schema = policy_class.Settings
    assert is_dataclass(schema), "Settings: expected a dataclass"
    for one in fields(schema):
        rule_of(one)
    check(schema())


def _check_shapes(policy: VotePolicy, prob: NDArray[np.float64]) -> None:
    before = prob.copy()
    verdicts = policy.vote(prob)
    np.testing.assert_array_equal(prob, before, "vote changed its input")
    branch, confidence = verdicts.branch, verdicts.confidence
    crops, branches = prob.shape
    assert branch.shape == confidence.shape == (crops,), (
        f"expected verdicts of shape {(crops,)}, got {branch.shape} and {confidence.shape}"
    )
    assert branch.dtype.kind == "i", f"branch: expected whole numbers, got {branch.dtype}"
    assert confidence.dtype.kind == "f", f"confidence: expected floats, got {confidence.dtype}"
    is_known = (branch == ABSTAIN) | ((branch >= 0) & (branch < branches))
    assert is_known.all(), f"branch: expected -1 to {branches - 1}, got {branch[~is_known]}"
    assert ((confidence >= 0) & (confidence <= 1)).all(), "confidence: expected 0 to 1"
    again = policy.vote(prob)
    np.testing.assert_array_equal(again.branch, branch, "equal input, different verdicts")
    np.testing.assert_array_equal(again.confidence, confidence, "equal input, other confidences")
    single = policy.vote(prob.astype(np.float32).astype(np.float64))
    narrow = policy.vote(prob.astype(np.float32))
    np.testing.assert_array_equal(narrow.branch, single.branch, "float32 gives different verdicts")


def _check_order(policy: VotePolicy, prob: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(1)
    verdicts = policy.vote(prob)
    crops = rng.permutation(len(prob))
    shuffled = policy.vote(prob[crops])
    message = "a verdict depends on other crops"
    np.testing.assert_array_equal(shuffled.branch, verdicts.branch[crops], message)
    np.testing.assert_array_equal(shuffled.confidence, verdicts.confidence[crops], message)
    for row in range(min(len(prob), 20)):
        alone = policy.vote(prob[row : row + 1])
        assert alone.branch[0] == verdicts.branch[row], message
    classes = rng.permutation(prob.shape[1])
    renamed = policy.vote(prob[:, classes])
    message = "a verdict depends on the order of the classes"
    name_of = np.array([*classes, ABSTAIN])  # ABSTAIN reads the last entry
    np.testing.assert_array_equal(name_of[renamed.branch], verdicts.branch, message)
    np.testing.assert_allclose(renamed.confidence, verdicts.confidence, rtol=1e-12, err_msg=message)


def _check_thresholds(policy: VotePolicy, prob: NDArray[np.float64]) -> None:
    branches = prob.shape[1]
    verdicts = policy.vote(prob)
    free = policy.with_thresholds([0.0] * branches).vote(prob)
    np.testing.assert_array_equal(free.branch, verdicts.branch, "thresholds of 0 changed verdicts")
    closed = policy.with_thresholds([np.inf] * branches).vote(prob)
    assert (closed.branch == ABSTAIN).all(), "infinite thresholds: expected no verdicts"
    least = np.linspace(0.3, 0.9, branches)
    limited = policy.with_thresholds(least.tolist()).vote(prob)
    np.testing.assert_array_equal(limited.confidence, verdicts.confidence)
    stands = verdicts.confidence >= np.append(least, np.inf)[verdicts.branch]
    expected = np.where(stands, verdicts.branch, ABSTAIN)
    np.testing.assert_array_equal(limited.branch, expected, "thresholds: expected other verdicts")


def _check_monotonicity(policy: VotePolicy, prob: NDArray[np.float64]) -> None:
    verdicts = policy.vote(prob)
    decided = np.flatnonzero(verdicts.branch != ABSTAIN)
    branch = verdicts.branch[decided]
    for share in (0.1, 0.5, 1.0):
        more = prob[decided] * (1 - share)
        own = prob[decided, branch]
        more[np.arange(len(decided)), branch] = own + (1 - own) * share
        found = policy.vote(more)
        message = "a class lost its verdict although its branch rose and all others fell"
        np.testing.assert_array_equal(found.branch, branch, message)
        fell = found.confidence < verdicts.confidence[decided] - 1e-12
        assert not fell.any(), "the confidence fell although the evidence grew"


def _check_plain_cases(policy: VotePolicy) -> None:
    for branches in (2, 3, 6):
        sure = policy.vote(np.eye(branches))
        assert sure.branch.tolist() == list(range(branches)), (
            f"one branch at 1, all others at 0: expected its class, got {sure.branch}"
        )
        np.testing.assert_allclose(sure.confidence, 1, err_msg="sure team: expected confidence 1")
        alike = policy.vote(np.repeat(np.array(_EDGES)[:, None], branches, axis=1))
        assert (alike.branch == ABSTAIN).all(), (
            f"all branches alike: expected the team to abstain, got {alike.branch}"
        )


def _check_refusals(policy: VotePolicy) -> None:
    for bad in (np.zeros(3), np.zeros((4, 1)), np.zeros((2, 3, 2)), [[0.2, 1.5]], [[0.2, np.nan]]):
        try:
            policy.vote(np.asarray(bad))
        except ValueError:
            continue
        raise AssertionError(f"expected a ValueError for {bad!r}")


def _check_record(policy: VotePolicy, prob: NDArray[np.float64]) -> None:
    limited = policy.with_thresholds([*np.linspace(0.5, 0.8, prob.shape[1] - 1), np.inf])
    for one in (policy, limited):
        record = json.loads(json.dumps(one.to_record(), allow_nan=False))
        rebuilt = policy_from_record(record)
        assert type(rebuilt) is type(one), f"{record}: expected {type(one)}, got {type(rebuilt)}"
        assert rebuilt.to_record() == one.to_record(), "a rebuilt policy has a different record"
        found, expected = rebuilt.vote(prob), one.vote(prob)
        message = "a policy rebuilt from its record gives different verdicts"
        np.testing.assert_array_equal(found.branch, expected.branch, message)
        np.testing.assert_array_equal(found.confidence, expected.confidence, message)


def _check_tracks(policy: VotePolicy) -> None:
    rng = np.random.default_rng(2)
    prob = rng.beta(0.3, 0.3, (120, 3))
    tracks = np.sort(rng.integers(0, 40, len(prob)))
    _, tracks = np.unique(tracks, return_inverse=True)
    own = policy.vote(prob).branch
    _, conflict = combine_tracks(prob, tracks, 0.5, policy)
    ends = np.flatnonzero(np.diff(tracks)) + 1
    for start, end in pairwise([0, *ends, len(prob)]):
        claimed = set(own[start:end].tolist()) - {ABSTAIN}
        expected = len(claimed) > 1
        assert (conflict[start:end] == expected).all(), (
            f"a track with verdicts for {len(claimed)} classes: expected conflict={expected}"
        )
