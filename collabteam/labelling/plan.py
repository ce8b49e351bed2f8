"""The fixed inputs that all stages of a labelling share."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.catalog import Catalog, CropIndex
from collabteam.rounds.records import RoundRecord
from collabteam.settings import LabelConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team.voting import VotePolicy


@dataclass(frozen=True, eq=False)
class LabellingPlan:
    """A labelling of one camera by the team of one round.

    Attributes:
        config: All settings.
        catalog: The camera, locked by the caller.
        index: Its crops before this labelling.
        team: Record of the team's round.
    """

    config: LabelConfig
    catalog: Catalog
    index: CropIndex
    team: RoundRecord

    @property
    def classes(self) -> list[str]:
        """Names of the team's classes, in the order of the branches."""
        return self.team.classes

    @property
    def policy(self) -> VotePolicy:
        """The policy with which the team votes on single crops."""
        return self.team.policy

    @property
    def files(self) -> RoundFiles:
        """The files of the team's round."""
        return self.catalog.workspace.round(self.team.round)
