"""Calibrate a team's confidences, and choose thresholds above which its labels can be trusted.

Pure functions on numpy arrays. Shapes: N crops, B branches. Use these functions only with crops
that a person labelled and that did not train the networks that scored them (out-of-fold, or the
frozen test set): a network's confidence in its own training crops is meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, expit, logit

from collabteam.rounds.selection import Tracks, draw
from collabteam.team.voting import ABSTAIN, Verdicts

COOLEST, HOTTEST = 0.25, 4.0
"""Limits of fitted temperatures, so that a few odd crops cannot push them to an extreme."""

FEWEST = 10
"""A branch with fewer true or fewer false crops than this keeps the temperature 1."""

STARTS = 2
"""Number of starting points among the thresholds of a class; they share its error."""

EDGE = 1e-7
"""Probabilities are clipped to this distance from 0 and 1, about the precision of float32."""


@dataclass(frozen=True)
class Reliability:
    """The share of true crops by the probability that a branch gave them.

    Attributes:
        edges: (bins + 1,) edges of the bins, 0 to 1; a bin includes its lower edge, and the last
            bin its upper edge too.
        count: (bins,) crops in each bin.
        confidence: (bins,) their mean probability of *true*; NaN in an empty bin.
        share: (bins,) share of them that are true; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    share: NDArray[np.float64]


@dataclass(frozen=True)
class RiskCoverage:
    """The risk of a team's labels by the share of crops that it labels.

    Attributes:
        threshold: (T,) distinct joint confidences of crops with a consensus, descending.
        coverage: (T,) share of all crops with a consensus at or above each, 0 to 1, ascending.
        risk: (T,) share of wrong labels among those, 0 to 1.
        area: Area under the risk over the coverage (AURC), 0 to 1; 0 without consensus.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float


@dataclass(frozen=True)
class RiskThreshold:
    """The joint confidence from which the labels of one class stay within a risk.

    Attributes:
        threshold: The lowest joint confidence to release; inf to release nothing.
        crops: Number of labelled crops at or above it, at most one per track; of all such crops if
            there is no threshold.
        errors: Wrong labels among them.
        bound: Upper confidence bound of the share of wrong labels, from these crops alone and at
            the level of the tests; at most the risk if there is a threshold. The threshold was
            chosen among several, so the guarantee is the risk and not this bound. 1 without crops.
    """

    threshold: float
    crops: int
    errors: int
    bound: float


def fit_temperatures(
    prob_NB: NDArray[np.floating], labels_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fit the temperature of each branch that maximises the likelihood of the labels.

    Temperature scaling (Guo and others 2017, "On Calibration of Modern Neural Networks"), for a
    binary branch: the logit is divided by T > 0, and T minimises the mean negative log-likelihood
    of *true* and *false*. That is convex in 1 / T, so the slope's only root is the minimum. T is
    above 1 for an overconfident branch and below 1 for an underconfident one (as label smoothing
    makes it).

    A branch keeps 1.0 where the labels do not determine T: with fewer than ``FEWEST`` crops of the
    class or of others, or if it votes right on all of them, since the likelihood then grows without
    limit as T goes to 0.

    Args:
        prob_NB: (N, B) probability of *true*, 0 to 1, out of fold.
        labels_N: (N,) verified class of each crop, -1 for none of the classes.

    Returns:
        (B,) temperatures from ``COOLEST`` to ``HOTTEST``, clipped to this range.

    Raises:
        ValueError: The shapes do not match, or a probability is out of range.
    """
    prob = _probabilities(prob_NB, 2)
    if np.shape(labels_N) != prob.shape[:1]:
        raise ValueError(f"expected labels of shape ({len(prob)},), got {np.shape(labels_N)}")
    logits = logit(prob.clip(EDGE, 1 - EDGE))
    temperatures = [
        _temperature(logits[:, branch], labels_N == branch) for branch in range(prob.shape[1])
    ]
    return np.array(temperatures, dtype=np.float64)


def apply_temperatures(
    prob_NB: NDArray[np.floating], temperatures: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Divide each branch's logits by its temperature.

    No vote changes: probabilities above one half stay above it, and one half stays one half. So
    consensus and labels stay the same, and only joint confidences change. Each branch still ranks
    the crops in the same order, except those closer to 0 or 1 than ``EDGE``.

    Args:
        prob_NB: (N, B) probability of *true*, 0 to 1.
        temperatures: (B,) above 0; 1 changes nothing.

    Returns:
        (N, B) calibrated probabilities, 0 to 1.

    Raises:
        ValueError: The shapes do not match, or a probability or temperature is out of range.

    Example:
        >>> import numpy as np
        >>> prob = np.array([[0.9, 0.2], [0.5, 0.99]])
        >>> apply_temperatures(prob, np.array([2.0, 1.0])).round(3).tolist()
        [[0.75, 0.2], [0.5, 0.99]]
    """
    prob = _probabilities(prob_NB, 2)
    heat = np.asarray(temperatures, dtype=np.float64)
    if heat.shape != prob.shape[1:]:
        raise ValueError(f"expected temperatures of shape {prob.shape[1:]}, got {heat.shape}")
    if not ((heat > 0) & np.isfinite(heat)).all():
        raise ValueError(f"expected temperatures above 0, got {heat.tolist()}")
    scaled = expit(logit(prob.clip(EDGE, 1 - EDGE)) / heat)
    # Rounding could turn a vote just above one half into one half, which votes false.
    scaled = np.where(prob > 0.5, np.maximum(scaled, np.nextafter(0.5, 1)), scaled)
    return np.where(heat == 1, prob, scaled)


def reliability(
    prob_N: NDArray[np.floating], true_N: NDArray[np.bool_], bins: int = 10
) -> Reliability:
    """Sort crops into bins of equal width by probability, and find the share of true ones.

    This is the reliability diagram (DeGroot and Fienberg 1983; Niculescu-Mizil and Caruana 2005).

    Args:
        prob_N: (N,) probability of *true* of one branch, 0 to 1, or joint confidences.
        true_N: (N,) whether it was true; for joint confidences, whether the verdict was right.
        bins: Number of bins, 1 or more.

    Raises:
        ValueError: The shapes do not match, a probability is out of range, or there are no bins.

    Example:
        >>> import numpy as np
        >>> found = reliability(np.array([0.1, 0.3, 0.8]), np.array([False, True, True]), bins=2)
        >>> found.count.tolist(), found.share.tolist()
        ([2, 1], [0.5, 1.0])
    """
    prob = _probabilities(prob_N, 1)
    true = np.asarray(true_N, dtype=bool)
    if true.shape != prob.shape:
        raise ValueError(f"expected truths of shape {prob.shape}, got {true.shape}")
    if bins < 1:
        raise ValueError(f"bins={bins}: expected 1 or more")
    edges = np.linspace(0, 1, bins + 1)
    place = np.minimum(np.searchsorted(edges, prob, side="right") - 1, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=prob, minlength=bins) / count
        share = np.bincount(place, weights=true, minlength=bins) / count
    return Reliability(edges, count.astype(np.int64), confidence, share)


def expected_calibration_error(
    prob_N: NDArray[np.floating], true_N: NDArray[np.bool_], bins: int = 10
) -> float | None:
    """Compute the mean distance between probability and share of true crops over the bins.

    Bins are weighted by their crops (Naeini and others 2015; Guo and others 2017). torchmetrics has
    the same measure (``binary_calibration_error``; a test compares them), but it needs torch, which
    this module must not import.

    Args:
        prob_N: (N,) see :func:`reliability`.
        true_N: (N,) see :func:`reliability`.
        bins: Number of bins, 1 or more; torchmetrics and the paper use 15.

    Returns:
        0 to 1; None without crops.

    Raises:
        ValueError: See :func:`reliability`.
    """
    found = reliability(prob_N, true_N, bins)
    held = found.count > 0
    if not held.any():
        return None
    distance = np.abs(found.confidence - found.share)[held]
    return float(np.average(distance, weights=found.count[held]))


def risk_coverage(verdicts: Verdicts, labels: NDArray[np.int64]) -> RiskCoverage:
    """Compute risk and coverage as the threshold of the joint confidence falls.

    This is the curve of El-Yaniv and Wiener (2010), with its area after Geifman and others (2019,
    "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers"). A threshold includes all or
    none of the crops of equal confidence, so they form one point. The area is the sum of each
    point's risk times the coverage that it adds; without ties this is the usual mean over the
    ranks.

    Crops on which the team abstains get no label at any threshold, so the curve ends at the
    coverage of the consensus. A team that abstains more has a shorter curve and a smaller area:
    compare areas of teams only at equal coverage.

    Args:
        verdicts: The team's verdicts on N crops.
        labels: (N,) verified class of each crop; -1 for none of the classes, where any label is
            wrong.

    Returns:
        The curve; empty without consensus.

    Raises:
        ValueError: There are not as many labels as verdicts.

    Example:
        >>> import numpy as np
        >>> verdicts = Verdicts(np.array([0, 1, -1, 1]), np.array([0.9, 0.8, 0.99, 0.6]))
        >>> curve = risk_coverage(verdicts, np.array([0, 0, 1, 1]))
        >>> curve.coverage.tolist(), curve.risk.round(2).tolist(), round(curve.area, 3)
        ([0.25, 0.5, 0.75], [0.0, 0.5, 0.33], 0.208)
    """
    _check_labels(verdicts, labels)
    decided = np.flatnonzero(verdicts.branch != ABSTAIN)
    if not decided.size:
        nothing = np.empty(0)
        return RiskCoverage(nothing, nothing, nothing, 0.0)
    order, confidence = _by_confidence(verdicts, decided)
    wrong = np.cumsum(verdicts.branch[order] != labels[order])
    last = np.append(np.flatnonzero(np.diff(confidence)), len(order) - 1)
    coverage = (last + 1) / len(labels)
    risk = wrong[last] / (last + 1)
    area = float((risk * np.diff(coverage, prepend=0)).sum())
    return RiskCoverage(confidence[last], coverage, risk, area)


def risk_thresholds(
    verdicts: Verdicts,
    labels: NDArray[np.int64],
    tracks: Tracks,
    classes: int,
    risk: float = 0.05,
    confidence: float = 0.95,
    seed: int | Sequence[int] = 0,
    steps: int = 10,
) -> list[RiskThreshold]:
    """Find the lowest joint confidence at which the labels of each class stay within a risk.

    The function draws one crop, of any confidence, from each track to which the team gives the
    class, since crops of one track are wrong together and the test needs independent ones. The
    thresholds to try are quantiles of their confidences, so they do not depend on the labels: the
    most confident tenth, the two most confident tenths, ..., all. Tenths with too few crops to pass
    even without an error are left out. From the strictest threshold on, the exact binomial test
    tries to reject "more than ``risk`` of the labels at or above this threshold are wrong", each
    time at the same level, until it cannot (fixed-sequence testing, Bauer 1991, Statistics in
    Medicine 10, 871-890; for the choice of a threshold Angelopoulos and others 2021, "Learn then
    Test"). The strictest thresholds have the fewest crops, so a single error there can stop a good
    team early. The sequence is therefore tested a second time from the middle of the thresholds on,
    as that paper suggests, each time at half the level, and the lowest threshold reached counts.
    The error ``1 - confidence`` is divided evenly over the classes and then over the two sequences.

    The guarantee: with the given confidence, at most ``risk`` of the labels of every class are
    wrong at its threshold, among objects like the labelled ones, each represented by one crop drawn
    at random from those that have the label. The thresholds come from the same crops as the errors.
    The guarantee therefore holds as stated if more confident crops are not more often wrong, and
    otherwise for the mean chance of error at the confidences of the crops used, for which the
    binomial test is conservative (Hoeffding 1956, Annals of Mathematical Statistics 27, 713-721).
    It is about crops from the same source as the labelled ones. The pool may hold objects that no
    person has seen, so use the thresholds to choose the labels to release, and an audit to prove
    that they are right (:mod:`collabteam.audits.certificate`).

    Args:
        verdicts: The team's verdicts on N crops that a person labelled and it did not train on.
        labels: (N,) verified class of each crop, -1 for none of the classes.
        tracks: (N,) track of each crop.
        classes: Number of classes.
        risk: Tolerable share of wrong labels, above 0 and below 1.
        confidence: Confidence of the statement about all classes, above 0 and below 1.
        seed: Seed of the draw of each track's crop; each class has its own random stream.
        steps: Number of thresholds to try, 1 or more. With fewer, the first ones have more crops
            and stop less often by bad luck; with more, the lowest is found more precisely.

    Returns:
        One threshold per class.

    Raises:
        ValueError: The sequences have different lengths, or an argument is out of range.
    """
    _check_labels(verdicts, labels)
    if len(tracks) != len(labels):
        raise ValueError(f"expected {len(labels)} tracks, got {len(tracks)}")
    for name, share in (("risk", risk), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share}: expected above 0 and below 1")
    if classes < 1 or steps < 1:
        raise ValueError(f"classes={classes}, steps={steps}: expected 1 or more of each")
    alpha = (1 - confidence) / classes
    found = []
    for branch in range(classes):
        rng = np.random.default_rng([*np.atleast_1d(seed), branch])
        of_class = np.flatnonzero(verdicts.branch == branch)
        used, confidences = _by_confidence(verdicts, draw(of_class, tracks, len(of_class), rng))
        wrong = np.cumsum(labels[used] != branch)
        found.append(_lowest(confidences, wrong, risk, alpha, steps))
    return found


def _temperature(logits: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    few = min(int(true.sum()), int((~true).sum())) < FEWEST
    if few or (np.where(true, logits, -logits) >= 0).all():
        return 1.0

    def slope(inverse: float) -> float:
        return float(np.mean(logits * (expit(inverse * logits) - true)))

    if slope(1 / COOLEST) <= 0:
        return COOLEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return 1 / float(brentq(slope, 1 / HOTTEST, 1 / COOLEST, xtol=1e-9))


def _lowest(
    confidence: NDArray[np.float64],
    wrong: NDArray[np.int64],
    risk: float,
    alpha: float,
    steps: int,
) -> RiskThreshold:
    """Test the thresholds of one class; ``wrong`` counts errors up to each falling confidence."""
    alpha /= STARTS
    crops = len(confidence)
    ranks = [math.ceil(crops * step / steps) for step in range(1, steps + 1)]
    thresholds = [confidence[rank - 1] for rank in ranks if rank]
    above = [int(np.searchsorted(-confidence, -value, side="right")) for value in thresholds]
    above = [held for held in above if (1 - risk) ** held <= alpha]
    most = 0
    for start in range(STARTS):
        for held in above[start * len(above) // STARTS :]:
            if bdtr(wrong[held - 1], held, risk) > alpha:
                break
            most = max(most, held)
    used = most or crops
    errors = int(wrong[used - 1]) if used else 0
    threshold = float(confidence[most - 1]) if most else math.inf
    return RiskThreshold(threshold, used, errors, _upper(errors, used, alpha))


def _upper(errors: int, crops: int, alpha: float) -> float:
    """Compute the upper bound of a share after Clopper and Pearson (1934)."""
    return float(betaincinv(errors + 1, crops - errors, 1 - alpha)) if errors < crops else 1.0


def _by_confidence(
    verdicts: Verdicts, positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    order = positions[np.argsort(-verdicts.confidence[positions], kind="stable")]
    return order, verdicts.confidence[order]


def _check_labels(verdicts: Verdicts, labels: NDArray[np.int64]) -> None:
    if np.shape(labels) != verdicts.branch.shape:
        raise ValueError(
            f"expected labels of shape {verdicts.branch.shape}, got {np.shape(labels)}"
        )


def _probabilities(prob: NDArray[np.floating], dimensions: int) -> NDArray[np.float64]:
    checked = np.asarray(prob, dtype=np.float64)
    if checked.ndim != dimensions:
        raise ValueError(f"expected probabilities in {dimensions} dimensions, got {checked.shape}")
    if not ((checked >= 0) & (checked <= 1)).all():
        raise ValueError("expected probabilities from 0 to 1, got some outside (or NaN)")
    return checked
