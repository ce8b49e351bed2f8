"""Temperatures, reliability, risk and coverage: against definitions, and the promise of thresholds.

The promise is simulated where it is likeliest to break: errors at or near the risk asked for. The
share of broken promises is compared with what is allowed plus a tolerance of its own: the count
that a method at exactly the allowed error exceeds once in 10,000 (``_limit``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta, binom
from torchmetrics.functional.classification import binary_calibration_error

from collabteam.labelling.calibration import (
    COOLEST,
    EDGE,
    FEWEST,
    HOTTEST,
    apply_temperatures,
    expected_calibration_error,
    fit_temperatures,
    reliability,
    risk_coverage,
    risk_thresholds,
)
from collabteam.team.votes.consensus import Consensus
from collabteam.team.voting import ABSTAIN, Verdicts

Floats = NDArray[np.float64]

ONE = st.one_of(
    st.sampled_from([0.0, 1e-300, 0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0), 1.0]),
    st.floats(0, 1),
)
TEAMS = hnp.arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(2, 4)), elements=ONE)
HEAT = st.floats(COOLEST, HOTTEST)


def _limit(trials: int, alpha: float) -> float:
    return float(binom.ppf(1 - 1e-4, trials, alpha))


# -- temperatures ----------------------------------------------------------------------------------


def _loss(prob: Floats, true: NDArray[np.bool_]) -> float:
    prob = prob.clip(1e-300, 1 - 1e-16)
    return float(-np.mean(np.where(true, np.log(prob), np.log1p(-prob))))


def _drawn(temperatures: list[float], crops: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities and labels that ask for roughly these temperatures.

    Only roughly: a crop of two classes or more becomes one of none, as labels name one at most.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (crops, len(temperatures)))
    true = rng.random(logits.shape) < expit(logits / np.array(temperatures))
    labels = np.where(true.sum(axis=1) == 1, true.argmax(axis=1), -1)
    return expit(logits), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20_000)
    true = rng.random(20_000) < expit(logits / temperature)
    prob = np.column_stack([expit(logits), np.full(20_000, 0.5)])
    fitted = fit_temperatures(prob, np.where(true, 0, -1))
    assert fitted[0] == pytest.approx(temperature, rel=0.05)
    calibrated = apply_temperatures(prob, fitted)[:, 0]
    before = expected_calibration_error(prob[:, 0], true)
    after = expected_calibration_error(calibrated, true)
    assert before is not None
    assert after is not None
    assert after < 0.015
    assert after <= before + 0.005


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 120), st.lists(HEAT, min_size=2, max_size=3))
def test_no_other_temperature_is_likelier(seed: int, crops: int, heat: list[float]) -> None:
    prob, labels = _drawn(heat, crops, seed)
    fitted = fit_temperatures(prob, labels)
    assert fitted.shape == (len(heat),)
    assert ((fitted >= COOLEST) & (fitted <= HOTTEST)).all()
    others = np.geomspace(COOLEST, HOTTEST, 60)
    for branch, own in enumerate(fitted):
        true, logits = labels == branch, logit(prob[:, branch].clip(EDGE, 1 - EDGE))
        if min(true.sum(), (~true).sum()) < FEWEST or ((prob[:, branch] > 0.5) == true).all():
            assert own == 1.0
            continue
        loss = _loss(expit(logits / own), true)
        assert loss <= min(_loss(expit(logits / other), true) for other in others) + 1e-9
        assert loss <= _loss(expit(logits), true) + 1e-9


@pytest.mark.parametrize("crops", [0, 1, FEWEST - 1])
def test_few_crops_of_a_side_change_nothing(crops: int) -> None:
    rng = np.random.default_rng(2)
    prob = rng.random((500, 2))
    labels = np.full(500, -1)
    labels[:crops] = 0
    assert fit_temperatures(prob, labels).tolist() == [1.0, 1.0]
    labels = np.zeros(500, dtype=np.int64)
    assert fit_temperatures(prob, labels)[0] == 1.0  # nothing but true
    assert fit_temperatures(np.empty((0, 3)), np.empty(0, dtype=np.int64)).tolist() == [1.0] * 3


def test_who_is_always_right_is_left_alone_and_who_is_always_wrong_is_not() -> None:
    labels = np.arange(60) % 2
    right = np.where(labels[:, None] == [0, 1], 0.7, 0.3)
    assert fit_temperatures(right, labels).tolist() == [1.0, 1.0]
    assert fit_temperatures(1 - right, labels).tolist() == [HOTTEST, HOTTEST]
    # One error in three hundred: surer than it said, but only as far as the range goes.
    labels = np.arange(300) % 2
    nearly = np.where(labels[:, None] == [0, 1], 0.6, 0.4)
    nearly[0] = [0.45, 0.55]
    assert fit_temperatures(nearly, labels).tolist() == [COOLEST, COOLEST]


def test_certain_and_wrong_is_borne() -> None:
    """One crop at exactly 0 that is true would have infinite loss at any temperature."""
    prob, labels = _drawn([1.0, 1.0], 400, 3)
    prob[0], labels[0] = [0.0, 1.0], 0
    fitted = fit_temperatures(prob, labels)
    assert np.isfinite(fitted).all()
    assert (fitted > 1).all()


@settings(deadline=None)
@given(TEAMS, st.lists(HEAT, min_size=4, max_size=4))
def test_no_vote_changes(prob: Floats, heat: list[float]) -> None:
    temperatures = np.array(heat[: prob.shape[1]])
    calibrated = apply_temperatures(prob, temperatures)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    np.testing.assert_array_equal(calibrated > 0.5, prob > 0.5)
    np.testing.assert_array_equal(
        Consensus().vote(calibrated).branch, Consensus().vote(prob).branch
    )
    for branch in range(prob.shape[1]):
        order = np.argsort(prob[:, branch])
        assert (np.diff(calibrated[order, branch]) >= -1e-15).all()


@given(TEAMS)
def test_a_temperature_of_one_changes_nothing(prob: Floats) -> None:
    np.testing.assert_array_equal(apply_temperatures(prob, np.ones(prob.shape[1])), prob)


def test_hot_is_less_sure_and_cool_is_surer() -> None:
    prob = np.array([[0.9, 0.9], [0.2, 0.2]])
    hot, cool = apply_temperatures(prob, np.array([2.0, 0.5])).T
    assert hot == pytest.approx([0.75, 1 / 3])
    assert cool == pytest.approx([81 / 82, 1 / 17])


@pytest.mark.parametrize("heat", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_what_is_no_temperature_is_refused(heat: list[float]) -> None:
    with pytest.raises(ValueError, match="expected temperatures"):
        apply_temperatures(np.full((3, 2), 0.5), np.array(heat))


def test_what_is_no_probability_is_refused() -> None:
    labels = np.zeros(1, dtype=np.int64)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            fit_temperatures(np.array([[0.5, bad]]), labels)
        with pytest.raises(ValueError, match="from 0 to 1"):
            reliability(np.array([bad]), np.array([True]))
    with pytest.raises(ValueError, match=r"labels of shape \(1,\), got \(2,\)"):
        fit_temperatures(np.array([[0.5, 0.5]]), np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="2 dimensions"):
        fit_temperatures(np.array([0.5]), labels)
    with pytest.raises(ValueError, match=r"truths of shape \(1,\), got \(2,\)"):
        reliability(np.array([0.5]), np.array([True, False]))
    with pytest.raises(ValueError, match="bins=0"):
        reliability(np.array([0.5]), np.array([True]), 0)


# -- reliability -----------------------------------------------------------------------------------

SAID = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.booleans()))


@given(SAID, st.integers(1, 12))
def test_reliability_is_what_counting_gives(said: list[tuple[float, bool]], bins: int) -> None:
    prob = np.array([p for p, _ in said], dtype=np.float64)
    found = reliability(prob, np.array([true for _, true in said], dtype=bool), bins)
    assert found.count.sum() == len(said)
    edges = found.edges.tolist()
    gaps = []
    for place in range(bins):
        held = [
            (p, true)
            for p, true in said
            if edges[place] <= p and (p < edges[place + 1] or place == bins - 1)
        ]
        assert found.count[place] == len(held)
        if not held:
            assert math.isnan(found.confidence[place])
            assert math.isnan(found.share[place])
            continue
        mean = sum(p for p, _ in held) / len(held)
        share = sum(true for _, true in held) / len(held)
        assert found.confidence[place] == pytest.approx(mean, abs=1e-12)
        assert found.share[place] == pytest.approx(share)
        gaps.append(len(held) * abs(mean - share))
    error = expected_calibration_error(prob, np.array([t for _, t in said], dtype=bool), bins)
    if said:
        assert error == pytest.approx(sum(gaps) / len(said), abs=1e-12)
    else:
        assert error is None


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(4)
    prob = rng.random(3000)
    true = rng.random(3000) < prob**2
    theirs = binary_calibration_error(
        torch.from_numpy(prob), torch.from_numpy(true).long(), n_bins=15, norm="l1"
    )
    assert expected_calibration_error(prob, true, 15) == pytest.approx(float(theirs), abs=1e-6)


# -- risk and coverage -----------------------------------------------------------------------------

JUDGED = st.lists(
    st.tuples(
        st.integers(ABSTAIN, 2),
        st.integers(-1, 2),
        st.sampled_from([0.5, 0.7, 0.9]) | st.floats(0.125, 1),
    ),
    min_size=1,
    max_size=40,
)


def _judged(rows: list[tuple[int, int, float]]) -> tuple[Verdicts, NDArray[np.int64]]:
    branch, labels, confidence = zip(*rows, strict=True)
    return Verdicts(np.array(branch), np.array(confidence, dtype=np.float64)), np.array(labels)


@given(JUDGED, st.randoms(use_true_random=False))
def test_the_curve_is_what_counting_gives(
    rows: list[tuple[int, int, float]], random: object
) -> None:
    curve = risk_coverage(*_judged(rows))
    decided = [(b, label, c) for b, label, c in rows if b != ABSTAIN]
    assert curve.threshold.tolist() == sorted({c for *_, c in decided}, reverse=True)
    area, before = 0.0, 0.0
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        taken = [(b, label) for b, label, c in decided if c >= threshold]
        assert coverage == pytest.approx(len(taken) / len(rows))
        assert risk == pytest.approx(sum(b != label for b, label in taken) / len(taken))
        area += risk * (coverage - before)
        before = coverage
    assert curve.area == pytest.approx(area, abs=1e-12)
    assert before == pytest.approx(len(decided) / len(rows))  # ends where consensus ends

    random.shuffle(rows)  # type: ignore[attr-defined]
    again = risk_coverage(*_judged(rows))
    np.testing.assert_array_equal(again.risk, curve.risk)
    assert again.area == curve.area


def test_the_area_without_ties_is_the_mean_over_the_ranks() -> None:
    rng = np.random.default_rng(5)
    wrong = rng.random(200) < 0.2
    verdicts = Verdicts(np.zeros(200, dtype=np.int64), rng.permutation(np.linspace(0.2, 0.9, 200)))
    ranked = wrong[np.argsort(-verdicts.confidence)]
    area = np.mean(np.cumsum(ranked) / np.arange(1, 201))
    assert risk_coverage(verdicts, wrong.astype(np.int64)).area == pytest.approx(area)


def test_a_team_without_consensus_has_no_curve() -> None:
    curve = risk_coverage(*_judged([(ABSTAIN, 0, 0.9)]))
    assert (curve.threshold.size, curve.coverage.size, curve.risk.size, curve.area) == (0, 0, 0, 0)
    nobody = Verdicts(np.empty(0, dtype=np.int64), np.empty(0))
    assert risk_coverage(nobody, np.empty(0, dtype=np.int64)).area == 0
    with pytest.raises(ValueError, match=r"labels of shape \(0,\), got \(1,\)"):
        risk_coverage(nobody, np.zeros(1, dtype=np.int64))


# -- thresholds ------------------------------------------------------------------------------------


def _team(
    confidence: Floats, wrong: NDArray[np.bool_], classes: int = 1
) -> tuple[Verdicts, NDArray[np.int64]]:
    """Verdicts that take the classes in turn; a wrong one shows an object of no class."""
    branch = np.arange(len(confidence)) % classes
    return Verdicts(branch, confidence), np.where(wrong, -1, branch)


def test_a_threshold_by_hand() -> None:
    """Of 200 crops the surest 140 are right, then every fourth is wrong."""
    confidence = np.linspace(1, 0.5, 200)
    wrong = (np.arange(200) >= 140) & (np.arange(200) % 4 == 0)
    (found,) = risk_thresholds(*_team(confidence, wrong), np.arange(200), 1)
    # 160 crops with 5 errors pass no more, 140 without any do.
    assert (found.crops, found.errors) == (140, 0)
    assert found.threshold == confidence[139]
    assert found.bound == pytest.approx(1 - 0.025 ** (1 / 140))
    assert binom.cdf(5, 160, 0.05) > 0.025


def test_ties_are_released_together() -> None:
    confidence = np.repeat([0.9, 0.8], 100)
    wrong = np.zeros(200, dtype=bool)
    wrong[100:130] = True
    (found,) = risk_thresholds(*_team(confidence, wrong), np.arange(200), 1, steps=20)
    assert (found.threshold, found.crops, found.errors) == (0.9, 100, 0)


def test_too_few_crops_release_nothing() -> None:
    for crops in (0, 1, 71):
        found = risk_thresholds(
            *_team(np.ones(crops), np.zeros(crops, dtype=bool)), np.arange(crops), 1
        )
        assert found[0].threshold == math.inf
        assert (found[0].crops, found[0].errors) == (crops, 0)
        assert found[0].bound == pytest.approx(1 - 0.025 ** (1 / crops) if crops else 1.0)
    (enough,) = risk_thresholds(*_team(np.ones(72), np.zeros(72, dtype=bool)), np.arange(72), 1)
    assert (enough.threshold, enough.crops) == (1.0, 72)


def test_classes_share_the_error_and_a_track_counts_once() -> None:
    confidence = np.full(600, 0.9)
    clear = np.zeros(600, dtype=bool)
    verdicts, labels = _team(confidence, clear, classes=3)
    alone = risk_thresholds(verdicts, labels, np.arange(600), 3)
    assert [found.crops for found in alone] == [200] * 3
    assert alone[0].bound == pytest.approx(1 - (0.05 / 6) ** (1 / 200))
    # 20 crops a track: 30 tracks, each with crops of every class.
    tracked = risk_thresholds(verdicts, labels, np.arange(600) // 20, 3)
    assert [found.crops for found in tracked] == [30] * 3
    assert [found.threshold for found in tracked] == [math.inf] * 3


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(0, 400),
    st.integers(1, 3),
    st.sampled_from([0.02, 0.1, 0.3]),
    st.sampled_from([0.8, 0.95]),
    st.integers(1, 20),
)
def test_thresholds_keep_to_their_definition(
    seed: int, crops: int, classes: int, risk: float, confidence: float, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    sure = rng.random(crops).round(2)
    verdicts, labels = _team(sure, rng.random(crops) < (1 - sure) * rng.random(), classes)
    abstains = rng.random(crops) < 0.1
    verdicts = Verdicts(np.where(abstains, ABSTAIN, verdicts.branch), sure)
    tracks = rng.integers(0, max(1, crops), crops)
    found = risk_thresholds(verdicts, labels, tracks, classes, risk, confidence, seed, steps)
    again = risk_thresholds(verdicts, labels, tracks, classes, risk, confidence, seed, steps)
    assert found == again
    assert len(found) == classes
    alpha = (1 - confidence) / classes / 2
    for branch, one in enumerate(found):
        own = verdicts.branch == branch
        if one.threshold == math.inf:
            assert one.crops == len(np.unique(tracks[own]))
            continue
        above = own & (sure >= one.threshold)
        assert one.threshold in sure[own]
        assert one.crops <= len(np.unique(tracks[above]))
        assert binom.cdf(one.errors, one.crops, risk) <= alpha + 1e-12
        upper = beta.ppf(1 - alpha, one.errors + 1, one.crops - one.errors)
        assert one.bound == pytest.approx(upper)
        assert one.bound <= risk + 1e-9


def test_arguments_out_of_range_are_refused() -> None:
    verdicts, labels = _team(np.ones(3), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="expected 3 tracks, got 2"):
        risk_thresholds(verdicts, labels, [1, 2], 1)
    with pytest.raises(ValueError, match="risk=0"):
        risk_thresholds(verdicts, labels, [1, 2, 3], 1, risk=0)
    with pytest.raises(ValueError, match="confidence=1"):
        risk_thresholds(verdicts, labels, [1, 2, 3], 1, confidence=1)
    with pytest.raises(ValueError, match="steps=0"):
        risk_thresholds(verdicts, labels, [1, 2, 3], 1, steps=0)
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        risk_thresholds(verdicts, labels[:2], [1, 2], 1)


def test_one_error_at_the_top_does_not_end_a_good_team() -> None:
    """Why there is a second way: the surest hundred with two errors pass at no level."""
    confidence = np.linspace(1, 0.5, 1000)
    wrong = np.isin(np.arange(1000), [0, 1])
    (found,) = risk_thresholds(*_team(confidence, wrong), np.arange(1000), 1)
    assert binom.cdf(2, 100, 0.05) > 0.05
    assert (found.threshold, found.crops, found.errors) == (0.5, 1000, 2)


# -- the promise, simulated ------------------------------------------------------------------------

RISK = 0.1
FINE = np.linspace(0, 1, 100_001)

ERRORS: dict[str, Callable[[Floats], Floats]] = {
    # Chance of error at a confidence; confidences are spread evenly over 0 to 1.
    "just too many everywhere": lambda sure: np.full_like(sure, RISK + 1e-4),
    "too many below 0.55": lambda sure: np.where(sure >= 0.55, RISK - 1e-4, 0.3),
    "none and then all": lambda sure: (sure < 0.55).astype(np.float64),
    "falling": lambda sure: 0.4 * (1 - sure),
    "falling late": lambda sure: np.minimum(0.25, 4 * (1 - sure) ** 2),
    "most where it is surest": lambda sure: np.where(sure > 0.8, 0.13, 0.08),
    "least in the middle": lambda sure: 0.07 + 0.6 * (sure - 0.6) ** 2,
}


def _true_risk(error: Callable[[Floats], Floats]) -> Callable[[float], float]:
    """Share of wrong labels among all crops at or above a threshold."""
    at = error(FINE)
    tail = np.cumsum(at[::-1])[::-1] / np.arange(len(FINE), 0, -1)
    return lambda threshold: float(np.interp(threshold, FINE, tail))


@pytest.mark.parametrize("name", ERRORS)
def test_released_labels_keep_the_risk(name: str) -> None:
    error, rng = ERRORS[name], np.random.default_rng(9)
    true_risk = _true_risk(error)
    trials, broken, released = 4000, 0, 0
    tracks = np.arange(400)
    for trial in range(trials):
        sure = rng.random(400)
        verdicts, labels = _team(sure, rng.random(400) < error(sure))
        (found,) = risk_thresholds(verdicts, labels, tracks, 1, RISK, seed=trial)
        released += found.threshold < math.inf
        broken += found.threshold < math.inf and true_risk(found.threshold) > RISK
    assert broken <= _limit(trials, 0.05)
    if "falling" in name or "none" in name:
        assert released > 0.4 * trials  # and not by releasing nothing


@pytest.mark.parametrize("classes", [1, 4])
def test_classes_and_tracks_keep_the_promise_together(classes: int) -> None:
    """Every class just too wrong; up to eight crops of a track, right or wrong together."""
    rng = np.random.default_rng(10)
    objects = 120 * classes
    trials, broken = 2000, 0
    for trial in range(trials):
        tracks = np.repeat(np.arange(objects), rng.integers(1, 9, objects))
        sure = rng.random(len(tracks))
        wrong = (rng.random(objects) < RISK + 1e-4)[tracks]
        branch = tracks % classes
        verdicts, labels = Verdicts(branch, sure), np.where(wrong, -1, branch)
        found = risk_thresholds(verdicts, labels, tracks, classes, RISK, seed=trial)
        broken += any(one.threshold < math.inf for one in found)
    assert broken <= _limit(trials, 0.05)


def test_without_regard_to_tracks_the_promise_would_break() -> None:
    """Why one crop of a track: eight that are wrong together look like eight proofs."""
    rng = np.random.default_rng(11)
    broken = 0
    for _ in range(300):
        wrong = np.repeat(rng.random(50) < RISK + 1e-4, 8)
        verdicts, labels = _team(np.repeat(rng.random(50), 8), wrong)
        (found,) = risk_thresholds(verdicts, labels, np.arange(400), 1, RISK)
        broken += found.threshold < math.inf
    assert broken > 0.1 * 300
