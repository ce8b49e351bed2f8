"""One network with a softmax over all classes and *none of these*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from collabteam.learners.supervised import SupervisedLearner
from collabteam.settings.fields import setting
from collabteam.team.team import OneOfMany, Voter


class SoftmaxLearner(SupervisedLearner):
    """A network with an output for each class and one for *none of these*.

    It abstains as a team does: a class is voted *true* above one half, so there is a consensus if
    one class has more probability than all others and *none of these* together.
    """

    @dataclass(frozen=True)
    class Settings(SupervisedLearner.Settings):
        """Settings of ``learner=softmax``."""

        passes: int = setting(
            1,
            ge=1,
            help="factor on the epochs; n costs as much as the paper's team of n branches",
        )

    def groups(self, classes: Sequence[str]) -> list[tuple[int, ...]]:  # noqa: D102
        return [tuple(range(len(classes)))]

    def build(  # noqa: D102
        self, classes: Sequence[str], columns: tuple[int, ...], fetch: bool = True
    ) -> Voter:
        return OneOfMany(self.backbone.network(len(columns) + 1, fetch), columns)

    def targets(self, columns: tuple[int, ...], labels: Tensor) -> Tensor:  # noqa: D102
        return labels.where(labels >= 0, len(columns))

    def epochs(self, later: bool, batches: int) -> int:  # noqa: D102
        return super().epochs(later, batches) * int(self.settings.passes)
