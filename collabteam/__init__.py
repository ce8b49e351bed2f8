"""Teams of one-vs-rest experts that label the crops of a fixed camera, round by round.

The commands (``python -m collabteam.train ...``) are thin; all of it works from Python, without
Hydra. Here three branches vote on six crops, and the most confident ones are drawn for training:

    >>> import numpy as np
    >>> from collabteam import Consensus, Quantile
    >>> prob = np.array([[.99, .01, .02], [.90, .20, .10], [.80, .70, .10],  # 3rd: two claims
    ...                  [.10, .97, .03], [.20, .60, .10], [.30, .20, .40]])  # last: no claim
    >>> verdicts = Consensus(joint="product").vote(prob)
    >>> verdicts.branch.tolist()                                              # -1: "I don't know"
    [0, 0, -1, 1, 1, -1]
    >>> tracks = ["t1", "t1", "t2", "t3", "t4", "t5"]
    >>> increments = Quantile(quantile=0.75).select(verdicts, tracks, classes=3, count=1, seed=0)
    >>> [(i.taken.tolist(), i.candidates, i.shortfall) for i in increments]
    [([0], 1, 0), ([3], 1, 0), ([], 0, 1)]

A whole camera, as ``python -m collabteam.train`` does it::

    from collabteam import CameraConfig, TrainConfig, train_rounds

    camera = CameraConfig("S10-08", ["pedestrian", "cyclist", "motorcyclist"])
    train_rounds(TrainConfig(camera=camera, round=2))

Without a listener this is silent and logs nothing. Progress on a terminal and runs on W&B::

    from collabteam.events import Listeners
    from collabteam.reporting.terminal import Terminal
    from collabteam.reporting.tracking import Tracking

    config = TrainConfig(camera=camera, round=2)
    train_rounds(config, Listeners(Terminal(), Tracking(config.logger)))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collabteam.catalog import Catalog, Crop, CropIndex, LabelEvent
    from collabteam.errors import UserError
    from collabteam.exporting.dataset import LabelledCrops
    from collabteam.learners.teams import load_team
    from collabteam.rounds.loop import train_rounds
    from collabteam.rounds.selection import Increment
    from collabteam.rounds.selection_rules.quantile import Quantile
    from collabteam.settings import CameraConfig, TrainConfig
    from collabteam.team.team import Team
    from collabteam.team.votes.consensus import Consensus
    from collabteam.team.voting import ABSTAIN, Verdicts

_HOME = {
    "ABSTAIN": "team.voting",
    "CameraConfig": "settings",
    "Catalog": "catalog",
    "Consensus": "team.votes.consensus",
    "Crop": "catalog",
    "CropIndex": "catalog",
    "Increment": "rounds.selection",
    "LabelEvent": "catalog",
    "LabelledCrops": "exporting.dataset",
    "Quantile": "rounds.selection_rules.quantile",
    "Team": "team.team",
    "TrainConfig": "settings",
    "UserError": "errors",
    "Verdicts": "team.voting",
    "load_team": "learners.teams",
    "train_rounds": "rounds.loop",
}

__all__ = [
    "ABSTAIN",
    "CameraConfig",
    "Catalog",
    "Consensus",
    "Crop",
    "CropIndex",
    "Increment",
    "LabelEvent",
    "LabelledCrops",
    "Quantile",
    "Team",
    "TrainConfig",
    "UserError",
    "Verdicts",
    "load_team",
    "train_rounds",
]


def __getattr__(name: str) -> Any:
    # Loaded on demand: every command imports this package, and --help must not wait for torch.
    if name in _HOME:
        return getattr(import_module(f"collabteam.{_HOME[name]}"), name)
    raise AttributeError(f"module 'collabteam' has no attribute {name!r}")
