"""Vote policies and joint confidences, against their definitions in plain Python."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from collabteam.team.votes.consensus import Consensus
from collabteam.team.votes.margin import Margin
from collabteam.team.voting import ABSTAIN, JOINTS, VotePolicy, policy_from_record

Probabilities = NDArray[np.float64]

# One half is where a vote tips, so it must come up often.
ONE = st.one_of(st.sampled_from([0.0, 0.5, np.nextafter(0.5, 1), 1.0]), st.floats(0, 1))
TEAMS = hnp.arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(2, 6)), elements=ONE)
NAIVE = {"product": math.prod, "min": min, "mean": lambda votes: sum(votes) / len(votes)}


@settings(deadline=None)
@given(TEAMS, st.sampled_from([*JOINTS]))
def test_verdicts_are_those_of_the_definition(prob: Probabilities, joint: str) -> None:
    verdicts = Consensus(joint=joint).vote(prob)
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
        confidence = Consensus(joint=joint).vote(prob).confidence
        assert (confidence >= least).all()
        assert (confidence <= 1).all()


@given(TEAMS, st.sampled_from([*JOINTS]), st.randoms(use_true_random=False))
def test_order_of_branches_is_only_a_name(prob: Probabilities, joint: str, random: Any) -> None:
    order = list(range(prob.shape[1]))
    random.shuffle(order)
    before, after = Consensus(joint=joint).vote(prob), Consensus(joint=joint).vote(prob[:, order])
    named = np.array([*order, ABSTAIN])[after.branch]  # -1 reads the last entry
    np.testing.assert_array_equal(named, before.branch)
    np.testing.assert_allclose(after.confidence, before.confidence, rtol=1e-12)


@given(TEAMS, st.sampled_from([*JOINTS]), st.randoms(use_true_random=False))
def test_each_crop_is_judged_alone(prob: Probabilities, joint: str, random: Any) -> None:
    order = list(range(len(prob)))
    random.shuffle(order)
    before, after = Consensus(joint=joint).vote(prob), Consensus(joint=joint).vote(prob[order])
    np.testing.assert_array_equal(after.branch, before.branch[order])
    np.testing.assert_array_equal(after.confidence, before.confidence[order])


def test_one_half_is_false() -> None:
    assert Consensus().vote(np.array([[0.5, 0.9]])).branch.tolist() == [1]
    assert Consensus().vote(np.array([[0.5, 0.4]])).branch.tolist() == [ABSTAIN]
    assert Consensus().vote(np.array([[np.nextafter(0.5, 1), 0.4]])).branch.tolist() == [0]


def test_an_abstaining_team_is_confident_of_its_votes_all_the_same() -> None:
    verdicts = Consensus().vote(np.array([[0.9, 0.8], [0.1, 0.2]]))
    assert verdicts.branch.tolist() == [ABSTAIN, ABSTAIN]
    assert verdicts.confidence == pytest.approx([0.72, 0.72])


def test_the_product_is_the_default() -> None:
    prob = np.array([[0.9, 0.2, 0.3]])
    assert Consensus().vote(prob).confidence == pytest.approx([0.9 * 0.8 * 0.7])


def test_float32_is_taken() -> None:
    prob = np.array([[0.9, 0.2]], dtype=np.float32)
    assert Consensus().vote(prob).confidence.dtype == np.float64
    assert Consensus().vote(prob).confidence == pytest.approx([0.72], rel=1e-6)


@pytest.mark.parametrize("joint", JOINTS)
def test_no_crops_no_verdicts(joint: str) -> None:
    verdicts = Consensus(joint=joint).vote(np.empty((0, 3)))
    assert verdicts.branch.shape == verdicts.confidence.shape == (0,)


@pytest.mark.parametrize("shape", [(), (3,), (4, 0), (4, 1), (2, 3, 2)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected .*2 or more.*got \(") as caught:
        Consensus().vote(np.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("bad", [-1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1.*NaN"):
        Consensus().vote(np.array([[0.2, 0.4], [0.3, bad]]))


def test_an_unknown_joint_is_answered_by_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'median'.*product, min, mean"):
        Consensus(joint="median")


@settings(deadline=None)
@given(TEAMS, st.floats(0, 0.9), st.sampled_from([*JOINTS]))
def test_the_margin_is_that_of_the_definition(
    prob: Probabilities, margin: float, joint: str
) -> None:
    verdicts = Margin(Margin.Settings(margin), joint).vote(prob)
    for crop, row in enumerate(prob.tolist()):
        second, first = sorted(row)[-2:]
        is_ahead = first > 0.5 and first - second > margin
        assert verdicts.branch[crop] == (row.index(first) if is_ahead else ABSTAIN)
        if is_ahead:
            own = [p if branch == row.index(first) else 1 - p for branch, p in enumerate(row)]
            assert verdicts.confidence[crop] == pytest.approx(NAIVE[joint](own), rel=1e-12)


def test_a_margin_decides_where_a_consensus_does_not_and_the_other_way_round() -> None:
    prob = np.array([[0.98, 0.55], [0.52, 0.48], [0.9, 0.1]])
    assert Consensus().vote(prob).branch.tolist() == [ABSTAIN, 0, 0]
    assert Margin().vote(prob).branch.tolist() == [0, ABSTAIN, 0]


@given(TEAMS, st.lists(st.floats(0, 1) | st.just(math.inf), min_size=6, max_size=6))
def test_thresholds_only_take_verdicts_away(prob: Probabilities, least: list[float]) -> None:
    free = Consensus().vote(prob)
    limited = Consensus().with_thresholds(least[: prob.shape[1]]).vote(prob)
    for branch, confidence, found in zip(free.branch, free.confidence, limited.branch, strict=True):
        stands = branch != ABSTAIN and confidence >= least[branch]
        assert found == (branch if stands else ABSTAIN)
    np.testing.assert_array_equal(limited.confidence, free.confidence)


def test_as_many_thresholds_as_branches() -> None:
    with pytest.raises(ValueError, match="expected 2 thresholds, got 3"):
        Consensus(thresholds=[0.5] * 3).vote(np.zeros((1, 2)))


@pytest.mark.parametrize(
    "policy",
    [Consensus(joint="mean"), Margin(Margin.Settings(0.35), "min", [0.5, math.inf])],
)
def test_a_record_holds_all_of_a_policy(policy: VotePolicy) -> None:
    record = json.loads(json.dumps(policy.to_record(), allow_nan=False))
    rebuilt = policy_from_record(record)
    assert type(rebuilt) is type(policy)
    assert (rebuilt.settings, rebuilt.joint, rebuilt.thresholds) == (
        policy.settings, policy.joint, policy.thresholds
    )  # fmt: skip
