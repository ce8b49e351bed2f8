"""The crops of one track speak with one voice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collabteam.team.votes.consensus import Consensus
from collabteam.team.votes.margin import Margin
from collabteam.team.voting import ABSTAIN, combine_tracks

POLICY = Consensus()

PROBS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.integers(2, 4)), elements=st.floats(0, 1)
)


@settings(deadline=None)
@given(PROBS, st.data())
def test_a_track_has_one_voice_and_a_lone_crop_its_own(
    prob: np.ndarray, data: st.DataObject
) -> None:
    tracks = np.array(
        data.draw(st.lists(st.integers(0, 4), min_size=len(prob), max_size=len(prob)))
    )
    rho = data.draw(st.floats(0, 1))
    together, conflict = combine_tracks(prob, tracks, rho, POLICY)
    assert together.shape == prob.shape
    assert ((together >= 0) & (together <= 1)).all()
    own = POLICY.vote(prob).branch
    for track in np.unique(tracks):
        here = np.flatnonzero(tracks == track)
        assert (together[here] == together[here[0]]).all()
        claimed = set(own[here].tolist()) - {ABSTAIN}
        assert conflict[here].tolist() == [len(claimed) > 1] * len(here)
        if len(here) == 1:
            assert (together[here] == prob[here]).all()
    # Nothing depends on the order of the crops.
    order = np.array(data.draw(st.permutations(range(len(prob)))))
    again, disputed = combine_tracks(prob[order], tracks[order], rho, POLICY)
    np.testing.assert_allclose(again, together[order], atol=1e-12)
    assert (disputed == conflict[order]).all()


@settings(deadline=None)
@given(st.floats(0.51, 0.98), st.floats(0.02, 0.49), st.integers(2, 6), st.floats(0, 0.95))
def test_agreeing_votes_strengthen(high: float, low: float, count: int, rho: float) -> None:
    prob = np.tile([[high, low]], (count, 1))
    together, conflict = combine_tracks(prob, np.zeros(count, dtype=np.int64), rho, POLICY)
    assert not conflict.any()
    assert POLICY.vote(together).branch[0] == 0
    assert POLICY.vote(together).confidence[0] > POLICY.vote(prob).confidence[0]
    # Not at all if the crops are copies of each other.
    same, _ = combine_tracks(prob, np.zeros(count, dtype=np.int64), 1.0, POLICY)
    np.testing.assert_allclose(same, prob, atol=1e-9)


def test_evidence_adds_up_as_log_odds() -> None:
    prob = np.array([[0.8, 0.4], [0.6, 0.1], [0.3, 0.2]])
    together, conflict = combine_tracks(prob, np.zeros(3, dtype=np.int64), 0.5, POLICY)
    odds = np.log(prob / (1 - prob)).sum(axis=0) / 2  # 1 + (3 - 1) / 2
    np.testing.assert_allclose(together[0], 1 / (1 + np.exp(-odds)))
    assert not conflict.any()  # the third crop abstains, which contradicts nobody


def test_two_claims_are_a_conflict_however_sure_one_is() -> None:
    prob = np.array([[1.0, 0.0], [0.4, 0.51]])
    _, conflict = combine_tracks(prob, np.array([0, 0]), 0.5, POLICY)
    assert conflict.all()


def test_the_policy_decides_what_contradicts() -> None:
    prob, tracks = np.array([[0.9, 0.1], [0.55, 0.6]]), np.array([0, 0])
    assert not combine_tracks(prob, tracks, 0.5, Consensus())[1].any()  # the second abstains
    prob[1, 0] = 0.45
    assert combine_tracks(prob, tracks, 0.5, Consensus())[1].all()
    assert not combine_tracks(prob, tracks, 0.5, Margin())[1].any()  # a close call


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 tracks"):
        combine_tracks(np.full((2, 2), 0.5), np.zeros(3, dtype=np.int64), 0.5, POLICY)
    with pytest.raises(ValueError, match="0 to 1"):
        combine_tracks(np.array([[2.0, 0.1]]), np.zeros(1, dtype=np.int64), 0.5, POLICY)
    empty, conflict = combine_tracks(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), 0.5, POLICY)
    assert empty.shape == (0, 2)
    assert conflict.shape == (0,)
