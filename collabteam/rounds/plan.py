"""The fixed inputs that all stages of a round share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex
from collabteam.errors import UserError
from collabteam.features.devices import Device
from collabteam.features.extractor import FeatureExtractor, with_projections
from collabteam.features.images import Transform
from collabteam.learners.base import Learner
from collabteam.learners.folds import check_folds
from collabteam.learners.teams import learner_for, start_transform
from collabteam.rounds.initial import initial_rows, read_sample
from collabteam.rounds.records import RoundRecord, check_round, read_folds
from collabteam.rounds.selection import SelectionRule, selection_rule
from collabteam.settings import TrainConfig, from_record
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import check_backbone, voter_file
from collabteam.team.voting import VotePolicy, team_policy


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """A round to make.

    Attributes:
        config: All settings, with the classes in the catalog's order.
        catalog: The camera, locked by the caller.
        number: The round's number.
        before: Record of the round before; None for round 0.
        device: Where the networks compute.
    """

    config: TrainConfig
    catalog: Catalog
    number: int
    before: RoundRecord | None
    device: Device

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the branches."""
        return list(self.config.camera.classes)

    @property
    def learner(self) -> Learner:
        """The learner that the settings name."""
        return learner_for(self.config)

    @property
    def policy(self) -> VotePolicy:
        """How the team votes."""
        return team_policy(self.config.team)

    @property
    def rule(self) -> SelectionRule:
        """How the round selects its increment."""
        return selection_rule(self.config)

    @property
    def files(self) -> RoundFiles:
        """The round's files."""
        return self.catalog.workspace.round(self.number)

    @property
    def files_before(self) -> RoundFiles:
        """The files of the round before."""
        return self.catalog.workspace.round(self.number - 1)

    def start_from(self) -> RoundFiles | None:
        """The round whose networks are the start; None to start from scratch.

        Raises:
            UserError: Those networks are of another kind.
        """
        if self.before is None or self.config.team.init == "scratch":
            return None
        # A rollback lets settings change, but not the networks that training continues from.
        before = from_record(TrainConfig, self.before.settings)
        names = ("backbone", "attention", "stem")
        compared = {
            f"team.{n}": (getattr(before.team, n), getattr(self.config.team, n)) for n in names
        }
        if self.learner.network == "features":
            compared = {
                "features.backbone": (before.features.backbone, self.config.features.backbone)
            }
        compared["learner"] = (before.learner["name"], self.config.learner["name"])
        other = [f"{name} {old} -> {new}" for name, (old, new) in compared.items() if old != new]
        if other:
            raise UserError(
                f"team.init=previous cannot continue from round {self.number - 1}: "
                + "; ".join(other)
                + "; use team.init=scratch, or rollback=-1 to start over"
            )
        return self.files_before

    def check_before(self) -> None:
        """Make sure that what this round reads of the one before is not damaged.

        Raises:
            UserError: A file is damaged, or its tracks were dealt into more folds.
        """
        if self.before is None:
            return
        start_from, needed = self.start_from(), list[Path]()
        if start_from is not None:
            needed = [
                voter_file(start_from, self.classes, columns, fold)
                for columns in self.learner.groups(self.classes)
                for fold in self.config.data.train_folds
            ]
        check_round(self.files_before, self.before, needed)
        check_folds(read_folds(self.files_before.folds), self.config.data.folds)
        read_sample(self.catalog.workspace)

    @cached_property
    def backbones(self) -> FeatureExtractor:
        """The frozen backbones that the settings name, without a projection."""
        return FeatureExtractor(self.config.features, self.device)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The frozen backbones that the settings name, with the camera's projections.

        Raises:
            UserError: A projection is missing or damaged.
        """
        size = self.config.features.projection
        return with_projections(self.backbones, size, self.catalog.workspace)

    def check_features(self) -> None:
        """Make sure that a learner on features has the backbones that it had before.

        Raises:
            UserError: Their weights cannot be had, or are others than in the round before.
        """
        if not self.learner.on_features:
            return
        if self.before is None:
            _ = self.backbones.parts
            return
        size = from_record(TrainConfig, self.before.settings).features.projection
        if size != self.config.features.projection:
            raise UserError(
                f"features.projection {size} -> {self.config.features.projection}: the heads of "
                f"round {self.number - 1} need the features that they were trained on: keep it, or "
                "start over with rollback=-1"
            )
        digest = self.extractor.digest
        columns, fold = self.learner.groups(self.classes)[0], self.config.data.train_folds[0]
        check_backbone(voter_file(self.files_before, self.classes, columns, fold), digest)

    def transform(self) -> Transform:
        """The transform from crops to pictures; that of the starting networks, if any."""
        start_from, fold = self.start_from(), self.config.data.train_folds[0]
        if start_from is None:
            return self.learner.transform
        return start_transform(self.learner, start_from, self.classes, fold)

    def trains(self, index: CropIndex) -> NDArray[np.bool_]:
        """(N,) whether a crop trains in this round or trained in an earlier one."""
        used = (index.increment_round >= 1) & (index.increment_round <= self.number)
        # A crop on which an earlier team abstained trains from here on if a person verified it.
        verified = (index.unsure_round >= 0) & index.verified()
        used |= verified & (index.unsure_round < self.number)
        used[initial_rows(self.catalog.workspace, index)] = True
        return used

    def pool(self, index: CropIndex) -> NDArray[np.bool_]:
        """(N,) whether the team votes on a crop and may select it for training."""
        return index.pool(self.trains(index))
