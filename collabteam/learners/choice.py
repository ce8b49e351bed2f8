"""The choice of a backbone by cross-validation of linear heads on its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.features.devices import one_thread
from collabteam.learners.methods.probe import PENALTIES, balanced, fit_heads, targets_of


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold results of linear heads on the features of one backbone.

    Attributes:
        losses: (N,) share of each crop in the class-balanced logistic loss, summed over the heads.
        recall: Mean of the recalls of *true* and of *false* of all heads, 0 to 1.
    """

    losses: NDArray[np.float64]
    recall: float


def cross_validate(
    features: Tensor, labels: NDArray[np.int64], folds: NDArray[np.int64], classes: int
) -> CrossValidation:
    """Judge features by linear heads, each crop by heads that did not train on its fold.

    The penalty is the one of six with the smallest loss over all folds. The result does not depend
    on the number of threads.

    Args:
        features: (N, D) float32.
        labels: (N,) class of each crop, -1 for none of them.
        folds: (N,) fold of each crop; the crops of a track share one.
        classes: Number of classes.
    """
    targets, weights = targets_of(labels, classes), torch.ones(len(labels))
    outputs = {penalty: torch.zeros_like(targets) for penalty in PENALTIES}
    with one_thread():
        for fold in np.unique(folds):
            held = torch.from_numpy(folds == fold)
            fitted = fit_heads(features[~held], targets[~held], weights[~held], PENALTIES)
            for penalty, (weight, bias) in fitted.items():
                outputs[penalty][held] = features[held] @ weight.T + bias
        balance = balanced(targets, weights)
        losses = {
            penalty: (balance * (nn.functional.softplus(found) - targets * found)).sum(dim=1)
            for penalty, found in outputs.items()
        }
        best = min(losses, key=lambda penalty: float(losses[penalty].sum()))
        claims = outputs[best] > 0
        # Weighted so that the crops of a class and all others count one half each.
        right = (balance * (claims == (targets > 0))).sum(dim=0).mean()
    return CrossValidation(losses[best].double().numpy(), float(right))


def choose(found: Mapping[str, CrossValidation], tracks: NDArray[np.int64]) -> str:
    """Choose the cheapest backbone that is as good as the best, as far as the crops tell.

    As good is one whose loss is larger by at most the standard error of the difference, which is
    taken over tracks: the crops of a track tend to be wrong together (the rule of one standard
    error: Breiman et al., 1984).

    Args:
        found: By name, the cheapest first.
        tracks: (N,) number of each crop's track, 0 or more.
    """
    best = min(found, key=lambda name: float(found[name].losses.sum()))
    for name, one in found.items():
        apart = np.bincount(tracks, one.losses - found[best].losses)
        apart = apart[np.unique(tracks)]
        if apart.sum() <= apart.std() * len(apart) ** 0.5:
            return name
    return best
