"""The arithmetic of the reports, against naive counting and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from torchmetrics.functional.classification import multiclass_recall

from collabteam.rounds.evaluation import (
    balanced,
    branch_recall,
    consensus_accuracy,
    coverage,
    expected_precision,
    mean_recall,
    pool_weights,
    wilson_interval,
)
from collabteam.rounds.selection_rules.quantile import Quantile
from collabteam.team.votes.consensus import Consensus
from collabteam.team.voting import ABSTAIN, Verdicts

NAMES = ["walker", "cyclist", "rider"]
ONE = st.sampled_from([0.1, 0.5, 0.6]) | st.floats(0, 1)
CROPS = st.lists(st.tuples(st.integers(-1, 2), st.tuples(ONE, ONE, ONE)), max_size=40)


def _arrays(
    crops: list[tuple[int, tuple[float, ...]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    prob = np.array([prob for _, prob in crops], dtype=np.float64).reshape(-1, 3)
    return prob, np.array([label for label, _ in crops], dtype=np.int64)


@settings(deadline=None)
@given(CROPS)
def test_recall_is_what_counting_gives(crops: list[tuple[int, tuple[float, ...]]]) -> None:
    recall = branch_recall(*_arrays(crops), NAMES)
    assert list(recall) == NAMES
    for branch, name in enumerate(NAMES):
        true = [prob[branch] > 0.5 for label, prob in crops if label == branch]
        false = [prob[branch] <= 0.5 for label, prob in crops if label != branch]
        for side, right in (("true", true), ("false", false)):
            if right:
                assert recall[name][side] == pytest.approx(sum(right) / len(right))
            else:
                assert recall[name][side] is None


def test_recall_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    labels, prob = rng.integers(-1, 3, 200), rng.random((200, 3))
    recall = branch_recall(prob, labels, NAMES)
    for branch, name in enumerate(NAMES):
        of_false, of_true = multiclass_recall(
            torch.from_numpy(prob[:, branch] > 0.5).long(),
            torch.from_numpy(labels == branch).long(),
            num_classes=2,
            average="none",
        ).tolist()
        assert recall[name]["true"] == pytest.approx(of_true, abs=1e-6)
        assert recall[name]["false"] == pytest.approx(of_false, abs=1e-6)


def test_a_mean_is_over_the_folds_that_have_a_figure() -> None:
    folds = [
        {"a": {"true": 0.5, "false": None}},
        {"a": {"true": None, "false": None}},
        {"a": {"true": 1.0, "false": None}},
    ]
    assert mean_recall(folds) == {"a": {"true": 0.75, "false": None}}


def test_a_missing_side_counts_as_nothing_when_folds_compete() -> None:
    assert balanced({"true": 0.8, "false": 0.6}) == pytest.approx(0.7)
    assert balanced({"true": None, "false": 1.0}) == 0.5
    assert balanced({"true": None, "false": None}) == 0.0


def test_coverage_is_the_share_with_a_consensus() -> None:
    verdicts = Verdicts(np.array([0, ABSTAIN, 2, ABSTAIN]), np.full(4, 0.9))
    assert coverage(verdicts) == 0.5
    assert coverage(Consensus().vote(np.empty((0, 2)))) is None


def test_accuracy_counts_decided_crops_alone_and_strangers_as_wrong() -> None:
    verdicts = Verdicts(np.array([0, 1, 1, ABSTAIN, ABSTAIN]), np.full(5, 0.9))
    # The third is an object of no class: any consensus on it is wrong; abstaining is not scored.
    assert consensus_accuracy(verdicts, np.array([0, 1, -1, -1, 0])) == pytest.approx(2 / 3)
    nobody = Verdicts(np.full(2, ABSTAIN), np.full(2, 0.9))
    assert consensus_accuracy(nobody, np.array([-1, 0])) is None


@settings(deadline=None)
@given(CROPS, st.sampled_from(["product", "min", "mean"]), st.sampled_from([0.0, 0.5, 0.75]))
def test_expected_precision_judges_the_very_candidates(
    crops: list[tuple[int, tuple[float, ...]]], joint: str, quantile: float
) -> None:
    prob, labels = _arrays(crops)
    policy, rule = Consensus(joint=joint), Quantile(quantile=quantile)
    estimates = expected_precision(prob, labels, 3, policy, rule)
    assert len(estimates) == 3
    for branch, (share, count) in enumerate(estimates):
        positions = rule.candidates(policy.vote(prob), branch)
        assert count == len(positions)
        if count:
            right = sum(labels[position] == branch for position in positions)
            assert share == pytest.approx(right / count)
        else:
            assert share is None


def test_expected_precision_counts_strangers_as_wrong() -> None:
    prob = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    (share, count), nothing = expected_precision(
        prob, np.array([0, -1, 0]), 2, Consensus(), Quantile(quantile=0.5)
    )
    assert (share, count) == (0.5, 2)
    assert nothing == (None, 0)


@settings(deadline=None)
@given(CROPS, st.lists(st.floats(0, 9), min_size=40, max_size=40))
def test_a_weighted_estimate_counts_a_crop_as_often_as_it_weighs(
    crops: list[tuple[int, tuple[float, ...]]], drawn: list[float]
) -> None:
    prob, labels = _arrays(crops)
    weights = np.array(drawn[: len(crops)])
    if not weights.sum() > 0:
        return
    policy, rule = Consensus(), Quantile(quantile=0.0)
    verdicts = policy.vote(prob)
    estimates = expected_precision(prob, labels, 3, policy, rule, weights)
    for branch, (share, count) in enumerate(estimates):
        mine = verdicts.branch == branch
        # A crop has 16 times its weight in copies, less than one more or fewer.
        copies, room = 16 * weights / weights.mean(), int(mine.sum())
        right, all_of_it = copies[mine & (labels == branch)].sum(), copies[mine].sum()
        if share is None:
            assert all_of_it <= room
        else:
            assert 0 < count <= room
            assert abs(share * all_of_it - right) <= 2 * room


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_crops_stand_for_all_of_the_pool_in_their_strata(drawn: list[int], pool: list[int]) -> None:
    weights = pool_weights(np.array(drawn, np.int64), np.array(pool, np.int64))
    for stratum in set(drawn):
        mine = weights[np.array(drawn) == stratum]
        assert mine.sum() == pytest.approx(pool.count(stratum))
        assert len(set(mine)) == 1


def test_many_strangers_in_the_pool_lower_the_estimate() -> None:
    prob = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 9 + [-1])
    weights = pool_weights(np.where(labels < 0, 1, 0), np.array([0] * 50 + [1] * 50))
    rule = Quantile(quantile=0.0)
    (plain, _), _ = expected_precision(prob, labels, 2, Consensus(), rule)
    (counted, crops), _ = expected_precision(prob, labels, 2, Consensus(), rule, weights)
    assert plain == 0.9
    assert counted == pytest.approx(0.5, abs=0.03)
    assert crops == 10


@given(st.lists(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))))
def test_wilson_is_that_of_scipy(drawn: list[tuple[int, int]]) -> None:
    right, count = np.array(drawn, dtype=np.float64).reshape(-1, 2).T
    low, high = wilson_interval(right / count, count)
    assert len(low) == len(high) == len(drawn)
    for (k, n), one, other in zip(drawn, low, high, strict=True):
        known = binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert one == pytest.approx(known.low, abs=1e-6)
        assert other == pytest.approx(known.high, abs=1e-6)
        assert 0 <= one <= other <= 1


def test_wilson_without_observations_knows_nothing() -> None:
    low, high = wilson_interval(np.array([0.9]), np.array([0]))
    assert (low[0], high[0]) == (0, 1)


def test_wilson_on_a_published_example() -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I."""
    right, count = np.array([81, 15, 1]), np.array([263, 148, 29])
    low, _ = wilson_interval(right / count, count)
    assert low == pytest.approx([0.2553, 0.0624, 0.0061], abs=5e-5)
