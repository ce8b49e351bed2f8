"""Settings of ``collabteam.train``.

The defaults are the paper's (Padilha and Ferreira, section 3.1) wherever the paper gives a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collabteam.errors import UserError
from collabteam.registry import Registry
from collabteam.settings.camera import CommandConfig
from collabteam.settings.fields import group, implementation, setting
from collabteam.settings.machine import LoggerConfig, RuntimeConfig, TrainerConfig
from collabteam.settings.names import check_classes
from collabteam.settings.seams import SELECTION_RULES, VOTES

LEARNERS: Registry[Any] = Registry(
    "learner", "collabteam.learners.base:Learner", "collabteam.learners.methods"
)
"""The learners, subclasses of ``collabteam.learners.base.Learner``."""

AUTO = "auto"
"""Leaves a setting to the first round."""

_AUGMENT = {
    "none": "crops as they are",
    "affine": "mirror, rotate up to 3 degrees, scale by 0.9 to 1.1, shift up to 6 %",
    "strong": "mirror, rotate up to 9 degrees, scale by 0.75 to 1.15, shift up to 10 %, change "
    "brightness and contrast, and blank a square of two fifths of the side in every second crop",
}


@dataclass
class DataConfig:
    """Crops to tensors and folds."""

    image_size: int = setting(
        128, ge=16, le=1024, help="side in pixels of the square that a crop is letterboxed to"
    )
    folds: int = setting(
        5, ge=2, le=1000, help="group-aware stratified folds (paper: 5, so each is an 80/20 split)"
    )
    train_folds: list[int] = setting(
        [0, 1, 2, 3, 4], ge=0, help="folds that are trained; recalls are averaged over them"
    )
    augment: str = setting(
        "none", choices=_AUGMENT, help="augmentation of round 0 (the paper names none)"
    )
    augment_later: str = setting(
        "",
        choices=("", *_AUGMENT),
        when_absent="",
        always_recorded=True,
        metavar="strong",
        help="augmentation of later rounds; by default as augment",
    )
    whole_tracks: bool = setting(
        False,
        when_absent=False,
        help="train on the other crops of a track with a verified crop, too, with its label; all "
        "crops of a track together count as one",
    )
    batch_size: int = setting(64, ge=2, le=1_000_000, help="crops per training step (paper: 64)")
    eval_batch_size: int = setting(
        16, ge=1, le=1_000_000, affects="speed", help="crops per validation step (paper: 16)"
    )

    def check_together(self) -> None:
        """Raise unless the folds that train are among the folds.

        Raises:
            UserError: They are not, or one is named twice.
        """
        if not self.train_folds or max(self.train_folds) >= self.folds:
            raise UserError(
                f"data.train_folds={self.train_folds}: expected some of 0 to {self.folds - 1}"
            )
        if len(set(self.train_folds)) != len(self.train_folds):
            raise UserError(f"data.train_folds={self.train_folds}: expected each fold once")


@dataclass
class TeamConfig:
    """Branches and voting."""

    backbone: str = setting("resnet18", help="any timm model")
    attention: str = setting(
        "cbam", help="timm attention layer in the residual blocks (paper: cbam), or none"
    )
    stem: str = setting(
        "standard",
        choices={
            "standard": "as timm builds it, of stride 4",
            "small": "a 3x3 convolution of stride 2, without pooling, for 32 to 48 px; ResNets",
        },
        when_absent="standard",
        always_recorded=True,
        help="the first layers",
    )
    pretrained: bool = setting(
        False,
        help="start from pretrained weights: team.weights, a package's, or timm's hub's",
    )
    weights: str = setting(
        "",
        affects="place",
        metavar="FILE",
        is_path=True,
        when_absent="",
        help="file or folder with pretrained weights, as timm saves them; by default those of an "
        "installed package, or else of timm's hub",
    )
    init: str = setting(
        "scratch",
        choices={
            "scratch": "new weights (Kaiming)",
            "previous": "each fold continues from the same fold of the round before",
        },
        help="where later rounds start",
    )
    vote_with: str = setting(
        "best",
        choices={
            "best": "one network, of the fold with the best balanced recall",
            "mean": "the mean of all trained folds; the cost grows with their number",
        },
        help="how a branch votes",
    )
    joint: str = setting(
        "product",
        choices=("product", "min", "mean"),
        help="joint confidence, from the branches' confidences (the paper does not define it)",
    )
    views: str = setting(
        "plain",
        choices={
            "plain": "the crop as it is",
            "mirror": "also mirrored",
            "zoom": "also mirrored, and a little nearer",
        },
        when_absent="plain",
        help="views of a crop over whose probabilities a vote is the mean; each costs a pass",
    )
    vote: dict[str, Any] = implementation(
        VOTES, "consensus", help="vote policy: how votes become a verdict"
    )


@dataclass
class FeaturesConfig:
    """Features of pretrained backbones, which some learners build on."""

    backbone: list[str] = setting(
        ["tf_efficientnet_lite0"],
        when_absent=["tf_efficientnet_lite0"],
        help="timm model with pretrained weights; several stand side by side, as in [a,b]; auto: "
        "the best of the installed packages by cross-validation on i0, chosen once",
    )
    weights: list[str] = setting(
        [],
        affects="place",
        metavar="FILE",
        is_path=True,
        when_absent=[],
        help="file or folder with the weights, as timm saves them, one for each backbone; by "
        "default those of an installed package, or else of timm's hub",
    )
    image_size: int = setting(
        96,
        ge=16,
        le=1024,
        when_absent=96,
        help="side in pixels of the square that a crop is letterboxed to",
    )
    projection: int = setting(
        0,
        ge=0,
        le=4095,
        when_absent=0,
        help="numbers that each backbone's features of a crop are projected to, by their principal "
        "components; 0: none, all are kept",
    )
    engine: str = setting(
        "torch",
        choices={
            "torch": "processor or GPU",
            "openvino": "processor only; the extra 'openvino'",
            "auto": "openvino where it is installed, agrees with torch and is faster; decided once",
        },
        when_absent="torch",
        help="library that computes the features",
    )

    @property
    def is_open(self) -> bool:
        """Whether something is left to the first round."""
        return self.backbone == [AUTO] or self.engine == AUTO

    def check_together(self) -> None:
        """Raise unless there is a backbone, each one only once, or ``auto`` alone.

        Raises:
            UserError: There is none, one is named twice, or names do not go with ``auto``.
        """
        if not self.backbone or len(set(self.backbone)) != len(self.backbone):
            raise UserError(
                f"features.backbone={self.backbone}: expected one model, or several different ones"
            )
        if AUTO in self.backbone and len(self.backbone) > 1:
            raise UserError(
                f"features.backbone={self.backbone}: expected auto alone, or the names of models"
            )
        if self.backbone == [AUTO] and self.weights:
            raise UserError(
                "features.backbone=auto chooses among installed packages: leave features.weights "
                "out, or name the model that they belong to"
            )


@dataclass
class OptimConfig:
    """Stochastic gradient descent, per branch."""

    lr: float = setting(0.1, ge=1e-8, help="peak learning rate")
    momentum: float = setting(0.9, ge=0, le=1, help="momentum")
    nesterov: bool = setting(False, help="Nesterov's form of momentum")
    weight_decay: float = setting(5e-4, ge=0, help="L2 penalty")
    epochs: int = setting(30, ge=1, le=1_000_000, help="epochs of round 0")
    epochs_later: int = setting(
        0,
        ge=0,
        le=1_000_000,
        when_absent=0,
        always_recorded=True,
        help="epochs of later rounds; 0: as many as in round 0",
    )
    warmup: float = setting(
        0.0,
        ge=0,
        le=0.5,
        when_absent=0.0,
        always_recorded=True,
        help="share of all steps over which the rate rises before the cosine",
    )
    label_smoothing: float = setting(
        0.1, ge=0, le=0.9, help="smoothing of the weighted cross-entropy"
    )

    def check_together(self) -> None:
        """Raise unless there is momentum for Nesterov's form.

        Raises:
            UserError: There is none.
        """
        if self.nesterov and not self.momentum:
            raise UserError("optim.nesterov=true needs optim.momentum above 0")


_MOVED = ("probe", "finetune", "consistency")
"""Learners whose network was once named by ``team``."""


@dataclass
class TrainConfig(CommandConfig):
    """Settings of ``collabteam.train``."""

    seed: int = setting(
        0, ge=0, help="seed of every draw: i0, folds, initial weights, augmentation, increments"
    )
    round: int = setting(
        0,
        ge=0,
        affects="place",
        help="the target round; missing rounds are made, complete ones kept",
    )
    reviewer: str = setting(
        "person",
        choices={
            "person": "labels in the catalog",
            "oracle": "simulated, answers from hidden truth",
        },
        help="who verifies i0",
    )
    oracle_error: float = setting(
        0.0, ge=0, le=1, help="share of the oracle's answers in i0 that are wrong"
    )
    seed_per_class: int = setting(1000, ge=1, help="crops per proposed class in i0 (paper: 1000)")
    seed_unknown: int = setting(
        0,
        ge=0,
        when_absent=0,
        always_recorded=True,
        help="crops proposed as 'unknown' in i0, so that branches see objects of no class "
        "(paper: none)",
    )
    increment_per_class: int = setting(
        1000, ge=1, help="crops per class that each later round adds (paper: 1000)"
    )
    quantile: float = setting(
        0.75,
        ge=0,
        le=1,
        help="candidates lie at or above this quantile of their class's consensus confidence "
        "(paper: top 25 %)",
    )
    selection: dict[str, Any] = implementation(
        SELECTION_RULES, "quantile", help="selection rule: which crops join the training set"
    )
    rollback: int | None = setting(
        None,
        ge=-1,
        affects="place",
        metavar="K",
        help="first take back every round after K (-1: all) and keep their files aside; after a "
        "kill, repeat the command without it",
    )
    data: DataConfig = group(DataConfig, help="crops to tensors and folds")
    team: TeamConfig = group(TeamConfig, help="branches and voting")
    optim: OptimConfig = group(OptimConfig, help="stochastic gradient descent, per branch")
    features: FeaturesConfig = group(
        FeaturesConfig, help="pretrained backbones, for learners that build on them"
    )
    learner: dict[str, Any] = implementation(LEARNERS, "paper", help="how networks learn")
    trainer: TrainerConfig = group(TrainerConfig, help="hardware")
    logger: LoggerConfig = group(LoggerConfig, preset="wandb", help="training curves")
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")

    @staticmethod
    def from_older(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
        """Move the network of ``probe``, ``finetune`` and ``consistency`` to its own settings.

        It stood in ``team`` and ``data`` before there were ``features``, and was pretrained.
        """
        groups = {name: recorded.get(name) for name in ("learner", "team", "data")}
        known = {name: group for name, group in groups.items() if isinstance(group, Mapping)}
        if len(known) < len(groups) or known["learner"].get("name") not in _MOVED:
            return recorded
        if known["team"].get("pretrained") is not True:
            return recorded
        team, data = TeamConfig(), DataConfig()
        features = {
            "backbone": [known["team"].get("backbone", team.backbone)],
            "image_size": known["data"].get("image_size", data.image_size),
        }
        as_now = {"backbone": team.backbone, "attention": team.attention, "pretrained": False}
        return {
            **recorded,
            "team": {**known["team"], **as_now},
            "data": {**known["data"], "image_size": data.image_size},
            "features": features,
        }

    def check_together(self) -> None:
        """Raise unless the camera has classes for a team.

        Raises:
            UserError: It has fewer than two, or a class with an unusable name.
        """
        super().check_together()
        check_classes(self.camera.classes)
