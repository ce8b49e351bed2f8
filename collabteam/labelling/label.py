"""Labelling: a team gives a verdict on every crop that no person has labelled.

    pool -> probabilities (in parts) -> calibration -> one decision per track -> verdicts -> log

The labels depend only on the stored probabilities and the settings, and only verdicts that the log
does not hold are appended. So a command continues where a killed one stopped, and a later command
scores only new crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.devices import set_threads
from collabteam.labelling import messages
from collabteam.labelling.calibration import apply_temperatures
from collabteam.labelling.plan import LabellingPlan
from collabteam.labelling.records import EngineCheck, LabelRecord
from collabteam.labelling.stages.calibrate import Calibrate, ChooseThresholds, ReadOutOfFold
from collabteam.labelling.stages.decide import Decide, WriteVerdicts
from collabteam.labelling.stages.engine import CompareEngine, OpenedEngine, OpenEngine
from collabteam.labelling.stages.measure import (
    CompareWithTruth,
    MeasureTest,
    PickSamples,
)
from collabteam.labelling.stages.record import FinishLabelling
from collabteam.rounds.records import check_round, read_rounds
from collabteam.rounds.stages.features import ComputeFeatures
from collabteam.rounds.stages.score import ScorePool
from collabteam.rounds.state import digest
from collabteam.settings import LabelConfig, check, risk_of
from collabteam.stages import Runner
from collabteam.team.engines import Disagreement
from collabteam.team.team import Team
from collabteam.team.voting import Verdicts


@dataclass(frozen=True)
class LabelResult:
    """The result of a labelling.

    Attributes:
        record: Content of ``label.json``.
        new: Number of verdicts that the log did not have.
    """

    record: LabelRecord
    new: int


def label_pool(config: LabelConfig, listener: Listener | None = None) -> LabelResult:
    """Label every crop of a camera that no person has labelled and that is not in the test set.

    Args:
        config: All settings.
        listener: Receives progress and warnings; None for silence.

    Returns:
        The result, which is also saved in the camera's folder.

    Raises:
        UserError: There is no such round, the engine is missing or differs too much, or the disk is
            full; finished parts are kept.
    """
    listener = listener or Listener()
    check(config)
    catalog = Catalog.open(config.root, config.camera.name)
    with catalog.workspace.transaction("label"):
        rounds = read_rounds(catalog.workspace)
        number = len(rounds) - 1 if config.round is None else config.round
        if not 0 <= number < len(rounds):
            raise UserError(messages.no_round(catalog.name, number))
        set_threads(config.trainer.threads)
        files = catalog.workspace.round(number)
        trained = (files.fold_predictions(one.fold) for one in rounds[number].recall.folds)
        needed = [file for file in trained if file.name in rounds[number].files]
        check_round(files, rounds[number], needed)
        plan = LabellingPlan(config, catalog, catalog.index(), rounds[number])
        return label_crops(plan, Runner(listener))


def label_crops(plan: LabellingPlan, runner: Runner) -> LabelResult:
    """Run the stages of a labelling.

    Args:
        plan: The labelling.
        runner: Loads the results that an earlier command saved, and computes the rest.

    Returns:
        The result; the record is saved last.

    Raises:
        UserError: The engine is missing or differs too much, or there is nothing to choose a
            threshold on.
    """
    config, index = plan.config, plan.index
    wanted = index.unverified() | index.test_set()
    opened, compared = _engine(plan, runner, np.flatnonzero(wanted))
    engine = opened.engine
    if isinstance(engine, Team) and engine.extractor is not None:
        runner.run(ComputeFeatures(plan.catalog, engine.extractor))
    scored = runner.run(
        ScorePool(
            plan.catalog, index, wanted, plan.files.scores(opened.scores), plan.team.fingerprint,
            plan.classes, lambda: engine, config.trainer.score_batch_size,
            messages.scoring(plan.team.round, engine.kind, engine.precision),
        )
    )  # fmt: skip
    rows, raw = scored.rows, scored.prob_NB.astype(np.float64)
    out_of_fold = runner.run(ReadOutOfFold(plan))
    temperatures = runner.run(Calibrate(plan, out_of_fold))
    thresholds, policy = None, plan.policy
    if (risk := risk_of(config.threshold)) is not None:
        thresholds = runner.run(ChooseThresholds(plan, out_of_fold, temperatures, risk))
        policy = policy.with_thresholds([found.threshold for found in thresholds])
    prob = apply_temperatures(raw, temperatures) if len(rows) else raw
    decision = runner.run(Decide(plan, policy, rows, prob))
    settings = {
        "threshold": config.threshold, "confidence": config.confidence, "tracks": config.tracks,
        "correlation": config.correlation, "calibrate": config.calibrate, "engine": compared.kind,
        "precision": compared.precision,
    }  # fmt: skip
    run = f"label-{digest([plan.team.fingerprint, settings])}"
    in_pool, in_test = index.unverified()[rows], index.test_set()[rows]
    verdicts = decision.verdicts
    new = runner.run(WriteVerdicts(plan, rows[in_pool], _some(verdicts, in_pool), run))
    quality = runner.run(
        MeasureTest(plan, rows[in_test], raw[in_test], prob[in_test], _some(verdicts, in_test))
    )
    truth = runner.run(CompareWithTruth(plan, rows, verdicts.branch, in_pool))
    samples = runner.run(PickSamples(plan, rows, prob, verdicts, in_pool, in_test, truth.known))
    record = runner.run(
        FinishLabelling(
            plan, run, settings, policy, compared, temperatures, thresholds, decision, in_pool,
            quality, truth, samples, new, runner.seconds,
        )
    )  # fmt: skip
    return LabelResult(record, new)


def _engine(
    plan: LabellingPlan, runner: Runner, rows: NDArray[np.int64]
) -> tuple[OpenedEngine, EngineCheck]:
    """Open an engine and compare its verdicts with the reference's.

    Raises:
        UserError: The engine is missing, or its verdicts differ too much.
    """
    config = plan.config
    opened = runner.run(OpenEngine(plan, config.precision))
    try:
        return opened, runner.run(CompareEngine(plan, opened, rows))
    except Disagreement as error:
        if config.precision != "auto" or config.trainer.precision != "auto":
            raise
        # The user did not ask for bf16, and a team with many close votes needs full precision.
        runner.listener.warn(messages.falls_back(error))
    opened = runner.run(OpenEngine(plan, "fp32"))
    return opened, runner.run(CompareEngine(plan, opened, rows))


def _some(verdicts: Verdicts, chosen: NDArray[np.bool_]) -> Verdicts:
    return Verdicts(verdicts.branch[chosen], verdicts.confidence[chosen])
