"""Fits the distance to verified crops, which finds objects of no class that nobody has verified."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collabteam.team.strangers import RANK, ClassDistance

BEYOND = 0.02
"""Share of verified crops of the classes that lie beyond the limit."""
_FLOOR = 0.3
"""Least deviation of a feature, as a share of the mean one: rare features would count too much."""


def fit_distance(
    features: Tensor,
    labels: NDArray[np.int64],
    weights: Tensor,
    folds: NDArray[np.int64],
    classes: int,
) -> ClassDistance | None:
    """Fit the distance to verified crops of the classes.

    The limit comes from crops whose fold the distance did not see, since crops are closer to
    themselves than new crops of the same classes would be: ``BEYOND`` of them lie beyond it. There
    the log odds are 0; at the median distance they are those of ``BEYOND``.

    Args:
        features: (N, D) float32.
        labels: (N,) class of each crop, 0 to K - 1.
        weights: (N,) float32, above 0, how much a crop counts.
        folds: (N,) fold of each crop, the same for all crops of a track.
        classes: Number of classes K.

    Returns:
        The distance; None if the crops have only one fold, or differ in nothing.
    """
    if len(np.unique(folds)) < 2:
        return None
    found = _fit(features, labels, weights, classes)
    distance = torch.zeros(len(features))
    for fold in np.unique(folds):
        held, others = torch.from_numpy(folds == fold), folds != fold
        without = _fit(features[~held], labels[others], weights[~held], classes)
        distance[held] = without.distance(features[held])
    middle, limit = np.quantile(
        distance.double().numpy(), [0.5, 1 - BEYOND],
        weights=weights.double().numpy(), method="inverted_cdf",
    )  # fmt: skip
    if limit <= middle:
        return None
    found.limit.fill_(float(limit))
    found.slope.fill_(math.log((1 - BEYOND) / BEYOND) / float(limit - middle))
    return found


def _fit(
    features: Tensor, labels: NDArray[np.int64], weights: Tensor, classes: int
) -> ClassDistance:
    found = ClassDistance(features.shape[1], classes)
    share = (weights / weights.sum())[:, None]
    unit = torch.nn.functional.normalize(features)
    found.middle.copy_((share * unit).sum(0))
    variance = (share * (unit - found.middle).square()).sum(0)
    floor = _FLOOR**2 * variance.mean().clamp_min(1e-12)
    found.scale.copy_((variance + floor).sqrt())
    scaled = found.standardised(features)
    member = torch.from_numpy((labels[:, None] == np.arange(classes)).astype(np.float32)) * share
    total = member.sum(0)
    means = (member.T @ scaled) / total.clamp_min(1e-12)[:, None]
    # A class without a crop must not attract any; it takes the place of another one.
    found.means.copy_(torch.where(total[:, None] > 0, means, means[total.argmax()]))
    away = (scaled - found.means[torch.from_numpy(labels)]) * share.sqrt()
    rank = min(RANK, len(features) - classes - 1, features.shape[1] - 1)
    kept = torch.zeros(0)
    if rank > 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            width = min(rank + 8, *away.shape)
            _, spread, directions = torch.svd_lowrank(away, width, niter=4)
        kept = spread[:rank].square()
        found.directions[:rank] = directions[:, :rank].T
    rest = ((away.square().sum() - kept.sum()) / (features.shape[1] - len(kept))).clamp_min(1e-12)
    found.precision.copy_(1 / rest)
    found.excess[: len(kept)] = 1 / kept.clamp_min(rest) - 1 / rest
    return found
