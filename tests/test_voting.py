"""Votes and joint confidences, against their definitions in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from collabteam.team.voting import ABSTAIN, JOINTS, vote

Probabilities = NDArray[np.float64]

# One half is where a vote tips, so it must come up often.
ONE = st.one_of(st.sampled_from([0.0, 0.5, np.nextafter(0.5, 1), 1.0]), st.floats(0, 1))
TEAMS = hnp.arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(2, 6)), elements=ONE)
NAIVE = {"product": math.prod, "min": min, "mean": lambda votes: sum(votes) / len(votes)}


@settings(deadline=None)
@given(TEAMS, st.sampled_from(JOINTS))
def test_verdicts_are_those_of_the_definition(prob: Probabilities, joint: str) -> None:
    verdicts = vote(prob, joint)
    assert verdicts.branch.shape == verdicts.confidence.shape == (len(prob),)
    assert verdicts.branch.dtype == np.int64
    for crop, row in enumerate(prob.tolist()):
        true = [branch for branch, p in enumerate(row) if p > 0.5]
        assert verdicts.branch[crop] == (true[0] if len(true) == 1 else ABSTAIN)
        own = [p if p > 0.5 else 1 - p for p in row]
        assert verdicts.confidence[crop] == pytest.approx(NAIVE[joint](own), rel=1e-12)


@given(TEAMS)
def test_confidence_stays_in_its_range(prob: Probabilities) -> None:
    for joint, least in (("product", 0.5 ** prob.shape[1]), ("min", 0.5), ("mean", 0.5)):
        confidence = vote(prob, joint).confidence
        assert (confidence >= least).all()
        assert (confidence <= 1).all()


@given(TEAMS, st.sampled_from(JOINTS), st.randoms(use_true_random=False))
def test_order_of_branches_is_only_a_name(prob: Probabilities, joint: str, random: Any) -> None:
    order = list(range(prob.shape[1]))
    random.shuffle(order)
    before, after = vote(prob, joint), vote(prob[:, order], joint)
    named = np.array([*order, ABSTAIN])[after.branch]  # -1 reads the last entry
    np.testing.assert_array_equal(named, before.branch)
    np.testing.assert_allclose(after.confidence, before.confidence, rtol=1e-12)


@given(TEAMS, st.sampled_from(JOINTS), st.randoms(use_true_random=False))
def test_each_crop_is_judged_alone(prob: Probabilities, joint: str, random: Any) -> None:
    order = list(range(len(prob)))
    random.shuffle(order)
    before, after = vote(prob, joint), vote(prob[order], joint)
    np.testing.assert_array_equal(after.branch, before.branch[order])
    np.testing.assert_array_equal(after.confidence, before.confidence[order])


def test_one_half_is_false() -> None:
    assert vote(np.array([[0.5, 0.9]])).branch.tolist() == [1]
    assert vote(np.array([[0.5, 0.4]])).branch.tolist() == [ABSTAIN]
    assert vote(np.array([[np.nextafter(0.5, 1), 0.4]])).branch.tolist() == [0]


def test_an_abstaining_team_is_confident_of_its_votes_all_the_same() -> None:
    verdicts = vote(np.array([[0.9, 0.8], [0.1, 0.2]]))
    assert verdicts.branch.tolist() == [ABSTAIN, ABSTAIN]
    assert verdicts.confidence == pytest.approx([0.72, 0.72])


def test_the_product_is_the_default() -> None:
    prob = np.array([[0.9, 0.2, 0.3]])
    assert vote(prob).confidence == pytest.approx([0.9 * 0.8 * 0.7])


def test_float32_is_taken() -> None:
    prob = np.array([[0.9, 0.2]], dtype=np.float32)
    assert vote(prob).confidence.dtype == np.float64
    assert vote(prob).confidence == pytest.approx([0.72], rel=1e-6)


@pytest.mark.parametrize("joint", JOINTS)
def test_no_crops_no_verdicts(joint: str) -> None:
    verdicts = vote(np.empty((0, 3)), joint)
    assert verdicts.branch.shape == verdicts.confidence.shape == (0,)


@pytest.mark.parametrize("shape", [(), (3,), (4, 0), (4, 1), (2, 3, 2)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected .*2 or more.*got \(") as caught:
        vote(np.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("bad", [-1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1.*NaN"):
        vote(np.array([[0.2, 0.4], [0.3, bad]]))


@pytest.mark.parametrize("crops", [0, 1])
def test_an_unknown_joint_is_answered_by_the_known_ones(crops: int) -> None:
    with pytest.raises(ValueError, match=r"'median'.*product, min, mean"):
        vote(np.zeros((crops, 2)), "median")
