"""The time that training from scratch will take, told before it begins."""

from __future__ import annotations

from collabteam.events import Listener
from collabteam.learners.base import SharedSettings
from collabteam.learners.supervised import SupervisedLearner
from collabteam.learners.teams import open_learner
from collabteam.rounds import messages
from collabteam.rounds.plan import RoundPlan
from collabteam.settings import DataConfig

_LONG = 15 * 60.0
"""Seconds of training from which on the user is told."""
_FEW = 20_000
"""Passes of a crop through a network that are never worth an estimate."""


def tell_cost(plan: RoundPlan, crops: int, listener: Listener) -> None:
    """Say how long a first round of networks from scratch will take, and what ``quick`` takes.

    Args:
        plan: The round.
        crops: Crops in the training set.
        listener: Where the message goes.
    """
    learner, data, classes = plan.learner, plan.config.data, plan.classes
    if plan.number or learner.network != "team" or not isinstance(learner, SupervisedLearner):
        return
    # A killed command left some behind.
    folds = sum(not plan.files.fold_predictions(fold).exists() for fold in data.train_folds)
    training = crops * (data.folds - 1) // data.folds
    batches = max(1, training // data.batch_size)
    if crops * learner.epochs(False, batches) * folds * len(learner.groups(classes)) < _FEW:
        return
    seconds = folds * learner.estimate(classes, training, plan.device)
    if seconds < _LONG:
        return
    quick = open_learner({"name": "finetune"}, SharedSettings(data=DataConfig(batch_size=32)))
    assert isinstance(quick, SupervisedLearner)
    listener.say(messages.cost(seconds, folds, quick.estimate(classes, training, plan.device)))
