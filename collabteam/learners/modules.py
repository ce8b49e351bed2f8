"""Lightning shells of a branch and of a team."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import lightning.pytorch as pl
import torch
import torchmetrics
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from collabteam.features.backbones import build_branch
from collabteam.settings import OptimConfig, TeamConfig

Batch = tuple[Tensor, Tensor]
"""Pictures (N, 3, S, S) float, and labels (N,) int: index of the class, -1 for none of them."""


def branch_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights of the cross-entropy per branch, from a training fold's own counts.

    Each side of a branch weighs as much as the other in sum: ``N / (2 * count)``, 0 for a side
    without crops.

    Args:
        labels: (N,) int, index of the class or -1.
        classes: Number of branches B.

    Returns:
        (B, 2) float: weight of *false* and of *true*.
    """
    true_B = torch.stack([(labels == b).sum() for b in range(classes)]).float()
    counts = torch.stack([len(labels) - true_B, true_B], dim=1)
    return torch.where(counts > 0, len(labels) / (2 * counts.clamp(min=1)), torch.zeros(()))


class BranchModule(pl.LightningModule):
    """One expert: is it this class, or not?

    Loss: cross-entropy weighted by ``weight``, with label smoothing (paper, section 3.1).

    Args:
        team: Network settings.
        optim: Optimiser settings.
        branch: Index of the class that this branch knows.
        weight: (2,) weights of *false* and *true*, see :func:`branch_weights`.
    """

    weight: Tensor

    def __init__(
        self,
        team: TeamConfig,
        optim: OptimConfig,
        branch: int,
        weight: Tensor,
    ) -> None:
        super().__init__()
        self.network = build_branch(team)
        self.optim, self.branch = optim, branch
        # Not part of the state: a checkpoint votes, and votes need no loss.
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.recall = torchmetrics.Recall(task="multiclass", num_classes=2, average="none")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of *false* and *true*."""
        logits: Tensor = self.network(images)
        return logits.float()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Weighted, smoothed cross-entropy of the batch (scalar)."""
        return nn.functional.cross_entropy(
            self(images),
            (labels == self.branch).long(),
            self.weight,
            label_smoothing=self.optim.label_smoothing,
        )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch."""
        loss = self.loss(*batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count one batch."""
        images, labels = batch
        self.recall.update(self(images), (labels == self.branch).long())

    def on_validation_epoch_end(self) -> None:
        """Log the recall of false and of true, 0 to 1."""
        of_false, of_true = self.recall.compute()
        self.log_dict({f"val/{self.branch}/true": of_true, f"val/{self.branch}/false": of_false})
        self.recall.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD with cosine annealing by step, after a linear warm-up if one is set."""
        return sgd(self, self.optim)


class TeamModule(pl.LightningModule):
    """All branches of a team, trained side by side.

    The branches share no parameter, so one SGD over the summed loss is exactly n independent ones
    (a test holds that). Nothing that couples them, such as clipping the global gradient norm, may
    be switched on in the Trainer.

    Args:
        classes: Names of the classes, one branch each.
        team: Network settings.
        optim: Optimiser settings.
        weights: (B, 2), see :func:`branch_weights`.
    """

    def __init__(
        self,
        classes: Sequence[str],
        team: TeamConfig,
        optim: OptimConfig,
        weights: Tensor,
    ) -> None:
        super().__init__()
        self.classes, self.optim = list(classes), optim
        self.branches = nn.ModuleList(
            BranchModule(team, optim, b, weights[b]) for b in range(len(classes))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Probability of *true*, (N, B), 0 to 1."""
        return torch.stack([b(images).softmax(dim=1)[:, 1] for b in self.branches], dim=1)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Summed loss of one batch."""
        losses = [branch.loss(*batch) for branch in self.branches]  # type: ignore[operator]
        for name, loss in zip(self.classes, losses, strict=True):
            self.log(f"loss/{name}", loss.detach(), on_step=False, on_epoch=True)
        return torch.stack(losses).sum()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count one batch in every branch."""
        for branch in self.branches:
            branch.validation_step(batch, batch_index)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the recall of true and of false per branch, 0 to 1."""
        for name, branch in zip(self.classes, self.branches, strict=True):
            of_false, of_true = branch.recall.compute()  # type: ignore[operator, union-attr]
            self.log_dict({f"val/{name}/true": of_true, f"val/{name}/false": of_false})
            branch.recall.reset()  # type: ignore[operator, union-attr]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One SGD over all branches, see :func:`sgd`."""
        return sgd(self, self.optim)

    def networks(self) -> list[nn.Module]:
        """The bare networks, one per branch."""
        return [branch.network for branch in self.branches]  # type: ignore[misc]


def sgd(module: pl.LightningModule, optim: OptimConfig) -> OptimizerLRScheduler:
    """SGD, momentum, weight decay and cosine annealing to zero, stepped per batch."""
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        weight_decay=optim.weight_decay,
        fused=module.device.type in ("cpu", "cuda"),
    )
    steps = int(module.trainer.estimated_stepping_batches)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, optim.warmup))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor on the peak rate by step: linear from 1/25 up, then half a cosine down to zero.

    Args:
        steps: Steps of the whole fit.
        warmup: Share of the steps that rise, 0 to 0.5.

    Returns:
        A function of the step, for ``LambdaLR``.
    """
    rising = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return 0.04 + 0.96 * step / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor
