"""Measures the quality of a team's votes: pure functions on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from collabteam.rounds.selection import SelectionRule
from collabteam.team.voting import ABSTAIN, Verdicts, VotePolicy

_COPIES = 16
"""Mean number of copies of a crop in a weighted estimate."""

Recall = dict[str, dict[str, float | None]]


def branch_recall(
    prob: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[str]
) -> Recall:
    """Recall of true and of false per branch, the figures of the paper's Table 1.

    Args:
        prob: (N, B) probability of *true*, 0 to 1.
        labels: (N,) class of each crop, -1 for none of them.
        classes: Names of the B classes.

    Returns:
        Per class the share of its crops that are voted true, under ``"true"``, and the share of
        all others that are voted false, under ``"false"``; None where there is no such crop.
    """
    voted = prob > 0.5
    recall: Recall = {}
    for branch, name in enumerate(classes):
        is_true = labels == branch
        recall[name] = {
            "true": _share(voted[is_true, branch]),
            "false": _share(~voted[~is_true, branch]),
        }
    return recall


def mean_recall(folds: Sequence[Recall]) -> Recall:
    """Mean over folds, of those that have a figure."""
    mean: Recall = {}
    for name in folds[0]:
        mean[name] = {}
        for side in ("true", "false"):
            known = [v for fold in folds if (v := fold[name][side]) is not None]
            mean[name][side] = float(np.mean(known)) if known else None
    return mean


def balanced(recall: dict[str, float | None]) -> float:
    """Mean of the recalls of true and of false, missing ones as 0."""
    return ((recall["true"] or 0.0) + (recall["false"] or 0.0)) / 2


def coverage(verdicts: Verdicts) -> float | None:
    """Share of crops with a consensus, None without crops."""
    return _share(verdicts.branch != ABSTAIN)


def consensus_accuracy(verdicts: Verdicts, labels: NDArray[np.int64]) -> float | None:
    """Share of right verdicts among the crops with a consensus, None without any."""
    decided = verdicts.branch != ABSTAIN
    return _share(verdicts.branch[decided] == labels[decided])


def expected_precision(
    prob: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    policy: VotePolicy,
    rule: SelectionRule,
    weights: NDArray[np.float64] | None = None,
) -> list[tuple[float | None, int]]:
    """Estimate the precision of an increment on human-labelled crops that did not train.

    The same selection is applied to the out-of-fold crops. The pool differs from them: its
    easiest crops leave it round by round, and, unless there are weights, objects of no class are
    rarer among verified crops; so this is an estimate, not a bound.

    Args:
        prob: (N, B) out-of-fold probability of *true*, 0 to 1.
        labels: (N,) class that a person gave each crop, -1 for none of them.
        classes: Number of classes B.
        policy: Makes the verdicts.
        rule: Makes the selection.
        weights: (N,) how many crops of the pool each crop stands for, of :func:`pool_weights`;
            None if each counts the same.

    Returns:
        Per class the share of right labels among its candidates, and the number of candidates.
    """
    each = np.arange(len(labels))
    if weights is not None:
        # A rule sees copies of a crop, in proportion to its weight.
        ends = np.floor(np.cumsum(weights) / weights.mean() * _COPIES) if len(weights) else weights
        each = np.repeat(each, np.diff(ends, prepend=0.0).astype(np.int64))
    verdicts = policy.vote(prob[each])
    estimates = []
    for branch in range(classes):
        chosen = each[rule.candidates(verdicts, branch)]
        estimates.append((_share(labels[chosen] == branch), len(np.unique(chosen))))
    return estimates


def pool_weights(sample: NDArray[np.int64], pool: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many crops of the pool each crop of a sample stands for.

    The sample is drawn at random within strata, such as the crops that a detector proposed as the
    same class, but from each stratum another share: i0 takes as many crops of a rare class as of
    a frequent one, and fewer that are proposed as ``unknown``.

    Args:
        sample: (N,) stratum of each crop of the sample, 0 or more.
        pool: (P,) stratum of each crop of the pool.

    Returns:
        (N,) weights; their sum is the number of crops of the pool in strata with a sample.

    Example:
        >>> pool_weights(np.array([0, 0, 1]), np.array([0, 1, 1, 1, 2])).tolist()
        [0.5, 0.5, 3.0]
    """
    size = int(max(sample.max(initial=-1), pool.max(initial=-1))) + 1
    drawn, there = np.bincount(sample, minlength=size), np.bincount(pool, minlength=size)
    weights: NDArray[np.float64] = there[sample] / np.maximum(drawn, 1)[sample]
    return weights


def wilson_interval(
    share: NDArray[np.float64], count: NDArray[np.float64], z: float = 1.959964
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's interval for shares (E. B. Wilson, JASA 22, 1927).

    ``scipy.stats.binomtest`` has the same one, for a single share and with a test that takes far
    longer than the interval.

    Args:
        share: (N,) observed shares, 0 to 1.
        count: (N,) observations behind each share, 0 or more.
        z: Quantile of the normal distribution: 1.96 for a two-sided 95% interval, 1.645 for a
            one-sided bound of 95%.

    Returns:
        (N,) lower and (N,) upper ends, 0 to 1; 0 and 1 where there is no observation.
    """
    seen = np.maximum(count, 1)
    centre = share + z * z / (2 * seen)
    spread = z * np.sqrt(share * (1 - share) / seen + (z / seen) ** 2 / 4)
    low, high = ((centre + sign * spread) / (1 + z * z / seen) for sign in (-1, 1))
    # Rounding must not push an end beyond the share, such as below a share of 0.
    low, high = np.clip(low, 0.0, share), np.clip(high, share, 1.0)
    return np.where(count > 0, low, 0.0), np.where(count > 0, high, 1.0)


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(np.mean(flags)) if flags.size else None
