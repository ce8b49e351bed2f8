"""The loop: bring a camera to a round.

Round 0 trains on a human-verified sample, i0. Round k lets the team of round k-1 vote on the pool,
adds a random draw of the crops that it is most confident about, and trains on i0 + i1 + ... + ik.
A round is a list of stages (:mod:`collabteam.rounds.stages`); each saves its result before the next
begins, so running a killed command again continues where it stopped.
"""

from __future__ import annotations

from dataclasses import replace

from collabteam.catalog import Catalog, LabelEvent
from collabteam.events import Listener
from collabteam.features.devices import Device, set_threads
from collabteam.features.extractor import ComputedFeatures, Features
from collabteam.features.images import CropPixels
from collabteam.learners.teams import check_learner, learner_for, learner_of, voting_team
from collabteam.rounds import messages
from collabteam.rounds.cost import tell_cost
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.records import RoundRecord, read_rounds
from collabteam.rounds.selection import selection_rule
from collabteam.rounds.stages.choose import ChooseFeatures
from collabteam.rounds.stages.evaluate import (
    CompareWithTruth,
    EvaluateFolds,
    EvaluateTest,
    VerifyTest,
)
from collabteam.rounds.stages.features import ComputeFeatures, FitProjections
from collabteam.rounds.stages.record import FinishRound
from collabteam.rounds.stages.sample import DrawSample, VerifySample
from collabteam.rounds.stages.score import ScorePool
from collabteam.rounds.stages.select import RoundIncrement, Select
from collabteam.rounds.stages.train import Elect, TrainFold
from collabteam.rounds.stages.training_set import (
    AssignFolds,
    GatherPool,
    GatherTrainingSet,
    ReadPictures,
)
from collabteam.rounds.state import check_settings, settled
from collabteam.settings import AUTO, TrainConfig, check
from collabteam.stages import Runner
from collabteam.storage.files import make_folder
from collabteam.team.voting import team_policy


def train_rounds(config: TrainConfig, listener: Listener | None = None) -> list[RoundRecord]:
    """Bring a camera to ``config.round``, doing every round that is missing.

    Args:
        config: All settings.
        listener: Where progress, warnings and curves go. If None, the work is silent and nothing is
            logged, whatever ``config.logger`` says: ``reporting.tracking.Tracking`` logs.

    Returns:
        The records (``round.json``) of rounds 0 to the last one finished.

    Raises:
        UserError: Something that only the user can change; existing results are kept.
    """
    listener = listener or Listener()
    check(config)
    # Report a wrong policy or rule before anything is drawn.
    team_policy(config.team)
    selection_rule(config)
    catalog = Catalog.open(config.root, config.camera.name)
    catalog.set_classes(config.camera.classes)
    # The catalog's order of classes counts, not the command's.
    config = replace(config, camera=replace(config.camera, classes=catalog.classes))
    with catalog.workspace.transaction("train"):
        if config.rollback is not None:
            _roll_back(catalog, config.rollback, listener)
        done = read_rounds(catalog.workspace)
        config = _settle(config, done)
        if done and config.rollback is None:
            check_settings(done[-1], config)
        if len(done) <= config.round:
            # Report a wrong name before anything is drawn.
            check_learner(config)
        # An earlier command may have been killed before it logged, or told not to log.
        listener.rounds_finished(catalog.folder)
        while len(done) <= config.round:
            before = done[-1] if done else None
            config = _settle(config, done)
            plan = RoundPlan(config, catalog, len(done), before, Device.of(config.trainer))
            with catalog.workspace.transaction("train"):
                done.append(make_round(plan, Runner(listener)))
            listener.say(messages.headline(done[-1]))
            listener.rounds_finished(catalog.folder)
        return done


def make_round(plan: RoundPlan, runner: Runner) -> RoundRecord:
    """Go through the stages of one round.

    Args:
        plan: The round.
        runner: Loads the outputs that an earlier command saved, and computes the others.

    Returns:
        The record, which is saved last.

    Raises:
        UserError: Crops have to be verified first, or settings do not fit the round before.
    """
    catalog, config = plan.catalog, plan.config
    plan.check_before()
    make_folder(plan.files.folder)
    set_threads(config.trainer.threads)
    is_open = config.features.is_open
    if not is_open:
        plan.check_features()  # other weights are refused before anything is drawn
    if plan.number == 0:
        runner.run(DrawSample(catalog, config))
        runner.run(VerifySample(catalog, config))
        increment = RoundIncrement()
    else:
        increment = runner.run(Select(plan))
    index = catalog.index()
    training = runner.run(GatherTrainingSet(plan, index))
    if is_open:
        features_config = runner.run(ChooseFeatures(plan, training))
        config = replace(config, features=features_config)
        plan = replace(plan, config=config)
        plan.check_features()
        training = runner.run(GatherTrainingSet(plan, index))  # its fingerprint names the choice
    if plan.learner.on_features and config.features.projection:
        runner.run(FitProjections(catalog, plan.backbones, config.features.projection))
        with catalog.workspace.transaction("train"):
            pass  # a store has the projection before it has features that need it
    features: Features = (
        runner.run(ComputeFeatures(catalog, plan.extractor))
        if plan.learner.on_features
        else ComputedFeatures(CropPixels(catalog, plan.extractor.transform), plan.extractor)
    )
    pixels = runner.run(ReadPictures(plan, training.rows))
    folds = runner.run(AssignFolds(plan, training))
    tell_cost(plan, len(training.rows), runner.listener)
    pool = runner.run(GatherPool(plan, index, training, folds))
    predictions = [
        runner.run(TrainFold(plan, training, pool, pixels, features, folds, fold, increment))
        for fold in config.data.train_folds
    ]
    del pixels  # the largest of all inputs; no later stage needs it
    voting = runner.run(Elect(plan, predictions))
    rows = {one.fold: training.rows[folds == one.fold] for one in predictions}
    fold_figures = runner.run(EvaluateFolds(plan, index, rows, predictions))
    team = voting_team(plan.learner, plan.files, plan.classes, voting, plan.device, plan.extractor)
    scored = runner.run(
        ScorePool(
            catalog, index, plan.pool(index), plan.files.scores(), training.fingerprint,
            plan.classes, lambda: team, config.trainer.score_batch_size,
            messages.scoring(plan.number),
        )
    )  # fmt: skip
    verdicts = plan.policy.vote(scored.prob_NB)
    runner.run(VerifyTest(catalog, config))
    test = runner.run(EvaluateTest(plan, team))
    truth = runner.run(CompareWithTruth(plan, index, training, scored.rows, verdicts))
    return runner.run(
        FinishRound(
            plan, index, training, increment, voting, fold_figures, verdicts, test, truth,
            runner.seconds,
        )
    )  # fmt: skip


def _settle(config: TrainConfig, done: list[RoundRecord]) -> TrainConfig:
    """Settle what the settings leave open and the rounds, or the learner, have decided."""
    if done and learner_of(done[-1].settings).network == "features":
        return settled(config, done[-1])
    if config.features.engine == AUTO and learner_for(config).network != "features":
        return replace(config, features=replace(config.features, engine="torch"))
    return config


def _roll_back(catalog: Catalog, to: int, listener: Listener) -> None:
    # Folders first: if a kill comes in between, rounds beyond ``to`` are unfinished, and their
    # draws are recognised as another team's and voided before anything is drawn again.
    with catalog.workspace.transaction("train"):
        moved = catalog.workspace.set_rounds_aside(to)
    index = catalog.index()
    if (index.increment_round > to).any():
        catalog.append_labels([LabelEvent.rollback(to)])
    if moved:
        listener.say(messages.rolled_back(catalog.workspace, moved))
