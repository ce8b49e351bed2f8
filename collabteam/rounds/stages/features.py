"""Stages that compute the features of the frozen backbones, and fit their projections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor, projection_key
from collabteam.features.images import CropPixels
from collabteam.features.projection import SAMPLE, Projection, fit_projection, write_projection
from collabteam.features.store import FeatureStore
from collabteam.rounds import messages
from collabteam.stages import Stage

_PART = 1024
"""Crops between two reports of progress."""


@dataclass(frozen=True, eq=False)
class FitProjections(Stage[tuple[Projection, ...]]):
    """Fit the projections that the camera lacks; each is saved beside the features' table.

    A projection is fitted once for a camera, whichever round needs it first, on crops that may
    train: those of the frozen test set decide nothing.

    Attributes:
        catalog: The camera, which the caller has locked.
        whole: The frozen backbones without projections.
        size: Numbers to project to; 0 for no projection.
    """

    catalog: Catalog
    whole: FeatureExtractor
    size: int
    name = "features"

    def saved(self, listener: Listener) -> tuple[Projection, ...] | None:
        """Return nothing new if there is nothing to fit."""
        return None if self.size and any(not file.exists() for file in self._files()) else ()

    def compute(self, listener: Listener) -> tuple[Projection, ...]:
        """Fit one projection for each backbone.

        Raises:
            UserError: A picture cannot be decoded, or there are too few crops or features.
        """
        rows = np.flatnonzero(self.catalog.index().trainable())
        rng = np.random.default_rng([0, *b"projection"])
        rows = np.sort(rng.choice(rows, min(SAMPLE, len(rows)), replace=False))
        features = ComputedFeatures(CropPixels(self.catalog, self.whole.transform), self.whole)
        found = np.zeros((len(rows), self.whole.dim), np.float32)
        with listener.stage(messages.projecting(len(rows)), len(rows), "crops") as advance:
            for start in range(0, len(rows), _PART):
                here = rows[start : start + _PART]
                found[start : start + _PART] = features[here].numpy()
                advance(len(here))
        projections, start = [], 0
        for part in self.whole.parts:
            own = torch.from_numpy(found[:, start : start + part.dim])
            projections.append(fit_projection(own, self.size))
            start += part.dim
        return tuple(projections)

    def save(self, output: tuple[Projection, ...]) -> None:
        """Write the projections, each atomically."""
        for file, part, projection in zip(self._files(), self.whole.parts, output, strict=True):
            if not file.exists():
                write_projection(projection, file, part.digest)

    def _files(self) -> list[Path]:
        keys = (projection_key(part, self.size) for part in self.whole.parts)
        return [self.catalog.workspace.projection(key) for key in keys]


@dataclass(frozen=True, eq=False)
class ComputeFeatures(Stage[FeatureStore]):
    """Compute the features of all crops that have none; they are saved part by part.

    Attributes:
        catalog: The camera, which the caller has locked.
        extractor: The frozen backbones.
    """

    catalog: Catalog
    extractor: FeatureExtractor
    name = "features"

    def compute(self, listener: Listener) -> FeatureStore:
        """Return the features by row.

        Raises:
            UserError: A picture cannot be decoded, the disk is full, or OpenVINO computes other
                features than torch.
        """
        store = FeatureStore(self.catalog, self.extractor)
        if store.missing:
            store.fill(listener)
            listener.say(messages.size_of_features(store.bytes_per_crop, store.size))
        return store
