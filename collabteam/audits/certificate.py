"""The statistics of an audit of released labels: pure functions on numbers.

A *batch* is what the team releases for one class: crops with the team's label, fixed before the
audit. A person reviews a simple random sample of its crops, and the errors found there give a lower
bound of the batch's *precision*, the share of right labels. The bounds hold for any batch of that
size, whatever the causes and correlations of its errors. They assume only

- that the batch was fixed before the sample was drawn, and the draw did not depend on the labels;
- that the reviewer is right, and does not see the team's label as a suggestion: the bound
  does not include errors that a person overlooks;
- that ``precision``, ``confidence`` and the number of classes were chosen beforehand.

The statement "at least 95% are right, with confidence 95%" means: whatever the batches, at most 5%
of such statements are false. It is not a probability about one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Crop = TypeVar("Crop", bound=np.generic)

ROUNDING = 1e-12
"""Relative tolerance: a chance equal to the error allowed must not fail by its last digit."""

FEW = 128
"""Plans that allow fewer errors than this are tried one by one, which finds the smallest."""


@dataclass(frozen=True)
class Plan:
    """The plan of an audit.

    Attributes:
        size: Number of crops to review; if it is the whole batch, the result is exact.
        allowed: The largest number of wrong labels among them with which the batch passes.
        chance: Probability of passing if the batch is as good as expected, 0 to 1.
    """

    size: int
    allowed: int
    chance: float


@dataclass(frozen=True)
class Judgement:
    """The result of an audit for the batch of one class.

    Attributes:
        passed: Whether the requested precision is certified.
        confidence: Confidence of this one audit, after sharing out, 0 to 1.
        bound: The precision that this audit certifies at that confidence, 0 to 1: at least the
            requested one if it passed, and otherwise the one that may be stated instead.
        further: If it failed: the size of the smallest new sample of the rest of the batch that
            would certify the rest in the next attempt, without errors. 0 if it passed or if
            nothing is left to review.
    """

    passed: bool
    confidence: float
    bound: float
    further: int


def lower_precision(sample: int, errors: int, population: int, confidence: float) -> float:
    """Compute the exact lower confidence bound of the share of right labels in a finite batch.

    The bound follows from the largest number K of wrong labels in the batch that the audit does not
    reject: with K wrong labels, the chance of at most ``errors`` of them in the sample is above
    ``1 - confidence`` under the hypergeometric distribution (the one-sided test inverted;
    Buonaccorsi 1987, The American Statistician 41, 215-218). For an infinite batch it is the bound
    of Clopper and Pearson (1934, Biometrika 26, 404-413). The larger the reviewed share, the more
    it exceeds that bound; when all crops were reviewed, it is the share of right labels itself. It
    is exact for batches of any size: ten million crops take milliseconds.

    The bound is about the labels as they were released. Correcting the errors found can only raise
    the share of right labels.

    Args:
        sample: Number of crops reviewed, a simple random sample without replacement whose size
            did not depend on the errors found.
        errors: Wrong labels among them.
        population: Crops in the batch, including the reviewed ones.
        confidence: One-sided, above 0 and below 1.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: The counts are not 0 <= errors <= sample <= population with at least one crop in
            the batch, or the confidence is out of range.

    Example:
        >>> round(lower_precision(59, 0, 1_000_000, 0.95), 4)
        0.9505
        >>> lower_precision(20, 1, 20, 0.95)
        0.95
    """
    _check_audit(sample, errors, population)
    _check_share("confidence", confidence)
    return (population - _most_wrong(sample, errors, population, 1 - confidence)) / population


def smallest_sample(population: int, precision: float, confidence: float, allowed: int) -> int:
    """Compute the fewest crops to review so that ``allowed`` errors still certify a batch.

    Args:
        population: Crops in the batch.
        precision: Share of right labels to certify, above 0 and below 1.
        confidence: One-sided, above 0 and below 1.
        allowed: Errors in the sample.

    Returns:
        The size of the sample, at most ``population``.

    Raises:
        ValueError: A share is out of range, the batch is empty, or ``allowed`` is more than the
            whole batch may have.

    Example:
        >>> [smallest_sample(1_000_000, 0.95, 0.95, allowed) for allowed in range(6)]
        [59, 93, 124, 153, 181, 208]
    """
    _check_audit(0, 0, population)
    _check_share("precision", precision)
    _check_share("confidence", confidence)
    tolerable = _tolerable(population, precision)
    if not 0 <= allowed <= tolerable:
        raise ValueError(
            f"allowed={allowed}: expected 0 to {tolerable}, as many as {population} crops may have"
        )
    return _smallest(population, tolerable, 1 - confidence, allowed, allowed + 1)


def plan(
    population: int,
    precision: float,
    confidence: float,
    expected_error: float,
    power: float = 0.8,
) -> Plan | None:
    """Plan the smallest audit that certifies a batch as good as expected with enough power.

    Allowing more errors needs a larger sample and passes a good batch more often (attributes
    sampling by two points of the operating characteristic, as in ISO 2859-2 and Schilling and
    Neubauer, "Acceptance Sampling in Quality Control"). ``expected_error`` only decides the planned
    work: if it is wrong, the audit fails more often, but false certificates do not become more
    frequent.

    With fewer than 128 allowed errors the plan has the smallest possible sample. Above that, it is
    found by bisection, which assumes that each further allowed error raises the chance. This is not
    quite true for whole crops, so the plan may exceed the smallest by a fraction of a percent.

    Args:
        population: Crops in the batch.
        precision: Share of right labels to certify, above 0 and below 1.
        confidence: Confidence of this audit, one-sided, above 0 and below 1; see
            :func:`share_out`.
        expected_error: Expected share of wrong labels, 0 to 1. In the batch it is rounded up to a
            whole number, but not beyond what ``precision`` allows.
        power: Lowest probability of passing if that share is right, above 0 and below 1.

    Returns:
        The plan, which may take the whole batch; None if it is hopeless, that is if
        ``expected_error`` is no less than ``1 - precision``.

    Raises:
        ValueError: A share is out of range or the batch is empty.

    Example:
        >>> audit = plan(20_000, precision=0.95, confidence=0.95, expected_error=0.02)
        >>> audit.size, audit.allowed
        (233, 6)
        >>> print(plan(20_000, 0.95, 0.95, expected_error=0.06))
        None
    """
    _check_audit(0, 0, population)
    for name, share in (("precision", precision), ("confidence", confidence), ("power", power)):
        _check_share(name, share)
    if not 0 <= expected_error <= 1:
        raise ValueError(f"expected_error={expected_error}: expected 0 to 1")
    # Compare whole numbers of crops, as elsewhere, because 1 - 0.95 is not exactly 0.05.
    if expected_error >= 1 - precision - ROUNDING:
        return None
    tolerable = _tolerable(population, precision)
    wrong = min(math.ceil(population * expected_error - 1e-6), tolerable)
    size = 0
    for allowed in range(min(tolerable, FEW)):
        size = _smallest(population, tolerable, 1 - confidence, allowed, max(size, allowed + 1))
        if (chance := _at_most(allowed, population, wrong, size)) >= power:
            return Plan(size, allowed, chance)
    # A batch as good as expected cannot fail if every tolerable error is allowed.
    low, high = min(tolerable, FEW), tolerable
    while low < high:
        allowed = (low + high) // 2
        size = _smallest(population, tolerable, 1 - confidence, allowed, allowed + 1)
        if _at_most(allowed, population, wrong, size) >= power:
            high = allowed
        else:
            low = allowed + 1
    size = _smallest(population, tolerable, 1 - confidence, low, low + 1)
    return Plan(size, low, _at_most(low, population, wrong, size))


def fails(audit: Plan, errors: int) -> bool:
    """Return whether the audit has failed already, so that the reviewer may stop.

    Stopping early causes no false certificate: the whole sample would have at least as many errors,
    so it would have failed as well. But :func:`lower_precision` of the crops reviewed so far is not
    a bound, because the errors decided when to stop. For a bound, review the whole sample, or count
    the crops that were not reviewed as wrong.

    Args:
        audit: The plan.
        errors: Wrong labels found so far.

    Example:
        >>> fails(Plan(93, 1, 0.8), errors=1), fails(Plan(93, 1, 0.8), errors=2)
        (False, True)
    """
    return errors > audit.allowed


def passes(audit: Plan, reviewed: int, errors: int) -> bool:
    """Return whether the audit passes even if every crop not yet reviewed is wrong.

    Args:
        audit: The plan.
        reviewed: Crops of the sample reviewed so far.
        errors: Wrong labels found so far.

    Example:
        >>> passes(Plan(93, 1, 0.8), reviewed=92, errors=0)
        True
    """
    return errors + audit.size - reviewed <= audit.allowed


def share_out(confidence: float, classes: int, attempt: int) -> float:
    """Return the confidence for one audit, so that the whole statement keeps its confidence.

    The error ``1 - confidence`` is divided evenly over the classes (Bonferroni) and, within a
    class, over the attempts k = 1, 2, ... with the weights 1 / (k (k + 1)), which sum to 1: a half,
    a sixth, a twelfth, ... A class may be audited any number of times, with new labels or the same,
    and with any rule for stopping: the chance of ever certifying a batch below the requested
    precision is at most the class's share (the union bound over a fixed series of levels: alpha
    spending, Lan and DeMets 1983, Biometrika 70, 659-663; over an unlimited number of looks as in
    Howard and others 2021, Annals of Statistics 49, 1055-1080). Halving at each attempt instead
    would leave more for attempts 2 to 4, and for the 60th nothing that a float can tell from 0.

    Every audit counts as an attempt once its first crop is reviewed, finished or not, whatever
    precision it asked for.

    Args:
        confidence: Confidence of the statement about all classes, above 0 and below 1.
        classes: Number of audited classes, fixed beforehand and including those that fail.
        attempt: Number of this class's audit, from 1.

    Returns:
        The confidence with which to plan and judge this audit.

    Raises:
        ValueError: The confidence is out of range, or a count is below 1.

    Example:
        >>> round(share_out(0.95, classes=1, attempt=1), 6)
        0.975
        >>> round(share_out(0.95, classes=3, attempt=2), 6)
        0.997222
    """
    _check_share("confidence", confidence)
    if classes < 1 or attempt < 1:
        raise ValueError(f"classes={classes}, attempt={attempt}: expected 1 or more of each")
    return 1 - (1 - confidence) / classes / (attempt * (attempt + 1))


def audit_sample(crops: NDArray[Crop], size: int, seed: int | Sequence[int] = 0) -> NDArray[Crop]:
    """Draw a simple random sample of crops: every subset of that size has the same chance.

    Unlike elsewhere, this is *not* one crop per track. The bound counts crops, and tracks have
    unequal numbers of them: one long wrongly labelled track may hold a tenth of the batch's crops
    but would be one in a hundred of such a sample. It does no harm that the crops of a track are
    alike and wrong together: the draw alone makes the number of errors hypergeometric, whatever the
    order and correlation of the labels.

    Args:
        crops: (N,) the whole batch: ids or positions, each once, in any order.
        size: Number of crops to draw.
        seed: Seed of the draw. Fix it before the labels are known, for example from the release's
            number: trying several seeds and keeping one voids the guarantee.

    Returns:
        (size,) the drawn crops in random order, so that a track's crops are not reviewed in a row
        and the crops reviewed so far are a simple random sample as well.

    Raises:
        ValueError: The batch is not one-dimensional, names a crop twice, or has fewer than ``size``
            crops.
    """
    if crops.ndim != 1:
        raise ValueError(f"expected crops of shape (N,), got {crops.shape}")
    # Sorted, so that the sample does not depend on the order of the batch.
    batch = np.unique(crops)
    if len(batch) != len(crops):
        raise ValueError(f"{len(crops) - len(batch)} crops are named more than once")
    if not 0 <= size <= len(batch):
        raise ValueError(f"size={size}: expected 0 to {len(batch)}, the crops of the batch")
    rng = np.random.default_rng([*np.atleast_1d(seed)])
    return batch[rng.choice(len(batch), size, replace=False)]


def judge(
    sample: int,
    errors: int,
    population: int,
    precision: float,
    confidence: float,
    classes: int = 1,
    attempt: int = 1,
) -> Judgement:
    """Judge the audit of one class.

    After a failure there are three valid options:

    - State ``bound`` instead, which costs nothing: it holds at the same confidence, whatever
      precision was asked for.
    - Review further crops: correct the errors found, treat the rest of the batch as a batch of its
      own, and audit that as the next attempt, with at least ``further`` crops. Together with the
      reviewed crops, which are right by then, the whole has the precision as well.
    - Let the team release better labels, and audit those as the next attempt.

    Adding crops to the failed sample until it passes is not valid.

    Args:
        sample: Number of crops reviewed: the whole planned sample of the batch
            (:func:`audit_sample`); see :func:`fails`.
        errors: Wrong labels among them.
        population: Crops in the batch.
        precision: Requested share of right labels, above 0 and below 1.
        confidence: Confidence of the statement about all classes and attempts, above 0 and below
            1.
        classes: See :func:`share_out`.
        attempt: See :func:`share_out`.

    Returns:
        The judgement, at this audit's share of the confidence.

    Raises:
        ValueError: See :func:`lower_precision` and :func:`share_out`.

    Example:
        >>> judge(72, 0, 10_000, precision=0.95, confidence=0.95).passed
        True
        >>> failed = judge(72, 2, 10_000, precision=0.95, confidence=0.95)
        >>> failed.passed, round(failed.bound, 3), failed.further
        (False, 0.903, 93)
    """
    _check_audit(sample, errors, population)
    _check_share("precision", precision)
    own = share_out(confidence, classes, attempt)
    wrong = _most_wrong(sample, errors, population, 1 - own)
    passed = wrong <= _tolerable(population, precision)
    rest = population - sample
    further = 0
    if not passed and rest:
        following = share_out(confidence, classes, attempt + 1)
        further = smallest_sample(rest, precision, following, allowed=0)
    return Judgement(passed, own, (population - wrong) / population, further)


def _at_most(errors: int, population: int, wrong: int, sample: int) -> float:
    """Return the chance of at most ``errors`` of the ``wrong`` crops in the sample."""
    from scipy.stats import binom  # takes more than a second, and an open audit does without

    least, most = max(0, sample - (population - wrong)), min(errors, wrong, sample)
    share = sample / population
    # By Bernstein's inequality, which Hoeffding (1963) extends to draws without replacement, the
    # terms beyond this have a total chance below 1e-30.
    mean, reach = wrong * share, 12 * math.sqrt(wrong * share * (1 - share)) + 50
    if most > mean + reach:
        return 1.0
    found = np.arange(max(least, math.floor(mean - reach)), most + 1)
    # A ratio of binomials (Loader 2000, "Fast and Accurate Computation of Binomial Probabilities";
    # R's dhyper): scipy's hypergeom.cdf is off by 1e-9 in batches of ten millions, this by 1e-15.
    ways = binom.pmf(found, wrong, share) * binom.pmf(sample - found, population - wrong, share)
    return min(1.0, float(ways.sum() / binom.pmf(sample, population, share)))


def _most_wrong(sample: int, errors: int, population: int, alpha: float) -> int:
    """Return the largest number of wrong labels in the batch that the sample does not reject."""
    # The bounds are the errors seen and all that may be wrong; the chance falls in between.
    low, high = errors, population - sample + errors
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(errors, population, middle, sample) <= alpha * (1 + ROUNDING):
            high = middle - 1
        else:
            low = middle
    return low


def _smallest(population: int, tolerable: int, alpha: float, allowed: int, least: int) -> int:
    """Return the smallest sample, from ``least`` on, that rejects ``tolerable + 1`` errors."""
    low, high = min(least, population), population
    while low < high:
        middle = (low + high) // 2
        if _at_most(allowed, population, tolerable + 1, middle) <= alpha * (1 + ROUNDING):
            high = middle
        else:
            low = middle + 1
    return low


def _tolerable(population: int, precision: float) -> int:
    """Return how many wrong labels a batch of that precision may have."""
    # 10 crops at 90% may have 1, though rounding makes 10 * (1 - 0.9) a little less.
    return math.floor(population * (1 - precision) + 1e-6)


def _check_audit(sample: int, errors: int, population: int) -> None:
    if not (population >= 1 and 0 <= errors <= sample <= population):
        raise ValueError(
            "expected 0 <= errors <= sample <= population and at least one crop, "
            f"got {errors}, {sample}, {population}"
        )


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name}={share}: expected above 0 and below 1")
