"""Stage that extends the training set by confident labels of the previous round's team."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from collabteam.catalog import CropIndex, LabelEvent
from collabteam.events import Listener
from collabteam.learners.teams import load_team
from collabteam.rounds import messages
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import DrawnClass, RoundRecord, read_increment
from collabteam.rounds.stages.score import Predictions, ScorePool
from collabteam.stages import Stage
from collabteam.storage.files import write_json


@dataclass(frozen=True, eq=False)
class RoundIncrement:
    """The increment of a round.

    Attributes:
        report: Content of ``increment.json`` per class; empty for round 0.
        labels: The team's labels of the drawn crops; empty if the increment was read back.
    """

    report: dict[str, DrawnClass] = field(default_factory=dict)
    labels: list[LabelEvent] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Select(Stage[RoundIncrement]):
    """Draw the increment once; saved in ``increment.json``, then in the log.

    The file is written first: without the labels it has no effect, and after a kill in between the
    same crops are drawn again.

    Attributes:
        plan: The round, not round 0.
    """

    plan: RoundPlan
    name = "select"

    def saved(self, listener: Listener) -> RoundIncrement | None:
        """Return the draw that the team of the round before made."""
        index = self.plan.catalog.index()
        is_drawn = (index.increment_round == self.plan.number).any()
        if not is_drawn or self._is_stale(index):
            return None
        return RoundIncrement(read_increment(self._file, self.plan.classes))

    def discard(self) -> None:
        """Void labels that another team or a lost round drew."""
        if self._is_stale(self.plan.catalog.index()):
            rollback = LabelEvent.rollback(self.plan.number - 1)
            self.plan.catalog.append_labels([rollback])
            self._file.unlink(missing_ok=True)

    def compute(self, listener: Listener) -> RoundIncrement:
        """Let the team vote on the pool and draw per class."""
        plan, config = self.plan, self.plan.config
        before = self._before
        index = plan.catalog.index()
        scored = self._predictions(index, listener)
        verdicts = plan.policy.vote(scored.prob_NB)
        # One crop per object: a track that already trains would only add near copies.
        tracks = index.track_code[scored.rows]
        increments = plan.rule.select(
            verdicts, tracks, len(plan.classes), config.increment_per_class,
            [config.seed, plan.number], np.isin(tracks, index.track_code[plan.trains(index)]),
        )  # fmt: skip
        report: dict[str, DrawnClass] = {}
        labels = []
        for name, branch in zip(plan.classes, increments, strict=True):
            report[name] = DrawnClass(
                candidates=branch.candidates,
                taken=len(branch.taken),
                shortfall=branch.shortfall,
                expected_precision=before.expected_precision[name].share,
            )
            labels += [
                LabelEvent(
                    str(index.crop_id[scored.rows[position]]),
                    name,
                    source="team",
                    purpose="increment",
                    round=plan.number,
                    confidence=float(verdicts.confidence[position]),
                    by=before.fingerprint,
                )
                for position in branch.taken
            ]
        return RoundIncrement(report, labels)

    def tell(self, output: RoundIncrement, listener: Listener) -> None:
        """Warn of an increment that is small or may be wrong."""
        config = self.plan.config
        for text in messages.warnings_of_increment(
            self.plan.number, output.report, self._before, config.increment_per_class
        ):  # fmt: skip
            listener.warn(text)

    def save(self, output: RoundIncrement) -> None:
        """Write the file, then append the labels in one commit."""
        write_json(self._file, {name: row.model_dump() for name, row in output.report.items()})
        self.plan.catalog.append_labels(output.labels)

    def _predictions(self, index: CropIndex, listener: Listener) -> Predictions:
        """Votes of the team of the round before; crops that came since then are scored now."""
        plan, files = self.plan, self.plan.files_before
        trainer, weights = plan.config.trainer, plan.config.features.weights
        return ScorePool(
            plan.catalog, index, plan.pool(index), files.scores(), self._before.fingerprint,
            plan.classes,
            # Load it with the settings of its training, which may have changed since a rollback.
            lambda: load_team(files, trainer, weights), trainer.score_batch_size,
            messages.scoring(plan.number - 1),
        ).compute(listener)  # fmt: skip

    def _is_stale(self, index: CropIndex) -> bool:
        number = self.plan.number
        drawn = index.increment_round == number
        foreign = drawn & (index.increment_by != self._before.fingerprint)
        beyond = index.increment_round > number
        is_lost = drawn.any() and not self._file.exists()
        return bool(foreign.any() or beyond.any() or is_lost)

    @property
    def _before(self) -> RoundRecord:
        assert self.plan.before is not None, "round 0 selects nothing"
        return self.plan.before

    @property
    def _file(self) -> Path:
        return self.plan.files.increment
