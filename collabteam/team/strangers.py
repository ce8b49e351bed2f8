"""Distance of a crop's features to the verified crops of the classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RANK = 32
"""Directions in which a class varies that are kept; all others count as one."""


class ClassDistance(nn.Module):
    """Mahalanobis distance to the nearest class, as the log odds that a crop shows none of them.

    Features are scaled to length 1 and standardised. All classes share a covariance: ``RANK``
    directions, and the same variance in every other direction (probabilistic principal components,
    Tipping and Bishop, 1999).

    Args:
        dim: Length D of a feature vector.
        classes: Number of classes K.
    """

    middle: Tensor
    scale: Tensor
    means: Tensor
    directions: Tensor
    excess: Tensor
    precision: Tensor
    limit: Tensor
    slope: Tensor

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        for name, value in (
            ("middle", torch.zeros(dim)),
            ("scale", torch.ones(dim)),
            ("means", torch.zeros(classes, dim)),
            ("directions", torch.zeros(RANK, dim)),
            ("excess", torch.zeros(RANK)),  # precision along a direction, beyond the common one
            ("precision", torch.ones(())),
            ("limit", torch.zeros(())),
            ("slope", torch.ones(())),
        ):
            self.register_buffer(name, value)

    def standardised(self, features: Tensor) -> Tensor:
        """Features (N, D) of length 1, standardised."""
        return (nn.functional.normalize(features) - self.middle) / self.scale

    def distance(self, features: Tensor) -> Tensor:
        """Distance (N,) of features (N, D) to the nearest class, 0 or more."""
        scaled = self.standardised(features)
        each = []
        for mean in self.means:
            away = scaled - mean
            along = away @ self.directions.T
            each.append(self.precision * away.square().sum(1) + along.square() @ self.excess)
        return torch.stack(each).amin(0).clamp_min(0).sqrt()

    def forward(self, features: Tensor) -> Tensor:
        """Log odds (N, 1) that crops show none of the classes, from features (N, D)."""
        return (self.slope * (self.distance(features) - self.limit))[:, None]


class HeadsWithDistance(nn.Module):
    """Linear heads of the classes and of *none of these*, and the distance to the classes.

    Args:
        dim: Length D of a feature vector.
        classes: Number of classes K.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.heads = nn.Linear(dim, classes + 1)
        self.distance = ClassDistance(dim, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Log odds (N, K + 2) of each class, and twice that crops show none of them."""
        return torch.cat([self.heads(features), self.distance(features)], dim=1)
