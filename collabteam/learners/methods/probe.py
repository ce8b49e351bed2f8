"""Linear heads on the features of a frozen backbone, one for each class against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from collabteam.catalog.records import NONE
from collabteam.features.devices import one_thread
from collabteam.features.extractor import dim_of
from collabteam.learners.base import FitEnvironment, FoldTask, Learner
from collabteam.learners.strangers import fit_distance
from collabteam.settings.fields import setting
from collabteam.team.strangers import ClassDistance
from collabteam.team.team import OneVsRestHeads, Voter

PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Penalties that are tried, the strongest first."""
FEWEST_UNKNOWN = 10
"""Weight of crops verified as 'unknown' from which on they get a head of their own."""
NEVER = -40.0
"""Log odds of what is never the case."""


class ProbeLearner(Learner):
    """Logistic regression of each class against the rest, on features that never change.

    The sum of the class-balanced logistic loss and ``penalty / 2 * |w|^2``, on standardised
    features that are scaled to a length of about 1, is minimised by L-BFGS. The fit takes seconds,
    and does not depend on the number of threads, because it computes on one.

    With ``strangers``, the probability of each class is multiplied by that of not being an object
    of no class.
    """

    continues = False
    on_features = True
    network = "features"

    @dataclass(frozen=True)
    class Settings(Learner.Settings):
        """Settings of ``learner=probe``."""

        penalty: float = setting(
            0.0,
            ge=0,
            le=1000,
            help="strength of the L2 penalty; 0 chooses it, by the loss on one of the training "
            "folds",
        )
        strangers: str = setting(
            "off",
            choices={
                "off": "verified 'unknown' crops teach each head *false*, and no more",
                "none": "they also teach a head of their own, *none of these*",
                "distance": "and crops far from all verified crops of the classes count as none of "
                "these, which also catches what nobody has verified",
            },
            when_absent="off",
            help="how objects of no class are told from the classes",
        )

    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:  # noqa: D102
        return [tuple(range(len(classes)))]

    def build(  # noqa: D102
        self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True
    ) -> Voter:
        dim = dim_of(self.shared.features)
        return OneVsRestHeads(dim, columns, strangers=self.settings.strangers)

    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:  # noqa: D102
        trains = np.flatnonzero(task.trains)
        with env.listener.stage(f"{env.title}: {len(trains)} crops", None, "crops"), one_thread():
            features = task.features[task.rows[trains]]
            weights = torch.from_numpy(task.weights[trains])
            labels, folds = task.labels[trains], task.folds[trains]
            targets = targets_of(labels, len(task.classes))
            weight, bias = self._heads(features, targets, weights, folds)
            state = {"weight": weight, "bias": bias}
            if self.settings.strangers != "off":
                none = torch.from_numpy((labels == NONE).astype(np.float32))[:, None]
                head = torch.zeros(1, features.shape[1]), torch.tensor([NEVER])
                if float(none[:, 0] @ weights) >= FEWEST_UNKNOWN:
                    head = self._heads(features, none, weights, folds)
                state = {"weight": torch.cat([weight, head[0]]), "bias": torch.cat([bias, head[1]])}
            if self.settings.strangers == "distance":
                # A team's own labels may be strangers.
                sure = (labels != NONE) & task.human[trains]
                chosen = torch.from_numpy(sure)
                distance = fit_distance(
                    features[chosen], labels[sure], weights[chosen], folds[sure], len(task.classes)
                )
                if distance is None:
                    distance = ClassDistance(features.shape[1], len(task.classes))
                    distance.limit.fill_(-NEVER)
                state = {f"heads.{name}": tensor for name, tensor in state.items()}
                state |= {f"distance.{name}": one for name, one in distance.state_dict().items()}
        columns = tuple(range(len(task.classes)))
        voter = OneVsRestHeads(
            task.features.dim, columns, task.features.digest, self.settings.strangers
        )
        voter.network.load_state_dict(state)
        return [voter]

    def _heads(
        self, features: Tensor, targets: Tensor, weights: Tensor, folds: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Fit heads (K, D), (K,) for targets (N, K)."""
        penalty = self.settings.penalty or self._choose(features, targets, weights, folds)
        return fit_heads(features, targets, weights, [penalty])[penalty]

    def _choose(
        self, features: Tensor, targets: Tensor, weights: Tensor, folds: NDArray[np.int64]
    ) -> float:
        """Choose the penalty with the smallest loss on the largest of the training folds."""
        names, counts = np.unique(folds, return_counts=True)
        if len(names) < 2:
            return PENALTIES[2]
        held = torch.from_numpy(folds == names[counts.argmax()])
        found = fit_heads(features[~held], targets[~held], weights[~held], PENALTIES)
        balance = balanced(targets[held], weights[held])
        losses = {
            penalty: float(_loss(features[held] @ weight.T + bias, targets[held], balance))
            for penalty, (weight, bias) in found.items()
        }
        return min(losses, key=lambda penalty: losses[penalty])


def fit_heads(
    features: Tensor, targets: Tensor, weights: Tensor, penalties: Sequence[float]
) -> dict[float, tuple[Tensor, Tensor]]:
    """Fit linear heads for several penalties, each from the solution of the one before.

    Args:
        features: (N, D) float32.
        targets: (N, K) float32, 1 where a crop is of the head's class, else 0.
        weights: (N,) float32, how much a crop counts.
        penalties: Strengths of the L2 penalty, above 0.

    Returns:
        By penalty, weight (K, D) and bias (K,) float32 on the features as they are given.
    """
    count, dim = features.shape
    middle, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = scale.where(scale > 1e-6, torch.ones(())) * dim**0.5
    scaled = (features - middle) / scale
    # With fewer crops than features, the solution lies in the space that the crops span.
    basis = torch.linalg.qr(scaled.T)[0] if count < dim else None
    inputs = scaled if basis is None else scaled @ basis
    exact, each = targets.double(), balanced(targets, weights).double()
    shape = (targets.shape[1], inputs.shape[1] + 1)
    found, start = {}, np.zeros(shape[0] * shape[1])
    for penalty in penalties:

        def objective(
            flat: NDArray[np.float64], penalty: float = penalty
        ) -> tuple[float, NDArray[np.float64]]:
            both = torch.from_numpy(flat.astype(np.float32)).view(shape)
            weight, bias = both[:, :-1], both[:, -1]
            # A product with few rows on its left takes a tenth of the time of one with few columns
            # on its right.
            outputs = (weight @ inputs.T).T.double() + bias
            # The search along a line sees steps of the loss that single precision does not show.
            loss = _loss(outputs, exact, each) + penalty / 2 * weight.double().square().sum()
            slope = (each * (outputs.sigmoid() - exact)).T.float()
            rise = torch.cat([slope @ inputs + penalty * weight, slope.sum(1, keepdim=True)], 1)
            return float(loss), rise.flatten().double().numpy()

        start = minimize(
            objective, start, jac=True, method="L-BFGS-B",
            options={"maxiter": 200, "maxcor": 20, "ftol": 1e-8, "gtol": 1e-5},
        ).x  # fmt: skip
        both = torch.from_numpy(start.astype(np.float32)).view(shape)
        weight = both[:, :-1] if basis is None else both[:, :-1] @ basis.T
        weight = weight / scale
        found[penalty] = (weight, both[:, -1] - weight @ middle)
    return found


def targets_of(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Targets (N, K) float32 of one-vs-rest heads: 1 where a crop is of the class, else 0."""
    return torch.from_numpy((labels[:, None] == np.arange(classes)).astype(np.float32))


def balanced(targets: Tensor, weights: Tensor) -> Tensor:
    """Weights (N, K) that give the crops of a class and all others half of the loss each."""
    weights = weights[:, None]
    of_class = (targets * weights).sum(0).clamp_min(1e-12)
    others = ((1 - targets) * weights).sum(0).clamp_min(1e-12)
    return weights * torch.where(targets > 0, 0.5 / of_class, 0.5 / others)


def _loss(outputs: Tensor, targets: Tensor, balance: Tensor) -> Tensor:
    return (balance * (nn.functional.softplus(outputs) - targets * outputs)).sum()
