"""Stages that load the team into an engine and compare it with the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.labelling import messages
from collabteam.labelling.plan import LabellingPlan
from collabteam.labelling.records import EngineCheck
from collabteam.learners.teams import load_team
from collabteam.stages import Stage
from collabteam.storage.files import damaged, read_json, write_json
from collabteam.team.engines import check_engine, open_engine
from collabteam.team.team import Engine


@dataclass(frozen=True, eq=False)
class OpenedEngine:
    """An engine, and which scores are its own.

    Attributes:
        engine: The team.
        scores: Name of its scores; empty for those that training saved.
    """

    engine: Engine
    scores: str


@dataclass(frozen=True, eq=False)
class OpenEngine(Stage[OpenedEngine]):
    """Load the team into the engine that the settings name.

    Attributes:
        plan: The labelling.
        precision: ``auto``, ``fp32``, ``bf16`` or ``int8``.
    """

    plan: LabellingPlan
    precision: str
    name = "score"

    def compute(self, listener: Listener) -> OpenedEngine:
        """Load the engine.

        Raises:
            UserError: A package is missing, the processor does not support the precision, or the
                round is damaged.
        """
        plan, config = self.plan, self.plan.config
        load = partial(load_team, plan.files, weights=config.weights)
        engine = open_engine(
            load, plan.files, config.engine, self.precision, config.trainer,
            self._calibration_crops,
        )  # fmt: skip
        # The scores of training, in the precision of its machine, can be used again.
        is_trained = config.engine == "torch" and {
            self.precision, config.trainer.precision
        } == {"auto"}  # fmt: skip
        return OpenedEngine(engine, "" if is_trained else f"{engine.kind}-{engine.precision}")

    def _calibration_crops(self, count: int) -> list[bytes]:
        """Return pictures on which an engine measures the range of its numbers."""
        plan = self.plan
        rng = np.random.default_rng([plan.config.seed, *b"calibration"])
        rows = rng.choice(len(plan.index), min(count, len(plan.index)), replace=False)
        return plan.catalog.images(np.sort(rows))


@dataclass(frozen=True, eq=False)
class CompareEngine(Stage[EngineCheck]):
    """Compare an engine with torch in fp32 on a sample, once for each team and engine.

    Attributes:
        plan: The labelling.
        opened: The engine.
        rows: Rows of the crops that it will score.
    """

    plan: LabellingPlan
    opened: OpenedEngine
    rows: NDArray[np.int64]
    name = "score"

    def saved(self, listener: Listener) -> EngineCheck | None:
        """Return the result of an earlier comparison of this team and engine."""
        file = self.plan.files.scores_check(self.opened.scores)
        if not file.exists():
            return None
        again = "the engine is compared again"
        try:
            known = read_json(file, again)
            return (
                EngineCheck.model_validate(known) if known.items() >= self._key().items() else None
            )
        except UserError as error:
            listener.warn(str(error))
        except ValidationError as error:
            found = f"{error.error_count()} wrong values"
            listener.warn(str(damaged(file, "the comparison of an engine", found, again)))
        return None

    def compute(self, listener: Listener) -> EngineCheck:
        """Score a sample with the engine and the reference.

        Raises:
            Disagreement: More than ``MOST_DISAGREEMENT`` of the verdicts differ.
        """
        plan, config, engine = self.plan, self.plan.config, self.opened.engine
        if not len(self.rows) or (engine.kind, engine.precision) == ("torch", "fp32"):
            nothing = {"crops": 0, "disagreement": 0.0, "largest_difference": 0.0}
            return EngineCheck.model_validate(self._key() | nothing)
        rng = np.random.default_rng([config.seed, *b"check"])
        count = min(config.check, len(self.rows))
        sample = np.sort(rng.choice(self.rows, count, replace=False))
        trainer = replace(config.trainer, precision="fp32")
        exact = load_team(plan.files, trainer, config.weights)
        title = f"comparing {engine.kind} in {engine.precision} with torch in fp32"
        with listener.stage(title, len(sample), "crops") as advance:
            found = check_engine(
                engine, exact, plan.catalog, sample, config.trainer.score_batch_size, plan.policy,
                advance,
            )  # fmt: skip
        return EngineCheck.model_validate(self._key() | asdict(found))

    def tell(self, output: EngineCheck, listener: Listener) -> None:
        """Report how far the engine differs from the reference."""
        if output.crops:
            listener.say(messages.compared(output))

    def save(self, output: EngineCheck) -> None:
        """Write the result beside the engine's scores, if there were crops to compare."""
        if output.crops:
            write_json(self.plan.files.scores_check(self.opened.scores), output.model_dump())

    def _key(self) -> dict[str, str]:
        engine = self.opened.engine
        return {
            "team": self.plan.team.fingerprint, "kind": engine.kind, "precision": engine.precision
        }  # fmt: skip
