"""Stage that settles which backbone and which engine give the features, where settings say auto."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.compiled import has_openvino
from collabteam.features.devices import cpu_threads
from collabteam.features.extractor import (
    TOLERANCE,
    ComputedFeatures,
    Disagreement,
    FeatureExtractor,
)
from collabteam.features.images import CropPixels
from collabteam.features.weights import PACKAGES, installed
from collabteam.learners.choice import CrossValidation, choose, cross_validate
from collabteam.learners.folds import assign_folds
from collabteam.rounds import messages
from collabteam.rounds.plan import RoundPlan
from collabteam.rounds.stages.training_set import TrainingSet
from collabteam.rounds.state import digest
from collabteam.settings import AUTO, FeaturesConfig
from collabteam.stages import Stage
from collabteam.storage.files import read_json, write_json

_WORTH = 1.2
"""How many times as fast OpenVINO has to be: features of another engine have a table of their own,
and every machine that continues needs it."""
_TIMED = 64
"""Crops for each thread that an engine is timed on."""
_PART = 256
"""Crops between two reports of progress."""
_AGAIN = "delete it, and the features are chosen again"


@dataclass(frozen=True, eq=False)
class ChooseFeatures(Stage[FeaturesConfig]):
    """Choose the engine by time, and the backbone by cross-validation on verified crops.

    Only the features of crops that a person verified are computed. Each candidate is saved as it
    is finished, so that a kill costs one of them at most.

    Attributes:
        plan: The round, whose settings leave something open.
        training: Its training set.
    """

    plan: RoundPlan
    training: TrainingSet
    name = "features"

    def saved(self, listener: Listener) -> FeaturesConfig | None:
        """Return the choice that the same crops and settings led to."""
        known = self._known(listener)
        if "chosen" not in known:
            return None
        return replace(self._open, backbone=list(known["chosen"]), engine=str(known["engine"]))

    def compute(self, listener: Listener) -> FeaturesConfig:
        """Compare what there is.

        Raises:
            UserError: A picture cannot be decoded, or a package is damaged.
        """
        known = self._known(listener) or {"key": self._key(), "engine": "", "candidates": {}}
        names = installed() if self._open.backbone == [AUTO] else self._open.backbone
        if not known["engine"]:
            known["engine"] = self._engine(names, listener)
            self._write(known)
        config = replace(self._open, engine=known["engine"])
        if self._open.backbone == [AUTO]:
            config = replace(config, backbone=[self._backbone(names, config, known, listener)])
        self._write({**known, "chosen": config.backbone})
        return config

    @property
    def _open(self) -> FeaturesConfig:
        return self.plan.config.features

    def _known(self, listener: Listener) -> dict[str, Any]:
        """What an earlier command found out about the same crops, or nothing."""
        file = self.plan.files.features_choice
        if not file.exists():
            return {}
        try:
            known = read_json(file, _AGAIN)
        except UserError as error:
            listener.warn(str(error))
            return {}
        return known if known.get("key") == self._key() else {}

    def _write(self, known: dict[str, Any]) -> None:
        write_json(self.plan.files.features_choice, known)

    def _key(self) -> str:
        config = self.plan.config
        packages = {name: package.digest for name, package in PACKAGES.items()}
        features = (self._open.backbone, self._open.engine, self._open.image_size)
        return digest([features, config.seed, config.data.folds, self.training.digest, packages])

    def _extractor(self, names: list[str], engine: str) -> FeatureExtractor:
        config = replace(self._open, backbone=names, engine=engine)
        return FeatureExtractor(config, self.plan.device)

    def _engine(self, names: list[str], listener: Listener) -> str:
        """The engine: as the settings say, or the faster one of those that agree."""
        if self._open.engine != AUTO:
            return self._open.engine
        reason = ""
        if self.plan.device.torch.type != "cpu":
            reason = "OpenVINO computes on the processor, and there is a GPU"
        elif not has_openvino():
            reason = "OpenVINO is not installed"
        if reason:
            listener.say(messages.engine_chosen("torch", reason))
            return "torch"
        torchs, others = (self._extractor(names, one) for one in ("torch", "openvino"))
        pixels = CropPixels(self.plan.catalog, torchs.transform)
        images = pixels[self.training.rows[: _TIMED * cpu_threads()]]
        try:
            taken = {one: [_seconds(one, images) for _ in range(3)] for one in (others, torchs)}
        except Disagreement as error:
            listener.say(messages.engine_chosen("torch", str(error)))
            return "torch"
        # The first call prepares.
        ratio = min(taken[torchs][1:]) / min(taken[others][1:])
        engine = "openvino" if ratio >= _WORTH else "torch"
        listener.say(messages.engine_chosen(engine, messages.engine_ratio(ratio, TOLERANCE)))
        return engine

    def _backbone(
        self, names: list[str], config: FeaturesConfig, known: dict[str, Any], listener: Listener
    ) -> str:
        if len(names) == 1:
            listener.say(messages.only_backbone(names[0]))
            return names[0]
        human = self.training.is_human
        rows, labels = self.training.rows[human], self.training.labels[human]
        tracks = self.training.track[human]
        folds = assign_folds(labels, tracks, self.plan.config.data.folds, self.plan.config.seed)
        found: dict[str, CrossValidation] = {}
        for name in names:
            if name not in known["candidates"]:
                features, rate = self._features(name, config.engine, rows, listener)
                judged = cross_validate(features, labels, folds, len(self.plan.classes))
                known["candidates"][name] = {
                    "recall": judged.recall, "crops_per_second": rate,
                    "losses": judged.losses.tolist(),
                }  # fmt: skip
                self._write(known)
            one = known["candidates"][name]
            found[name] = CrossValidation(np.array(one["losses"]), one["recall"])
        _, numbers = np.unique(tracks.astype(str), return_inverse=True)
        chosen = choose(found, numbers)
        speed = {name: known["candidates"][name]["crops_per_second"] for name in names}
        recall = {name: one.recall for name, one in found.items()}
        for line in messages.backbone_table(chosen, recall, speed, len(rows)):
            listener.say(line)
        return chosen

    def _features(
        self, name: str, engine: str, rows: NDArray[np.int64], listener: Listener
    ) -> tuple[Tensor, float]:
        """Features of crops, and how many a second were computed."""
        extractor, parts = self._extractor([name], engine), []
        features = ComputedFeatures(CropPixels(self.plan.catalog, extractor.transform), extractor)
        with listener.stage(messages.trying(name, len(rows)), len(rows), "crops") as advance:
            _ = features[rows[:1]]  # the first call builds the network
            began = time.perf_counter()
            for start in range(0, len(rows), _PART):
                here = rows[start : start + _PART]
                # As the table keeps them.
                parts.append(features[here].half().float())
                advance(len(here))
        return torch.cat(parts), len(rows) / (time.perf_counter() - began)


def _seconds(extractor: FeatureExtractor, images: Tensor) -> float:
    began = time.perf_counter()
    extractor(images)
    return time.perf_counter() - began
