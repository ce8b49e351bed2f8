"""The paper's learner: for each class a network of its own, trained against the rest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from collabteam.learners.supervised import SupervisedLearner
from collabteam.team.team import OneVsRest, Voter


class PaperLearner(SupervisedLearner):
    """One expert per class: is it this class, or not? (Padilha and Ferreira, section 3.1)."""

    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:  # noqa: D102
        return [(column,) for column in range(len(classes))]

    def build(  # noqa: D102
        self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True
    ) -> Voter:
        return OneVsRest(self.backbone.network(2, fetch), columns)

    def targets(self, columns: tuple[int, ...], labels: Tensor) -> Tensor:  # noqa: D102
        return (labels == columns[0]).long()
