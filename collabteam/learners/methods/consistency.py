"""Fine-tuning that also learns from the pool, by the team's own consensus."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from collabteam.catalog.records import UNLABELLED
from collabteam.features.images import augment
from collabteam.learners.base import FoldTask
from collabteam.learners.batches import Batch
from collabteam.learners.methods.finetune import FinetuneLearner, FinetuneModule
from collabteam.learners.supervised import SupervisedModule
from collabteam.settings.fields import setting
from collabteam.team.team import Voter


class ConsistencyLearner(FinetuneLearner):
    """Learns from verified crops and, by consistency, from the pool (FixMatch, Sohn et al., 2020).

    A moving average of the networks looks at a mildly changed view of each crop of the pool. Where
    its votes are a consensus, that is one class alone is claimed, and its joint confidence reaches
    the class's threshold, the networks learn that verdict on a strongly changed view. Thresholds
    adapt as in FreeMatch (Wang et al., 2023): they follow the confidence that the networks have
    reached, and are lower for a class that is learned later.
    """

    uses_pool = True

    @dataclass(frozen=True)
    class Settings(FinetuneLearner.Settings):
        """Settings of ``learner=consistency``."""

        steps: int = setting(
            600,
            ge=1,
            le=10_000_000,
            help="training steps of a fold",
        )
        pool_ratio: int = setting(
            3, ge=1, le=64, help="crops of the pool per verified crop in a training step"
        )
        threshold: float = setting(
            0.95, ge=0, le=1, help="joint confidence that a verdict on the pool needs, at most"
        )
        average: float = setting(
            0.99, ge=0, lt=1, help="decay of the moving average of the weights, per step"
        )
        pool_weight: float = setting(1.0, ge=0, help="weight of the loss on the pool")

    def module(self, task: FoldTask, voters: Sequence[Voter]) -> SupervisedModule:  # noqa: D102
        return ConsistencyModule(task, voters, self)


class ConsistencyModule(FinetuneModule):
    """Networks, their moving average, and the loss on the pool.

    Args:
        task: The crops.
        voters: The voters.
        learner: The learner.
    """

    def __init__(
        self, task: FoldTask, voters: Sequence[Voter], learner: ConsistencyLearner
    ) -> None:
        super().__init__(task, voters, learner)
        self.task, self.batch_size = task, learner.shared.data.batch_size
        self.averages = nn.ModuleList(copy.deepcopy(voter) for voter in voters)
        self.averages.requires_grad_(False)
        self.pool = task.rows[task.labels == UNLABELLED]
        # Both belong to the checkpoint.
        self.register_buffer("reached", torch.zeros(len(task.classes)))
        self.register_buffer("step", torch.tensor(0, dtype=torch.int64))

    def result(self) -> list[Voter]:
        """The averages, once they are trained."""
        return [average for average in self.averages if isinstance(average, Voter)]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss on verified crops, and on crops of the pool."""
        loss = super().training_step(batch, batch_index)
        if len(self.pool):
            loss = loss + self.settings.pool_weight * self._on_pool()
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Move the networks, and the average towards them: before a checkpoint may be saved."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.follow()

    def follow(self) -> None:
        """Move the average one step towards the networks."""
        step: Any = self.step
        step += 1
        # The average of few steps would be mostly the start.
        decay = min(self.settings.average, float((1 + step) / (10 + step)))
        with torch.no_grad():
            for average, voter in zip(self.averages, self.voters, strict=True):
                states = zip(
                    average.state_dict().values(), voter.state_dict().values(), strict=True
                )
                for mean, value in states:
                    if mean.is_floating_point():
                        mean.lerp_(value, 1 - decay)
                    else:
                        mean.copy_(value)

    def _on_pool(self) -> Tensor:
        step: Any = self.step
        # All draws of a step follow from its number, so a resumed fit repeats them.
        seed = (self.task.seed * 1_000_003 + int(step)) % 2**63
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed % 2**31)
        count = min(len(self.pool), self.settings.pool_ratio * self.batch_size)
        rows = np.sort(rng.choice(self.pool, count, replace=False))
        pixels = self.task.pixels
        images = pixels.transform.normalize(pixels[rows].to(self.device))
        weak = augment(images, "affine", generator)
        labels, taken = self._verdicts(weak)
        chosen = _filled(taken)
        # Crops that teach nothing cost no pass, but for a few. The statistics of a batch need more
        # than one crop.
        if len(chosen) < 2:
            return torch.zeros((), device=self.device)
        strong = augment(images[chosen], "strong", generator)
        losses = []
        for voter in self.voters:
            outputs = voter.network(strong).float()
            targets = self.targets(voter.columns, labels[chosen])
            each = nn.functional.binary_cross_entropy_with_logits(
                outputs, targets, reduction="none"
            )
            losses.append((each.mean(dim=1) * taken[chosen]).sum() / count)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _verdicts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The classes (n,) that the average agrees on, and whether it is sure enough (n,)."""
        self.averages.eval()
        prob = torch.cat([voter(images) for voter in self.averages], dim=1)
        columns = torch.tensor(
            [column for voter in self.voters for column in voter.columns], device=prob.device
        )
        prob = prob[:, columns.argsort()]
        claimed, labels = (prob > 0.5).sum(dim=1), prob.argmax(dim=1)
        mine = torch.nn.functional.one_hot(labels, prob.shape[1]).bool()
        joint = torch.where(mine, prob, 1 - prob).prod(dim=1)
        consensus = claimed == 1
        step: Any = self.step
        reached: Any = self.reached
        if consensus.any():
            decay = 0.9 if int(step) else 0.0
            count = (mine & consensus[:, None]).sum(dim=0)
            sure = (mine * (joint * consensus)[:, None]).sum(dim=0) / count.clamp_min(1)
            moved = decay * reached + (1 - decay) * sure
            reached.copy_(torch.where(count > 0, moved, reached))
        # The class that the networks are surest about has the highest threshold.
        relative = (reached / reached.max().clamp_min(1e-6)).clamp_min(0.5)
        threshold = self.settings.threshold * relative
        return labels, consensus & (joint >= threshold[labels])


def _filled(taken: Tensor) -> Tensor:
    """Places of all taken crops, (n,) bool, first; others fill up to a multiple of eight.

    The kernels keep memory for each size of a batch that they have met.
    """
    count = -(-int(taken.sum()) // 8) * 8
    return torch.argsort(~taken, stable=True)[:count]
