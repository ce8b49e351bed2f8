"""A pretrained network that is trained on: heads first, then all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from collabteam.catalog.records import NONE
from collabteam.errors import UserError
from collabteam.features.backbones import Backbone
from collabteam.features.devices import one_thread
from collabteam.features.extractor import backbones_of
from collabteam.learners.base import FoldTask
from collabteam.learners.batches import Batch
from collabteam.learners.methods.probe import (
    FEWEST_UNKNOWN,
    NEVER,
    balanced,
    fit_heads,
    targets_of,
)
from collabteam.learners.supervised import SupervisedLearner, SupervisedModule, warmup_cosine
from collabteam.settings.fields import setting
from collabteam.team.team import MultiLabel, Voter

_PENALTY = 0.01
"""L2 penalty of the heads that training starts from."""
_WARMUP = 0.25
"""Share of the steps over which the rate rises."""


class FinetuneLearner(SupervisedLearner):
    """Fine-tunes a pretrained backbone with one-vs-rest heads.

    The heads are first fitted on the features of the unchanged backbone, as ``probe`` does
    (linear probing, then fine-tuning: Kumar et al., 2022). Then AdamW trains the whole network on
    the class-balanced logistic loss, with a rate that rises and falls once.

    The first stages, which know what any picture is made of, stay as they are, and so do the
    statistics of batch normalisation: those of a batch of few crops would say more of the batch
    than of the camera.

    With ``strangers=none`` a network has one more output, *none of these*. The probability of each
    class is multiplied by that of not being an object of no class.
    """

    network = "features"

    @dataclass(frozen=True)
    class Settings(SupervisedLearner.Settings):
        """Settings of ``learner=finetune``."""

        trunk: str = setting(
            "shared",
            choices={
                "shared": "one network with a head for each class",
                "separate": "a network for each class, independent of the others",
            },
            help="whether the branches share the backbone",
        )
        steps: int = setting(300, ge=1, le=10_000_000, help="training steps of a fold")
        lr: float = setting(1e-3, ge=1e-8, help="peak learning rate of AdamW")
        weight_decay: float = setting(0.05, ge=0, help="weight decay of AdamW")
        frozen: float = setting(
            0.5,
            ge=0,
            lt=1,
            when_absent=0.0,
            always_recorded=True,
            help="share of the backbone's stages, from the first, that keep their weights; a round "
            "of a version before this setting trained all",
        )
        statistics: str = setting(
            "pretrained",
            choices={
                "pretrained": "those of the pretrained backbone",
                "batch": "those of each batch, and for votes their moving average",
            },
            when_absent="batch",
            always_recorded=True,
            help="statistics that batch normalisation uses",
        )
        strangers: str = setting(
            "off",
            choices={
                "off": "verified 'unknown' crops teach each head *false*, and no more",
                "none": "they also teach an output of their own, *none of these*",
            },
            when_absent="off",
            help="how objects of no class are told from the classes",
        )

    def check(self, classes: Sequence[str]) -> None:  # noqa: D102
        if len(names := self.shared.features.backbone) > 1:
            raise UserError(
                f"features.backbone={names}: this learner trains one network: name one model, or "
                "use learner=probe"
            )
        super().check(classes)

    @property
    def backbone(self) -> Backbone:  # noqa: D102
        return backbones_of(self.shared.features)[0]

    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:  # noqa: D102
        columns = tuple(range(len(classes)))
        return [columns] if self.settings.trunk == "shared" else [(one,) for one in columns]

    def build(  # noqa: D102
        self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True
    ) -> Voter:
        backbone = self.backbone
        network = backbone.network(len(self._outputs(columns)), fetch)
        if self.settings.frozen:
            freeze(network, self.settings.frozen, backbone.name)
        return MultiLabel(network, columns)

    def _outputs(self, columns: tuple[int, ...]) -> tuple[int, ...]:
        """What a network's outputs stand for: classes, and ``NONE``."""
        return (*columns, NONE) if self.settings.strangers == "none" else columns

    def targets(self, columns: tuple[int, ...], labels: Tensor) -> Tensor:  # noqa: D102
        outputs = torch.tensor(self._outputs(columns), device=labels.device)
        return (labels[:, None] == outputs).float()

    def epochs(self, later: bool, batches: int) -> int:  # noqa: D102
        return math.ceil(int(self.settings.steps) / batches)

    def start(self, task: FoldTask) -> list[Voter]:
        """Build the networks that training starts from; new ones get fitted heads."""
        voters = super().start(task)
        if task.start_from is not None:
            return voters
        trains = np.flatnonzero(task.trains)
        features = task.features[task.rows[trains]]
        targets = targets_of(task.labels[trains], len(task.classes))
        weights = torch.from_numpy(task.weights[trains])
        is_none = torch.from_numpy((task.labels[trains] == NONE).astype(np.float32))
        if self.settings.strangers == "none":
            targets = torch.cat([targets, is_none[:, None]], dim=1)
        with one_thread():
            weight, bias = fit_heads(features, targets, weights, [_PENALTY])[_PENALTY]
        if self.settings.strangers == "none" and float(is_none @ weights) < FEWEST_UNKNOWN:
            weight[-1], bias[-1] = 0.0, NEVER
        for voter in voters:
            network: Any = voter.network
            chosen = list(self._outputs(voter.columns))  # NONE, which is -1, is the last one
            state = {"weight": weight[chosen], "bias": bias[chosen]}
            network.get_classifier().load_state_dict(state)
        return voters

    def module(self, task: FoldTask, voters: Sequence[Voter]) -> SupervisedModule:  # noqa: D102
        return FinetuneModule(task, voters, self)


def freeze(network: Any, share: float, name: str) -> None:
    """Let the first stages of a timm model keep their weights.

    Args:
        network: The model, with its head.
        share: Share of its stages, stem and head included, 0 to 1; rounded down.
        name: Name of the model, for the message.

    Raises:
        UserError: The model does not tell its stages.
    """
    try:
        stages = list(group_parameters(network, network.group_matcher(coarse=True)).values())
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"learner.frozen={share}: {name} does not tell its stages: set learner.frozen=0"
        ) from error
    # A model of few stages keeps at least its head free.
    for stage in stages[: min(int(share * len(stages)), len(stages) - 1)]:
        for parameter in stage:
            network.get_parameter(parameter).requires_grad_(False)


class FinetuneModule(SupervisedModule):
    """Networks with a logistic loss for each class.

    Args:
        task: The crops.
        voters: The voters.
        learner: The learner.
    """

    def __init__(self, task: FoldTask, voters: Sequence[Voter], learner: FinetuneLearner) -> None:
        super().__init__(task.classes, voters, learner.targets, learner.shared.optim)
        self.settings = learner.settings
        self.train()

    def train(self, mode: bool = True) -> FinetuneModule:
        """Switch to training or away from it; what stays as it is stays in evaluation."""
        super().train(mode)
        for voter in self.voters:
            for module in voter.network.modules():
                own = list(module.parameters())
                still = bool(own) and not any(one.requires_grad for one in own)
                normalises = isinstance(module, _BatchNorm)
                if still or (normalises and self.settings.statistics == "pretrained"):
                    module.eval()
        return self

    def count(self, labels: Tensor, weights: Tensor) -> None:
        """Let the crops of a class and all others count the same in its loss.

        Args:
            labels: (n,) int, index of the class or ``NONE``.
            weights: (n,) float, above 0.
        """
        for voter in self.voters:
            targets = self.targets(voter.columns, labels)
            each = balanced(targets, weights) / weights[:, None] * weights.sum()
            # (2, K): the weight of a crop that is not of the class, and of one that is.
            both = torch.stack([(each * (1 - targets)).amax(0), (each * targets).amax(0)])
            # Too few crops of no class teach nothing about the others.
            few = float((labels == NONE).float() @ weights) < FEWEST_UNKNOWN
            both[:, len(voter.columns) :] *= not few
            self.class_weights.append(both)

    def loss(self, number: int, batch: Batch) -> Tensor:
        """Class-balanced logistic loss of one voter on a batch (scalar)."""
        images, labels, weights = batch
        voter, balance = self.voters[number], self.class_weights[number]
        outputs = voter.network(images).float()
        targets = self.targets(voter.columns, labels)
        each = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        each = each * torch.where(targets > 0, balance[1], balance[0]) * weights[:, None]
        return each.mean()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, with a rate that rises over a quarter of the steps and falls to zero."""
        optimizer = torch.optim.AdamW(
            [one for one in self.parameters() if one.requires_grad],
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, _WARMUP))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
